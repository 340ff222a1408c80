//! Which connections become part of a group, and which are refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod group;

use std::{
    fmt,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use group::{LIMITS, members, together};
use tracing::{Event, Level, Metadata, Subscriber, field::Field, span};
use whimbrel_collective::{Endpoint, Error, Limits};
use whimbrel_plan::{Generation, WorkerId};

const BRIEF: Limits = Limits { connect: Duration::from_millis(400), ..LIMITS };

fn loopback() -> Endpoint {
    Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap()
}

/// Why connections were refused, as the log says: one entry per warning of the thread that joins.
#[derive(Clone, Default)]
struct Refusals(Arc<Mutex<Vec<String>>>);

impl Refusals {
    fn count(&self, reason: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|why| why.contains(reason)).count()
    }
}

impl Subscriber for Refusals {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            if field.name() == "why" {
                self.0.lock().unwrap().push(format!("{value:?}"));
            }
        });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Joins as rank 0, while `stranger` connects, too; then the true rank 1 joins. Returns why rank 0 refused connections.
fn join_in_spite_of(stranger: impl FnOnce(&Generation) + Send) -> Refusals {
    let (mut endpoints, generation) = members(&[1, 1]);
    let (first, second) = endpoints.split_at_mut(1);
    let (first, second) = (&mut first[0], &mut second[0]);
    let refusals = Refusals::default();
    thread::scope(|scope| {
        let joining = scope.spawn(|| {
            tracing::subscriber::with_default(refusals.clone(), || first.join(&generation, 0, LIMITS))
        });
        stranger(&generation);
        let mut group = second.join(&generation, 1, LIMITS).unwrap();
        let mut other = joining.join().unwrap().unwrap();
        let exchanging = scope.spawn(move || other.exchange(0, b"zero"));
        assert_eq!(group.exchange(0, b"one").unwrap(), [b"zero".to_vec(), b"one".to_vec()]);
        exchanging.join().unwrap().unwrap();
    });
    refusals
}

/// Tries to join as rank 1 and fails because rank 0 refuses it.
fn is_refused(generation: &Generation) {
    let error = loopback().join(generation, 1, BRIEF).unwrap_err();
    assert!(matches!(&error, Error::Unreachable { peer, .. } if peer.rank == 0), "{error}");
    assert_eq!(error.suspect(), Some(WorkerId(100)));
}

#[test]
fn a_wrong_key_is_refused() {
    let refusals =
        join_in_spite_of(|generation| is_refused(&Generation { key: [1; 32], ..generation.clone() }));
    // The dialler refuses the listener's proof first, so the listener sees a connection that is closed.
    assert!(refusals.count("") > 0);
}

#[test]
fn another_generation_run_or_epoch_is_refused() {
    let refusals = join_in_spite_of(|generation| {
        is_refused(&Generation { number: 4, ..generation.clone() });
        is_refused(&Generation { epoch: 1, ..generation.clone() });
        is_refused(&Generation { run: "other".parse().unwrap(), ..generation.clone() });
    });
    assert!(refusals.count("it is in generation 4 of epoch 2") > 0);
    assert!(refusals.count("it is in generation 5 of epoch 1") > 0);
    assert!(refusals.count("it belongs to another run") > 0);
}

#[test]
fn strangers_silent_or_loud_delay_no_member() {
    let began = Instant::now();
    let mut silent = Vec::new();
    let refusals = join_in_spite_of(|generation| {
        let address = generation.members[0].address;
        // More of them than may be in their handshake at a time, so that the first are dropped.
        silent.extend((0..100).map(|_| TcpStream::connect(address).unwrap()));
        let mut loud = TcpStream::connect(address).unwrap();
        loud.write_all(b"GET / HTTP/1.1\r\n".repeat(10).as_slice()).unwrap();
        loud.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Closed, with an answer of no byte.
        assert!(matches!(loud.read(&mut [0; 64]), Ok(0) | Err(_)));
    });
    let (crowded, foreign) = (refusals.count("too many other"), refusals.count("does not speak"));
    assert!(crowded > 30 && foreign > 0, "{crowded} and {foreign} refused");
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
}

#[test]
fn a_member_that_never_connects_is_named() {
    let (mut endpoints, mut generation) = members(&[1, 1, 1]);
    // Rank 1 would dial rank 0, whose port is closed now, and be dialled by rank 2.
    drop(endpoints.remove(0));
    let error = endpoints[0].join(&generation, 1, BRIEF).unwrap_err();
    assert_eq!(error.suspect(), Some(WorkerId(100)));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("refused"), "{source}");
    // Rank 0 can only wait to be dialled.
    generation.members[0].address = endpoints[0].local_address();
    let error = endpoints[0].join(&generation, 0, BRIEF).unwrap_err();
    assert_eq!(error.suspect(), Some(WorkerId(101)));
}

#[test]
fn an_endpoint_goes_from_generation_to_generation() {
    let (mut endpoints, mut generation) = members(&[2, 2, 2]);
    for number in 5..25 {
        generation.number = number;
        generation.key = [number as u8; 32];
        let notes = together(&mut endpoints, &generation, LIMITS, |mut group| {
            group.exchange(number, &[group.rank() as u8]).unwrap()
        });
        assert_eq!(notes, vec![vec![vec![0], vec![1], vec![2]]; 3]);
    }
}

#[test]
fn a_rank_that_does_not_exist_is_misuse() {
    let (mut endpoints, mut generation) = members(&[1, 1]);
    assert!(matches!(endpoints[0].join(&generation, 2, LIMITS), Err(Error::Misuse(_))));
    generation.shards = 7;
    assert!(matches!(endpoints[0].join(&generation, 0, LIMITS), Err(Error::Misuse(_))));
}
