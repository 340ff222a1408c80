//! What the core decides, told as stories.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a story that goes another way is to stop there"
)]

use std::time::Duration;

use whimbrel_core::{
    Cause, CheckpointEvery, Command, Core, End, Event, Exit, Formation, Notice, Outcome, Past, Phase,
    RunEvent, RunFacts, SaveCost, Start, Timing,
};
use whimbrel_plan::{NodeId, Origin, RunId, WorkerId};

/// A core, a clock, and all that the core has commanded since it was last asked for.
struct Story {
    core: Core,
    now: Duration,
    said: Vec<Command>,
}

fn run(name: &str) -> RunId {
    name.parse().unwrap()
}

fn facts() -> RunFacts {
    RunFacts {
        steps: 100,
        shards: 8,
        workers_min: 1,
        workers_max: 2,
        tries: 3,
        step_timeout: Duration::from_secs(60),
        checkpoint: CheckpointEvery::Steps(10),
        has_setup: false,
    }
}

impl Story {
    /// A coordinator with one run, `r`, that starts from scratch.
    fn of(facts: RunFacts) -> Self {
        Self::from(Start::Initial, facts)
    }

    fn from(start: Start, facts: RunFacts) -> Self {
        let mut story =
            Self { core: Core::new(Timing::default()), now: Duration::from_secs(1000), said: Vec::new() };
        story.opens("r", start, facts);
        story
    }

    fn opens(&mut self, name: &str, start: Start, facts: RunFacts) {
        self.happens(Event::RunOpened { run: run(name), facts, epoch: 1, start, past: Past::default() });
    }

    fn happens(&mut self, event: Event) {
        let commands = self.core.handle(self.now, event);
        self.said.extend(commands);
    }

    fn of_run(&mut self, event: RunEvent) {
        self.happens(Event::OfRun { run: run("r"), event });
    }

    fn node_joins(&mut self, node: u64, slots: u32) {
        self.happens(Event::NodeJoined { node: NodeId(node), slots });
    }

    fn becomes_ready(&mut self, worker: u64) {
        let pid = u32::try_from(worker).unwrap() + 5000;
        self.of_run(RunEvent::WorkerStarted { worker: WorkerId(worker), pid });
        let address = ([127, 0, 0, 1], 7000).into();
        self.of_run(RunEvent::WorkerReady { worker: WorkerId(worker), address });
    }

    fn is_killed(&mut self, worker: u64) {
        self.of_run(RunEvent::WorkerParted { worker: WorkerId(worker) });
        self.exits(worker, Exit::Signal(9));
    }

    fn exits(&mut self, worker: u64, exit: Exit) {
        let tail = vec!["the last line".to_owned()];
        self.of_run(RunEvent::WorkerExited { worker: WorkerId(worker), exit, tail });
    }

    fn applies(&mut self, worker: u64, generation: u64, step: u64) {
        self.of_run(RunEvent::StepApplied { worker: WorkerId(worker), generation, step, loss: 0.5 });
    }

    fn halts(&mut self, worker: u64, generation: u64, step: u64) {
        let worker = WorkerId(worker);
        self.of_run(RunEvent::Halted { worker, generation, step: Some(step), cause: Cause::Agreed });
    }

    fn breaks_off(&mut self, worker: u64, generation: u64, step: u64) {
        let cause = Cause::Broken { reason: "connection reset".into(), suspect: None };
        self.of_run(RunEvent::Halted { worker: WorkerId(worker), generation, step: Some(step), cause });
    }

    fn saves(&mut self, worker: u64, generation: u64, step: u64) {
        self.of_run(RunEvent::SliceSaved { worker: WorkerId(worker), generation, step });
    }

    /// The checkpoint of that step is committed; training stood still for `stall` seconds, and all took ten times that.
    fn is_committed(&mut self, step: u64, stall: u64) {
        let stall = Duration::from_secs(stall);
        let cost = SaveCost { stall, duration: stall * 10 };
        self.of_run(RunEvent::Committed { step, manifest: format!("{step}-a"), cost });
    }

