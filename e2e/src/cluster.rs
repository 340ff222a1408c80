//! A coordinator and agents as separate processes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{process::Process, programs, run::DEADLINE, spec::Spec};

/// A coordinator over a store, and the means to call it.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    store: String,
    environment: Vec<(&'static str, String)>,
    address: String,
    coordinator: Option<Process>,
}

impl Cluster {
    /// Starts a coordinator over the folder `runs`, on a free port of loopback.
    pub fn start(folder: &Path) -> Self {
        Self::start_over(folder, folder.join("runs").to_str().unwrap(), Vec::new())
    }

    /// Starts a coordinator over a store that it reaches by these environment variables.
    pub fn start_over(folder: &Path, store: &str, environment: Vec<(&'static str, String)>) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Self {
            folder: folder.to_owned(),
            store: store.to_owned(),
            environment,
            address: format!("127.0.0.1:{port}"),
            coordinator: None,
        };
        cluster.start_coordinator();
        cluster
    }

    /// Starts the coordinator, for the first time or again after a kill, and waits until it answers.
    pub fn start_coordinator(&mut self) {
        let mut command = self.whimbrel();
        command.args(["coordinator", "--listen", &self.address, "--store", &self.store]);
        self.coordinator = Some(Process::start(command));
        let deadline = Instant::now() + DEADLINE;
        while !self.call(&["runs", "--json"]).status.success() {
            assert!(
                Instant::now() < deadline,
                "the coordinator does not answer:\n{}",
                self.coordinator().errors()
            );
        }
    }

    /// Starts an agent that offers `slots` slots.
    pub fn agent(&self, name: &str, slots: u32) -> Process {
        let mut command = self.whimbrel();
        command.args(["agent", "--join", &self.address, "--name", name, "--provider", "test", "--slots"]);
        command.arg(slots.to_string());
        Process::start(command)
    }

    /// The coordinator's process.
    pub fn coordinator(&self) -> &Process {
        self.coordinator.as_ref().unwrap()
    }

    /// The coordinator's process, mutable.
    pub fn coordinator_mut(&mut self) -> &mut Process {
        self.coordinator.as_mut().unwrap()
    }

    /// Runs a `whimbrel` command against the coordinator.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.whimbrel().args(arguments).args(["--coordinator", &self.address]).output().unwrap()
    }

    /// Runs a `whimbrel` command that needs no coordinator, in the cluster's folder.
    pub fn folder_command(&self, arguments: &[&str]) -> Output {
        self.whimbrel().args(arguments).output().unwrap()
    }

    /// A `whimbrel` command in the cluster's folder, with the store's environment variables.
    fn whimbrel(&self) -> Command {
        let mut command = Command::new(programs::whimbrel());
        command.current_dir(&self.folder).envs(self.environment.iter().cloned());
        command
    }

    /// Submits a spec and returns the run's id.
    pub fn submit(&self, spec: &Spec) -> String {
        let path = spec.write(&self.folder);
        let output = self.call(&["submit", path.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(output.stdout.trim_ascii_end()).unwrap();
        answer["run"].as_str().unwrap().to_owned()
    }

    /// The status of a run.
    pub fn status(&self, run: &str) -> Value {
        let output = self.call(&["status", run, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks for the status of a run until `wanted` returns true for it.
    pub fn until(&self, run: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status(run);
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what} did not happen: {status:#}");
        }
    }

    /// Asks for the status of a run until it is in a phase.
    pub fn until_phase(&self, run: &str, phase: &str) -> Value {
        self.until(run, phase, |status| status["phase"] == phase)
    }

    /// Stops the coordinator with SIGTERM, and waits for its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let coordinator = self.coordinator_mut();
        coordinator.signal(rustix::process::Signal::TERM);
        coordinator.wait(DEADLINE + Duration::from_secs(60)).code()
    }
}
