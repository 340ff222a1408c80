//! Workers driven without any I/O: what they do, and what they report, from one generation to the next.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use whimbrel_member::{
    Action, Cause, End, Event, Held, Phase, Report, Request, Requests, Schedule, StepNote, Worker,
    encode_parts,
};
use whimbrel_plan::{Generation, Member, Origin, WorkerId, equal_shares};

const SCHEDULE: Schedule = Schedule { steps: 4, evaluate_every: None, checkpoint_every: Some(2) };
const LOSS: f64 = 0.25;

/// A worker and what its coordinator asked of it.
struct One {
    worker: Worker,
    requests: Requests,
}

impl One {
    fn new(id: u64) -> Self {
        Self { worker: Worker::new(WorkerId(id), SCHEDULE), requests: Requests::default() }
    }

    fn next(&mut self) -> Action {
        self.worker.next(&self.requests).unwrap()
    }

    fn is_asked(&mut self, checkpoint: bool, halt: bool) {
        let generation = self.worker.last_generation();
        self.requests.take(Request::Ask { generation, checkpoint, halt });
    }

    fn note(&self, busy: bool) -> Vec<u8> {
        let shards = self.worker.generation().unwrap().assignment(0, 0).len();
        self.worker.step_note(&self.requests, busy, vec![LOSS; shards]).encode()
    }

    /// Is a member of `generation`, and does nothing yet.
    fn joins(&mut self, generation: Generation) {
        self.requests.take(Request::Generation(generation));
        assert!(matches!(self.next(), Action::Join { .. }));
        self.worker.handle(Event::Joined);
    }
}

/// A generation of workers 1, 2, …, of which each holds the state that is given.
fn generation(number: u64, origin: Origin, holds: &[Option<u64>]) -> Generation {
    let members = equal_shares(holds.len() as u32 * 2, holds.len()).into_iter().zip(holds).enumerate();
    let address = ([127, 0, 0, 1], 1).into();
    let member =
        |(rank, (share, &holds))| Member { worker: WorkerId(rank as u64 + 1), address, share, holds };
    let (run, shards) = ("r".parse().unwrap(), holds.len() as u32 * 2);
    Generation { run, epoch: 1, number, shards, origin, members: members.map(member).collect(), key: [0; 32] }
}

fn alone(number: u64) -> Generation {
    generation(number, Origin::Initial, &[None])
}

fn reduced(notes: &[Vec<u8>]) -> Event {
    let (computed_in, reduced_in) = (Duration::from_secs(2), Duration::from_secs(1));
    Event::Reduced { notes: notes.to_vec(), skipped: None, computed_in, reduced_in }
}

/// All take a step, and none has asked its worker for the next action since.
fn step(all: &mut [&mut One], number: u64, busy: bool) {
    for one in all.iter_mut() {
        assert!(matches!(one.next(), Action::Step { step, .. } if step == number));
    }
    let notes: Vec<Vec<u8>> = all.iter().map(|one| one.note(busy)).collect();
    all.iter_mut().for_each(|one| one.worker.handle(reduced(&notes)));
}

fn stage(generation: u64, step: u64) -> Action {
    Action::Stage { generation, step, rank: 0, slices: 1 }
}

fn broken(reason: &str, suspect: Option<u64>) -> Cause {
    Cause::Broken { reason: reason.into(), suspect: suspect.map(WorkerId) }
}

