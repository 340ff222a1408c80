//! Workers through generations: the same bits for any membership, and with deaths, joins and halts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test: a failure must be loud")]

mod coordinator;

use std::{
    collections::BTreeSet,
    hint::black_box,
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
};

use coordinator::{
    Coordinator,
    linear::{Ended, How, Linear, hire, hire_who, quiet},
};
use whimbrel_plan::Origin;
use whimbrel_proto::v1::{self, OnNonfinite, halted::Cause, worker_message::Message};
use whimbrel_worker::{Environment, Session, SessionError};

const STEPS: u64 = 30;

/// Members that hold no state.
fn fresh(workers: &[u64]) -> Vec<(u64, Option<u64>)> {
    workers.iter().map(|&worker| (worker, None)).collect()
}

fn broken(cause: Option<Cause>) -> String {
    match cause {
        Some(Cause::Broken(broken)) => broken.reason,
        other => panic!("not broken: {other:?}"),
    }
}

#[test]
fn the_final_state_is_the_same_bits_for_any_number_of_workers() {
    let expected = Linear::alone(STEPS);
    let mut losses = BTreeSet::new();
    for workers in [1, 2, 3, 5] {
        let mut coordinator = Coordinator::new(STEPS, |welcome| welcome.evaluate_every = Some(10));
        let ids: Vec<u64> = (1..=workers).collect();
        let threads: Vec<_> = ids.iter().map(|&id| hire(coordinator.environment(id), quiet())).collect();
        coordinator.ready(&ids);
        coordinator.form(&fresh(&ids), Origin::Initial);
        for &id in &ids {
            let completed = coordinator.completed(id);
            assert_eq!(completed.state, expected.as_bytes(), "w{id} of {workers}");
            let (loss, val_loss) = (completed.loss.unwrap(), completed.val_loss.unwrap());
            losses.insert((loss.to_bits(), val_loss.to_bits()));
        }
        let applied: Vec<_> = (0..STEPS).map(|_| coordinator.applied(1)).collect();
        assert!(applied.iter().map(|applied| applied.step).eq(1..=STEPS));
        let loss =
            |steps: std::ops::Range<usize>| applied[steps].iter().map(|applied| applied.loss).sum::<f64>();
        assert!(loss(20..30) < 0.9 * loss(0..10), "it learns: {} to {}", loss(0..10), loss(20..30));
        for step in [10, 20, 30] {
            let evaluated = coordinator.next(1, "Evaluated", |message| match message {
                Message::Evaluated(evaluated) => Some(*evaluated),
                _ => None,
            });
            assert_eq!(evaluated.step, step);
        }
        ids.iter().for_each(|&id| coordinator.leave(id));
        for thread in threads {
            assert!(matches!(thread.join().unwrap().how, How::Left));
        }
    }
    assert_eq!(losses.len(), 1, "losses are the same bits, too");
}

#[test]
fn the_survivors_of_a_death_in_mid_step_go_on_with_a_joiner_to_the_same_bits() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let dies =
        Box::new(|step, _, _: &mut [f32]| if step == 7 { Err("struck by lightning".into()) } else { Ok(()) });
    let survivors = [hire(coordinator.environment(1), quiet()), hire(coordinator.environment(3), quiet())];
    let victim = hire(coordinator.environment(2), dies);
    coordinator.ready(&[1, 2, 3]);
    coordinator.form(&fresh(&[1, 2, 3]), Origin::Initial);
    assert!(matches!(victim.join().unwrap().how, How::Died(_)));
    let held = [1, 3].map(|id| {
        let halted = coordinator.halted(id);
        assert!(broken(halted.cause).contains("step 7"), "w{id} was in the step that the victim was in");
        halted.step
    });
    assert_eq!(held, [Some(7); 2], "no step that was applied is lost");

    let joiner = hire(coordinator.environment(4), quiet());
    coordinator.ready(&[4]);
    coordinator.form(&[(1, Some(7)), (3, Some(7)), (4, None)], Origin::Members { step: 7 });
    let expected = Linear::alone(STEPS);
    for id in [1, 3, 4] {
        assert_eq!(coordinator.completed(id).state, expected.as_bytes(), "w{id}");
    }
    [1, 3, 4].iter().for_each(|&id| coordinator.leave(id));
    for thread in survivors.into_iter().chain([joiner]) {
        let Ended { mut trainer, how } = thread.join().unwrap();
        assert!(matches!(how, How::Left));
        assert_eq!(trainer.digest(STEPS), expected);
    }
}

