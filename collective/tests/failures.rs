//! Every failure reaches every member at once, and names the worker that it points to.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

mod group;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use group::{LIMITS, compute, generation, members, together};
use whimbrel_collective::{Accumulator, Endpoint, Error, Group, Limits, Reduction};
use whimbrel_plan::{Generation, WorkerId};

const ELEMENTS: usize = 200_000;

fn all_reduce(group: &mut Group, generation: &Generation, step: u64) -> Result<Vec<f32>, Error> {
    let mut accumulator = Accumulator::new(Reduction::Exact, ELEMENTS, generation.shards);
    compute(&mut accumulator, generation, group.rank(), step);
    let mut sum = vec![0.0; ELEMENTS];
    group.all_reduce(step, &accumulator, b"", &mut sum).map(|_| sum)
}

#[test]
fn a_hung_worker_times_out_by_name() {
    let (mut endpoints, generation) = members(&[2, 2, 2]);
    let limits = Limits { step: Duration::from_millis(300), ..LIMITS };
    let others_are_done = Barrier::new(3);
    let errors = together(&mut endpoints, &generation, limits, |mut group| {
        let error = (group.rank() != 2).then(|| all_reduce(&mut group, &generation, 0).unwrap_err());
        others_are_done.wait();
        error
    });
    let errors: Vec<Error> = errors.into_iter().flatten().collect();
    assert_eq!(errors.len(), 2);
    for error in &errors {
        assert_eq!(error.suspect(), Some(WorkerId(102)), "{error}");
    }
    // The second may have been told by the first.
    let timed_out = errors.iter().find_map(|error| match error {
        Error::TimedOut { waited, missing, .. } => Some((waited, missing)),
        _ => None,
    });
    let (waited, missing) = timed_out.unwrap();
    assert!(*waited >= limits.step && missing.len() == 1, "{waited:?}, {missing:?}");
}

#[test]
fn a_worker_that_leaves_is_not_suspected_but_the_one_it_blames_is() {
    let (mut endpoints, generation) = members(&[1, 1]);
    let errors = together(&mut endpoints, &generation, LIMITS, |mut group| {
        (group.rank() == 0).then(|| all_reduce(&mut group, &generation, 0).unwrap_err())
    });
    let error = errors[0].as_ref().unwrap();
    assert!(matches!(error, Error::Abandoned { peer, blamed: None, .. } if peer.rank == 1), "{error}");
    assert_eq!(error.suspect(), None);
}