#[test]
fn a_run_of_two_from_its_first_step_to_its_end() {
    let (mut first, mut second) = (One::new(1), One::new(2));
    assert_eq!(first.next(), Action::Wait);
    assert!(!first.worker.wakes(&first.requests));
    let generation = generation(1, Origin::Initial, &[None, None]);
    first.requests.take(Request::Generation(generation.clone()));
    assert!(first.worker.wakes(&first.requests));
    first.joins(generation.clone());
    second.joins(generation);
    for number in 0..SCHEDULE.steps {
        step(&mut [&mut first, &mut second], number, false);
        for (rank, one) in [&mut first, &mut second].into_iter().enumerate() {
            if number % 2 == 1 {
                assert_eq!(one.next(), Action::Stage { generation: 1, step: number + 1, rank, slices: 2 });
            }
        }
    }
    let parts = [encode_parts(&[Some(1.0), None]), encode_parts(&[Some(2.0), Some(4.0)])];
    for (rank, one) in [&mut first, &mut second].into_iter().enumerate() {
        let begin = rank as u32 * 2;
        assert_eq!(one.next(), Action::Evaluate { step: 4, parts: begin..begin + 2 });
        one.worker.handle(Event::Evaluated { notes: parts.to_vec() });
        assert_eq!(one.next(), Action::Hash { step: 4 });
        one.worker.handle(Event::Hashed { state: [9; 32] });
        assert_eq!(one.next(), Action::Wait);
    }
    let completed = Report::Completed {
        generation: 1,
        step: 4,
        state: [9; 32],
        loss: Some(4.0 * LOSS),
        val_loss: Some(7.0),
    };
    assert_eq!(second.worker.take_reports(), std::slice::from_ref(&completed), "rank 0 reports the rest");
    let reports = first.worker.take_reports();
    let steps = reports.iter().filter_map(|report| match report {
        Report::StepApplied { step, loss, computed_in, .. } => Some((*step, *loss, computed_in.as_secs())),
        _ => None,
    });
    assert!(steps.eq((1..=4).map(|step| (step, 4.0 * LOSS, 2))));
    let evaluated = Report::Evaluated { generation: 1, step: 4, val_loss: 7.0 };
    assert_eq!(reports[4..], [evaluated, completed]);
    first.is_asked(true, false);
    assert!(first.worker.wakes(&first.requests), "a save failed, and another is asked for");
    assert!(matches!(first.next(), Action::Stage { step: 4, .. }));
    assert_eq!(first.next(), Action::Wait);
    assert!(!first.worker.wakes(&first.requests));
    first.requests.take(Request::Leave { reason: "finished".into() });
    assert!(first.worker.wakes(&first.requests));
    assert_eq!(first.next(), Action::End(End::Leave { reason: "finished".into() }));
}

#[test]
fn a_save_is_put_off_while_a_member_still_uploads_but_not_the_last_one() {
    let mut one = One::new(1);
    one.joins(alone(1));
    step(&mut [&mut one], 0, false);
    step(&mut [&mut one], 1, true);
    step(&mut [&mut one], 2, false);
    assert_eq!(one.next(), stage(1, 3), "the save of step 2, put off");
    step(&mut [&mut one], 3, true);
    assert_eq!(one.next(), stage(1, 4));
}

#[test]
fn a_halt_waits_for_the_upload_and_its_checkpoint_is_that_of_the_last_step() {
    let mut one = One::new(1);
    one.joins(alone(1));
    assert!(matches!(one.next(), Action::Step { step: 0, .. }));
    let note = one.note(false);
    // Too late for the note of step 0, whose checkpoint was not asked for.
    one.is_asked(true, true);
    one.worker.handle(reduced(&[note]));
    step(&mut [&mut one], 1, true);
    assert_eq!(one.next(), stage(1, 2));
    assert_eq!(one.next(), Action::Leave);
    let halted = Report::Halted { generation: 1, step: Some(2), cause: Cause::Agreed };
    assert_eq!(one.worker.take_reports().last(), Some(&halted));
    assert_eq!((one.next(), one.worker.generation()), (Action::Wait, None));
}

#[test]
fn the_member_that_applied_a_broken_step_gives_its_state_to_the_one_that_did_not() {
    let (mut first, mut second) = (One::new(1), One::new(2));
    let pair = generation(1, Origin::Initial, &[None, None]);
    first.joins(pair.clone());
    second.joins(pair);
    assert!(matches!(first.next(), Action::Step { .. }) && matches!(second.next(), Action::Step { .. }));
    let notes = [first.note(false), second.note(false)];
    second.worker.handle(reduced(&notes));
    first.worker.handle(Event::Broken { reason: "reset".into(), suspect: Some(WorkerId(2)) });
    let halted = |step, cause| Report::Halted { generation: 1, step: Some(step), cause };
    assert_eq!(first.worker.take_reports(), [halted(0, broken("reset", Some(2)))]);
    second.requests.take(Request::Interrupt { generation: 1 });
    assert_eq!(second.next(), Action::Leave);
    assert_eq!(second.worker.take_reports(), [halted(1, broken("generation 1 was interrupted", None))]);

    let again = generation(2, Origin::Members { step: 1 }, &[Some(0), Some(1)]);
    first.joins(again.clone());
    second.joins(again);
    assert_eq!(second.next(), Action::SendState { to: vec![0] });
    assert_eq!(first.next(), Action::ReceiveState { from: 1 });
    assert_eq!(first.worker.held(), Held::Nothing, "half of a state is none");
    first.worker.handle(Event::StateReady { is_last: false });
    second.worker.handle(Event::StateReady { is_last: false });
    let reports = second.worker.take_reports();
    assert!(
        matches!(reports[..], [Report::StepApplied { generation: 2, step: 1, .. }]),
        "rank 0 did not report step 1: {reports:?}"
    );
    step(&mut [&mut first, &mut second], 1, false);
}

