//! A `whimbrel run` as a child process, and its events.

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

/// Nothing that a test waits for takes this long, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A `whimbrel run --json` as a child process.
#[derive(Debug)]
pub struct Run {
    process: Process,
    /// The events until now.
    pub events: Vec<Value>,
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All events.
    pub events: Vec<Value>,
    /// Its standard error.
    pub errors: String,
}

/// The command `whimbrel run` of a spec in a folder, with the folder `runs` in it as the store.
pub fn command(spec: &Spec, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs::whimbrel());
    command.arg("run").arg(spec.write(folder)).args(["--json", "--store"]).arg(folder.join("runs"));
    command.args(arguments).current_dir(folder);
    command
}

impl Run {
    /// Starts a run of a spec, see [`command`].
    pub fn start(spec: &Spec, folder: &Path, arguments: &[&str]) -> Self {
        Self::start_by(command(spec, folder, arguments))
    }

    /// Starts a run by the test's own command, which must have the argument `--json`.
    pub fn start_by(command: Command) -> Self {
        Self { process: Process::start(command), events: Vec::new() }
    }

    /// The process id of `whimbrel` itself.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next event; `None` at the end.
    pub fn event(&mut self) -> Option<Value> {
        let line = self.process.line(Instant::now() + DEADLINE)?;
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not an event: {line}"));
        self.events.push(event.clone());
        Some(event)
    }

    /// Reads events until `wanted` returns true for one.
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

    /// Reads events until a step, or a later one, is applied.
    pub fn until_step(&mut self, step: u64) -> Value {
        self.until(&format!("step {step}"), |event| {
            event["event"] == "step" && event["step"].as_u64() >= Some(step)
        })
    }

    /// Reads events until the checkpoint of a step, or a later one, is committed.
    pub fn until_checkpoint(&mut self, step: u64) -> Value {
        let what = format!("the checkpoint of step {step}");
        self.until(&what, |event| event["event"] == "checkpoint" && event["step"].as_u64() >= Some(step))
    }

    /// The process id of the worker that started last with this rank.
    pub fn worker(&self, rank: u64) -> u32 {
        let started = |event: &&Value| event["event"] == "worker" && event["rank"] == rank;
        let event =
            self.events.iter().rev().find(started).unwrap_or_else(|| panic!("no worker of rank {rank} yet"));
        u32::try_from(event["pid"].as_u64().unwrap()).unwrap()
    }

    /// The process ids of all workers that have started.
    pub fn workers(&self) -> Vec<u32> {
        let started = self.events.iter().filter(|event| event["event"] == "worker");
        started.map(|event| u32::try_from(event["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    /// Kills the worker with this rank by SIGKILL.
    pub fn kill_worker(&self, rank: u64) {
        process::signal(self.worker(rank), Signal::KILL);
    }

    /// Sends a signal to `whimbrel` itself.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills `whimbrel` and every worker by SIGKILL, and waits for the end of each.
    pub fn kill_all(mut self) {
        self.signal(Signal::KILL);
        for worker in self.workers() {
            process::kill(worker, DEADLINE);
        }
        self.process.wait(DEADLINE);
    }

    /// Reads events to the end of the run.
    pub fn finish(mut self) -> Outcome {
        while self.event().is_some() {}
        let code = self.process.wait(DEADLINE).code();
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
        self.events.last().unwrap_or_else(|| panic!("no event; exit code {:?}:\n{}", self.code, self.errors))
    }

    /// The BLAKE3 of the final state of a run that finished.
    pub fn state(&self) -> String {
        assert_eq!(self.last()["event"], "finished", "{:#?}\n{}", self.last(), self.errors);
        assert_eq!(self.code, Some(0), "{}", self.errors);
        let state = self.last()["state"].as_str().unwrap().to_owned();
        assert_eq!(state.len(), 64, "{state}");
        state
    }

    /// Checks by the last event and the exit code that the run failed.
    pub fn assert_failed(&self) {
        assert_eq!((self.code, self.last()["event"].as_str()), (Some(1), Some("failed")), "{}", self.errors);
    }

    /// The steps that were applied, in the order of their events.
    pub fn steps(&self) -> Vec<u64> {
        let steps = self.events.iter().filter(|event| event["event"] == "step");
        steps.map(|event| event["step"].as_u64().unwrap()).collect()
    }

    /// The number of events of a kind.
    pub fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| event["event"] == kind).count()
    }
}

/// Runs a spec to its end, without disturbing it.
pub fn undisturbed(spec: &Spec, arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    Run::start(spec, folder.path(), arguments).finish()
}
