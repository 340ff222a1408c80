//! Every fault at every operation of an act on a store.
//!
//! The operations are not listed anywhere: the act is played once through a proxy that records them, and then once more
//! for each operation and each fault that makes a difference to it. After each, whatever came of the act, another
//! coordinator takes over, and looks whether the promises are kept: no bad byte is loaded, what was acknowledged is
//! there, and the run goes on.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use whimbrel_testbed::{
    Server,
    proxy::{Fault, FaultProxy, Operation, Part, Seen, Then, Verb},
    server::BUCKET,
};

use crate::{
    player::{Played, Player},
    process::{self, Process},
    run::PATIENCE,
    story::{Act, Ending},
};

/// Cases at a time. Many of them wait for a deadline.
const LANES: usize = 4;
/// Cases in a row on one server: some get slower the more they hold.
const ON_ONE: usize = 100;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Something between the program and the store goes wrong.
    Fault(Fault),
    /// The program is killed by SIGKILL before the request reaches the server.
    KillBefore,
    /// The program is killed by SIGKILL after the server has carried out the request, before it hears of that.
    KillAfter,
}

/// One case of the matrix.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is played.
    pub act: Act,
    /// Where the blow falls.
    pub operation: Operation,
    /// What it is.
    pub blow: Blow,
}

/// The cases of an act, learnt by playing it.
pub struct Matrix {
    program: PathBuf,
    command: Option<CommandOn>,
    /// Part of the names of its stores, so that several can be tried on one server.
    name: &'static str,
    cases: Vec<Case>,
    operations: usize,
}

/// A command that does on a store what an act does.
pub type CommandOn = fn(&str) -> Command;

/// A proxy, a program behind it, and one that reaches the server without it.
struct Lane {
    program: PathBuf,
    command: Option<CommandOn>,
    environment: Vec<(&'static str, String)>,
    store: String,
    proxy: FaultProxy,
    actor: Player,
    stage: Player,
}

impl Blow {
    /// Whether the client is to get over it by itself, so that nobody notices.
    fn is_to_pass_unnoticed(self) -> bool {
        use Fault as F;
        matches!(
            self,
            Self::Fault(
                F::Unavailable
                    | F::Throttled
                    | F::CutBefore
                    | F::Late
                    | F::AnswerLost
                    | F::CutInAnswer
                    | F::SlowDrip
            )
        )
    }

    fn kills(self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfter)
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matrix").field("name", &self.name).field("cases", &self.cases).finish()
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.blow {
            Blow::Fault(fault) => write!(f, "{:?}: {fault:?} at {}", self.act, self.operation),
            blow => write!(f, "{:?}: {blow:?} at {}", self.act, self.operation),
        }
    }
}

impl Matrix {
    /// Plays the acts once on a server, by the program `store-story`, and finds the faults that concern each operation
    /// seen.
    pub fn of_faults(server: &dyn Server, program: &Path, acts: &[Act]) -> Self {
        Self::learn("fault", server, program, acts, None, |seen| {
            Fault::ALL.into_iter().filter(|fault| fault.concerns(seen)).map(Blow::Fault).collect()
        })
    }

    /// The same with the program killed before and after each operation.
    pub fn of_kills(server: &dyn Server, program: &Path, acts: &[Act]) -> Self {
        Self::learn("kill", server, program, acts, None, |_| vec![Blow::KillBefore, Blow::KillAfter])
    }

    /// The same with a command killed that does what `act` does.
    pub fn of_kills_of(command: CommandOn, act: Act, server: &dyn Server, program: &Path) -> Self {
        let kills = |_: &Seen| vec![Blow::KillBefore, Blow::KillAfter];
        Self::learn("command", server, program, &[act], Some(command), kills)
    }

    fn learn(
        name: &'static str,
        server: &dyn Server,
        program: &Path,
        acts: &[Act],
        command: Option<CommandOn>,
        blows: impl Fn(&Seen) -> Vec<Blow>,
    ) -> Self {
        let mut matrix =
            Self { program: program.to_owned(), command, name, cases: Vec::new(), operations: 0 };
        let mut lane = Lane::new(server, program, command);
        for (number, &act) in acts.iter().enumerate() {
            let store = lane.prepare(&format!("{name}-learnt-{number}"), act);
            let ending = match command {
                Some(command) => lane.run(command, &store),
                None => lane.actor.play(act, &store).ending,
            };
            assert_eq!(ending, Ending::Done, "{act:?}, undisturbed");
            for seen in lane.proxy.seen() {
                matrix.operations += 1;
                let case = |blow| Case { act, operation: seen.operation.clone(), blow };
                matrix.cases.extend(blows(&seen).into_iter().map(case));
            }
        }
        matrix
    }