#[test]
fn one_worker_asked_to_halt_and_save_halts_and_saves_all_at_one_step() {
    let mut coordinator = Coordinator::new(1_000_000, |_| {});
    let ids = [1, 2, 3];
    let threads = ids.map(|id| hire(coordinator.environment(id), quiet()));
    coordinator.ready(&ids);
    let generation = coordinator.form(&fresh(&ids), Origin::Initial);
    coordinator.applied(1);
    coordinator.ask(2, true, true);
    let halted = ids.map(|id| coordinator.halted(id));
    let step = halted[0].step.unwrap();
    assert!(step > 0 && step < 1_000_000);
    for (id, halted) in ids.into_iter().zip(halted) {
        assert!(matches!(halted.cause, Some(Cause::Agreed(_))), "{halted:?}");
        assert_eq!(halted.step, Some(step));
        let saved = coordinator.saved(id);
        assert_eq!((saved.generation, saved.step), (generation, step));
        assert!(saved.seconds >= saved.blocked_seconds);
    }
    let expected = Linear::alone(step);
    ids.iter().for_each(|&id| coordinator.leave(id));
    for thread in threads {
        assert_eq!(thread.join().unwrap().trainer.digest(step), expected);
    }
}

/// A worker, and what says when its update after one of these steps begins: an update that takes long enough for a
/// question to come meanwhile, nearly always.
fn hire_slow(coordinator: &Coordinator, after: &'static [u64]) -> (JoinHandle<Ended>, Receiver<u64>) {
    let (updates, updating) = channel();
    let thread = hire_who(coordinator.environment(1), move |trainer| {
        trainer.before_update = Box::new(move |step| {
            if after.contains(&(step + 1)) && updates.send(step + 1).is_ok() {
                let mix = |mixed: u64, number: u64| mixed.wrapping_mul(number | 1).rotate_left(7);
                black_box((0..10_000_000).fold(1, mix));
            }
        });
    });
    (thread, updating)
}

/// The slices that worker 1 saves, up to the first of this generation; each by its generation and step.
fn saves_up_to(coordinator: &mut Coordinator, generation: u64) -> Vec<(u64, u64)> {
    let mut saves = Vec::new();
    while saves.last().is_none_or(|&(last, _)| last < generation) {
        let saved = coordinator.saved(1);
        saves.push((saved.generation, saved.step));
    }
    saves
}

#[test]
fn a_checkpoint_asked_for_while_the_last_step_is_applied_is_that_of_the_last_step_and_is_saved_once() {
    // The store is slow enough for the run to be complete long before its last checkpoint is saved.
    let mut coordinator = Coordinator::new(STEPS, |welcome| welcome.bandwidth = Some(1000));
    let (thread, updating) = hire_slow(&coordinator, &[STEPS]);
    coordinator.ready(&[1]);
    let first = coordinator.form(&fresh(&[1]), Origin::Initial);
    updating.recv_timeout(coordinator::DEADLINE).unwrap();
    coordinator.ask(1, true, true);
    coordinator.completed(1);
    assert_eq!(saves_up_to(&mut coordinator, first), [(first, STEPS)]);
    coordinator.interrupt(1);
    assert_eq!(coordinator.halted(1).step, Some(STEPS));
    // The next generation saves it as well, once whatever else was staged is saved.
    let second = coordinator.form(&[(1, Some(STEPS))], Origin::Members { step: STEPS });
    assert_eq!(saves_up_to(&mut coordinator, second), [(second, STEPS)]);
    coordinator.leave(1);
    thread.join().unwrap();
}

#[test]
fn a_request_to_halt_alone_asks_for_no_checkpoint_beside_the_one_in_progress() {
    let mut coordinator = Coordinator::new(1_000_000, |_| {});
    let (thread, updating) = hire_slow(&coordinator, &[4, 5]);
    coordinator.ready(&[1]);
    let first = coordinator.form(&fresh(&[1]), Origin::Initial);
    assert_eq!(updating.recv_timeout(coordinator::DEADLINE), Ok(4));
    // Asked for now, the checkpoint is that of step 5, and what is asked for while that is applied is to halt after it.
    coordinator.ask(1, true, false);
    assert_eq!(updating.recv_timeout(coordinator::DEADLINE), Ok(5));
    coordinator.ask(1, false, true);
    let step = coordinator.halted(1).step.unwrap();
    let second = coordinator.form(&[(1, Some(step))], Origin::Members { step });
    coordinator.ask(1, true, true);
    let last = coordinator.halted(1).step.unwrap();
    let saves = saves_up_to(&mut coordinator, second);
    assert!(saves.len() == 2 && saves[0].0 == first && saves[1] == (second, last), "{saves:?}, {last}");
    coordinator.leave(1);
    thread.join().unwrap();
}

