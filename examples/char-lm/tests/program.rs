//! The program and its run spec, as a user meets them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use char_lm::Settings;
use whimbrel_spec::RunSpec;

fn char_lm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_char-lm")).args(arguments).env_clear().output().unwrap()
}

fn complaint(arguments: &[&str]) -> String {
    let output = char_lm(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_run_spec_is_sound_and_its_settings_are_the_programs() {
    let spec = RunSpec::parse("run.toml", include_str!("../run.toml"), &[]).unwrap();
    let settings: Settings = serde_json::from_value(spec.train.settings.into()).unwrap();
    settings.check().unwrap();
    assert_eq!(settings, Settings::default(), "char-lm-bench measures what run.toml runs");
}

#[test]
fn what_cannot_be_sampled_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("no-such-run");
    let complaint = complaint(&["sample", nowhere.to_str().unwrap()]);
    assert!(complaint.starts_with("error: ") && complaint.contains("no-such-run"), "{complaint}");
}

#[test]
fn a_worker_that_nobody_started_says_so() {
    let complaint = complaint(&[]);
    assert!(complaint.contains("whimbrel run"), "{complaint}");
}