    fn completes(&mut self, worker: u64, generation: u64, bits: u8) {
        let (worker, state) = (WorkerId(worker), [bits; 32]);
        self.of_run(RunEvent::Completed { worker, generation, state, loss: None, val_loss: None });
    }

    /// Time passes, second by second; nodes and workers keep showing that they live.
    fn seconds_pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            for node in 1..4 {
                self.happens(Event::NodeHeard { node: NodeId(node) });
            }
            for worker in (1..9).map(WorkerId) {
                self.of_run(RunEvent::WorkerHeard { worker, step: 0 });
            }
            self.happens(Event::Tick);
        }
    }

    /// What was commanded since this was last called.
    fn said(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.said)
    }

    fn started(&mut self) -> Vec<(RunId, NodeId, WorkerId)> {
        let start = |command| match command {
            Command::Start { run, node, worker } => Some((run, node, worker)),
            _ => None,
        };
        self.said().into_iter().filter_map(start).collect()
    }

    /// The generation that was formed since anything was last asked for.
    fn formed(&mut self) -> Formation {
        let form = |command| match command {
            Command::Form { formation, .. } => Some(formation),
            _ => None,
        };
        self.said().into_iter().find_map(form).expect("no generation was formed")
    }

    fn end_to_record(&mut self) -> End {
        let end = |command| match command {
            Command::RecordEnd { end, .. } => Some(end),
            _ => None,
        };
        self.said().into_iter().find_map(end).expect("no end was to be recorded")
    }

    fn phase(&self) -> Phase {
        self.core.view(&run("r")).unwrap().phase
    }

    /// Two workers of one node in generation 1.
    fn with_two_workers(facts: RunFacts) -> Self {
        let mut story = Self::of(facts);
        story.node_joins(1, 2);
        story.becomes_ready(1);
        story.becomes_ready(2);
        assert_eq!(members(&story.formed()), [1, 2]);
        story
    }
}

fn members(formation: &Formation) -> Vec<u64> {
    formation.members.iter().map(|member| member.worker.0).collect()
}

fn asked(commands: &[Command]) -> Vec<(u64, bool, bool)> {
    let ask = |command: &Command| match command {
        Command::Ask { worker, checkpoint, halt, .. } => Some((worker.0, *checkpoint, *halt)),
        _ => None,
    };
    commands.iter().filter_map(ask).collect()
}

fn warnings(commands: &[Command]) -> Vec<String> {
    let warning = |command: &Command| match command {
        Command::Announce { notice: Notice::Warning { text, .. }, .. } => Some(text.clone()),
        _ => None,
    };
    commands.iter().filter_map(warning).collect()
}

#[test]
fn a_killed_worker_is_left_out_and_let_back_in() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 7);

    story.is_killed(2);
    let said = story.said();
    assert!(said.contains(&Command::Interrupt { run: run("r"), worker: WorkerId(1), generation: 1 }));
    assert!(said.contains(&Command::Start { run: run("r"), node: NodeId(1), worker: WorkerId(3) }));

    // The survivor goes on alone from where it is, and does not wait for the new one.
    story.breaks_off(1, 1, 7);
    let alone = story.formed();
    assert_eq!((members(&alone), &alone.origin), (vec![1], &Origin::Members { step: 7 }));

    story.applies(1, 2, 9);
    story.becomes_ready(3);
    assert_eq!(asked(&story.said()), [(1, false, true)]);
    story.halts(1, 2, 10);
    let both = story.formed();
    assert_eq!((members(&both), &both.origin), (vec![1, 3], &Origin::Members { step: 10 }));
    assert_eq!(both.members.iter().map(|member| member.holds).collect::<Vec<_>>(), [Some(10), None]);
}