#[test]
fn a_worker_that_is_asked_to_halt_during_an_update_saves_the_state_that_it_halts_with() {
    // The update that ends step 5 is followed by a save. What is asked for while it is under way is a later one.
    let mut coordinator = Coordinator::new(1_000_000, |welcome| welcome.checkpoint_every = Some(5));
    let (thread, updating) = hire_slow(&coordinator, &[5]);
    coordinator.ready(&[1]);
    coordinator.form(&fresh(&[1]), Origin::Initial);
    updating.recv_timeout(coordinator::DEADLINE).unwrap();
    coordinator.ask(1, true, true);
    let step = coordinator.halted(1).step.unwrap();
    while coordinator.saved(1).step < step {}
    coordinator.leave(1);
    thread.join().unwrap();
}

#[test]
fn an_interrupt_frees_a_worker_that_waits_for_one_that_hangs() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let (hangs, hung) = channel();
    let (release, released) = channel::<()>();
    let incident = Box::new(move |step, _, _: &mut [f32]| {
        if step == 4 {
            hangs.send(())?;
            // Ends when the test lets go of it.
            let _released = released.recv().is_err();
        }
        Ok(())
    });
    let waiting = hire(coordinator.environment(1), quiet());
    let hanging = hire(coordinator.environment(2), incident);
    coordinator.ready(&[1, 2]);
    coordinator.form(&fresh(&[1, 2]), Origin::Initial);
    hung.recv_timeout(coordinator::DEADLINE).unwrap();
    while coordinator.applied(1).step < 4 {}
    coordinator.interrupt(1);
    let halted = coordinator.halted(1);
    assert_eq!(halted.step, Some(4));
    assert!(broken(halted.cause).contains("interrupted"));

    // The next generation does not wait for the hung worker, which has to leave its own once it moves again.
    coordinator.form(&[(1, Some(4))], Origin::Members { step: 4 });
    assert_eq!(coordinator.completed(1).state, Linear::alone(STEPS).as_bytes());
    coordinator.interrupt(2);
    drop(release);
    assert_eq!(coordinator.halted(2).step, Some(4));
    [1, 2].iter().for_each(|&id| coordinator.leave(id));
    for thread in [waiting, hanging] {
        assert!(matches!(thread.join().unwrap().how, How::Left));
    }
}

#[test]
fn an_interrupt_during_an_update_does_not_undo_the_step() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let (updates, updating) = channel();
    let (release, released) = channel::<()>();
    let slow = hire_who(coordinator.environment(1), move |trainer| {
        trainer.before_update = Box::new(move |step| {
            if step == 4 && updates.send(()).is_ok() {
                let _released = released.recv().is_err();
            }
        });
    });
    let quick = hire(coordinator.environment(2), quiet());
    coordinator.ready(&[1, 2]);
    coordinator.form(&fresh(&[1, 2]), Origin::Initial);
    updating.recv_timeout(coordinator::DEADLINE).unwrap();
    [1, 2].iter().for_each(|&id| coordinator.interrupt(id));
    // Its peer has been interrupted meanwhile, having applied the step or not.
    let held = coordinator.halted(2).step;
    assert!([Some(4), Some(5)].contains(&held), "{held:?}");
    drop(release);
    assert_eq!(coordinator.halted(1).step, Some(5), "the update was under way, and is in the state");

    coordinator.form(&[(1, Some(5)), (2, held)], Origin::Members { step: 5 });
    for id in [1, 2] {
        assert_eq!(coordinator.completed(id).state, Linear::alone(STEPS).as_bytes(), "w{id}");
        coordinator.leave(id);
    }
    for thread in [slow, quick] {
        assert!(matches!(thread.join().unwrap().how, How::Left));
    }
}

#[test]
fn a_generation_that_starts_at_the_end_completes_at_once() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let threads = [1, 2].map(|id| hire(coordinator.environment(id), quiet()));
    coordinator.ready(&[1, 2]);
    coordinator.form(&fresh(&[1, 2]), Origin::Initial);
    let first = [1, 2].map(|id| coordinator.completed(id));
    let saved = coordinator.saved(2);
    coordinator.ask(2, true, false);
    assert_eq!(coordinator.saved(2).packs, saved.packs, "asked after the end, it saves the same again");
    for id in [1, 2] {
        coordinator.interrupt(id);
        let halted = coordinator.halted(id);
        assert_eq!(halted.step, Some(STEPS));
        assert!(broken(halted.cause).contains("interrupted"));
    }
    let joiner = hire(coordinator.environment(3), quiet());
    coordinator.ready(&[3]);
    coordinator.form(&[(1, Some(STEPS)), (3, None)], Origin::Members { step: STEPS });
    let [again, joined] = [1, 3].map(|id| coordinator.completed(id));
    assert_eq!(
        (&again.state, again.val_loss, again.loss),
        (&first[0].state, first[0].val_loss, first[0].loss)
    );
    assert_eq!((&joined.state, joined.val_loss, joined.loss), (&first[0].state, first[0].val_loss, None));
    [1, 2, 3].iter().for_each(|&id| coordinator.leave(id));
    for thread in threads.into_iter().chain([joiner]) {
        assert!(matches!(thread.join().unwrap().how, How::Left));
    }
}

