//! A damaged checkpoint is quarantined only if no store of the run has it whole, even if the workers cannot reach a
//! store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use whimbrel_e2e::{
    run::{Outcome, Run, command, undisturbed},
    spec::Spec,
};
use whimbrel_testbed::{GcsServer, Server, available};

/// Enough that a run does not end before the test has seen what it waits for, even on a busy machine.
const STEPS: u64 = 600;

/// Reads events until the replica has the checkpoint of this step, or a later one.
fn until_replicated(run: &mut Run, step: u64) {
    run.until(&format!("the checkpoint of step {step} in the replica"), |event| {
        event["event"] == "replicated" && event["checkpoint"].as_u64() >= Some(step)
    });
}

/// The run's directory in a store of the folder.
fn directory(folder: &Path, store: &str) -> PathBuf {
    fs::read_dir(folder.join(store)).unwrap().next().unwrap().unwrap().path()
}

/// Flips a bit in a pack that only the newest checkpoint of a run has.
fn damage_the_newest(run: &Path) {
    let manifests = fs::read_dir(run.join("manifests")).unwrap().map(|entry| entry.unwrap().path());
    let manifest: Value = serde_json::from_slice(&fs::read(manifests.max().unwrap()).unwrap()).unwrap();
    let hash = manifest["packs"][0]["hash"].as_str().unwrap();
    let pack = run.join("packs").join(&hash[..2]).join(format!("{hash}.safetensors"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(pack, bytes).unwrap();
}

/// Whether the run log has a quarantined checkpoint.
fn is_any_quarantined(run: &Path) -> bool {
    let log = fs::read_dir(run.join("log")).unwrap().map(|entry| entry.unwrap().path());
    log.into_iter().any(|entry| fs::read_to_string(entry).unwrap().contains(r#""record":"quarantined""#))
}

fn warned(outcome: &Outcome, of: &str) -> bool {
    outcome.events.iter().any(|event| {
        event["event"] == "warning" && event["text"].as_str().is_some_and(|text| text.contains(of))
    })
}

#[test]
fn a_checkpoint_that_only_the_coordinator_can_read_whole_is_used_and_not_quarantined() {
    let Some(west) = available(GcsServer::start()) else { return };
    let folder = tempfile::tempdir().unwrap();
    // The coordinator has the key of the replica's store. The workers have a wrong one.
    let spec = Spec {
        checkpoint_every: STEPS / 2,
        checkpoint: format!("replicas = [{:?}]", west.store_uri("runs")),
        more: "[workers]\nenvironment = { GOOGLE_SERVICE_ACCOUNT_KEY = \"no key\" }".into(),
        ..Spec::small(STEPS)
    };
    let start = || {
        let mut command = command(&spec, folder.path(), &["--workers", "2"]);
        command.envs(west.environment());
        Run::start_by(command)
    };
    let mut run = start();
    until_replicated(&mut run, STEPS / 2);
    run.kill_all();
    let here = directory(folder.path(), "runs");
    damage_the_newest(&here);

    let resumed = start().finish();
    assert_eq!(resumed.state(), undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state());
    assert!(warned(&resumed, "was found damaged"), "the workers read the replica: {:#?}", resumed.events);
    assert!(warned(&resumed, "is whole now, and is used again"), "{:#?}", resumed.events);
    assert!(resumed.steps()[0] > STEPS / 2, "the checkpoint was not used: {:?}", resumed.steps());
    assert!(!is_any_quarantined(&here));
}

#[test]
fn a_checkpoint_that_no_store_has_whole_is_quarantined_and_the_one_before_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let spec =
        Spec { checkpoint_every: 200, checkpoint: "replicas = [\"west\"]".into(), ..Spec::small(STEPS) };
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    until_replicated(&mut run, 400);
    run.kill_all();
    for store in ["runs", "west"] {
        damage_the_newest(&directory(folder.path(), store));
    }

    let resumed = Run::start(&spec, folder.path(), &["--workers", "2"]).finish();
    assert_eq!(resumed.state(), undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state());
    assert!(warned(&resumed, "is damaged in every store, and is quarantined"), "{:#?}", resumed.events);
    assert_eq!(resumed.steps()[0], 201, "the checkpoint before is used");
    assert!(is_any_quarantined(&directory(folder.path(), "runs")));
}
