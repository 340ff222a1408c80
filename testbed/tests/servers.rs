//! Every server answers once started, and nothing of it is left when it is stopped, however that comes about.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use whimbrel_testbed::{
    Azurite, GcsServer, LyingS3, Moto, Radosgw, Server, available, process::answers_http,
};

/// Stops a server as a provider that is lost, and looks for what may be left.
fn is_lost(mut server: impl Server) {
    let (name, address, pids) = (server.name(), server.address(), server.pids());
    assert!(answers_http(address), "{name} answers");
    assert!(pids.iter().all(|&pid| runs(pid)), "{name} runs");
    let data = server.data().map(Path::to_path_buf);
    assert!(data.iter().all(|folder| folder.is_dir()), "{name} has its data");
    server.lose().unwrap();
    assert!(TcpStream::connect(address).is_err(), "{name} listens though it is lost");
    assert!(!pids.iter().any(|&pid| runs(pid)), "{name} runs though it is lost");
    assert!(!data.iter().any(|folder| folder.exists()), "{name}'s data is there though it is lost");
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name; a zombie runs no more.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn radosgw_is_lost_without_a_trace() {
    let Some(server) = available(Radosgw::start()) else { return };
    assert_eq!(server.pids().len(), 3);
    is_lost(server);
}

#[test]
fn moto_is_lost_without_a_trace() {
    let Some(server) = available(Moto::start()) else { return };
    is_lost(server);
}

#[test]
fn azurite_is_lost_without_a_trace() {
    let Some(server) = available(Azurite::start()) else { return };
    is_lost(server);
}

#[test]
fn our_own_servers_are_lost_without_a_trace() {
    is_lost(GcsServer::start().unwrap());
    is_lost(LyingS3::start().unwrap());
}

#[test]
fn a_server_ends_with_the_program_that_started_it_though_that_is_killed() {
    // Of several processes, which all live through being hung up; one of them is stopped at that moment.
    let Some(_) = available(Radosgw::start()) else { return };
    let mut program = Command::new(env!("CARGO_BIN_EXE_whimbrel-testbed"))
        .arg("radosgw")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut pids, mut data) = (Vec::new(), PathBuf::new());
    for line in BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap) {
        if let Some(pid) = line.strip_prefix("# its process: ") {
            pids.push(pid.parse::<u32>().unwrap());
        } else if let Some(folder) = line.strip_prefix("# its data: ") {
            data = folder.into();
        } else if line.contains("is ready") {
            break;
        }
    }
    assert!(pids.len() == 3 && pids.iter().all(|&pid| runs(pid)) && data.is_dir());
    let stopped = Command::new("kill").args(["-STOP", &pids[0].to_string()]).status().unwrap();
    assert!(stopped.success());
    program.kill().unwrap();
    program.wait().unwrap();
    // The shells that watch need a moment to see it.
    let start = Instant::now();
    while pids.iter().any(|&pid| runs(pid)) || data.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{pids:?} or {} outlives the program",
            data.display()
        );
        std::thread::yield_now();
    }
}
