//! What bindings for other languages need of a session: waits that another thread ends, states that live elsewhere,
//! and the shards to read ahead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test: a failure must be loud")]

mod coordinator;

use std::{collections::BTreeSet, num::NonZeroU64, sync::mpsc::channel, thread};

use coordinator::{
    Coordinator, SHARDS,
    linear::{Ended, How, Linear, SAMPLES, WIDTH, hire, quiet},
};
use whimbrel_plan::Origin;
use whimbrel_proto::v1::worker_message::Message;
use whimbrel_spec::RunSpec;
use whimbrel_worker::{
    Alone, Environment, Membership, Memory, Next, Program, Session, SessionError, State, TensorMut, Trainer,
    TrainerError, Work,
};

/// A program whose tensors are elsewhere: the session sees a copy, which is written back by `written`.
struct Elsewhere {
    trainer: Linear,
    copy: Vec<f32>,
    /// How often a state was written, and the error for it.
    written: usize,
    refuses: bool,
}

impl Elsewhere {
    fn new(session: &whimbrel_worker::Joiner) -> Self {
        let trainer = Linear::new(session.context(), quiet()).unwrap();
        Self { trainer, copy: vec![0.0; 2 * (WIDTH + 1)], written: 0, refuses: false }
    }
}

impl State for Elsewhere {
    fn tensors(&mut self) -> Vec<TensorMut<'_>> {
        let mut rest = self.copy.as_mut_slice();
        let mut tensors = Vec::new();
        for mut tensor in self.trainer.state() {
            let (part, after) = rest.split_at_mut(tensor.spec.shape.iter().product());
            rest = after;
            let Memory::Host(bytes) = &mut tensor.memory else { panic!("not in host memory") };
            for (copied, bytes) in part.iter_mut().zip(bytes.chunks_exact(4)) {
                *copied = f32::from_le_bytes(bytes.try_into().unwrap());
            }
            tensors.push(TensorMut::f32(tensor.spec.name, tensor.spec.shape, part));
        }
        tensors
    }

    fn written(&mut self) -> Result<(), TrainerError> {
        if self.refuses {
            return Err("no memory on the device".into());
        }
        self.written += 1;
        let mut rest = self.copy.as_slice();
        for mut tensor in self.trainer.state() {
            let Memory::Host(bytes) = &mut tensor.memory else { panic!("not in host memory") };
            let (part, after) = rest.split_at(bytes.len() / 4);
            rest = after;
            for (bytes, value) in bytes.chunks_exact_mut(4).zip(part) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        Ok(())
    }
}

fn program(trainer: &Linear, numerics: &str) -> Program {
    let (samples, gradients) = (trainer.samples(), trainer.gradients());
    let numerics = numerics.to_owned();
    Program { samples, fingerprint: Default::default(), gradients, tokens_per_sample: None, numerics }
}

/// Joins and trains to the end.
fn drive(session: &mut Session, state: &mut Elsewhere) -> Result<(), SessionError> {
    while let Some(work) = session.next(state)? {
        if let Work::Step(mut step) = work {
            while let Some((shard, gradient)) = step.shard() {
                let loss = state.trainer.shard(&shard, gradient).unwrap();
                step.push(loss);
            }
            if let Some(update) = step.reduce()? {
                state.trainer.apply(update.step, update.gradient).unwrap();
            }
        }
    }
    Ok(())
}

fn join(environment: Environment, change: impl FnOnce(&mut Elsewhere)) -> (Session, Elsewhere) {
    let joiner = Session::connect(environment).unwrap();
    let mut state = Elsewhere::new(&joiner);
    change(&mut state);
    let program = program(&state.trainer, "torch-2.15.0 threads-1");
    (joiner.ready(program, &mut state).unwrap(), state)
}