#[test]
fn an_interrupt_of_an_earlier_generation_is_ignored_and_one_before_the_stage_is_reported() {
    let mut one = One::new(1);
    one.joins(alone(3));
    one.requests.take(Request::Interrupt { generation: 2 });
    step(&mut [&mut one], 0, false);
    step(&mut [&mut one], 1, false);
    one.worker.take_reports();
    one.requests.take(Request::Interrupt { generation: 3 });
    assert_eq!(one.next(), Action::Leave);
    let reports = one.worker.take_reports();
    assert!(matches!(reports[0], Report::StepApplied { step: 2, .. }), "what was applied counts");
    assert!(matches!(reports[1], Report::SliceFailed { generation: 3, step: 2, .. }));
    assert!(matches!(reports[2], Report::Halted { generation: 3, step: Some(2), .. }));
    assert_eq!(reports.len(), 3);
}

#[test]
fn an_event_that_comes_after_its_generation_changes_nothing() {
    let mut one = One::new(1);
    one.worker.handle(Event::Joined);
    one.worker.handle(Event::StateReady { is_last: false });
    one.worker.handle(Event::Broken { reason: "late".into(), suspect: None });
    assert_eq!((one.worker.take_reports(), one.worker.held()), (vec![], Held::Pristine));
    one.joins(alone(1));
    one.worker.handle(Event::Hashed { state: [0; 32] });
    assert!(matches!(one.next(), Action::Step { step: 0, .. }));
}

#[test]
fn a_checkpoint_that_cannot_be_read_leaves_no_state_and_no_membership() {
    let mut one = One::new(1);
    let origin = Origin::Checkpoint { step: 2, manifest: "m".into() };
    one.joins(generation(1, origin.clone(), &[None]));
    assert_eq!(one.next(), Action::Restore { step: 2, manifest: "m".into() });
    one.worker.handle(Event::RestoreFailed { damaged: true, reason: "hash".into() });
    let (manifest, reason) = ("m".into(), "hash".into());
    let failed = Report::RestoreFailed { generation: 1, manifest, damaged: true, reason };
    assert_eq!(one.worker.take_reports(), [failed]);
    assert_eq!((one.next(), one.worker.held()), (Action::Wait, Held::Nothing));
    one.joins(generation(2, origin, &[None]));
    assert!(matches!(one.next(), Action::Restore { .. }));
    one.worker.handle(Event::StateReady { is_last: false });
    assert!(matches!(one.next(), Action::Step { step: 2, .. }));
    one.requests.take(Request::Interrupt { generation: 2 });
    assert_eq!(one.next(), Action::Leave);
    // Now the program holds another state than the initial one, which must be made again.
    one.joins(alone(3));
    assert_eq!(one.next(), Action::Initialise);
    assert!(matches!(one.next(), Action::Step { step: 0, .. }));
    assert_eq!(one.worker.held(), Held::Step(0));
}

#[test]
fn a_note_that_cannot_be_read_is_the_fault_of_its_worker() {
    let (mut first, mut second) = (One::new(1), One::new(2));
    let pair = generation(1, Origin::Initial, &[None, None]);
    first.joins(pair.clone());
    second.joins(pair);
    assert!(matches!(first.next(), Action::Step { .. }));
    first.worker.handle(reduced(&[first.note(false), vec![77]]));
    let reports = first.worker.take_reports();
    let why = "the note of w2 cannot be read, or has weights where others have none; are all workers of one version?";
    let expected = broken(why, Some(2));
    assert!(matches!(&reports[..], [Report::Halted { step: Some(0), cause, .. }] if *cause == expected));
}

#[test]
fn a_generation_that_is_wrong_about_this_worker_is_not_begun() {
    for (id, origin) in [(1, Origin::Members { step: 5 }), (7, Origin::Initial)] {
        let mut one = One::new(id);
        one.requests.take(Request::Generation(generation(1, origin, &[Some(5)])));
        let refused = one.worker.next(&one.requests).unwrap_err();
        assert_eq!(refused.generation, 1);
        assert!(one.worker.generation().is_none());
    }
}

