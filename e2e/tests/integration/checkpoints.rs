//! Promise 4: a checkpoint is whole or invisible. A damaged one is quarantined with a warning, and the one before is
//! used.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use whimbrel_e2e::{
    programs,
    run::{Outcome, Run, undisturbed},
    spec::Spec,
    unreachable::Unreachable,
};

const STEPS: u64 = 60;
/// Enough that a run does not end before it is killed.
const INTERRUPTED: u64 = 600;

fn whimbrel(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(programs::whimbrel()).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The only run in the folder `runs`.
fn run_of(folder: &Path) -> PathBuf {
    let runs: Vec<_> =
        fs::read_dir(folder.join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { files.extend(self::files(&entry)) } else { files.push(entry) }
    }
    files
}

fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// Starts a run, and kills all its processes when the checkpoint of step 30 is committed.
fn interrupted(folder: &Path) -> PathBuf {
    let mut run = Run::start(&Spec::small(INTERRUPTED), folder, &["--workers", "2"]);
    run.until_checkpoint(30);
    run.kill_all();
    run_of(folder)
}

/// The manifest of the newest committed checkpoint. The folder may also hold one that is not committed.
fn newest_manifest(run: &Path) -> PathBuf {
    let (_, listing, _) = whimbrel(&["checkpoint", "list", run.to_str().unwrap(), "--json"]);
    let newest: Value = serde_json::from_str(listing.lines().last().unwrap()).unwrap();
    run.join(newest["manifest"].as_str().unwrap())
}

fn warned_of_damage(outcome: &Outcome) -> bool {
    let is_warning = |event: &Value| event["event"] == "warning" && event.to_string().contains("damaged");
    outcome.events.iter().any(is_warning)
}

#[test]
fn the_last_three_are_kept_listed_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = Run::start(&Spec::small(STEPS), folder.path(), &["--workers", "3"]).finish();
    let state = outcome.state();
    let run = run_of(folder.path());
    let run = run.to_str().unwrap();

    let (code, listing, errors) = whimbrel(&["checkpoint", "list", run, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let steps: Vec<u64> = listing
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [40, 50, 60]);

    let (code, shown, errors) = whimbrel(&["checkpoint", "show", run]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(shown.contains("wte"), "the tensors are not shown: {shown}");

    let (code, verified, errors) = whimbrel(&["checkpoint", "verify", run]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(verified.contains(&state), "{verified} does not have the final state {state}");
}

#[test]
fn checkpoints_can_be_taken_by_time() {
    let arguments = ["--workers", "2", "--set", "checkpoint.every=200ms"];
    let outcome = undisturbed(&Spec::small(1000), &arguments);
    outcome.state();
    assert!(outcome.count("checkpoint") >= 3, "{} checkpoints", outcome.count("checkpoint"));
}

#[test]
fn the_example_generates_text_from_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    Run::start(&Spec::small(STEPS), folder.path(), &["--workers", "1"]).finish().state();
    let run = run_of(folder.path());
    let write = |seed: &str| {
        let mut sample = Command::new(programs::char_lm());
        sample.arg("sample").arg(&run).args(["--prompt", "The ", "--length", "80", "--seed", seed]);
        let output = sample.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = write("1");
    assert!(text.starts_with("The ") && text.chars().count() >= 80, "{text:?}");
    assert_eq!(text, write("1"));
    assert_ne!(text, write("2"));
}

#[test]
fn a_flipped_bit_in_a_pack_is_detected_and_the_previous_checkpoint_is_used() {
    let expected = undisturbed(&Spec::small(INTERRUPTED), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let run = interrupted(folder.path());
    let manifest: Value = serde_json::from_slice(&fs::read(newest_manifest(&run)).unwrap()).unwrap();
    let hash = manifest["packs"][0]["hash"].as_str().unwrap();
    let pack =
        files(&run.join("packs")).into_iter().find(|file| file.to_str().unwrap().contains(hash)).unwrap();
    flip_a_bit(&pack);

    let (code, _, errors) = whimbrel(&["checkpoint", "verify", run.to_str().unwrap()]);
    assert_eq!(code, Some(4), "{errors}");
    assert!(errors.contains(hash), "the damaged pack is not named: {errors}");

    let outcome = Run::start(&Spec::small(INTERRUPTED), folder.path(), &["--workers", "2"]).finish();
    assert_eq!(outcome.state(), expected);
    assert!(warned_of_damage(&outcome), "no warning of the damage");
}

#[test]
fn a_flipped_bit_in_a_manifest_is_detected_and_the_previous_checkpoint_is_used() {
    let expected = undisturbed(&Spec::small(INTERRUPTED), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let run = interrupted(folder.path());
    flip_a_bit(&newest_manifest(&run));
    let outcome = Run::start(&Spec::small(INTERRUPTED), folder.path(), &["--workers", "2"]).finish();
    assert_eq!(outcome.state(), expected);
    assert!(warned_of_damage(&outcome), "no warning of the damage");
}

#[test]
fn a_copied_directory_is_the_run() {
    let expected = undisturbed(&Spec::small(INTERRUPTED), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();
    let run = interrupted(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("runs");
    fs::create_dir(&target).unwrap();
    let copied = Command::new("cp").arg("-r").arg(&run).arg(&target).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(folder.path().join("runs")).unwrap();
    let outcome = Run::start(&Spec::small(INTERRUPTED), elsewhere.path(), &["--workers", "1"]).finish();
    assert_eq!(outcome.state(), expected);
}

#[test]
fn a_store_that_fails_for_a_while_costs_only_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec { checkpoint_every: 20, ..Spec::small(400) };
    let mut run = Run::start(&spec, folder.path(), &["--workers", "2"]);
    run.until_checkpoint(20);
    let packs = Unreachable::make(run_of(folder.path()).join("packs"));
    // The warning names the worker, the object and the cause. Training continues. The coordinator warns, too, if the packs
    // go between a worker's upload and the commit.
    let warning = run.until("a warning of the failed save", |event| {
        let text = event["text"].as_str().unwrap_or_default();
        event["event"] == "warning" && text.contains("could not be saved") && text.contains("worker w")
    });
    let text = warning["text"].as_str().unwrap();
    assert!(text.contains("worker w") && text.contains("/packs/") && text.contains("os error"), "{text}");
    let step = run.events.iter().rev().find_map(|event| event["step"].as_u64()).unwrap();
    run.until_step(step + 1);
    packs.restore();
    run.until_checkpoint(step);
    let outcome = run.finish();
    assert_eq!(outcome.state(), undisturbed(&spec, &["--workers", "1"]).state());
}

#[test]
fn checkpoints_can_be_taken_at_the_cheapest_interval() {
    let arguments = ["--workers", "1", "--set", "checkpoint.every=auto"];
    let outcome = undisturbed(&Spec::small(STEPS), &arguments);
    let interval = outcome.events.iter().find(|event| event["event"] == "interval").unwrap();
    let words = interval["explanation"].as_str().unwrap();
    assert!(words.starts_with("auto: every ") && words.contains("√(2 × "), "{words}");
    assert_eq!(outcome.state(), undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state());
}