#[test]
fn a_state_that_is_elsewhere_is_written_back_when_it_is_received() {
    let mut coordinator = Coordinator::new(1_000_000, |_| {});
    let first = hire(coordinator.environment(1), quiet());
    coordinator.ready(&[1]);
    coordinator.form(&[(1, None)], Origin::Initial);
    coordinator.applied(1);
    coordinator.ask(1, false, true);
    let held = coordinator.halted(1).step.unwrap();

    let environment = coordinator.environment(2);
    let second = thread::spawn(move || {
        let (mut session, mut state) = join(environment, |_| {});
        drive(&mut session, &mut state).unwrap();
        state
    });
    let ready = coordinator.next(2, "Ready", |message| match message {
        Message::Ready(ready) => Some(ready.clone()),
        _ => None,
    });
    assert!(ready.numerics.ends_with(" torch-2.15.0 threads-1"), "{}", ready.numerics);
    coordinator.knows(2, &ready);
    coordinator.form(&[(1, Some(held)), (2, None)], Origin::Members { step: held });
    while coordinator.applied(1).step <= held {}
    [1, 2].iter().for_each(|&id| coordinator.ask(id, false, true));
    let steps = [1, 2].map(|id| coordinator.halted(id).step.unwrap());
    [1, 2].iter().for_each(|&id| coordinator.leave(id));
    assert_eq!(steps[0], steps[1]);
    let mut state = second.join().unwrap();
    let Ended { mut trainer, how } = first.join().unwrap();
    assert!(matches!(how, How::Left));
    assert_eq!(state.written, 1);
    assert_eq!(state.trainer.digest(steps[0]), trainer.digest(steps[0]));
}

#[test]
fn a_state_that_cannot_be_written_back_ends_the_session() {
    let mut coordinator = Coordinator::new(1_000_000, |_| {});
    let first = hire(coordinator.environment(1), quiet());
    coordinator.ready(&[1]);
    coordinator.form(&[(1, None)], Origin::Initial);
    coordinator.ask(1, false, true);
    let held = coordinator.halted(1).step.unwrap();
    let environment = coordinator.environment(2);
    let second = thread::spawn(move || {
        let (mut session, mut state) = join(environment, |state| state.refuses = true);
        drive(&mut session, &mut state)
    });
    coordinator.ready(&[2]);
    coordinator.form(&[(1, Some(held)), (2, None)], Origin::Members { step: held });
    assert!(matches!(second.join().unwrap(), Err(SessionError::Written(_))));
    coordinator.leave(1);
    first.join().unwrap();
}

#[test]
fn another_thread_ends_the_wait_for_a_generation_and_for_peers() {
    let mut coordinator = Coordinator::new(1000, |_| {});
    // The second worker never computes its shards.
    let (release, released) = channel::<()>();
    let hangs = Box::new(move |_, _, _: &mut [f32]| {
        let _closed = released.recv();
        Err("released".into())
    });
    let second = hire(coordinator.environment(2), hangs);
    let environment = coordinator.environment(1);
    let (sender, cancellers) = channel();
    let first = thread::spawn(move || {
        let (mut session, mut state) = join(environment, |_| {});
        sender.send(session.canceller()).unwrap();
        drive(&mut session, &mut state).unwrap();
    });
    let canceller = cancellers.recv().unwrap();
    coordinator.ready(&[1, 2]);
    coordinator.form(&[(1, None), (2, None)], Origin::Initial);
    canceller.cancel("a signal");
    first.join().unwrap();
    coordinator.leave(2);
    drop(release);
    second.join().unwrap();

    let (mut session, mut state) = join(coordinator.environment(3), |_| {});
    let canceller = session.canceller();
    let waits = thread::spawn(move || session.next(&mut state).unwrap().is_none());
    coordinator.ready(&[3]);
    canceller.cancel("a signal");
    assert!(waits.join().unwrap(), "a worker without a generation ends");
}

