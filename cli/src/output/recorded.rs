//! For tests: the events of a short run that loses a worker, as a coordinator sends them.

use whimbrel_proto::v1::{
    CheckpointEvent, EndedEvent, EvaluationEvent, GenerationEvent, Phase, PhaseEvent, RunStatus, StepEvent,
    WarningEvent, WorkerExitedEvent, WorkerStartedEvent, WorkerStatus, run_event::Event,
};

use super::screen::Screen;

pub(crate) fn status() -> RunStatus {
    RunStatus {
        run: "r-k3x9qa".into(),
        name: "r".into(),
        uri: "file:///runs/r-k3x9qa".into(),
        phase: Phase::Starting.into(),
        steps: 40,
        workers: vec![worker(0, 0), worker(1, 101)],
        ..RunStatus::default()
    }
}

fn worker(rank: u32, pid: u32) -> WorkerStatus {
    let worker = u64::from(rank) + 1;
    WorkerStatus { worker, rank, pid, node: "n1".into(), state: "starting".into(), share: 0 }
}

pub(crate) fn step(step: u64, seconds: f64) -> Event {
    Event::Step(StepEvent {
        step,
        loss: 4.0 / step as f64,
        generation: 1,
        workers: 2,
        seconds,
        compute_seconds: 0.1,
        reduce_seconds: 0.01,
        samples: 48,
        tokens: Some(3072),
    })
}

pub(crate) fn events() -> Vec<Event> {
    let started = |rank: u32| WorkerStartedEvent {
        rank,
        pid: 100 + rank,
        worker: u64::from(rank) + 1,
        node: "n1".into(),
    };
    let generation = |generation, step, workers, origin: &str, seconds| {
        Event::Generation(GenerationEvent { generation, step, workers, origin: origin.into(), seconds })
    };
    let phase =
        |phase: Phase, detail: &str| Event::Phase(PhaseEvent { phase: phase.into(), detail: detail.into() });
    let steps = |range: std::ops::RangeInclusive<u64>| range.map(|number| step(number, 0.25));
    let mut events = vec![Event::Worker(started(0)), Event::Worker(started(1))];
    events.extend([phase(Phase::Training, ""), generation(1, 0, 2, "initial", 0.0)]);
    events.extend(steps(1..=10));
    events.push(Event::Checkpoint(CheckpointEvent {
        step: 10,
        manifest: "manifests/000000000010-ab.json".into(),
        bytes: 3 << 20,
        seconds: 0.5,
        blocked_seconds: 0.02,
    }));
    events.push(Event::Exit(WorkerExitedEvent {
        rank: 1,
        pid: 101,
        worker: 2,
        node: "n1".into(),
        reason: "SIGKILL".into(),
        tail: vec!["last words".into()],
    }));
    events.extend([
        phase(Phase::Regrouping, "a worker was lost"),
        generation(2, 10, 1, "workers", 0.75),
        Event::Warning(WarningEvent { text: "the store is slow".into(), tail: Vec::new() }),
    ]);
    events.extend(steps(11..=40));
    events.push(Event::Evaluation(EvaluationEvent { step: 40, val_loss: f64::NAN }));
    events
}

pub(crate) fn finished() -> EndedEvent {
    EndedEvent {
        phase: Phase::Finished.into(),
        step: 40,
        loss: Some(0.1),
        val_loss: Some(f64::INFINITY),
        state: "ab".repeat(32),
        checkpoint: "file:///runs/r-k3x9qa@40".into(),
        seconds: 12.5,
        ..EndedEvent::default()
    }
}

pub(crate) fn stopped() -> EndedEvent {
    EndedEvent {
        phase: Phase::Stopped.into(),
        step: 10,
        reason: "stopped".into(),
        checkpoint: "file:///runs/r-k3x9qa@10".into(),
        seconds: 3.0,
        ..EndedEvent::default()
    }
}

pub(crate) fn play(screen: &mut dyn Screen) {
    screen.status(&status());
    for event in events() {
        screen.event(&event);
    }
}