#[test]
fn a_node_whose_setup_fails_is_left_out() {
    let mut story = Story::of(RunFacts { has_setup: true, ..facts() });
    story.node_joins(1, 1);
    story.node_joins(2, 1);
    let prepare = |node| Command::Prepare { run: run("r"), node: NodeId(node) };
    let said = story.said();
    assert!(said.contains(&prepare(1)) && said.contains(&prepare(2)));

    story.of_run(setup_fails_on(1));
    let warned = warnings(&story.said());
    assert_eq!(warned, ["setup failed on node n1: exit code 3; the run goes on without that node"]);
    story.of_run(RunEvent::Prepared { node: NodeId(2) });
    assert_eq!(story.started(), [(run("r"), NodeId(2), WorkerId(1))]);
}

#[test]
fn a_node_that_had_no_turn_takes_the_place_of_one_whose_setup_fails() {
    let mut story = Story::of(RunFacts { has_setup: true, ..facts() });
    story.node_joins(1, 2);
    story.node_joins(2, 2);
    story.said();
    story.of_run(setup_fails_on(1));
    assert!(story.said().contains(&Command::Prepare { run: run("r"), node: NodeId(2) }));
    assert_eq!(story.phase(), Phase::Starting);

    // With none left, the run has failed.
    story.of_run(setup_fails_on(2));
    let end = story.end_to_record();
    assert_eq!((end.outcome, end.tail), (Outcome::Failed, vec!["no such package".to_owned()]));
}

#[test]
fn a_setup_that_fails_on_a_node_already_lost_changes_nothing() {
    let mut story = Story::of(RunFacts { has_setup: true, ..facts() });
    story.node_joins(1, 1);
    story.happens(Event::NodeLost { node: NodeId(1), reason: "its stream broke".into() });
    story.said();
    story.of_run(setup_fails_on(1));
    assert_eq!((story.said(), story.phase()), (Vec::new(), Phase::Waiting));
}

fn setup_fails_on(node: u64) -> RunEvent {
    let tail = vec!["no such package".to_owned()];
    RunEvent::PrepareFailed { node: NodeId(node), reason: "exit code 3".into(), tail }
}