    /// Leaves `cases` of them, drawn by a seed, as many of each operation.
    pub fn sample(mut self, cases: usize, seed: u64) -> Self {
        fastrand::Rng::with_seed(seed).shuffle(&mut self.cases);
        let mut drawn: HashMap<String, usize> = HashMap::new();
        let mut rounds: Vec<(usize, Case)> = Vec::new();
        for case in self.cases {
            let round = drawn.entry(format!("{:?} {}", case.act, case.operation)).or_default();
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

    /// Tries them all, the first hundred on `server` and the others on more like it, and says how many there were and
    /// which went wrong.
    ///
    /// # Panics
    /// If a promise was not kept in one of them, or there are no more servers.
    pub fn run<S: Server>(&self, server: &S, another: impl Fn() -> S) {
        let started = Instant::now();
        let (mut tried, mut wrong) = (0, 0);
        for cases in self.cases.chunks(ON_ONE) {
            let more = (tried > 0).then(&another);
            tried += cases.len();
            for case in self.run_on(more.as_ref().unwrap_or(server), cases) {
                wrong += 1;
                eprintln!("wrong: {case}");
            }
            eprintln!(
                "crash matrix on {}: {tried} of {} cases over {} operations in {:?}, {wrong} of them wrong",
                server.name(),
                self.cases.len(),
                self.operations,
                Duration::from_secs(started.elapsed().as_secs()),
            );
        }
        assert_eq!(wrong, 0, "of {tried} cases, the ones named above");
    }

    /// Tries some of the cases, and says what was wrong with which.
    fn run_on(&self, server: &dyn Server, cases: &[Case]) -> Vec<String> {
        let next = AtomicUsize::new(0);
        let wrong = Mutex::new(Vec::new());
        let lanes: Vec<Lane> = (0..LANES).map(|_| Lane::new(server, &self.program, self.command)).collect();
        thread::scope(|scope| {
            for mut lane in lanes {
                let (next, wrong) = (&next, &wrong);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = cases.get(number) else { break };
                        if let Err(why) = lane.try_case(&format!("{}-{number}", self.name), case) {
                            wrong.lock().unwrap().push(format!("{case}: {why}"));
                        }
                    }
                });
            }
        });
        wrong.into_inner().unwrap()
    }
}

impl Lane {
    fn new(server: &dyn Server, program: &Path, command: Option<CommandOn>) -> Self {
        let proxy = FaultProxy::start(server.address(), BUCKET);
        let environment = server.environment_at(proxy.address());
        Self {
            program: program.to_owned(),
            command,
            // The prefix is put in for each case.
            store: server.store_uri("PREFIX"),
            actor: Player::start(program, &environment),
            stage: Player::start(program, &server.environment()),
            environment,
            proxy,
        }
    }

    /// A store of its own for a case, with a run in it.
    fn prepare(&mut self, name: &str, act: Act) -> String {
        let store = self.store.replace("PREFIX", name);
        self.proxy.begin(&format!("{BUCKET}/{name}"));
        let prepared = self.stage.play(act.prologue(), &store);
        assert_eq!(prepared.ending, Ending::Done, "a run is prepared at {store}");
        store
    }

