//! The slow link has the rate that was asked for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::Stdio,
    time::Instant,
};

use whimbrel_testbed::netns::{SlowLink, linked};

#[test]
fn a_link_of_50_megabits_carries_50_megabits_in_both_directions() {
    let Some(link) = linked(SlowLink::start(50)) else { return };
    let listener = TcpListener::bind((link.here(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // The far end sends back what it receives, through bash's sockets.
    let script = format!("exec 3<>/dev/tcp/{}/{port}; cat <&3 >&3", link.here());
    let mut far = link.command(Path::new("bash")).args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = stream.try_clone().unwrap();
    let bytes = 4 << 20;
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || stream.write_all(&vec![0; bytes]).unwrap());
        let mut back = vec![0; bytes];
        reader.read_exact(&mut back).unwrap();
    });
    drop(reader);
    let megabits = bytes as f64 * 8.0 / 1e6 / started.elapsed().as_secs_f64();
    far.kill().unwrap();
    far.wait().unwrap();
    assert!((20.0..60.0).contains(&megabits), "{megabits:.1} Mbit/s");
}
