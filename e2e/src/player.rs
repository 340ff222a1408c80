//! The program `store-story` as a child process: acts are given to it one after another, and it can be killed in each.

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
    story::{Act, Ending},
};

/// No act takes this long, whatever goes wrong in it: nothing waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `store-story`.
#[derive(Debug)]
pub struct Player {
    process: Process,
    patience: Duration,
    /// Kept for as long as the program may read it.
    _roots: Option<NamedTempFile>,
}

/// A file with one of this machine's root certificates. A client reads all of them whenever it is made, which is most of
/// what a case of a matrix costs, and those servers are spoken to in clear text.
fn one_root() -> Option<NamedTempFile> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let file = env::var("SSL_CERT_FILE").unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let roots = fs::read_to_string(file).ok()?;
    let first = &roots[roots.find("-----BEGIN")?..];
    let mut kept = NamedTempFile::new().ok()?;
    kept.write_all(&first.as_bytes()[..first.find(END)? + END.len()]).ok()?;
    Some(kept)
}

/// What it says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Acknowledged(u64),
    Ending(Ending),
}

/// What became of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The newest step whose commit was acknowledged to the program; `None` where none was.
    pub acknowledged: Option<u64>,
    /// What came of it.
    pub ending: Ending,
}

impl Player {
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

    /// Starts it by a command of the caller's.
    pub fn start_by(command: Command) -> Self {
        Self { process: Process::start_with_input(command), patience: PATIENCE, _roots: None }
    }

    /// Gives each act so long.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Has an act played on a store, and waits for what comes of it.
    pub fn play(&mut self, act: Act, store: &str) -> Played {
        self.begin(act, store);
        self.end()
    }

    /// Has an act played on a store.
    pub fn begin(&mut self, act: Act, store: &str) {
        self.process.say(&json!([store, act]).to_string());
    }

    /// Waits for what comes of the act that was begun.
    pub fn end(&mut self) -> Played {
        let deadline = Instant::now() + self.patience;
        let mut acknowledged = None;
        let ending = loop {
            let line = match self.process.line_or_late(deadline) {
                Ok(Some(line)) => line,
                Ok(None) => break Ending::Died,
                Err(Late) => break Ending::Hung,
            };
            match serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a line of a story: {line}")) {
                Line::Acknowledged(step) => acknowledged = Some(step),
                Line::Ending(ending) => break ending,
            }
        };
        Played { acknowledged, ending }
    }
}
