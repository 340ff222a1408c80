//! Bad input that `whimbrel run` refuses before it starts anything, with exit code 2.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const SPEC: &str = "name = \"r\"\ncommand = [\"true\"]\n[train]\nsteps = 40\nglobal_batch = 8\nshards = 4\n";

fn refused(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    command.current_dir(folder).env_clear().env("HOME", folder).arg("run").args(args);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.as_slice()), (Some(2), b"".as_slice()), "{stderr}");
    stderr
}

fn folder_with(spec: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.toml"), spec).unwrap();
    folder
}

#[test]
fn all_mistakes_of_a_spec_are_reported_at_once() {
    let folder = folder_with(&SPEC.replace("shards = 4", "shards = 5").replace("steps", "stpes"));
    let error = refused(folder.path(), &["run.toml", "--set", "workers.min=0", "--store", "runs"]);
    assert!(error.starts_with("error: the run spec has mistakes:\n"), "{error}");
    for part in ["run.toml:4: train.stpes", "run.toml:6: train.shards", "--set workers.min=0: workers.min"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_key_is_unset_and_a_required_one_cannot_be() {
    // A key that is wrong in the file is no mistake once it is unset: only the missing store is reported.
    let folder = folder_with(&format!("setup = \"\"\n{SPEC}"));
    let error = refused(folder.path(), &["run.toml", "--unset", "setup"]);
    assert!(error.contains("no store is named"), "{error}");
    let error = refused(folder.path(), &["run.toml"]);
    assert!(error.contains("run.toml:1: setup: empty") && error.contains("--unset setup"), "{error}");

    let error = refused(folder.path(), &["run.toml", "--unset", "train.steps", "--unset", "setpu"]);
    for part in ["--unset train.steps: train.steps: required", "--unset setpu: setpu: there is no such key"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn a_missing_spec_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(folder.path(), &["nowhere.toml"]);
    assert!(error.contains("nowhere.toml") && error.contains("caused by: No such file"), "{error}");
}

#[test]
fn more_workers_than_shards() {
    let folder = folder_with(SPEC);
    let error = refused(folder.path(), &["run.toml", "--workers", "5", "--store", "runs"]);
    assert!(error.contains("workers.local") && error.contains("use 4 or less"), "{error}");
}

#[test]
fn a_run_without_a_store() {
    let folder = folder_with(SPEC);
    let error = refused(folder.path(), &["run.toml"]);
    assert!(error.contains("no store is named") && error.contains("--store URI"), "{error}");
}

#[test]
fn a_uri_that_is_no_store() {
    let folder = folder_with(SPEC);
    let error = refused(folder.path(), &["run.toml", "--store", "gcs://bucket"]);
    assert!(error.contains("gs://"), "{error}");
    let error = refused(folder.path(), &["run.toml", "--store", "run.toml"]);
    assert!(error.contains("run.toml"), "{error}");
}

#[test]
fn nothing_to_resume() {
    let folder = folder_with(SPEC);
    let error = refused(folder.path(), &["run.toml", "--store", "runs", "--resume"]);
    assert!(error.contains("there is no unfinished run of r in file://"), "{error}");
    let error = refused(folder.path(), &["run.toml", "--store", "runs", "--resume", "r-nobody"]);
    assert!(error.contains("r-nobody"), "{error}");
    let error = refused(folder.path(), &["run.toml", "--resume", "runs/r-nobody@7"]);
    assert!(error.contains("names a step"), "{error}");
}

#[test]
fn a_script_that_cannot_be_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = |text: &str| fs::write(folder.path().join("train.py"), text).unwrap();
    let error = refused(folder.path(), &["train.py"]);
    assert!(error.contains("cannot read the script train.py") && error.contains("No such file"), "{error}");
    script("import torch\n");
    let error = refused(folder.path(), &["train.py", "--batch", "48"]);
    assert!(error.contains("train.py: train.steps: missing") && error.contains("--steps 2000"), "{error}");
    assert!(error.contains("[tool.whimbrel.train]"), "{error}");
    script("# /// script\n# [tool.whimbrel.train]\n# steps = ten\n# ///\n");
    let error = refused(folder.path(), &["train.py"]);
    assert!(error.contains("train.py:3:11: not TOML"), "{error}");
    // Nothing is set, not even PATH.
    script("");
    let error = refused(folder.path(), &["train.py", "--steps", "5", "--batch", "8"]);
    assert!(error.contains("whimbrel") && error.contains("pip install"), "{error}");
    let error = refused(folder.path(), &["run.toml", "x"]);
    assert!(error.contains("run.toml takes no arguments"), "{error}");
}

#[test]
fn a_virtual_environment_without_an_interpreter() {
    let folder = folder_with("");
    fs::write(folder.path().join("train.py"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    command.args(["run", "train.py", "--steps", "5", "--batch", "8"]).current_dir(folder.path());
    let output = command.env("VIRTUAL_ENV", folder.path()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("(VIRTUAL_ENV) has no bin/python"), "{error}");
}

#[test]
fn a_saved_spec_is_that_of_the_script_and_its_flags() {
    let folder = folder_with("");
    let header = "# /// script\n# [tool.whimbrel]\n# command = [\"uv\", \"run\", \"train.py\"]\n\
                  # train = { steps = 9, global_batch = 4 }\n# ///\n";
    fs::write(folder.path().join("train.py"), header).unwrap();
    let save = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.current_dir(folder.path()).env_clear().env("HOME", folder.path());
        command.args(["run", "train.py", "a", "--steps", "20", "--save-spec", "saved.toml"]).args(flags);
        command.output().unwrap()
    };
    let output = save(&["--workers", "3", "--", "--lr", "0.1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let saved = fs::read_to_string(folder.path().join("saved.toml")).unwrap();
    for line in [
        "name = \"train\"",
        "command = [\"uv\", \"run\", \"train.py\", \"a\", \"--lr\", \"0.1\"]",
        "steps = 20",
        "global_batch = 4",
        "shards = 4",
        "local = 3",
        "store = \"runs\"",
    ] {
        assert!(saved.lines().any(|written| written == line), "{line:?} is not in\n{saved}");
    }
    assert!(!folder.path().join("runs").exists(), "nothing is started");
    let again = save(&[]);
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.code() == Some(2) && error.contains("File exists"), "{error}");
}
