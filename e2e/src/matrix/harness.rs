//! Runs one case at a time: a proxy, the program under test behind it, and a scenario runner that reaches the server
//! directly, to prepare the store and to check it afterwards.

use std::{
    collections::HashSet,
    sync::mpsc::{Sender, channel},
};

use rustix::process::Signal;
use whimbrel_testbed::{
    BUCKET, Server,
    proxy::{Fault, FaultProxy, Operation, Part, Seen, Then, Verb},
};

use super::case::{Case, Injection, StoreCommand, Subject};
use crate::{
    process::{self, Process},
    run::DEADLINE,
    scenario::{Outcome, Scenario},
    scenario_runner::{Report, ScenarioRunner},
};

/// Stands for the name of the case's store in [`Harness::store`].
const PREFIX: &str = "PREFIX";

pub(super) struct Harness {
    subject: Subject,
    /// The environment variables with which the program under test reaches the proxy.
    environment: Vec<(&'static str, String)>,
    /// The URI of a case's store, with [`PREFIX`] in place of its name.
    store: String,
    proxy: FaultProxy,
    behind_proxy: ScenarioRunner,
    direct: ScenarioRunner,
}

impl Harness {
    pub(super) fn new(server: &dyn Server, subject: &Subject) -> Self {
        let proxy = FaultProxy::start(server.address(), BUCKET);
        let environment = server.environment_at(proxy.address());
        Self {
            store: server.store_uri(PREFIX),
            behind_proxy: ScenarioRunner::start(&subject.runner, &environment),
            direct: ScenarioRunner::start(&subject.runner, &server.environment()),
            subject: subject.clone(),
            environment,
            proxy,
        }
    }

    /// Runs a scenario without injections and returns its operations.
    pub(super) fn record(&mut self, name: &str, scenario: Scenario) -> Vec<Seen> {
        let store = self.prepare(name, scenario);
        let outcome = match self.subject.command {
            Some(command) => self.run_command(command, &store),
            None => self.behind_proxy.run(scenario, &store).outcome,
        };
        assert_eq!(outcome, Outcome::Completed, "{scenario:?} without injections");
        self.proxy.seen()
    }

    /// Creates the case's store, with a run in it, and returns its URI.
    fn prepare(&mut self, name: &str, scenario: Scenario) -> String {
        let store = self.store.replace(PREFIX, name);
        self.proxy.begin(&format!("{BUCKET}/{name}"));
        let prepared = self.direct.run(scenario.setup(), &store);
        assert_eq!(prepared.outcome, Outcome::Completed, "preparing a run at {store}");
        store
    }

    /// Runs a case. The error says which promise was not kept.
    pub(super) fn run_case(&mut self, name: &str, case: &Case) -> Result<(), String> {
        let store = self.prepare(name, case.scenario);
        let report = match case.injection {
            Injection::Fault(fault) => {
                self.proxy.fail_at(case.operation.clone(), fault);
                self.behind_proxy.run(case.scenario, &store)
            }
            Injection::KillBefore | Injection::KillAfter => self.run_and_kill(case, &store),
        };
        match &report.outcome {
            Outcome::Died if case.injection.kills() => {}
            _ if case.injection.kills() => return Err(format!("the program was not killed: {report:?}")),
            Outcome::Died | Outcome::Hung => {
                let errors = self.behind_proxy.process().errors();
                self.behind_proxy = ScenarioRunner::start(&self.subject.runner, &self.environment);
                return Err(format!("the program: {:?}: {errors}", report.outcome));
            }
            Outcome::PromiseBroken(what) => return Err(what.clone()),
            Outcome::Failed(why) if case.injection.must_be_survived() => {
                return Err(format!("the client did not recover: {why}"));
            }
            Outcome::Completed | Outcome::Failed(_) => {}
        }
        if self.proxy.happened() != 1 {
            return Err(format!("the operation did not occur: {:?}", self.proxy.seen()));
        }
        if let Some(command) = self.subject.command {
            self.run_command_again(command, &store)?;
        }
        let may_be_damaged = case.injection == Injection::Fault(Fault::FlippedRequest);
        let check = case.scenario.check(report.acknowledged, may_be_damaged);
        self.check(check, &store)
            .map_err(|what| format!("{what}; the scenario's outcome was {:?}", report.outcome))?;
        if case.injection == Injection::Fault(Fault::Late) {
            assert_eq!(self.proxy.deliver_late(), 1, "{case}");
            self.check(check, &store).map_err(|what| format!("{what}, after the late request arrived"))?;
        }
        Ok(())
    }

    /// Runs the scenario `check`, not through the proxy.
    fn check(&mut self, check: Scenario, store: &str) -> Result<(), String> {
        match self.direct.run(check, store).outcome {
            Outcome::Completed => Ok(()),
            other => Err(format!("then {check:?}: {other:?}")),
        }
    }

    fn run_and_kill(&self, case: &Case, store: &str) -> Report {
        let kill = self.kill_at(case);
        match self.subject.command {
            Some(command) => {
                let mut victim = self.start_command(command, store);
                kill.send(victim.id()).unwrap();
                Report { acknowledged: None, outcome: outcome_of(&mut victim) }
            }
            None => {
                let mut victim = ScenarioRunner::start(&self.subject.runner, &self.environment);
                kill.send(victim.process().id()).unwrap();
                victim.run(case.scenario, store)
            }
        }
    }

    /// Arranges that the process whose id is sent is killed at the case's operation.
    fn kill_at(&self, case: &Case) -> Sender<u32> {
        let at = case.operation.clone();
        let wanted = move |operation: &Operation, _: &bytes::Bytes| *operation == at;
        let (sender, victim) = channel();
        let kill = move |_: &Operation| {
            process::signal(victim.recv().unwrap(), Signal::KILL);
            Then::Cut
        };
        match case.injection {
            Injection::KillBefore => self.proxy.before(wanted, kill),
            _ => self.proxy.after(wanted, kill),
        }
        sender
    }

    /// Starts the command under test behind the proxy.
    fn start_command(&self, command: StoreCommand, store: &str) -> Process {
        let mut command = command(store);
        command.envs(self.environment.iter().cloned());
        Process::start(command)
    }

    /// Runs the command under test to its end.
    fn run_command(&self, command: StoreCommand, store: &str) -> Outcome {
        outcome_of(&mut self.start_command(command, store))
    }

    /// Runs a killed command again. It must succeed, and must not upload a pack that had arrived.
    fn run_command_again(&self, command: StoreCommand, store: &str) -> Result<(), String> {
        let is_upload =
            |seen: &Seen| seen.operation.verb == Verb::Put && seen.operation.part() == Part::Packs;
        let first = self.proxy.seen();
        let arrived: HashSet<_> = first
            .iter()
            .filter(|seen| is_upload(seen) && seen.status.is_some_and(|status| status < 300))
            .map(|seen| &seen.operation.name)
            .collect();
        match self.run_command(command, store) {
            Outcome::Completed => {}
            other => return Err(format!("the second attempt: {other:?}")),
        }
        let second = &self.proxy.seen()[first.len()..];
        match second.iter().find(|seen| is_upload(seen) && arrived.contains(&seen.operation.name)) {
            Some(seen) => Err(format!("{} had arrived and was uploaded again", seen.operation)),
            None => Ok(()),
        }
    }
}

/// Waits for a command's end.
fn outcome_of(process: &mut Process) -> Outcome {
    match process.wait(DEADLINE).code() {
        Some(0) => Outcome::Completed,
        Some(code) => Outcome::Failed(format!("exit code {code}: {}", process.errors())),
        None => Outcome::Died,
    }
}
