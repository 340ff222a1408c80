//! `whimbrel checkpoint collect`.

use serde_json::Value;

use crate::stage::{Stage, State, block_on, checkpoint};

fn steps(stage: &Stage, run: &str) -> Vec<u64> {
    let listed = stage.good(&["list", run, "--json"]);
    let step = |line: &str| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap();
    listed.lines().map(step).collect()
}

/// A run that is not stopped, with checkpoints after steps 10 to 60.
fn not_stopped() -> Stage {
    let stage = Stage { folder: tempfile::tempdir().unwrap(), state: String::new() };
    block_on(async {
        let mut term = stage.create("r-test").await;
        for step in [10, 20, 30, 40, 50, 60] {
            checkpoint(&mut term, step, &State::small(step), 64 << 20).await;
        }
    });
    stage
}

#[test]
fn a_dry_run_reports_what_collecting_then_deletes() {
    let stage = Stage::finished();
    let said = stage.good(&["collect", "runs/r-test", "--keep", "1", "--dry-run"]);
    assert!(
        said.contains("would delete 1 checkpoint and 1 pack, ") && said.contains("kept        after step 40"),
        "{said}"
    );
    assert_eq!(steps(&stage, "runs/r-test"), [20, 40]);
    let said = stage.good(&["collect", "r-test", "--store", "runs", "--keep", "1"]);
    assert!(said.contains("deleted 1 checkpoint and 1 pack, "), "{said}");
    assert_eq!(steps(&stage, "runs/r-test"), [40]);
    assert_eq!(stage.files("packs").len(), 1);
    // The newest always stays; the spec of the run would keep three.
    let said: Value = serde_json::from_str(&stage.good(&["collect", "runs/r-test", "--json"])).unwrap();
    assert_eq!((&said["checkpoints"], &said["kept"]), (&0.into(), &serde_json::json!([40])));
    stage.good(&["verify", "runs/r-test"]);
}

#[test]
fn a_checkpoint_without_its_manifest_is_not_reported_as_kept() {
    let stage = Stage::finished();
    std::fs::remove_file(stage.files("manifests").into_iter().min().unwrap()).unwrap();
    let said = stage.good(&["collect", "runs/r-test", "--keep", "1"]);
    assert!(
        said.contains("deleted 1 checkpoint and ") && said.contains("kept        after step 40\n"),
        "{said}"
    );
    assert_eq!(steps(&stage, "runs/r-test"), [40]);
}

#[test]
fn a_run_that_is_not_stopped_is_collected_only_with_take_over() {
    let stage = not_stopped();
    let error = stage.failed(2, &["collect", "runs/r-test"]);
    assert!(error.contains("is not stopped") && error.contains("--take-over"), "{error}");
    let said = stage.good(&["collect", "runs/r-test", "--dry-run", "--keep-every", "30 steps"]);
    assert!(
        said.contains("would delete 2 checkpoints") && said.contains("after step 30, 40, 50, 60"),
        "{said}"
    );
    let epoch = || block_on(async { stage.run("runs", "r-test").run_log().await.unwrap().epoch() });
    assert_eq!(epoch(), 1, "a dry run fences nobody");
    stage.good(&["collect", "runs/r-test", "--take-over", "--keep", "2", "--keep-every", "20 steps"]);
    assert_eq!(steps(&stage, "runs/r-test"), [20, 40, 50, 60]);
    assert_eq!(epoch(), 2);
}

#[test]
fn collecting_in_a_replica_leaves_it_a_replica() {
    let stage = Stage::finished();
    stage.good(&["copy", "runs/r-test", "elsewhere"]);
    stage.good(&["collect", "elsewhere/r-test", "--keep", "1"]);
    assert_eq!(steps(&stage, "elsewhere/r-test"), [40]);
    assert!(stage.good(&["list", "elsewhere/r-test"]).contains("a replica of file:///"));
    assert_eq!(steps(&stage, "runs/r-test"), [20, 40]);

    std::fs::remove_dir_all(stage.path("runs")).unwrap();
    let error = stage.failed(3, &["collect", "elsewhere/r-test", "--keep", "1"]);
    assert!(error.contains("cannot be reached") && error.contains("--resume file:///"), "{error}");
}

#[test]
fn a_manifest_that_cannot_be_read_is_exit_code_4() {
    let stage = Stage::stopped(3, &State::small(3), 64);
    let manifest = stage.files("manifests").pop().unwrap();
    std::fs::write(manifest, "{}").unwrap();
    let packs = stage.files("packs").len();
    let (code, stdout, stderr) =
        stage.checkpoint(&["collect", "runs/r-test", "--keep", "1", "--grace", "0s"]);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(
        stdout.contains("unreadable  the manifest ") && stdout.contains("/manifests/000000000003-"),
        "{stdout}"
    );
    assert_eq!(stage.files("packs").len(), packs);
}
