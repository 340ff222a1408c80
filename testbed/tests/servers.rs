//! Each started server answers, and leaves no process and no data when it is lost or its test process is killed.
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

/// Loses a server and checks that nothing is left of it.
fn lose(mut server: impl Server) {
    let (name, address, pids) = (server.name(), server.address(), server.pids());
    assert!(answers_http(address), "{name} does not answer");
    assert!(pids.iter().all(|&pid| runs(pid)), "{name} does not run");
    let data = server.data().map(Path::to_path_buf);
    assert!(data.iter().all(|folder| folder.is_dir()), "{name} has no data folder");
    server.lose().unwrap();
    assert!(TcpStream::connect(address).is_err(), "{name} still listens");
    assert!(!pids.iter().any(|&pid| runs(pid)), "{name} still runs");
    assert!(!data.iter().any(|folder| folder.exists()), "{name}'s data still exists");
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The process's state comes after its name. A zombie (Z) has ended.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn radosgw_leaves_nothing_when_it_is_lost() {
    let Some(server) = available(Radosgw::start()) else { return };
    assert_eq!(server.pids().len(), 3);
    lose(server);
}

#[test]
fn moto_leaves_nothing_when_it_is_lost() {
    let Some(server) = available(Moto::start()) else { return };
    lose(server);
}

#[test]
fn azurite_leaves_nothing_when_it_is_lost() {
    let Some(server) = available(Azurite::start()) else { return };
    lose(server);
}

#[test]
fn our_own_servers_leave_nothing_when_they_are_lost() {
    lose(GcsServer::start().unwrap());
    lose(LyingS3::start().unwrap());
}

#[test]
fn a_server_ends_when_its_parent_is_killed() {
    // radosgw has several processes, and none of them ends by SIGHUP. One of them is stopped when the parent is killed.
    let Some(_) = available(Radosgw::start()) else { return };
    let mut program = Command::new(env!("CARGO_BIN_EXE_whimbrel-testbed"))
        .arg("radosgw")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut pids, mut data) = (Vec::new(), PathBuf::new());
    for line in BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap) {
        if let Some(pid) = line.strip_prefix("# process: ") {
            pids.push(pid.parse::<u32>().unwrap());
        } else if let Some(folder) = line.strip_prefix("# data: ") {
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
    // The watchers need a moment.
    let start = Instant::now();
    while pids.iter().any(|&pid| runs(pid)) || data.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "{pids:?} or {} still exists", data.display());
        std::thread::yield_now();
    }
}
