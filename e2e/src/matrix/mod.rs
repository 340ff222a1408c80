//! The crash matrix: every fault, and a SIGKILL, at every store operation of a scenario. `tests/integration/crash_matrix.rs` runs
//! it.
//!
//! No list of operations exists. The matrix runs the scenario once through a proxy that records the operations, and
//! then once more for each operation and each fault that makes a difference to it: a *case*. After each case, whatever
//! its outcome, another coordinator takes the run over and checks the promises: no damaged byte is loaded, every
//! acknowledged step is there, and the run continues.

mod case;
mod harness;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use whimbrel_testbed::{
    Server,
    proxy::{Fault, Seen},
};

pub use self::case::{Case, Injection, StoreCommand};
use self::{case::Subject, harness::Harness};
use crate::scenario::Scenario;

/// The number of cases that run at the same time. Many of them wait for a deadline.
const CONCURRENT_CASES: usize = 8;
/// The number of cases that use one server, because some servers get slower the more objects they hold.
const CASES_PER_SERVER: usize = 100;

/// The cases of some scenarios.
#[derive(Debug)]
pub struct Matrix {
    /// Part of the names of its stores, so that several matrices can use one server.
    name: &'static str,
    subject: Subject,
    cases: Vec<Case>,
    operations: usize,
}

impl Matrix {
    /// The faults that make a difference, at each operation of these scenarios. `runner` is the program
    /// `scenario-runner`.
    pub fn of_faults(server: &dyn Server, runner: &Path, scenarios: &[Scenario]) -> Self {
        let subject = Subject { runner: runner.to_owned(), command: None };
        Self::discover("fault", subject, server, scenarios, |seen| {
            Fault::ALL.into_iter().filter(|fault| fault.concerns(seen)).map(Injection::Fault).collect()
        })
    }

    /// A SIGKILL before and after each operation of these scenarios.
    pub fn of_kills(server: &dyn Server, runner: &Path, scenarios: &[Scenario]) -> Self {
        let subject = Subject { runner: runner.to_owned(), command: None };
        let kills = |_: &Seen| vec![Injection::KillBefore, Injection::KillAfter];
        Self::discover("kill", subject, server, scenarios, kills)
    }

    /// A SIGKILL of `command` before and after each of its operations. The command does what `scenario` does.
    pub fn of_command_kills(
        server: &dyn Server,
        runner: &Path,
        command: StoreCommand,
        scenario: Scenario,
    ) -> Self {
        let subject = Subject { runner: runner.to_owned(), command: Some(command) };
        let kills = |_: &Seen| vec![Injection::KillBefore, Injection::KillAfter];
        Self::discover("command", subject, server, &[scenario], kills)
    }

    /// Runs each scenario once, without injections, and makes the cases of each operation seen.
    fn discover(
        name: &'static str,
        subject: Subject,
        server: &dyn Server,
        scenarios: &[Scenario],
        injections: impl Fn(&Seen) -> Vec<Injection>,
    ) -> Self {
        let mut harness = Harness::new(server, &subject);
        let (mut cases, mut operations) = (Vec::new(), 0);
        for (number, &scenario) in scenarios.iter().enumerate() {
            let seen = harness.record(&format!("{name}-recorded-{number}"), scenario);
            operations += seen.len();
            for seen in seen {
                let case = |injection| Case { scenario, operation: seen.operation.clone(), injection };
                cases.extend(injections(&seen).into_iter().map(case));
            }
        }
        Self { name, subject, cases, operations }
    }

    /// Keeps a random sample of `cases` cases, drawn by a seed: as many of each operation as of any other.
    pub fn sample(mut self, cases: usize, seed: u64) -> Self {
        fastrand::Rng::with_seed(seed).shuffle(&mut self.cases);
        let mut drawn: HashMap<String, usize> = HashMap::new();
        let mut rounds: Vec<(usize, Case)> = Vec::new();
        for case in self.cases {
            let round = drawn.entry(format!("{:?} {}", case.scenario, case.operation)).or_default();
            rounds.push((*round, case));
            *round += 1;
        }
        rounds.sort_by_key(|(round, _)| *round);
        self.cases = rounds.into_iter().map(|(_, case)| case).take(cases).collect();
        self
    }

    /// The cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Runs all cases: the first hundred on `server`, the others on servers from `another`. Prints how many cases ran
    /// and which failed.
    ///
    /// # Panics
    /// If a case failed, or another server cannot be started.
    pub fn run<S: Server>(&self, server: &S, another: impl Fn() -> S) {
        let started = Instant::now();
        let (mut tried, mut failed) = (0, 0);
        for cases in self.cases.chunks(CASES_PER_SERVER) {
            let more = (tried > 0).then(&another);
            tried += cases.len();
            for failure in self.run_on(more.as_ref().unwrap_or(server), cases) {
                failed += 1;
                eprintln!("failed: {failure}");
            }
            eprintln!(
                "crash matrix on {}: {tried} of {} cases over {} operations in {:?}, {failed} failed",
                server.name(),
                self.cases.len(),
                self.operations,
                Duration::from_secs(started.elapsed().as_secs()),
            );
        }
        assert_eq!(failed, 0, "failed cases out of {tried}; they are named above");
    }

    /// Runs some of the cases, and returns a message for each that failed.
    fn run_on(&self, server: &dyn Server, cases: &[Case]) -> Vec<String> {
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        let harnesses: Vec<Harness> =
            (0..CONCURRENT_CASES).map(|_| Harness::new(server, &self.subject)).collect();
        thread::scope(|scope| {
            for mut harness in harnesses {
                let (next, failures) = (&next, &failures);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = cases.get(number) else { break };
                        if let Err(why) = harness.run_case(&format!("{}-{number}", self.name), case) {
                            failures.lock().unwrap().push(format!("{case}: {why}"));
                        }
                    }
                });
            }
        });
        failures.into_inner().unwrap()
    }
}