#[test]
fn a_member_knows_its_place_the_shards_to_come_and_the_loss_of_a_step() {
    const STEPS: u64 = 3;
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let second = hire(coordinator.environment(2), quiet());
    let environment = coordinator.environment(1);
    let first = thread::spawn(move || {
        let (mut session, mut state) = join(environment, |_| {});
        assert_eq!((session.membership(), session.upcoming(5)), (None, Vec::new()));
        let mut losses = Vec::new();
        while let Some(work) = session.next(&mut state).unwrap() {
            if let Work::Evaluate(mut evaluation) = work {
                while evaluation.part().is_some() {
                    evaluation.push(None);
                }
                evaluation.finish().unwrap();
                continue;
            }
            assert_eq!(session.membership(), Some(Membership { rank: 0, workers: 2, generation: 1 }));
            let upcoming = session.upcoming(5);
            assert_eq!(upcoming.len() as u64, (STEPS - losses.len() as u64) * u64::from(SHARDS) / 2);
            let mut step = session.step().unwrap();
            let mut computed = 0;
            while let Some((shard, gradient)) = step.shard() {
                let expected = &upcoming[computed];
                let found = (shard.step, shard.index, shard.samples);
                assert_eq!(found, (expected.step, expected.index, expected.samples.as_slice()));
                let loss = state.trainer.shard(&shard, gradient).unwrap();
                step.push(loss);
                computed += 1;
            }
            let update = step.reduce().unwrap().unwrap();
            losses.push(update.loss);
            state.trainer.apply(update.step, update.gradient).unwrap();
        }
        losses
    });
    coordinator.ready(&[1, 2]);
    coordinator.form(&[(1, None), (2, None)], Origin::Initial);
    let reported = [(); STEPS as usize].map(|()| coordinator.applied(1).loss);
    [1, 2].iter().for_each(|&id| drop(coordinator.completed(id)));
    [1, 2].iter().for_each(|&id| coordinator.leave(id));
    assert_eq!(first.join().unwrap(), reported);
    second.join().unwrap();
}

#[test]
fn a_run_without_a_coordinator_ends_with_the_same_bits() {
    let spec = RunSpec::parse("run.toml", coordinator::SPEC, &[]).unwrap();
    let context = whimbrel_worker::Context {
        seed: spec.train.seed,
        global_batch: spec.train.global_batch,
        shards: spec.train.shards,
        steps: spec.train.steps,
        threads: spec.workers.threads,
        settings: serde_json::Value::Object(spec.train.settings.clone()),
    };
    let mut trainer = Linear::new(&context, quiet()).unwrap();
    let mut alone = Alone::new(&spec, &program(&trainer, "")).unwrap();
    assert_eq!(alone.context().steps, spec.train.steps);
    alone.evaluate_every(NonZeroU64::new(10).unwrap());
    let (mut steps, mut evaluated) = (BTreeSet::new(), Vec::new());
    while let Some(next) = alone.next() {
        if next == Next::Evaluate {
            while let Some(part) = alone.part() {
                steps.insert(part.step);
                alone.push_part(trainer.evaluate(part.index, part.parts).unwrap());
            }
            evaluated.push(alone.finish_evaluation().unwrap());
            continue;
        }
        assert!(alone.reduce().is_err(), "the shards are missing");
        while let Some((shard, gradient)) = alone.shard() {
            assert!(shard.samples.iter().all(|&sample| sample < SAMPLES));
            let loss = trainer.shard(&shard, gradient).unwrap();
            alone.push(loss);
        }
        let update = alone.reduce().unwrap().unwrap();
        trainer.apply(update.step, update.gradient).unwrap();
    }
    assert_eq!(alone.digest(&mut trainer).unwrap(), Linear::alone(spec.train.steps));
    assert!(
        steps
            .into_iter()
            .eq((1..=spec.train.steps).filter(|step| step % 10 == 0 || *step == spec.train.steps))
    );
    let parts = (0..spec.train.shards).map(|part| trainer.evaluate(part, spec.train.shards).unwrap());
    assert_eq!(
        evaluated.last(),
        parts.sum::<Option<f64>>().as_ref(),
        "the parts are added up in their order"
    );
}

#[test]
fn a_worker_whose_shards_have_a_weight_in_part_ends_with_an_error() {
    let mut coordinator = Coordinator::new(1, |_| {});
    let environment = coordinator.environment(1);
    let worker = thread::spawn(move || {
        let (mut session, mut state) = join(environment, |_| {});
        assert!(matches!(session.next(&mut state).unwrap(), Some(Work::Step(_))));
        let mut step = session.step().unwrap();
        let mut given = 0;
        while step.shard().is_some() {
            given += 1;
            step.push_with(1.0, (given == 1).then_some(2.0));
        }
        (given, step.reduce().unwrap_err().to_string())
    });
    coordinator.ready(&[1]);
    coordinator.form(&[(1, None)], Origin::Initial);
    let (given, error) = worker.join().unwrap();
    assert_eq!(given, 2, "no more shards are given out");
    assert!(error.contains("either all of them with a weight or none"), "{error}");
}