#[test]
fn a_worker_that_fails_at_every_start_fails_the_run() {
    let mut story = Story::of(RunFacts { workers_max: 1, ..facts() });
    story.node_joins(1, 1);
    for worker in 1..=3 {
        assert_eq!(story.started(), [(run("r"), NodeId(1), WorkerId(worker))]);
        let reason = "no module named torch".to_owned();
        story.of_run(RunEvent::TrainerFailed { worker: WorkerId(worker), reason });
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
fn a_damaged_checkpoint_is_put_aside_and_the_one_before_it_is_used() {
    let start = Start::Checkpoint { step: 40, manifest: "40-b".into() };
    let mut story = Story::from(start, RunFacts { workers_max: 1, ..facts() });
    story.node_joins(1, 1);
    story.becomes_ready(1);
    assert_eq!(story.formed().origin, Origin::Checkpoint { step: 40, manifest: "40-b".into() });

    let (worker, manifest, reason) = (WorkerId(1), "40-b".to_owned(), "pack 3 has another hash".to_owned());
    story.of_run(RunEvent::RestoreFailed { worker, generation: 1, manifest, damaged: true, reason });
    let said = story.said();
    assert_eq!(warnings(&said), ["checkpoint 40-b is damaged and put aside: pack 3 has another hash"]);
    assert!(said.iter().any(|command| matches!(command, Command::Quarantine { .. })));
    assert!(!said.iter().any(|command| matches!(command, Command::Form { .. })));

    story.of_run(RunEvent::Quarantined { start: Start::Checkpoint { step: 30, manifest: "30-a".into() } });
    assert_eq!(story.formed().origin, Origin::Checkpoint { step: 30, manifest: "30-a".into() });
}

#[test]
fn a_checkpoint_due_by_time_is_asked_for_once() {
    let every = CheckpointEvery::Time(Duration::from_secs(60));
    let mut story = Story::with_two_workers(RunFacts { checkpoint: every, ..facts() });
    for step in 1..=12 {
        story.seconds_pass(5);
        story.applies(1, 1, step);
    }
    assert_eq!(asked(&story.said()), [(1, true, false), (2, true, false)]);

    story.saves(1, 1, 13);
    story.seconds_pass(5);
    assert!(story.said().iter().all(|command| !matches!(command, Command::Commit { .. })));
    story.saves(2, 1, 13);
    assert_eq!(story.said(), [Command::Commit { run: run("r"), generation: 1, step: 13 }]);
}

/// Seconds until the members are asked for a checkpoint, while they apply a step in each.
fn seconds_to_the_next_checkpoint(story: &mut Story, generation: u64, step: &mut u64) -> u64 {
    story.said();
    for seconds in 1.. {
        *step += 1;
        story.seconds_pass(1);
        story.applies(1, generation, *step);
        if asked(&story.said()).iter().any(|&(_, checkpoint, _)| checkpoint) {
            return seconds;
        }
    }
    unreachable!("an endless range")
}

#[test]
fn checkpoints_are_taken_as_often_as_is_cheapest() {
    let auto = RunFacts { steps: 100_000, checkpoint: CheckpointEvery::Auto, ..facts() };
    let mut story = Story::with_two_workers(auto);
    let mut step = 0;
    // What one costs shows the first, which comes soon.
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 1, &mut step), 60);
    story.saves(1, 1, step);
    story.saves(2, 1, step);
    story.is_committed(step, 2);
    // Of two seconds' cost and a failure in twelve hours, the prior: √(2 × 2 s × 12 h).
    let told = story.said().into_iter().find_map(|command| match command {
        Command::Announce { notice: Notice::Interval(interval), .. } => Some(interval),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!((told.cost, told.every.as_secs()), (Some(Duration::from_secs(2)), 415));
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 1, &mut step), 418);

    // It fails at a store that refuses: that is said, made up for soon, and kept in sight until one succeeds.
    let (worker, reason) = (WorkerId(2), "cannot create s3://lab/runs/r/packs/x: 503".to_owned());
    story.of_run(RunEvent::SliceFailed { worker, generation: 1, step, reason });
    let expected = format!(
        "the checkpoint of step {step} could not be saved: worker w2: cannot create \
                            s3://lab/runs/r/packs/x: 503"
    );
    assert_eq!(warnings(&story.said()), [expected]);
    let failure = |story: &Story| story.core.view(&run("r")).unwrap().save_failure;
    assert_eq!(failure(&story).map(|failure| failure.step), Some(step));
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 1, &mut step), 5);
    story.saves(1, 1, step);
    story.saves(2, 1, step);
    assert!(failure(&story).is_some(), "it is not committed yet");
    story.is_committed(step, 2);
    assert_eq!(failure(&story), None);

    // A worker in two is lost, and half a failure in some minutes says little beside the prior: √(2 × 2 s × 8.1 h).
    story.is_killed(2);
    story.breaks_off(1, 1, step);
    let interval = story.core.view(&run("r")).unwrap().interval.unwrap();
    assert_eq!(interval.every.as_secs(), 341);
    assert_eq!(seconds_to_the_next_checkpoint(&mut story, 2, &mut step), 343);
}

#[test]
fn a_run_that_was_lost_often_is_saved_often() {
    let mut story =
        Story { core: Core::new(Timing::default()), now: Duration::from_secs(1000), said: Vec::new() };
    let auto = RunFacts { checkpoint: CheckpointEvery::Auto, ..facts() };
    let past = Past { trained: Duration::from_secs(12 * 3600), failures: 23 };
    story.happens(Event::RunOpened { run: run("r"), facts: auto, epoch: 24, start: Start::Initial, past });
    let interval = story.core.view(&run("r")).unwrap().interval.unwrap();
    assert_eq!((interval.between_failures, interval.cost), (Duration::from_secs(3600), None));
}

