//! Trainers that compute one step at a time, when a benchmark allows it: so two processes can alternate step by step, and
//! a change in the machine's speed affects both alike.
//!
//! The trainer connects to a Unix socket. Before each step it reports how long the previous step took, then waits until the
//! benchmark allows the step. A step lasts from that moment to the next report, so it includes everything that the loop
//! around the trainer does between two steps.

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};
use whimbrel_worker::{Shard, TensorMut, TensorSpec, Trainer, TrainerError};

use crate::run::DEADLINE;

/// The time of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTime {
    /// By the clock.
    pub wall: Duration,
    /// Of the processor, in all threads of the process.
    pub processor: Duration,
}

/// A trainer whose steps wait for the benchmark.
#[derive(Debug)]
pub struct Paced<T> {
    trainer: T,
    socket: UnixStream,
    /// The step being computed.
    step: Option<u64>,
    started: StepTime,
    origin: Instant,
}

impl<T> Paced<T> {
    /// Connects a trainer to the benchmark's socket.
    pub fn connect(trainer: T, socket: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        Ok(Self { trainer, socket, step: None, started: StepTime::default(), origin: Instant::now() })
    }

    fn now(&self) -> StepTime {
        let processor = clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default();
        StepTime { wall: self.origin.elapsed(), processor }
    }

    /// Reports the step that has ended, if there is one, and waits until the next is allowed.
    fn wait(&mut self) -> io::Result<()> {
        let now = self.now();
        let nanoseconds = |end: Duration, start: Duration| end.saturating_sub(start).as_nanos() as u64;
        let wall = nanoseconds(now.wall, self.started.wall).to_le_bytes();
        let processor = nanoseconds(now.processor, self.started.processor).to_le_bytes();
        self.socket.write_all(&[wall, processor].concat())?;
        self.socket.read_exact(&mut [0])?;
        self.started = self.now();
        Ok(())
    }
}

impl<T: Trainer> Trainer for Paced<T> {
    fn samples(&self) -> u64 {
        self.trainer.samples()
    }

    fn gradients(&self) -> Vec<TensorSpec> {
        self.trainer.gradients()
    }

    fn state(&mut self) -> Vec<TensorMut<'_>> {
        self.trainer.state()
    }

    fn shard(&mut self, shard: &Shard<'_>, gradient: &mut [f32]) -> Result<f64, TrainerError> {
        if self.step != Some(shard.step) {
            self.wait()?;
            self.step = Some(shard.step);
        }
        self.trainer.shard(shard, gradient)
    }

    fn apply(&mut self, step: u64, gradient: &[f32]) -> Result<(), TrainerError> {
        self.trainer.apply(step, gradient)
    }

    fn evaluate(&mut self, part: u32, parts: u32) -> Result<Option<f64>, TrainerError> {
        self.trainer.evaluate(part, parts)
    }
}

/// The benchmark's end of a paced trainer's socket.
#[derive(Debug)]
pub struct Pace(UnixStream);

impl Pace {
    /// Waits until a trainer connects and is ready for its first step.
    pub fn accept(listener: &UnixListener) -> io::Result<Self> {
        let deadline = Timespec::try_from(DEADLINE).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&deadline))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no trainer has connected"));
        }
        let (socket, _) = listener.accept()?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let mut pace = Self(socket);
        pace.report()?;
        Ok(pace)
    }

    /// Lets the trainer compute one step, and returns its time.
    pub fn step(&mut self) -> io::Result<StepTime> {
        self.allow()?;
        self.report()
    }

    /// Lets the trainer compute a step without waiting for its end, which the last step of a run never reports.
    pub fn allow(&mut self) -> io::Result<()> {
        self.0.write_all(&[1])
    }

    fn report(&mut self) -> io::Result<StepTime> {
        let (mut wall, mut processor) = ([0; 8], [0; 8]);
        self.0.read_exact(&mut wall)?;
        self.0.read_exact(&mut processor)?;
        let duration = |bytes| Duration::from_nanos(u64::from_le_bytes(bytes));
        Ok(StepTime { wall: duration(wall), processor: duration(processor) })
    }
}
