//! A `whimbrel run` as a child process, its events read as they come.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    process::{self, Process},
    programs,
    spec::Spec,
};

/// Nothing that a test waits for takes this long, on a machine however busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A `whimbrel run --json` as a child process.
#[derive(Debug)]
pub struct Run {
    process: Process,
    /// Every event until now.
    pub events: Vec<Value>,
}

/// How a run came out.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Every event.
    pub events: Vec<Value>,
    /// What it wrote to standard error.
    pub errors: String,
}

/// `whimbrel run` of a spec in a folder of its own, with the folder `runs` in it as the store.
pub fn command(spec: &Spec, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs::whimbrel());
    command.arg("run").arg(spec.write(folder)).args(["--json", "--store"]).arg(folder.join("runs"));
    command.args(arguments).current_dir(folder);
    command
}

impl Run {
    /// Starts it.
    pub fn start(spec: &Spec, folder: &Path, arguments: &[&str]) -> Self {
        Self::start_by(command(spec, folder, arguments))
    }

    /// Starts it by a command of the test's own, which has `--json` among its arguments.
    pub fn start_by(command: Command) -> Self {
        Self { process: Process::start(command), events: Vec::new() }
    }

    /// The process id of `whimbrel` itself.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next event; `None` at the end.
    pub fn event(&mut self) -> Option<Value> {
        let line = self.process.line(Instant::now() + PATIENCE)?;
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not an event: {line}"));
        self.events.push(event.clone());
        Some(event)
    }

    /// Reads on until an event is as wanted.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.event() {
                Some(event) if wanted(&event) => return event,
                Some(_) => {}
                None => panic!(
                    "the run ended before {what}:\n{:#?}\n{}",
                    self.events.last(),
                    self.process.errors()
                ),
            }
        }
    }

    /// Reads on until a step is applied.
    pub fn until_step(&mut self, step: u64) -> Value {
        self.until(&format!("step {step}"), |event| {
            event["event"] == "step" && event["step"].as_u64() >= Some(step)
        })
    }

    /// Reads on until a checkpoint of at least this step is committed.
    pub fn until_checkpoint(&mut self, step: u64) -> Value {
        let what = format!("the checkpoint of step {step}");
        self.until(&what, |event| event["event"] == "checkpoint" && event["step"].as_u64() >= Some(step))
    }

    /// The process id of the worker that started last in a place.
    pub fn worker(&self, rank: u64) -> u32 {
        let started = |event: &&Value| event["event"] == "worker" && event["rank"] == rank;
        let event =
            self.events.iter().rev().find(started).unwrap_or_else(|| panic!("no worker of rank {rank} yet"));
        u32::try_from(event["pid"].as_u64().unwrap()).unwrap()
    }

    /// The process ids of all workers that ever started.
    pub fn workers(&self) -> Vec<u32> {
        let started = self.events.iter().filter(|event| event["event"] == "worker");
        started.map(|event| u32::try_from(event["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    /// Kills the worker in a place with SIGKILL.
    pub fn kill_worker(&self, rank: u64) {
        process::signal(self.worker(rank), Signal::KILL);
    }

    /// Sends a signal to `whimbrel` itself.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills `whimbrel` and every worker with SIGKILL, and waits for the end of each.
    pub fn kill_all(mut self) {
        self.signal(Signal::KILL);
        for worker in self.workers() {
            process::kill(worker, PATIENCE);
        }
        self.process.wait(PATIENCE);
    }

    /// Reads on to the end.
    pub fn finish(mut self) -> Outcome {
        while self.event().is_some() {}
        let code = self.process.wait(PATIENCE).code();
        let errors = self.process.errors();
        for worker in self.workers() {
            assert!(!process::lives(worker), "worker process {worker} outlived its run");
        }
        Outcome { code, events: self.events, errors }
    }
}

impl Outcome {
    /// The last event.
    pub fn last(&self) -> &Value {
        self.events
            .last()
            .unwrap_or_else(|| panic!("no event at all; exit code {:?}:\n{}", self.code, self.errors))
    }

    /// The BLAKE3 of the final state of a run that finished.
    pub fn state(&self) -> String {
        assert_eq!(self.last()["event"], "finished", "{:#?}\n{}", self.last(), self.errors);
        assert_eq!(self.code, Some(0), "{}", self.errors);
        let state = self.last()["state"].as_str().unwrap().to_owned();
        assert_eq!(state.len(), 64, "{state}");
        state
    }

    /// Checks that the run failed, as its last event and its exit code tell.
    pub fn assert_failed(&self) {
        assert_eq!((self.code, self.last()["event"].as_str()), (Some(1), Some("failed")), "{}", self.errors);
    }

    /// The steps that were applied, in the order in which they were heard of.
    pub fn steps(&self) -> Vec<u64> {
        let steps = self.events.iter().filter(|event| event["event"] == "step");
        steps.map(|event| event["step"].as_u64().unwrap()).collect()
    }

    /// How many events there were of a kind.
    pub fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| event["event"] == kind).count()
    }
}

/// Runs a spec to its end, undisturbed.
pub fn undisturbed(spec: &Spec, arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    Run::start(spec, folder.path(), arguments).finish()
}
