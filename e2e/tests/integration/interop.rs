//! A checkpoint that is exported to safetensors files and imported again resumes and ends with the same bits.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use whimbrel_e2e::{
    programs,
    run::{Run, undisturbed},
    spec::Spec,
};

/// Enough that a run does not end before it is killed.
const STEPS: u64 = 600;

/// Runs `whimbrel checkpoint …` in a folder, and returns the last line of its JSON output.
fn checkpoint(folder: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(programs::whimbrel());
    let output =
        command.arg("checkpoint").args(arguments).arg("--json").current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let last = output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
    serde_json::from_slice(last).unwrap()
}

#[test]
fn a_run_exported_and_imported_elsewhere_ends_with_the_same_bits() {
    let expected = undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut run = Run::start(&Spec::small(STEPS), path, &["--workers", "2"]);
    run.until_checkpoint(30);
    run.kill_all();
    let runs: Vec<_> = fs::read_dir(path.join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [run] = &runs[..] else { panic!("{runs:?}") };

    let exported = checkpoint(path, &["export", run.to_str().unwrap(), "model", "--shard-size", "20kB"]);
    assert!(exported["files"].as_array().unwrap().len() > 2, "{exported}");
    // Only the exported folder is left.
    fs::remove_dir_all(path.join("runs")).unwrap();
    let imported = checkpoint(path, &["import", "model", "elsewhere"]);
    assert_eq!(imported["step"], exported["step"]);

    let uri = imported["uri"].as_str().unwrap();
    let (directory, _step) = uri.rsplit_once('@').unwrap();
    let outcome = Run::start(&Spec::small(STEPS), path, &["--workers", "3", "--resume", directory]).finish();
    let first = imported["step"].as_u64().unwrap() + 1;
    assert_eq!(outcome.steps(), (first..=STEPS).collect::<Vec<_>>());
    assert_eq!(outcome.state(), expected);
}
