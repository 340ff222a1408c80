//! That the slow link is slow.
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
fn fifty_megabits_are_fifty_megabits_both_ways() {
    let Some(link) = linked(SlowLink::start(50)) else { return };
    let listener = TcpListener::bind((link.here(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // The other end sends back what it gets, through bash's own sockets.
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