#[test]
fn a_checkpoint_that_a_member_did_not_live_to_save_stands_in_nobodys_way() {
    let every = CheckpointEvery::Time(Duration::from_secs(60));
    let mut story = Story::with_two_workers(RunFacts { checkpoint: every, ..facts() });
    // Worker 1 got the sum of step 5 and staged a checkpoint, worker 2 did not get it.
    story.saves(1, 1, 5);
    story.breaks_off(2, 1, 4);
    story.breaks_off(1, 1, 5);
    let said = story.said();
    assert!(said.contains(&Command::Discard { run: run("r"), generation: 1, step: 5 }));

    story.applies(1, 2, 6);
    story.seconds_pass(6);
    assert_eq!(asked(&story.said()), [(1, true, false), (2, true, false)]);
}

#[test]
fn a_checkpoint_whose_packs_are_gone_by_the_commit_is_saved_again() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 10);
    story.saves(1, 1, 10);
    story.saves(2, 1, 10);
    assert!(story.said().contains(&Command::Commit { run: run("r"), generation: 1, step: 10 }));
    let reason = "the checkpoint of step 10 lacks 1 of its packs".to_owned();
    story.of_run(RunEvent::CommitFailed { step: 10, reason });
    let failure = story.core.view(&run("r")).unwrap().save_failure.unwrap();
    assert_eq!((failure.step, failure.reason.contains("lacks")), (10, true));
    story.said();
    story.seconds_pass(5);
    assert_eq!(
        asked(&story.said()),
        [(1, true, false), (2, true, false)],
        "made up for before the next is due"
    );
    story.saves(1, 1, 13);
    story.saves(2, 1, 13);
    assert!(story.said().contains(&Command::Commit { run: run("r"), generation: 1, step: 13 }));
    story.is_committed(13, 0);
    assert_eq!(story.core.view(&run("r")).unwrap().save_failure, None);
}

#[test]
fn a_stop_saves_and_then_ends() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 5);
    story.of_run(RunEvent::StopRequested { record: true });
    assert_eq!(asked(&story.said()), [(1, true, true), (2, true, true)]);
    story.halts(1, 1, 6);
    story.halts(2, 1, 6);
    story.saves(1, 1, 6);
    story.saves(2, 1, 6);
    assert!(story.said().contains(&Command::Commit { run: run("r"), generation: 1, step: 6 }));

    story.is_committed(6, 0);
    let said = story.said();
    let recorded = said.iter().find_map(|command| match command {
        Command::RecordEnd { end, .. } => Some((end.outcome, end.step, end.reason.as_str())),
        _ => None,
    });
    assert_eq!(recorded, Some((Outcome::Stopped, 6, "stopped")));
    let left = said.iter().filter(|command| matches!(command, Command::Leave { .. })).count();
    assert_eq!(left, 2);

    story.of_run(RunEvent::EndRecorded);
    let last = story.said().pop();
    assert!(matches!(last, Some(Command::Announce { notice: Notice::Ended(_), .. })), "{last:?}");
}

#[test]
fn a_stop_that_comes_while_others_are_let_in_still_saves() {
    let mut story = Story::of(facts());
    story.node_joins(1, 1);
    story.becomes_ready(1);
    story.node_joins(2, 1);
    story.becomes_ready(2);
    assert_eq!(asked(&story.said()), [(1, false, true)]);

    // They halt for the newcomer, without a checkpoint: it takes one more generation to save.
    story.of_run(RunEvent::StopRequested { record: true });
    story.halts(1, 1, 3);
    let said = story.said();
    assert!(said.iter().any(|command| matches!(command, Command::Form { .. })));
    assert_eq!(asked(&said), [(1, true, true), (2, true, true)]);
}