#[test]
fn a_gradient_that_is_not_a_number_is_named_and_stops_the_run() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let spoils = Box::new(|step, shard, gradient: &mut [f32]| {
        if (step, shard) == (3, 5) {
            gradient[42] = f32::NAN;
        }
        Ok(())
    });
    let threads = [hire(coordinator.environment(1), quiet()), hire(coordinator.environment(2), spoils)];
    coordinator.ready(&[1, 2]);
    coordinator.form(&fresh(&[1, 2]), Origin::Initial);
    for (id, thread) in [1, 2].into_iter().zip(threads) {
        let v1::TrainerFailed { reason, fatal } = coordinator.failed(id);
        assert!(fatal, "it would be so on every worker");
        assert!(reason.contains(r#"the gradient of "weights" is NaN at element 41 in step 3"#), "{reason}");
        assert!(matches!(thread.join().unwrap().how, How::Failed(SessionError::Nonfinite { .. })));
    }
}

#[test]
fn with_on_nonfinite_all_members_skip_the_same_step_or_pass_it_to_the_program() {
    let (mut skipping, mut passing) = (BTreeSet::new(), BTreeSet::new());
    for (workers, policy) in [(1, OnNonfinite::Skip), (3, OnNonfinite::Skip), (2, OnNonfinite::Pass)] {
        let mut coordinator = Coordinator::new(STEPS, |welcome| welcome.on_nonfinite = policy.into());
        let spoils = || {
            Box::new(|step, shard, gradient: &mut [f32]| {
                if (step, shard) == (3, 5) {
                    gradient[0] = f32::INFINITY;
                }
                Ok(())
            })
        };
        let ids: Vec<u64> = (1..=workers).collect();
        let _threads: Vec<_> = ids.iter().map(|&id| hire(coordinator.environment(id), spoils())).collect();
        coordinator.ready(&ids);
        coordinator.form(&fresh(&ids), Origin::Initial);
        for step in 1..=STEPS {
            let applied = coordinator.applied(1);
            assert_eq!(applied.step, step);
            let skips = policy == OnNonfinite::Skip && step == 4;
            assert_eq!(applied.skipped.as_deref(), skips.then_some("bias"));
        }
        let digests = if policy == OnNonfinite::Skip { &mut skipping } else { &mut passing };
        digests.extend(ids.iter().map(|&id| coordinator.completed(id).state));
        ids.iter().for_each(|&id| coordinator.leave(id));
    }
    assert_eq!((skipping.len(), passing.len()), (1, 1));
    assert!(skipping.is_disjoint(&passing), "the program gets the infinite sum");
    assert!(!skipping.contains(Linear::alone(STEPS).as_bytes().as_slice()));
}

#[test]
fn a_worker_that_loses_its_coordinator_ends_and_says_so() {
    let mut coordinator = Coordinator::new(1_000_000, |_| {});
    let threads = [1, 2].map(|id| hire(coordinator.environment(id), quiet()));
    coordinator.ready(&[1, 2]);
    coordinator.form(&fresh(&[1, 2]), Origin::Initial);
    coordinator.applied(1);
    let idle = hire(coordinator.environment(3), quiet());
    coordinator.ready(&[3]);
    drop(coordinator);
    for thread in threads.into_iter().chain([idle]) {
        let how = thread.join().unwrap().how;
        let How::Failed(error @ SessionError::Lost { .. }) = how else { panic!("{how:?}") };
        assert!(error.to_string().starts_with("lost the coordinator at 127.0.0.1:"));
    }
}

#[test]
fn a_worker_without_the_token_is_refused() {
    let coordinator = Coordinator::new(STEPS, |_| {});
    let environment = Environment { token: None, ..coordinator.environment(1) };
    let error = Session::connect(environment).unwrap_err().to_string();
    assert!(error.contains("refused worker w1 of run linear-x1"), "{error}");
}
