//! The program `scenario-runner` as a child process: a test gives it scenarios one after another, and can kill it in
//! each.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::{
    process::{Late, Process},
    scenario::{Outcome, Scenario},
};

/// No scenario takes this long, whatever fault is injected: every wait in it has a deadline.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running `scenario-runner`.
#[derive(Debug)]
pub struct ScenarioRunner {
    process: Process,
    deadline: Duration,
    /// Deleted when this is dropped; the program may read it until then.
    _roots: Option<NamedTempFile>,
}

/// What the program reported about a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The newest step whose commit the store acknowledged; `None` if there was none.
    pub acknowledged: Option<u64>,
    /// How the scenario ended.
    pub outcome: Outcome,
}

/// A line of its standard output.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Acknowledged(u64),
    Outcome(Outcome),
}

impl ScenarioRunner {
    /// Starts `program`, which reaches its store by these environment variables.
    pub fn start(program: &Path, environment: &[(&'static str, String)]) -> Self {
        let mut command = Command::new(program);
        command.envs(environment.iter().cloned());
        let roots = one_root();
        if let Some(roots) = &roots {
            command.env("SSL_CERT_FILE", roots.path()).env_remove("SSL_CERT_DIR");
        }
        Self { _roots: roots, ..Self::start_by(command) }
    }

    /// Starts it by the caller's command.
    pub fn start_by(command: Command) -> Self {
        Self { process: Process::start_with_input(command), deadline: DEADLINE, _roots: None }
    }

    /// Gives each scenario this much time.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs a scenario on the store at a URI, and waits for its outcome.
    pub fn run(&mut self, scenario: Scenario, store: &str) -> Report {
        self.process.say(&json!([store, scenario]).to_string());
        let deadline = Instant::now() + self.deadline;
        let mut acknowledged = None;
        let outcome = loop {
            let line = match self.process.line_or_late(deadline) {
                Ok(Some(line)) => line,
                Ok(None) => break Outcome::Died,
                Err(Late) => break Outcome::Hung,
            };
            match serde_json::from_str(&line).unwrap_or_else(|_| panic!("unexpected output: {line}")) {
                Line::Acknowledged(step) => acknowledged = Some(step),
                Line::Outcome(outcome) => break outcome,
            }
        };
        Report { acknowledged, outcome }
    }
}

/// A file with one of this machine's root certificates. A client reads all certificates whenever it is made, which
/// takes most of the time of a case, and the servers of these tests are reached without TLS.
fn one_root() -> Option<NamedTempFile> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let file = env::var("SSL_CERT_FILE").unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let roots = fs::read_to_string(file).ok()?;
    let first = &roots[roots.find("-----BEGIN")?..];
    let mut kept = NamedTempFile::new().ok()?;
    kept.write_all(&first.as_bytes()[..first.find(END)? + END.len()]).ok()?;
    Some(kept)
}