#[test]
fn a_resumed_run_waits_for_its_old_workers_to_leave() {
    let mut story = Story::with_two_workers(facts());
    story.of_run(RunEvent::StopRequested { record: true });
    story.halts(1, 1, 6);
    story.halts(2, 1, 6);
    story.saves(1, 1, 6);
    story.saves(2, 1, 6);
    story.is_committed(6, 0);
    story.of_run(RunEvent::EndRecorded);
    story.exits(1, Exit::Code(0));
    story.said();

    // The slot of worker 1 is free, worker 2 still sits in the other; no name is used again.
    story.opens("r", Start::Checkpoint { step: 6, manifest: "6-a".into() }, facts());
    assert_eq!(story.started(), [(run("r"), NodeId(1), WorkerId(3))]);
    story.exits(2, Exit::Code(0));
    assert_eq!(story.started(), [(run("r"), NodeId(1), WorkerId(4))]);
}

#[test]
fn different_bits_after_the_same_steps_fail_the_run() {
    let mut story = Story::with_two_workers(facts());
    story.completes(1, 1, 0xaa);
    story.completes(2, 1, 0xbb);
    let end = story.end_to_record();
    assert_eq!(end.outcome, Outcome::Failed);
    assert!(end.reason.contains("workers w1 and w2"), "{}", end.reason);
}

#[test]
fn the_last_checkpoint_is_tried_again_until_the_tries_are_spent() {
    let mut story = Story::with_two_workers(facts());
    story.completes(1, 1, 0xaa);
    story.completes(2, 1, 0xaa);
    for attempt in 1..=3 {
        story.saves(1, 1, 100);
        let (worker, reason) = (WorkerId(2), "access denied".to_owned());
        story.of_run(RunEvent::SliceFailed { worker, generation: 1, step: 100, reason });
        if attempt < 3 {
            story.said();
            story.seconds_pass(5);
            assert_eq!(asked(&story.said()), [(1, true, false), (2, true, false)]);
        }
    }
    let end = story.end_to_record();
    assert_eq!(end.outcome, Outcome::Failed);
    assert_eq!(end.reason, "the last checkpoint could not be saved: worker w2: access denied");
}

#[test]
fn runs_get_nodes_in_the_order_of_their_submission() {
    let mut story = Story::of(facts());
    story.opens("s", Start::Initial, facts());
    story.node_joins(1, 3);
    let (r, s, node) = (run("r"), run("s"), NodeId(1));
    let first = [(r.clone(), node, WorkerId(1)), (r, node, WorkerId(2)), (s.clone(), node, WorkerId(1))];
    assert_eq!(story.started(), first);

    // What the first gives back, the second takes at once.
    story.of_run(RunEvent::CancelRequested);
    story.of_run(RunEvent::EndRecorded);
    assert_eq!(story.started(), []);
    story.exits(2, Exit::Signal(9));
    assert_eq!(story.started(), [(s, node, WorkerId(2))]);
}

#[test]
fn a_worker_that_nobody_can_reach_does_not_hold_up_the_run_for_ever() {
    let mut story = Story::with_two_workers(facts());
    story.applies(1, 1, 7);
    // The connection between the two goes, and stays away: each generation breaks before its first step.
    for generation in 1..=4 {
        for (worker, suspect) in [(1, 2), (2, 1)] {
            let cause = Cause::Broken { reason: "no route".into(), suspect: Some(WorkerId(suspect)) };
            story.of_run(RunEvent::Halted { worker: WorkerId(worker), generation, step: Some(7), cause });
        }
    }
    // After as many as there are tries, one of the two has to go, and the other goes on alone.
    let said = story.said();
    let killed = |command: &&Command| matches!(command, Command::Kill { .. });
    assert_eq!(said.iter().filter(killed).count(), 1);
    let formations = said.iter().filter_map(|command| match command {
        Command::Form { formation, .. } => Some(members(formation).len()),
        _ => None,
    });
    assert_eq!(formations.collect::<Vec<_>>(), [2, 2, 2, 1]);
}

#[test]
fn a_setup_ends_with_its_run() {
    let mut story = Story::of(RunFacts { has_setup: true, ..facts() });
    story.node_joins(1, 1);
    story.of_run(RunEvent::CancelRequested);
    assert!(story.said().contains(&Command::Kill { run: run("r"), node: NodeId(1), worker: WorkerId(0) }));
}
