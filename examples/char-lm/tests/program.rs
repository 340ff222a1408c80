//! The program and its run spec, as a user uses them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use char_lm::Settings;
use whimbrel_spec::RunSpec;

fn char_lm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_char-lm")).args(arguments).env_clear().output().unwrap()
}

fn error_of(arguments: &[&str]) -> String {
    let output = char_lm(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_run_spec_is_valid_and_has_the_default_settings() {
    let spec = RunSpec::parse("run.toml", include_str!("../run.toml"), &[]).unwrap();
    let settings: Settings = serde_json::from_value(spec.train.settings.into()).unwrap();
    settings.check().unwrap();
    assert_eq!(settings, Settings::default(), "char-lm-bench measures what run.toml runs");
}

#[test]
fn a_missing_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no-such-run");
    let error = error_of(&["sample", missing.to_str().unwrap()]);
    assert!(error.starts_with("error: ") && error.contains("no-such-run"), "{error}");
}

#[test]
fn a_worker_started_by_hand_says_how_to_start_it() {
    let error = error_of(&[]);
    assert!(error.contains("whimbrel run"), "{error}");
}