#[test]
fn blame_is_passed_on_to_a_member_that_cannot_see_the_failure() {
    // Rank 1 waits for rank 0 alone, which gives up because of rank 2.
    let (mut endpoints, generation) = members(&[1, 1, 1]);
    let done = Barrier::new(3);
    let errors = thread::scope(|scope| {
        let (generation, done) = (&generation, &done);
        let run = |(rank, endpoint): (usize, &mut Endpoint)| -> Option<Error> {
            let step = Duration::from_millis(if rank == 0 { 200 } else { 20_000 });
            let mut group = endpoint.join(generation, rank, Limits { step, ..LIMITS }).unwrap();
            let mut state = [0; 8];
            let error = match rank {
                0 => group.receive_state(2, &mut [&mut state]).err(),
                1 => group.receive_state(0, &mut [&mut state]).err(),
                _ => None,
            };
            done.wait();
            error
        };
        let threads: Vec<_> =
            endpoints.iter_mut().enumerate().map(|member| scope.spawn(move || run(member))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let passed_on = errors[1].as_ref().unwrap();
    assert!(matches!(passed_on, Error::Abandoned { peer, .. } if peer.rank == 0), "{passed_on}");
    assert_eq!(passed_on.suspect(), Some(WorkerId(102)), "{passed_on}");
    assert_eq!(errors[0].as_ref().unwrap().suspect(), Some(WorkerId(102)));
}

#[test]
fn ranks_that_differ_in_step_or_size_find_out() {
    for (step, elements) in [(4, 100), (3, 101)] {
        let (mut endpoints, generation) = members(&[1, 1]);
        let errors = together(&mut endpoints, &generation, LIMITS, |mut group| {
            let (step, elements) = if group.rank() == 0 { (3, 100) } else { (step, elements) };
            let mut accumulator = Accumulator::new(Reduction::Exact, elements, 2);
            compute(&mut accumulator, &generation, group.rank(), step);
            group.all_reduce(step, &accumulator, b"", &mut vec![0.0; elements]).unwrap_err()
        });
        let frames = errors.iter().filter(|error| matches!(error, Error::Frame { .. })).count();
        assert!(frames >= 1, "{errors:?}");
    }
}

#[test]
fn an_interrupt_ends_the_operation_in_progress_and_later_ones() {
    let (mut endpoints, mut generation) = members(&[1, 1]);
    let interrupter = endpoints[0].interrupter();
    let (starting, started) = mpsc::channel();
    let interrupted = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(move || {
            started.recv().unwrap();
            interrupter.interrupt(4);
            interrupter.interrupt(5);
        });
        together(&mut endpoints, &generation, LIMITS, |mut group| {
            if group.rank() == 0 {
                let began = Instant::now();
                starting.send(()).unwrap();
                for _ in 0..2 {
                    let error = all_reduce(&mut group, &generation, 0).unwrap_err();
                    assert!(matches!(error, Error::Interrupted { generation: 5 }), "{error}");
                }
                assert!(began.elapsed() < Duration::from_secs(5));
            }
            interrupted.wait();
        });
    });
    let again = endpoints[0].join(&generation, 0, LIMITS);
    assert!(matches!(again, Err(Error::Interrupted { generation: 5 })));
    generation.number = 6;
    let notes = together(&mut endpoints, &generation, LIMITS, |mut group| group.exchange(0, b"on").unwrap());
    assert_eq!(notes, vec![vec![b"on".to_vec(); 2]; 2]);
}

#[test]
fn an_interrupt_ends_a_join() {
    let (mut endpoints, generation) = members(&[1, 1]);
    let interrupter = endpoints[0].interrupter();
    thread::scope(|scope| {
        scope.spawn(|| interrupter.interrupt(5));
        let joined = endpoints[0].join(&generation, 0, LIMITS);
        assert!(matches!(joined, Err(Error::Interrupted { generation: 5 })), "{joined:?}");
    });
}

#[test]
fn misuse_is_refused_before_anything_is_sent() {
    let (mut endpoints, generation) = members(&[2, 1]);
    together(&mut endpoints, &generation, LIMITS, |mut group| {
        let rank = group.rank();
        let mut accumulator = Accumulator::new(Reduction::Exact, 10, 3);
        let mut refuse = |accumulator: &Accumulator, elements: usize, what: &str| {
            let error = group.all_reduce(0, accumulator, b"", &mut vec![0.0; elements]).unwrap_err();
            assert!(matches!(&error, Error::Misuse(why) if why.contains(what)), "{error}");
        };
        accumulator.begin(generation.assignment(rank, 0));
        refuse(&accumulator, 10, "0 gradients pushed");
        compute(&mut accumulator, &generation, rank, 0);
        refuse(&accumulator, 11, "10 elements");
        accumulator.push();
        refuse(&accumulator, 10, "gradients pushed");
        accumulator.begin(0..3);
        refuse(&accumulator, 10, "sums of shards 0..3");
        refuse(&Accumulator::new(Reduction::Exact, 10, 4), 10, "4 shards");
        let error = group.send_state(&[rank], &[]).unwrap_err();
        assert!(matches!(error, Error::Misuse(_)));
        // The group can still be used.
        compute(&mut accumulator, &generation, rank, 0);
        group.all_reduce(0, &accumulator, b"", &mut [0.0; 10]).unwrap();
    });
}

/// A worker in a separate process, which can be killed.
struct Victim {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Victim {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_victim", "--nocapture"])
            .env("WHIMBREL_TEST_VICTIM", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, lines }
    }

    fn read_line(&mut self) -> String {
        self.lines.next().expect("the victim died early").unwrap()
    }

    fn write_line(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Not a test: what the victim's process runs. It takes part in step 0 and then hangs until it is killed.
#[test]
fn the_victim() {
    if std::env::var_os("WHIMBREL_TEST_VICTIM").is_none() {
        return;
    }
    let mut endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into()).unwrap();
    eprintln!("{}", endpoint.local_address());
    let mut lines = std::io::stdin().lines();
    let line = lines.next().unwrap().unwrap();
    let addresses: Vec<_> = line.split(' ').map(|address| address.parse().unwrap()).collect();
    let generation = generation(&[1, 1, 1], &addresses);
    let hangs = lines.next().unwrap().unwrap() == "hang";
    let mut group = endpoint.join(&generation, 2, LIMITS).unwrap();
    all_reduce(&mut group, &generation, 0).unwrap();
    eprintln!("ready");
    if hangs {
        // Nothing is sent, so it blocks with its sockets open until the kill, or until the test's end closes its input.
        lines.next();
    } else {
        // Until the kill, at any point, or until the others are gone.
        (1..).try_for_each(|step| all_reduce(&mut group, &generation, step).map(drop)).unwrap_err();
    }
}

/// Two workers of this process and the victim make steps until the victim is killed. Returns each survivor's error, and
/// how long after the kill it came.
fn kill_the_victim(manner: &str) -> Vec<(Error, Duration)> {
    let mut victim = Victim::start();
    let address = victim.read_line().parse().unwrap();
    let (mut endpoints, own) = members(&[1, 1]);
    let addresses = [own.members[0].address, own.members[1].address, address];
    let generation = generation(&[1, 1, 1], &addresses);
    victim.write_line(&addresses.map(|address| address.to_string()).join(" "));
    victim.write_line(manner);
    let (stepping, stepped) = mpsc::channel();
    thread::scope(|scope| {
        let killer = scope.spawn(move || {
            assert_eq!(victim.read_line(), "ready");
            for _ in 0..2 {
                stepped.recv_timeout(Duration::from_secs(20)).unwrap();
            }
            let killed = Instant::now();
            drop(victim);
            killed
        });
        let errors = together(&mut endpoints, &generation, LIMITS, |mut group| {
            all_reduce(&mut group, &generation, 0).unwrap();
            stepping.send(()).unwrap();
            let failed = (1..).try_for_each(|step| all_reduce(&mut group, &generation, step).map(drop));
            (failed.unwrap_err(), Instant::now())
        });
        let killed = killer.join().unwrap();
        errors.into_iter().map(|(error, at)| (error, at.saturating_duration_since(killed))).collect()
    })
}

#[test]
fn a_killed_process_is_named_within_a_second() {
    for (error, took) in kill_the_victim("hang") {
        assert_eq!(error.suspect(), Some(WorkerId(102)), "{error}");
        assert!(took < Duration::from_secs(1), "noticed after {took:?}: {error}");
    }
}

#[test]
fn a_process_killed_while_bytes_are_moving_ends_the_step_for_all() {
    let errors = kill_the_victim("step");
    for (error, took) in &errors {
        assert!(*took < Duration::from_secs(1), "noticed after {took:?}: {error}");
    }
    // A member in the middle of a frame cannot name the victim, so the other one may report it as lost.
    assert!(errors.iter().any(|(error, _)| error.suspect() == Some(WorkerId(102))), "{errors:?}");
}