    /// Tries a case, and says what was wrong.
    fn try_case(&mut self, name: &str, case: &Case) -> Result<(), String> {
        let store = self.prepare(name, case.act);
        let played = match case.blow {
            Blow::Fault(fault) => {
                self.proxy.fail_at(case.operation.clone(), fault);
                self.actor.play(case.act, &store)
            }
            Blow::KillBefore | Blow::KillAfter => self.play_and_kill(case, &store),
        };
        match &played.ending {
            Ending::Died if case.blow.kills() => {}
            _ if case.blow.kills() => return Err(format!("it was not killed: {played:?}")),
            Ending::Died | Ending::Hung => {
                let errors = self.actor.process().errors();
                self.actor = Player::start(&self.program, &self.environment);
                return Err(format!("the program {:?}: {errors}", played.ending));
            }
            Ending::Broken(what) => return Err(what.clone()),
            Ending::Failed(why) if case.blow.is_to_pass_unnoticed() => {
                return Err(format!("it did not get over it: {why}"));
            }
            Ending::Done | Ending::Failed(_) => {}
        }
        if self.proxy.happened() != 1 {
            return Err(format!("the operation did not come: {:?}", self.proxy.seen()));
        }
        if let Some(command) = self.command {
            self.run_again(command, &store)?;
        }
        let damaged = case.blow == Blow::Fault(Fault::FlippedRequest);
        let epilogue = case.act.epilogue(played.acknowledged, damaged);
        self.look(epilogue, &store)
            .map_err(|what| format!("{what}; it had ended with {:?}", played.ending))?;
        if case.blow == Blow::Fault(Fault::Late) {
            assert_eq!(self.proxy.deliver_late(), 1, "{case}");
            self.look(epilogue, &store).map_err(|what| format!("{what}, after the request had arrived"))?;
        }
        Ok(())
    }

    /// Looks, past the proxy, whether the promises are kept.
    fn look(&mut self, epilogue: Act, store: &str) -> Result<(), String> {
        match self.stage.play(epilogue, store).ending {
            Ending::Done => Ok(()),
            other => Err(format!("then {epilogue:?}: {other:?}")),
        }
    }

    fn play_and_kill(&self, case: &Case, store: &str) -> Played {
        let kill = self.kill_at(case);
        match self.command {
            Some(command) => {
                let mut victim = self.start(command, store);
                kill.send(victim.id()).unwrap();
                Played { acknowledged: None, ending: ending(&mut victim) }
            }
            None => {
                let mut victim = Player::start(&self.program, &self.environment);
                kill.send(victim.process().id()).unwrap();
                victim.play(case.act, store)
            }
        }
    }

    /// Has the process whose id is sent killed at the operation of a case.
    fn kill_at(&self, case: &Case) -> Sender<u32> {
        let at = case.operation.clone();
        let wanted = move |operation: &Operation, _: &bytes::Bytes| *operation == at;
        let (sender, victim) = channel();
        let kill = move |_: &Operation| {
            process::signal(victim.recv().unwrap(), Signal::KILL);
            Then::Cut
        };
        match case.blow {
            Blow::KillBefore => self.proxy.before(wanted, kill),
            _ => self.proxy.after(wanted, kill),
        }
        sender
    }

    /// Starts a command on a store, through the proxy.
    fn start(&self, command: CommandOn, store: &str) -> Process {
        let mut command = command(store);
        command.envs(self.environment.iter().cloned());
        Process::start(command)
    }

    /// Runs a command to its end.
    fn run(&self, command: CommandOn, store: &str) -> Ending {
        ending(&mut self.start(command, store))
    }

    /// Runs a command again that was killed: it succeeds, and puts no pack that had arrived.
    fn run_again(&self, command: CommandOn, store: &str) -> Result<(), String> {
        let puts = |seen: &Seen| seen.operation.verb == Verb::Put && seen.operation.part() == Part::Packs;
        let first = self.proxy.seen();
        let arrived =
            first.iter().filter(|seen| puts(seen) && seen.status.is_some_and(|status| status < 300));
        let arrived: HashSet<_> = arrived.map(|seen| &seen.operation.name).collect();
        match self.run(command, store) {
            Ending::Done => {}
            other => return Err(format!("the next attempt: {other:?}")),
        }
        let again = self.proxy.seen();
        match again[first.len()..].iter().find(|seen| puts(seen) && arrived.contains(&seen.operation.name)) {
            Some(seen) => Err(format!("{} had arrived, and was put again", seen.operation)),
            None => Ok(()),
        }
    }
}

/// Waits for a command's end.
fn ending(process: &mut Process) -> Ending {
    match process.wait(PATIENCE).code() {
        Some(0) => Ending::Done,
        Some(code) => Ending::Failed(format!("exit code {code}: {}", process.errors())),
        None => Ending::Died,
    }
}
