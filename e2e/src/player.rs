//! The program `store-story` as a child process: acts are given to it one after another, and it can be killed in each.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

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
        Self::start_by(command)
    }

    /// Starts it by a command of the caller's.
    pub fn start_by(command: Command) -> Self {
        Self { process: Process::start_with_input(command), patience: PATIENCE }
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
        self.process.say(&format!("{store} {act}"));
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
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            break match word {
                "acknowledged" => {
                    acknowledged = Some(rest.parse().unwrap());
                    continue;
                }
                "done" => Ending::Done,
                "failed" => Ending::Failed(rest.to_owned()),
                "broken" => Ending::Broken(rest.to_owned()),
                _ => panic!("not a line of a story: {line}"),
            };
        };
        Played { acknowledged, ending }
    }
}
