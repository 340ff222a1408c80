//! `setup`, which runs once on a node, before its first worker.

use whimbrel_core::{Command, Event, Outcome, Phase, RunEvent, RunFacts};
use whimbrel_plan::{NodeId, WorkerId};

use crate::story::{Story, facts, run, warnings};

#[test]
fn a_node_whose_setup_fails_is_left_out() {
    let mut story = Story::of(RunFacts { has_setup: true, ..facts() });
    story.node_joins(1, 1);
    story.node_joins(2, 1);
    let prepare = |node| Command::Prepare { run: run("r"), node: NodeId(node) };
    let commands = story.take_commands();
    assert!(commands.contains(&prepare(1)) && commands.contains(&prepare(2)));

    story.of_run(setup_fails_on(1));
    let warned = warnings(&story.take_commands());
    assert_eq!(warned, ["setup failed on node n1: exit code 3; the run goes on without that node"]);
    story.of_run(RunEvent::Prepared { node: NodeId(2) });
    assert_eq!(story.started(), [(run("r"), NodeId(2), WorkerId(1))]);
}

#[test]
fn another_node_replaces_one_whose_setup_fails() {
    let mut story = Story::of(RunFacts { has_setup: true, ..facts() });
    story.node_joins(1, 2);
    story.node_joins(2, 2);
    story.take_commands();
    story.of_run(setup_fails_on(1));
    assert!(story.take_commands().contains(&Command::Prepare { run: run("r"), node: NodeId(2) }));
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
    story.take_commands();
    story.of_run(setup_fails_on(1));
    assert_eq!((story.take_commands(), story.phase()), (Vec::new(), Phase::Waiting));
}

#[test]
fn a_setup_ends_with_its_run() {
    let mut story = Story::of(RunFacts { has_setup: true, ..facts() });
    story.node_joins(1, 1);
    story.of_run(RunEvent::CancelRequested);
    assert!(story.take_commands().contains(&Command::Kill {
        run: run("r"),
        node: NodeId(1),
        worker: WorkerId(0)
    }));
}

fn setup_fails_on(node: u64) -> RunEvent {
    let tail = vec!["no such package".to_owned()];
    RunEvent::PrepareFailed { node: NodeId(node), reason: "exit code 3".into(), tail }
}
