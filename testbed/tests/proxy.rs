//! The proxies in front of a minimal server: what the client and the server see of each fault.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use whimbrel_testbed::proxy::{DelayProxy, Fault, FaultProxy, Operation, Seen, Then, Verb};

/// A server that stores objects, and the `Host` of its last request.
#[derive(Clone, Default)]
struct Upstream {
    objects: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    host: Arc<Mutex<String>>,
}

impl Upstream {
    fn start() -> (Self, SocketAddr) {
        let upstream = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = upstream.clone();
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let served = served.clone();
                thread::spawn(move || served.answer(stream.unwrap()));
            }
        });
        (upstream, address)
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(&stream);
        let (first, headers) = head(&mut reader);
        let words: Vec<_> = first.split(' ').collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        *self.host.lock().unwrap() = headers["host"].clone();
        let mut objects = self.objects.lock().unwrap();
        let (path, query) = words[1].split_once('?').unwrap_or((words[1], ""));
        let found = match words[0] {
            "PUT" => {
                objects.insert(path.to_owned(), body);
                Vec::new()
            }
            _ if query.contains("list-type") => {
                let mut names: Vec<_> = objects.keys().cloned().collect();
                names.sort();
                names.iter().map(|name| format!("<Contents>{name}</Contents>")).collect::<String>().into()
            }
            _ => objects.get(path).cloned().unwrap_or_default(),
        };
        write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", found.len()).unwrap();
        (&stream).write_all(&found).unwrap();
    }
}

fn head(reader: &mut impl BufRead) -> (String, HashMap<String, String>) {
    let mut lines = reader.lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let header = |line: String| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_lowercase(), value.trim().to_owned())
    };
    (first, lines.map(header).collect())
}

/// What the client receives: the status, and the part of the body that arrived before the time-out.
struct Answer {
    status: Option<u16>,
    length: usize,
    body: Vec<u8>,
    stalled: bool,
}

fn ask(server: SocketAddr, method: &str, path: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let host = "store.example:9000";
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let (mut text, mut chunk, mut stalled) = (Vec::new(), [0; 4096], false);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => text.extend(&chunk[..read]),
            Err(error) => {
                stalled = error.kind() == std::io::ErrorKind::WouldBlock;
                break;
            }
        }
    }
    let mut reader = BufReader::new(text.as_slice());
    let (first, headers) = head(&mut reader);
    let status = first.split(' ').nth(1).map(|status| status.parse().unwrap());
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    Answer { status, length, body, stalled }
}

fn get(name: &str) -> Operation {
    Operation { verb: Verb::Get, name: name.into(), range: None, occurrence: 0 }
}

const BODY: &[u8] = b"0123456789abcdef";

/// Reads an object with a fault.
fn read(fault: Fault) -> (Answer, FaultProxy) {
    let (upstream, address) = Upstream::start();
    let proxy = FaultProxy::start(address, "bucket");
    proxy.fail_at(get("x"), fault);
    ask(proxy.address(), "PUT", "/bucket/x", BODY);
    let answer = ask(proxy.address(), "GET", "/bucket/x", b"");
    assert_eq!(*upstream.host.lock().unwrap(), "store.example:9000");
    assert_eq!(proxy.happened(), 1);
    let again = ask(proxy.address(), "GET", "/bucket/x", b"");
    assert_eq!((again.status, again.body.as_slice()), (Some(200), BODY), "a fault happens once");
    (answer, proxy)
}

#[test]
fn the_client_sees_each_fault_of_a_read() {
    assert_eq!(read(Fault::Unavailable).0.status, Some(503));
    assert_eq!(read(Fault::Throttled).0.status, Some(429));
    for fault in [Fault::CutBefore, Fault::AnswerLost] {
        let (answer, proxy) = read(fault);
        assert_eq!((answer.status, answer.stalled), (None, false));
        let reached = proxy.seen()[1].status.is_some();
        assert_eq!(reached, fault == Fault::AnswerLost);
    }
    let (cut, _) = read(Fault::CutInAnswer);
    assert_eq!(
        (cut.status, cut.length, cut.body.as_slice(), cut.stalled),
        (Some(200), 16, &BODY[..8], false)
    );
    let (truncated, _) = read(Fault::TruncatedAnswer);
    assert_eq!((truncated.status, truncated.length, truncated.body.as_slice()), (Some(200), 8, &BODY[..8]));
    let (flipped, _) = read(Fault::FlippedAnswer);
    let bits: u32 = flipped.body.iter().zip(BODY).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!((flipped.status, flipped.body.len(), bits), (Some(200), 16, 1));
    let (drip, _) = read(Fault::SlowDrip);
    assert_eq!((drip.length, drip.body.as_slice(), drip.stalled), (16, &BODY[..8], true));
}

