//! Membership: workers that die, join, fail, or cannot be reached.

use whimbrel_core::{Cause, Command, Event, Exit, Outcome, RunEvent, RunFacts, Start};
use whimbrel_plan::{NodeId, Origin, WorkerId};

use crate::story::{Story, asked, facts, members, run};

#[test]
fn a_killed_worker_is_left_out_and_its_successor_let_in() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 7);

    story.is_killed(2);
    let commands = story.take_commands();
    assert!(commands.contains(&Command::Interrupt { run: run("r"), worker: WorkerId(1), generation: 1 }));
    assert!(commands.contains(&Command::Start { run: run("r"), node: NodeId(1), worker: WorkerId(3) }));

    // The survivor goes on alone from where it is, and does not wait for the new one.
    story.breaks(1, 1, 7);
    let alone = story.formed();
    assert_eq!((members(&alone), &alone.origin), (vec![1], &Origin::Members { step: 7 }));

    story.applies(1, 2, 9);
    story.becomes_ready(3);
    assert_eq!(asked(&story.take_commands()), [(1, false, true)]);
    story.halts(1, 2, 10);
    let both = story.formed();
    assert_eq!((members(&both), &both.origin), (vec![1, 3], &Origin::Members { step: 10 }));
    assert_eq!(both.members.iter().map(|member| member.holds).collect::<Vec<_>>(), [Some(10), None]);
}

#[test]
fn a_worker_that_fails_at_every_start_fails_the_run() {
    let mut story = Story::of(RunFacts { workers_max: 1, ..facts() });
    story.node_joins(1, 1);
    for worker in 1..=3 {
        assert_eq!(story.started(), [(run("r"), NodeId(1), WorkerId(worker))]);
        let reason = "no module named torch".to_owned();
        story.of_run(RunEvent::TrainerFailed { worker: WorkerId(worker), reason, fatal: false });
        story.exits(worker, Exit::Code(1));
        if worker == 2 {
            assert_eq!(story.started(), [], "the third start waits");
            story.seconds_pass(1);
        }
    }
    let end = story.end_to_record();
    assert_eq!(end.outcome, Outcome::Failed);
    assert!(end.reason.contains("3 times in a row"), "{}", end.reason);
    assert!(end.reason.contains("no module named torch (exit code 1)"), "{}", end.reason);
    assert_eq!(end.tail, ["the last line"]);
}

#[test]
fn a_fatal_failure_fails_the_run_at_once() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 7);
    let reason = "the gradient of wte is not finite in step 8".to_owned();
    story.of_run(RunEvent::TrainerFailed { worker: WorkerId(2), reason, fatal: true });
    story.exits(2, Exit::Code(1));
    let end = story.end_to_record();
    assert_eq!((end.outcome, end.step), (Outcome::Failed, 7));
    let expected = "worker w2 (rank 1) failed, and a retry would fail too: \
                    the gradient of wte is not finite in step 8 (exit code 1)";
    assert_eq!(end.reason, expected);
    assert_eq!(end.tail, ["the last line"]);
    assert_eq!(story.started(), [], "no worker replaces it");
}

#[test]
fn a_fatal_failure_fails_the_run_even_if_its_node_is_lost_before_the_exit_is_seen() {
    let mut story = Story::with_two_workers(facts());
    let reason = "no CUDA device has 80 GB".to_owned();
    story.of_run(RunEvent::TrainerFailed { worker: WorkerId(1), reason, fatal: true });
    story.happens(Event::NodeLost { node: NodeId(1), reason: "its stream broke".into() });
    let end = story.end_to_record();
    assert_eq!(end.outcome, Outcome::Failed);
    assert!(end.reason.contains("no CUDA device has 80 GB"), "{}", end.reason);
}

#[test]
fn a_worker_that_its_peers_cannot_reach_does_not_block_the_run() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 7);
    // The two cannot connect any more: each generation breaks before its first step.
    for generation in 1..=4 {
        for (worker, suspect) in [(1, 2), (2, 1)] {
            let cause = Cause::Broken { reason: "no route".into(), suspect: Some(WorkerId(suspect)) };
            story.of_run(RunEvent::Halted { worker: WorkerId(worker), generation, step: Some(7), cause });
        }
    }
    // After `max_failures` such generations one of the two is lost, and the other goes on alone.
    let commands = story.take_commands();
    let killed = |command: &&Command| matches!(command, Command::Kill { .. });
    assert_eq!(commands.iter().filter(killed).count(), 1);
    let formations = commands.iter().filter_map(|command| match command {
        Command::Form { formation, .. } => Some(members(formation).len()),
        _ => None,
    });
    assert_eq!(formations.collect::<Vec<_>>(), [2, 2, 2, 1]);
}

#[test]
fn runs_get_nodes_in_the_order_of_their_submission() {
    let mut story = Story::of(facts());
    story.opens("s", Start::Initial, facts());
    story.node_joins(1, 3);
    let (r, s, node) = (run("r"), run("s"), NodeId(1));
    let first = [(r.clone(), node, WorkerId(1)), (r, node, WorkerId(2)), (s.clone(), node, WorkerId(1))];
    assert_eq!(story.started(), first);

    // A slot that the first run gives back goes to the second at once.
    story.of_run(RunEvent::CancelRequested);
    story.of_run(RunEvent::EndRecorded);
    assert_eq!(story.started(), []);
    story.exits(2, Exit::Signal(9));
    assert_eq!(story.started(), [(s, node, WorkerId(2))]);
}