#[test]
fn a_skipped_update_counts_as_a_step_and_names_its_tensor() {
    let mut one = One::new(1);
    one.joins(alone(1));
    assert!(matches!(one.next(), Action::Step { .. }));
    let note = StepNote { losses: vec![f64::NAN; 2], ..StepNote::default() }.encode();
    let (computed_in, reduced_in) = (Duration::ZERO, Duration::ZERO);
    let skipped = Some("w".to_owned());
    one.worker.handle(Event::Reduced { notes: vec![note], skipped, computed_in, reduced_in });
    assert!(matches!(one.next(), Action::Step { step: 1, .. }));
    let reports = one.worker.take_reports();
    assert!(matches!(&reports[..], [Report::StepApplied { skipped: Some(name), .. }] if name == "w"));
}

#[test]
fn a_generation_that_was_replaced_before_the_worker_looked_is_never_begun() {
    let mut one = One::new(1);
    one.requests.take(Request::Generation(alone(1)));
    one.requests.take(Request::Generation(alone(2)));
    let Action::Join { generation, rank: 0 } = one.next() else { panic!("it waits") };
    assert_eq!((generation.number, Arc::strong_count(&generation) > 1), (2, true));
}

#[test]
fn a_generation_that_starts_where_the_model_is_evaluated_evaluates_it_since_a_joiner_lacks_the_result() {
    for (step, is_due) in [(0, false), (1, false), (2, true), (3, false)] {
        let mut joiner = One::new(1);
        joiner.worker.evaluate_every(NonZeroU64::new(2).unwrap());
        if step == 0 {
            joiner.joins(alone(1));
        } else {
            joiner.joins(generation(1, Origin::Members { step }, &[None, Some(step)]));
            assert_eq!(joiner.next(), Action::ReceiveState { from: 1 });
            joiner.worker.handle(Event::StateReady { is_last: false });
        }
        let next = joiner.next();
        assert_eq!(matches!(next, Action::Evaluate { step: at, .. } if at == step), is_due, "{next:?}");
    }
}

#[test]
fn a_run_that_one_program_wants_to_end_ends_for_all_with_the_next_step_and_for_who_joins_then() {
    let (mut first, mut second) = (One::new(1), One::new(2));
    let both = generation(1, Origin::Initial, &[None, None]);
    first.joins(both.clone());
    second.joins(both);
    step(&mut [&mut first, &mut second], 0, false);
    second.worker.end_run();
    step(&mut [&mut first, &mut second], 1, true);
    assert!(matches!(first.worker.phase(), Some(Phase::Applying(reduced)) if reduced.is_last()));
    for (rank, one) in [&mut first, &mut second].into_iter().enumerate() {
        assert_eq!(
            one.next(),
            Action::Stage { generation: 1, step: 2, rank, slices: 2 },
            "though one is busy"
        );
        assert!(matches!(one.next(), Action::Evaluate { step: 2, .. }));
    }
    // The second one dies, and another takes its place.
    let next = generation(2, Origin::Members { step: 2 }, &[Some(2), None]);
    first.worker.handle(Event::Broken { reason: "reset".into(), suspect: None });
    let mut joiner = One::new(2);
    first.joins(next.clone());
    joiner.joins(next);
    for (rank, one) in [&mut first, &mut joiner].into_iter().enumerate() {
        assert!(matches!(one.next(), Action::SendState { .. } | Action::ReceiveState { .. }));
        one.worker.handle(Event::StateReady { is_last: true });
        assert_eq!(one.next(), Action::Stage { generation: 2, step: 2, rank, slices: 2 });
        assert!(matches!(one.next(), Action::Evaluate { step: 2, .. }));
        let notes = [(); 2].map(|()| encode_parts(&[None; 2]));
        one.worker.handle(Event::Evaluated { notes: notes.to_vec() });
        assert_eq!(one.next(), Action::Hash { step: 2 });
    }
}

#[test]
fn a_wish_to_end_is_forgotten_when_the_state_goes_back_before_it() {
    let mut one = One::new(1);
    one.joins(alone(1));
    step(&mut [&mut one], 0, false);
    one.worker.end_run();
    assert_eq!(one.next(), Action::Step { step: 1, shards: 0..2 });
    let ends = |one: &One| one.worker.step_note(&one.requests, false, Vec::new()).last;
    assert!(ends(&one));
    let again = Origin::Checkpoint { step: 1, manifest: "1-a".into() };
    one.requests.take(Request::Generation(generation(2, again, &[None])));
    assert_eq!(one.next(), Action::Leave);
    assert!(matches!(one.next(), Action::Join { .. }));
    assert!(ends(&one), "the step after which it wanted the end is in the checkpoint");
    one.requests.take(Request::Generation(alone(3)));
    assert_eq!(one.next(), Action::Leave);
    assert!(matches!(one.next(), Action::Join { .. }));
    assert!(!ends(&one));
}