#[test]
fn the_server_sees_each_fault_of_a_write() {
    let (upstream, address) = Upstream::start();
    let put = |fault: Fault| {
        let proxy = FaultProxy::start(address, "bucket");
        upstream.objects.lock().unwrap().clear();
        proxy.fail_at(Operation { verb: Verb::Put, ..get("x") }, fault);
        let answer = ask(proxy.address(), "PUT", "/bucket/x", BODY);
        (answer, upstream.objects.lock().unwrap().get("/bucket/x").cloned())
    };
    for fault in [Fault::Unavailable, Fault::Throttled, Fault::CutBefore] {
        assert_eq!(put(fault).1, None, "{fault:?}");
    }
    let (lost, stored) = put(Fault::AnswerLost);
    assert_eq!((lost.status, stored.as_deref()), (None, Some(BODY)));
    let (flipped, stored) = put(Fault::FlippedRequest);
    let bits: u32 = stored.unwrap().iter().zip(BODY).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!((flipped.status, bits), (Some(200), 1));
    let (silent, stored) = put(Fault::SlowDrip);
    assert_eq!((silent.status, silent.stalled, stored.as_deref()), (None, true, Some(BODY)));
}

#[test]
fn a_late_request_arrives_when_the_test_delivers_it() {
    let (upstream, address) = Upstream::start();
    let proxy = FaultProxy::start(address, "bucket");
    proxy.fail_at(Operation { verb: Verb::Put, ..get("x") }, Fault::Late);
    assert_eq!(ask(proxy.address(), "PUT", "/bucket/x", BODY).status, None);
    assert_eq!(upstream.objects.lock().unwrap().len(), 0);
    assert_eq!(proxy.deliver_late(), 1);
    assert_eq!(upstream.objects.lock().unwrap()["/bucket/x"], BODY);
    assert_eq!(proxy.deliver_late(), 0);
}

#[test]
fn listings_are_stale_or_empty() {
    let (_, address) = Upstream::start();
    let proxy = FaultProxy::start(address, "bucket");
    let list = |occurrence| Operation { verb: Verb::List, name: String::new(), range: None, occurrence };
    proxy.fail_at(list(1), Fault::StaleList);
    proxy.fail_at(list(2), Fault::EmptyList);
    let listed = || ask(proxy.address(), "GET", "/bucket?list-type=2", b"").body;
    ask(proxy.address(), "PUT", "/bucket/a", BODY);
    assert_eq!(listed(), b"<Contents>/bucket/a</Contents>");
    ask(proxy.address(), "PUT", "/bucket/b", BODY);
    assert_eq!(listed(), b"<Contents>/bucket/a</Contents>", "stale");
    assert_eq!(listed(), b"", "empty");
    assert_eq!(listed(), b"<Contents>/bucket/a</Contents><Contents>/bucket/b</Contents>");
}

#[test]
fn the_test_is_called_back_before_and_after_an_operation() {
    let (upstream, address) = Upstream::start();
    let proxy = FaultProxy::start(address, "bucket");
    let (sender, called) = mpsc::channel();
    for (moment, then) in [("before", Then::Cut), ("after", Then::Cut), ("before", Then::Pass)] {
        let (sender, objects) = (sender.clone(), Arc::clone(&upstream.objects));
        let action = move |operation: &Operation| {
            let stored = objects.lock().unwrap().len();
            sender.send((moment, operation.name.clone(), stored)).unwrap();
            then
        };
        let wanted = |operation: &Operation, body: &bytes::Bytes| operation.verb == Verb::Put && body == BODY;
        match moment {
            "before" => proxy.before(wanted, action),
            _ => proxy.after(wanted, action),
        }
        let status = ask(proxy.address(), "PUT", "/bucket/x", BODY).status;
        assert_eq!(status.is_some(), then == Then::Pass);
    }
    let called: Vec<_> = called.try_iter().collect();
    let x = || "x".to_owned();
    assert_eq!(called, [("before", x(), 0), ("after", x(), 1), ("before", x(), 1)]);
}

#[test]
fn the_record_has_each_operation_and_its_answer() {
    let (_, address) = Upstream::start();
    let proxy = FaultProxy::start(address, "bucket");
    ask(proxy.address(), "PUT", "/bucket/x", BODY);
    ask(proxy.address(), "GET", "/bucket/x", b"");
    let seen = |operation, sent, answered| Seen { operation, sent, answered, status: Some(200) };
    assert_eq!(proxy.seen(), [seen(Operation { verb: Verb::Put, ..get("x") }, 16, 0), seen(get("x"), 0, 16)]);
}

#[test]
fn a_delay_does_not_limit_the_rate() {
    let (upstream, address) = Upstream::start();
    let each_way = Duration::from_millis(40);
    let proxy = DelayProxy::start("127.0.0.1:0".parse().unwrap(), address, each_way);
    let big = vec![7; 8 << 20];
    let started = Instant::now();
    assert_eq!(ask(proxy.address(), "PUT", "/bucket/x", &big).status, Some(200));
    let took = started.elapsed();
    assert_eq!(upstream.objects.lock().unwrap()["/bucket/x"], big);
    assert!(took >= 2 * each_way, "{took:?}");
    assert!(took < Duration::from_secs(2), "8 MiB took {took:?}: the delay limits the rate");
}
