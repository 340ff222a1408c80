//! Promise 5, one decider: a coordinator is stopped just before a commit; another takes the run over, finishes it and
//! collects; then the first continues.

use std::sync::mpsc;

use rustix::process::Signal;
use serde_json::Value;
use whimbrel_e2e::{cluster::Cluster, process::signal, run::undisturbed, servers::s3, spec::Spec};
use whimbrel_testbed::{
    BUCKET,
    proxy::{FaultProxy, Operation, Part, Then, Verb},
};

/// Enough for the second coordinator to commit and collect several times.
const STEPS: u64 = 120;

#[test]
fn a_coordinator_that_continues_after_another_took_over_is_fenced() {
    let Some(server) = s3() else { return };
    let expected = undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state();
    let store = server.store_uri("runs");
    let proxy = FaultProxy::start(server.address(), &format!("{BUCKET}/runs"));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];

    // The first coordinator, behind the proxy, runs until it is about to append its third checkpoint, or a later one.
    let first = Cluster::start_over(folders[0].path(), &store, server.environment_at(proxy.address()));
    let (id, (asleep, sleeps), (release, released)) =
        (first.coordinator().id(), mpsc::channel(), mpsc::channel());
    let appends_a_checkpoint = |operation: &Operation, body: &bytes::Bytes| {
        let entry: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_entry = operation.verb == Verb::Put && operation.part() == Part::Log;
        let record = &entry["entry"];
        is_entry && record["record"] == "checkpoint" && record["step"].as_u64() >= Some(30)
    };
    proxy.before(appends_a_checkpoint, move |operation| {
        signal(id, Signal::STOP);
        asleep.send(operation.clone()).unwrap();
        // Wait until the other coordinator has finished, or the test has failed.
        match released.recv() {
            Ok(()) => Then::Pass,
            Err(_) => Then::Cut,
        }
    });
    let nodes = [first.agent("east", 1), first.agent("west", 1)];
    let run = first.submit(&Spec::small(STEPS));
    let held = sleeps.recv_timeout(whimbrel_e2e::run::DEADLINE).unwrap();

    // The second coordinator, over the same store, takes the run over and finishes it.
    let second = Cluster::start_over(folders[1].path(), &store, server.environment());
    let _others = [second.agent("north", 1), second.agent("south", 2)];
    let finished = second.until_phase(&run, "finished");
    assert_eq!(finished["epoch"].as_u64(), Some(2), "{finished:#}");

    // The first continues. Its write reaches the store too late.
    release.send(()).unwrap();
    first.coordinator().signal(Signal::CONT);
    let woken = first.until_phase(&run, "stopped");
    assert!(woken.to_string().contains("fenced"), "it does not report that it was fenced: {woken:#}");
    let refused = proxy.seen().into_iter().filter(|seen| seen.operation.name == held.name);
    assert!(
        refused.filter(|seen| seen.operation.verb == Verb::Put).all(|seen| seen.status != Some(200)),
        "{held} succeeded"
    );
    drop(nodes);

    // There is one lineage, and all but the last three checkpoints are collected.
    let listed = second.folder_command(&["checkpoint", "list", &format!("{store}/{run}"), "--json"]);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let steps: Vec<u64> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    // The steps depend on the store's speed: a save that is due during another one happens later.
    assert_eq!((steps.len(), steps.last()), (3, Some(&STEPS)), "{steps:?}");
    assert!(steps.is_sorted_by(|before, after| before < after), "each step once, in order: {steps:?}");
    let verified = second.folder_command(&["checkpoint", "verify", &format!("{store}/{run}")]);
    let verified = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.contains(&expected), "{verified} does not have the state {expected}");
    assert_eq!(second.stop(), Some(0));
}
