//! Flags override variables, and variables override settings files. A client that cannot reach its coordinator names the
//! address that it tried, which shows the setting that counted.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

/// Addresses without a listener: each port was free a moment ago.
fn unused<const N: usize>() -> [String; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

/// The command in a folder of its own, with that folder as home and nothing else set.
fn whimbrel(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    command.current_dir(folder).env_clear().env("HOME", folder);
    command
}

fn failed(command: &mut Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{stderr}");
    assert_eq!(String::from_utf8(stdout).unwrap(), "");
    stderr
}

#[test]
fn flags_override_variables_and_variables_override_files() {
    let folder = tempfile::tempdir().unwrap();
    let [personal, local, chosen, variable, flag] = unused();
    let section = |address: &str| format!("[client]\ncoordinator = {address:?}\n");
    let config = folder.path().join(".config/whimbrel");
    fs::create_dir_all(&config).unwrap();
    let tried = |variable: Option<&str>, args: &[&str], expected: &str| {
        let mut command = whimbrel(folder.path());
        command.arg("runs").args(args).envs(variable.map(|address| ("WHIMBREL_COORDINATOR", address)));
        let error = failed(&mut command, 3);
        assert!(error.starts_with(&format!("error: cannot reach a coordinator at {expected}; ")), "{error}");
        assert!(error.contains("hint: start one with"), "{error}");
    };

    fs::write(config.join("config.toml"), section(&personal)).unwrap();
    tried(None, &[], &personal);
    fs::write(folder.path().join("whimbrel.toml"), section(&local)).unwrap();
    tried(None, &[], &local);
    fs::write(folder.path().join("chosen.toml"), section(&chosen)).unwrap();
    tried(None, &["--config", "chosen.toml"], &chosen);
    tried(Some(&variable), &["--config", "chosen.toml"], &variable);
    tried(Some(&variable), &["--config", "chosen.toml", "--coordinator", &flag], &flag);
}

#[test]
fn an_unknown_key_is_an_error_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("whimbrel.toml"), "[client]\ncordinator = \"a:1\"\n").unwrap();
    let error = failed(whimbrel(folder.path()).arg("runs"), 2);
    assert!(error.starts_with("error: the settings file whimbrel.toml has a mistake"), "{error}");
    assert!(error.contains("line 2") && error.contains("unknown field `cordinator`"), "{error}");
}

#[test]
fn a_named_token_file_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let error = failed(whimbrel(folder.path()).args(["runs", "--token-file", "no/such/token"]), 2);
    assert!(error.contains("no/such/token") && error.contains("hint: "), "{error}");
    let error = failed(whimbrel(folder.path()).arg("runs").env("WHIMBREL_TOKEN", "short"), 2);
    assert!(error.contains("a token is one line"), "{error}");
}

#[test]
fn servers_name_the_missing_setting() {
    let folder = tempfile::tempdir().unwrap();
    let error = failed(whimbrel(folder.path()).arg("coordinator"), 2);
    assert!(error.contains("no store is named") && error.contains("--store"), "{error}");
    let error = failed(whimbrel(folder.path()).arg("agent"), 2);
    assert!(error.contains("no coordinator is named") && error.contains("--join"), "{error}");
}
