//! Promise 7: no one gets in uninvited.

use std::{net::UdpSocket, process::Command, time::Instant};

use whimbrel_e2e::{process::Process, programs, run::DEADLINE};

/// An address of this machine that is not loopback, if it has one. Finding it sends nothing.
fn outward() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[test]
fn beyond_loopback_a_coordinator_requires_its_token() {
    let Some(host) = outward() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().port();
    let address = format!("{host}:{port}");
    let token = folder.path().join("token");
    let start = || {
        let mut command = Command::new(programs::whimbrel());
        command.args(["coordinator", "--listen", &address, "--store"]).arg(folder.path().join("runs"));
        command.arg("--token-file").arg(&token).current_dir(folder.path());
        Process::start(command)
    };
    let call = |file: Option<&std::path::Path>| {
        let mut command = Command::new(programs::whimbrel());
        command.args(["runs", "--coordinator", &address]).env_clear().env("HOME", folder.path());
        if let Some(file) = file {
            command.arg("--token-file").arg(file);
        }
        command.output().unwrap()
    };
    let coordinator = start();
    let deadline = Instant::now() + DEADLINE;
    while !(token.exists() && call(Some(&token)).status.success()) {
        assert!(Instant::now() < deadline, "the coordinator does not answer:\n{}", coordinator.errors());
    }
    let secret = std::fs::read_to_string(&token).unwrap().trim().to_owned();

    let without = call(None);
    assert!(!without.status.success());
    let words = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(words.contains("token"), "{words}");

    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "0123456789abcdef0123456789abcdef").unwrap();
    assert!(!call(Some(&wrong)).status.success());

    drop(coordinator);
    let again = start();
    let deadline = Instant::now() + DEADLINE;
    while !call(Some(&token)).status.success() {
        assert!(Instant::now() < deadline, "the coordinator does not answer:\n{}", again.errors());
    }
    assert_eq!(std::fs::read_to_string(&token).unwrap().trim(), secret, "a restart keeps the token");
    assert!(!again.errors().contains(&secret), "only the first start shows the token");
}
