//! The vocabulary of the stories: a core, a clock, and what the core has commanded.

use std::time::Duration;

use whimbrel_core::{
    Cause, CheckpointEvery, Command, Completion, Core, EarlierTerms, End, Event, Exit, Formation, Notice,
    Phase, RunEvent, RunFacts, SaveCost, Start, Timing,
};
use whimbrel_plan::{NodeId, RunId, WorkerId};

/// A core, a clock, and what the core has commanded since that was last taken.
pub(crate) struct Story {
    pub(crate) core: Core,
    now: Duration,
    commands: Vec<Command>,
}

pub(crate) fn run(name: &str) -> RunId {
    name.parse().unwrap()
}

pub(crate) fn facts() -> RunFacts {
    RunFacts {
        steps: 100,
        shards: 8,
        workers_min: 1,
        workers_max: 2,
        max_failures: 3,
        step_timeout: Duration::from_secs(60),
        leave_timeout: Duration::from_secs(20),
        checkpoint: CheckpointEvery::Steps(10),
        has_setup: false,
    }
}

impl Story {
    /// A coordinator without a run.
    pub(crate) fn new() -> Self {
        Self { core: Core::new(Timing::default()), now: Duration::from_secs(1000), commands: Vec::new() }
    }

    /// A coordinator with one run, `r`, that starts from scratch.
    pub(crate) fn of(facts: RunFacts) -> Self {
        Self::from(Start::Initial, facts)
    }

    pub(crate) fn from(start: Start, facts: RunFacts) -> Self {
        let mut story = Self::new();
        story.opens("r", start, facts);
        story
    }

    pub(crate) fn opens(&mut self, name: &str, start: Start, facts: RunFacts) {
        self.happens(Event::RunOpened {
            run: run(name),
            facts,
            epoch: 1,
            start,
            earlier: EarlierTerms::default(),
        });
    }

    pub(crate) fn happens(&mut self, event: Event) {
        let commands = self.core.handle(self.now, event);
        self.commands.extend(commands);
    }

    pub(crate) fn of_run(&mut self, event: RunEvent) {
        self.happens(Event::OfRun { run: run("r"), event });
    }

    pub(crate) fn node_joins(&mut self, node: u64, slots: u32) {
        self.happens(Event::NodeJoined { node: NodeId(node), slots });
    }

    pub(crate) fn becomes_ready(&mut self, worker: u64) {
        let pid = u32::try_from(worker).unwrap() + 5000;
        self.of_run(RunEvent::WorkerStarted { worker: WorkerId(worker), pid });
        let address = ([127, 0, 0, 1], 7000).into();
        self.of_run(RunEvent::WorkerReady { worker: WorkerId(worker), address });
    }

    pub(crate) fn is_killed(&mut self, worker: u64) {
        self.of_run(RunEvent::WorkerDisconnected { worker: WorkerId(worker) });
        self.exits(worker, Exit::Signal(9));
    }

    pub(crate) fn exits(&mut self, worker: u64, exit: Exit) {
        let tail = vec!["the last line".to_owned()];
        self.of_run(RunEvent::WorkerExited { worker: WorkerId(worker), exit, tail });
    }

    pub(crate) fn applies(&mut self, worker: u64, generation: u64, step: u64) {
        self.of_run(RunEvent::StepApplied { worker: WorkerId(worker), generation, step, loss: 0.5 });
    }

    pub(crate) fn halts(&mut self, worker: u64, generation: u64, step: u64) {
        let worker = WorkerId(worker);
        self.of_run(RunEvent::Halted { worker, generation, step: Some(step), cause: Cause::Agreed });
    }

    pub(crate) fn breaks(&mut self, worker: u64, generation: u64, step: u64) {
        let cause = Cause::Broken { reason: "connection reset".into(), suspect: None };
        self.of_run(RunEvent::Halted { worker: WorkerId(worker), generation, step: Some(step), cause });
    }

    pub(crate) fn saves(&mut self, worker: u64, generation: u64, step: u64) {
        self.of_run(RunEvent::SliceSaved { worker: WorkerId(worker), generation, step });
    }

    /// The checkpoint of that step is committed. Training was blocked for `stall` seconds; the save took ten times that.
    pub(crate) fn is_committed(&mut self, step: u64, stall: u64) {
        let stall = Duration::from_secs(stall);
        let cost = SaveCost { stall, duration: stall * 10 };
        self.of_run(RunEvent::Committed { step, manifest: format!("{step}-a"), cost });
    }

    pub(crate) fn completes(&mut self, worker: u64, generation: u64, step: u64, bits: u8) {
        let (worker, state) = (WorkerId(worker), [bits; 32]);
        let completion = Completion { step, state, loss: None, val_loss: None };
        self.of_run(RunEvent::Completed { worker, generation, completion });
    }

    /// Time passes, second by second; nodes and workers send heartbeats.
    pub(crate) fn seconds_pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            for node in 1..4 {
                self.happens(Event::NodeHeartbeat { node: NodeId(node) });
            }
            for worker in (1..9).map(WorkerId) {
                self.of_run(RunEvent::WorkerHeartbeat { worker, step: 0 });
            }
            self.happens(Event::Tick);
        }
    }

    /// What was commanded since this was last called.
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    pub(crate) fn started(&mut self) -> Vec<(RunId, NodeId, WorkerId)> {
        let start = |command| match command {
            Command::Start { run, node, worker } => Some((run, node, worker)),
            _ => None,
        };
        self.take_commands().into_iter().filter_map(start).collect()
    }

    /// The generation that was formed since commands were last taken.
    pub(crate) fn formed(&mut self) -> Formation {
        let form = |command| match command {
            Command::Form { formation, .. } => Some(formation),
            _ => None,
        };
        self.take_commands().into_iter().find_map(form).expect("no generation was formed")
    }

    pub(crate) fn end_to_record(&mut self) -> End {
        let end = |command| match command {
            Command::RecordEnd { end, .. } => Some(end),
            _ => None,
        };
        self.take_commands().into_iter().find_map(end).expect("no end was to be recorded")
    }

    pub(crate) fn phase(&self) -> Phase {
        self.core.view(&run("r")).unwrap().phase
    }

    /// Two workers of one node in generation 1.
    pub(crate) fn with_two_workers(facts: RunFacts) -> Self {
        let mut story = Self::of(facts);
        story.node_joins(1, 2);
        story.becomes_ready(1);
        story.becomes_ready(2);
        assert_eq!(members(&story.formed()), [1, 2]);
        story
    }
}

pub(crate) fn members(formation: &Formation) -> Vec<u64> {
    formation.members.iter().map(|member| member.worker.0).collect()
}

pub(crate) fn asked(commands: &[Command]) -> Vec<(u64, bool, bool)> {
    let ask = |command: &Command| match command {
        Command::Ask { worker, checkpoint, halt, .. } => Some((worker.0, *checkpoint, *halt)),
        _ => None,
    };
    commands.iter().filter_map(ask).collect()
}

pub(crate) fn warnings(commands: &[Command]) -> Vec<String> {
    let warning = |command: &Command| match command {
        Command::Announce { notice: Notice::Warning { text, .. }, .. } => Some(text.clone()),
        _ => None,
    };
    commands.iter().filter_map(warning).collect()
}
