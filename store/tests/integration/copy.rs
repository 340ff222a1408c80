//! Copies of a run in other stores: whole, resumable, and never written over a run that went on.
use std::{fs, time::Duration};

use crate::support::{
    Fault, Faulty, SMALL_PACKS, Scene, State, checkpoint,
    checkpoints::{assert_whole, damage_newest, finished, steps, stopped, with_checkpoints},
};
use whimbrel_state::TensorSpec;
use whimbrel_store::{
    Amount, AppendError, CheckpointSelection, Copied, CopyError, CopyProgress, CopySize, HostedBy, KeepEvery,
    Limits, Record, Relation, ReplicaLogError, ReplicateError, Replicator, Retention, RunDir, collect,
    plan_copy, relation,
};

const KEEP_TWO: Retention =
    Retention { last: 2, every: None, grace: Duration::from_secs(3600), in_flight: Vec::new() };

/// One pack at a time, so that checkpoints are committed in the order in which their packs are planned.
const IN_TURN: Limits = Limits { concurrency: 1, ..SMALL_PACKS };

/// An empty folder as the destination of a copy.
fn empty() -> Scene {
    Scene::empty()
}

async fn copy(
    source: &RunDir,
    destination: &RunDir,
    selection: CheckpointSelection,
) -> Result<Copied, CopyError> {
    plan_copy(source, destination, selection).await?.execute("a copy", &SMALL_PACKS, &mut |_| {}).await
}

#[tokio::test]
async fn a_copy_has_the_checkpoints_the_output_and_the_run_outcome() {
    let (scene, mut term) = with_checkpoints(&[10, 20, 30]).await;
    scene.run().put_output(1, 0, "w1 hello\n".into()).await.unwrap();
    term.append(stopped(30)).await.unwrap();
    let there = empty();
    let plan = plan_copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert_eq!((plan.work.to_move.packs.objects, plan.work.there.objects), (scene.files("packs").len(), 0));
    let expected = plan.work.to_move;
    let mut progress = Vec::new();
    let copied = plan.execute("a copy", &IN_TURN, &mut |event| progress.push(event)).await.unwrap();
    assert_eq!((expected.manifests.objects, expected.output), (3, Amount { objects: 1, bytes: 9 }));
    assert_eq!((&copied.committed[..], copied.moved), (&[30, 20, 10][..], expected));
    let moved = progress.iter().filter(|event| matches!(event, CopyProgress::Moved { .. })).count();
    assert_eq!(moved, expected.packs.objects);
    let bytes = progress.iter().map(|event| match event {
        CopyProgress::Moved { bytes } | CopyProgress::Found { bytes } => *bytes,
        CopyProgress::Bad { bytes, .. } | CopyProgress::Committed { bytes, .. } => *bytes,
        CopyProgress::Output { bytes } => *bytes,
    });
    assert_eq!(bytes.sum::<u64>(), expected.bytes(), "the plan covers all that moved");

    assert_eq!(steps(&there.run()).await, [10, 20, 30]);
    assert_whole(&there.run()).await;
    let (ours, theirs) = (scene.run().run_log().await.unwrap(), there.run().run_log().await.unwrap());
    assert_eq!(theirs.stopped(), ours.stopped());
    assert_eq!(theirs.replica_of().unwrap().source, scene.run().uri());
    for (a, b) in ours.checkpoints().iter().zip(theirs.checkpoints()) {
        assert_eq!((&a.manifest, a.time, a.origin, a.state), (&b.manifest, b.time, b.origin, b.state));
    }
    assert_eq!(there.run().output().await.unwrap(), scene.run().output().await.unwrap());

    // A second copy moves nothing and writes nothing.
    let files = there.files("");
    let again = copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert_eq!((again.committed.len(), again.moved), (0, CopySize::default()));
    assert_eq!(there.files(""), files);
}

/// Packs are in the destination when the copy is planned, and gone when their checkpoint is to be committed, while
/// packs of another checkpoint are in flight. They move then, without a deadlock.
#[tokio::test]
async fn packs_that_vanish_after_the_plan_are_moved_at_the_commit() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    // So many packs that those of the older checkpoint take all transfer slots.
    let large = |seed| State::filled(vec![TensorSpec::f32("w", [64 << 4])], seed);
    checkpoint(&mut term, &large(1), 1).await;
    let older = scene.files("packs");
    checkpoint(&mut term, &large(2), 2).await;
    let there = empty();
    let mut newer: Vec<_> =
        scene.files("packs").into_keys().filter(|name| !older.contains_key(name)).collect();
    newer.sort();
    assert!(older.len() > 30 && newer.len() > 30, "{} and {} packs", older.len(), newer.len());
    for name in &newer[1..] {
        let to = there.folder().join("r").join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(scene.folder().join("r").join(name), to).unwrap();
    }
    let plan = plan_copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert_eq!(plan.work.to_move.packs.objects, older.len() + 1);
    fs::remove_dir_all(there.folder().join("r/packs")).unwrap();
    let mut ignore = |_| {};
    let executed = plan.execute("a copy", &SMALL_PACKS, &mut ignore);
    let copied = tokio::time::timeout(Duration::from_secs(60), Box::pin(executed)).await.unwrap().unwrap();
    assert_eq!((&copied.committed[..], copied.moved.packs.objects), (&[2, 1][..], older.len() + newer.len()));
    assert_whole(&there.run()).await;
}

#[tokio::test]
async fn a_single_checkpoint_can_be_copied() {
    let (scene, _term) = with_checkpoints(&[10, 20, 30]).await;
    let there = empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::Step(20)).await.unwrap();
    assert_eq!(steps(&there.run()).await, [20]);
    copy(&scene.run(), &there.run(), CheckpointSelection::Newest).await.unwrap();
    copy(&scene.run(), &there.run(), CheckpointSelection::Step(10)).await.unwrap();
    assert_eq!(steps(&there.run()).await, [10, 20, 30], "in the order in which they were made");
    assert_whole(&there.run()).await;
    let error = copy(&scene.run(), &there.run(), CheckpointSelection::Step(11)).await.unwrap_err();
    assert!(matches!(error, CopyError::NoSuchStep { step: 11, .. }), "{error}");
}

#[tokio::test]
async fn nothing_is_copied_over_a_copy_that_was_resumed() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let there = empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();

    // The source goes on and the copy follows.
    checkpoint(&mut term, &State::small(20), 20).await;
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert_eq!(steps(&there.run()).await, [10, 20]);

    // The copy is resumed. The source's coordinator can no longer copy to it. Once the run is copied back, it can no
    // longer append here.
    let mut resumed = there.run().start_term("elsewhere").await.unwrap();
    assert_eq!((resumed.epoch(), resumed.run_log().replica_of()), (2, None));
    checkpoint(&mut resumed, &State::small(25), 25).await;
    let (ours, theirs) = (scene.run().run_log().await.unwrap(), there.run().run_log().await.unwrap());
    assert_eq!((relation(&ours, &theirs), relation(&theirs, &ours)), (Relation::Ahead, Relation::Behind));
    let error = copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap_err();
    assert!(
        matches!(&error, CopyError::Replica(ReplicaLogError::WentOn { epoch: 2, coordinator, .. }) if coordinator == "elsewhere"),
        "{error}"
    );
    copy(&there.run(), &scene.run(), CheckpointSelection::All).await.unwrap();
    assert_eq!(steps(&scene.run()).await, [10, 20, 25]);
    assert_whole(&scene.run()).await;
    let error = term.append(stopped(20)).await.unwrap_err();
    assert!(matches!(error, AppendError::Fenced { epoch: 2, .. }), "{error}");
}

#[tokio::test]
async fn nothing_is_copied_between_directories_that_were_both_resumed() {
    let (scene, _term) = with_checkpoints(&[10]).await;
    let there = empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    scene.run().start_term("here").await.unwrap();
    there.run().start_term("there").await.unwrap();
    for (source, destination) in [(&scene, &there), (&there, &scene)] {
        let error = copy(&source.run(), &destination.run(), CheckpointSelection::All).await.unwrap_err();
        assert!(matches!(error, CopyError::Replica(ReplicaLogError::Diverged { epoch: 2, .. })), "{error}");
    }
}

#[tokio::test]
async fn only_a_copy_of_the_source_is_written_to() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let itself = copy(&scene.run(), &scene.run(), CheckpointSelection::All).await.unwrap_err();
    assert!(matches!(itself, CopyError::Replica(ReplicaLogError::Itself { .. })), "{itself}");
    let there = empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    let back = copy(&there.run(), &scene.run(), CheckpointSelection::All).await.unwrap_err();
    assert!(matches!(back, CopyError::Replica(ReplicaLogError::Itself { .. })), "{back}");
    term.append(stopped(10)).await.unwrap();

    let another = Scene::new().await;
    another.run().start_term("c").await.unwrap();
    let error = copy(&scene.run(), &another.run(), CheckpointSelection::All).await.unwrap_err();
    assert!(matches!(error, CopyError::Replica(ReplicaLogError::AnotherRun { .. })), "{error}");

    let not_begun = Scene::new().await;
    let error = copy(&not_begun.run(), &empty().run(), CheckpointSelection::All).await.unwrap_err();
    assert!(matches!(error, CopyError::Replica(ReplicaLogError::NotBegun { .. })), "{error}");

    let renamed = Faulty::over(there.folder()).store().run(&"s".parse().unwrap());
    let error = copy(&scene.run(), &renamed, CheckpointSelection::All).await.unwrap_err();
    assert!(matches!(error, CopyError::OtherName { .. }), "{error}");
}

#[tokio::test]
async fn damaged_checkpoints_are_reported_and_not_copied() {
    let (scene, _term) = with_checkpoints(&[10, 20, 30]).await;
    let run_log = scene.run().run_log().await.unwrap();
    let manifest = scene.run().manifest(&run_log.checkpoints()[1].manifest).await.unwrap();
    let hash = manifest.packs[1].hash.to_string();
    let file = &scene.files("packs")[&format!("packs/{}/{hash}.safetensors", &hash[..2])];
    let mut bytes = fs::read(file).unwrap();
    bytes[9] ^= 2;
    fs::write(file, bytes).unwrap();
    fs::write(&scene.files("manifests")[&run_log.checkpoints()[0].manifest], "x").unwrap();

    let there = empty();
    let copied = copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    let left_out: Vec<_> = copied.skipped.iter().map(|out| (out.step, out.why.to_string())).collect();
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert!(left_out[0].1.contains("is damaged") && left_out[0].0 == 10, "{left_out:?}");
    assert!(left_out[1].1.contains(&hash) && left_out[1].0 == 20, "{left_out:?}");
    assert_eq!(steps(&there.run()).await, [30]);
    assert!(!there.files("packs").keys().any(|name| name.contains(&hash)));
}

#[tokio::test]
async fn a_replica_keeps_what_the_run_keeps() {
    let (scene, mut term) = with_checkpoints(&[10, 20, 30]).await;
    let there = empty();
    let mut replicator = Replicator::new(&scene.run(), &there.run(), "c", KEEP_TWO, IN_TURN);
    let mut order = Vec::new();
    let mut note = |event| {
        if let CopyProgress::Committed { step, .. } = event {
            order.push(step);
        }
    };
    let lag = replicator.replicate(term.run_log(), &mut note).await.unwrap();
    assert_eq!((lag.newest, lag.newest_of_run, lag.missing.objects), (Some(30), Some(30), 0));
    assert_eq!(order, [30, 20], "the newest first, and only kept checkpoints");

    checkpoint(&mut term, &State::small(40), 40).await;
    replicator.replicate(term.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(steps(&there.run()).await, [30, 40]);
    assert_whole(&there.run()).await;
    let terms = there.run().run_log().await.unwrap();
    let terms = terms.entries().iter().filter(|entry| matches!(entry.record, Record::Term { .. }));
    assert_eq!(terms.count(), 1, "one term for all replications");

    term.append(stopped(40)).await.unwrap();
    replicator.replicate(term.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(there.run().run_log().await.unwrap().stopped().unwrap().step, 40);
    collect(&mut term, &KEEP_TWO).await.unwrap();
    assert_eq!(steps(&scene.run()).await, steps(&there.run()).await);
}

#[tokio::test]
async fn a_replica_added_late_keeps_the_same_checkpoints() {
    let (scene, mut term) = with_checkpoints(&[]).await;
    let (early, late) = (empty(), empty());
    let retention = Retention { every: Some(KeepEvery::Steps(20)), ..KEEP_TWO };
    let replicator =
        |there: &Scene| Replicator::new(&scene.run(), &there.run(), "c", retention.clone(), SMALL_PACKS);
    let mut following = replicator(&early);
    for step in [10, 25, 30, 45, 50, 65, 70, 75] {
        checkpoint(&mut term, &State::small(step as u8), step).await;
        collect(&mut term, &retention).await.unwrap();
        following.replicate(term.run_log(), &mut |_| {}).await.unwrap();
    }
    replicator(&late).replicate(term.run_log(), &mut |_| {}).await.unwrap();
    for there in [&scene, &early, &late] {
        assert_eq!(steps(&there.run()).await, [25, 45, 65, 70, 75]);
        assert_whole(&there.run()).await;
    }
}

#[tokio::test]
async fn a_replicator_tells_another_copy_from_a_resumed_run() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let there = empty();
    let mut replicator = Replicator::new(&scene.run(), &there.run(), "c", KEEP_TWO, SMALL_PACKS);
    replicator.replicate(term.run_log(), &mut |_| {}).await.unwrap();

    // Another copy of the same run took the replica's term.
    let run_log = scene.run().run_log().await.unwrap();
    there.run().become_replica_of(&scene.run(), &run_log, "a copy").await.unwrap();
    checkpoint(&mut term, &State::small(20), 20).await;
    let error = replicator.replicate(term.run_log(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, ReplicateError::Superseded { by, .. } if by == "a copy"), "{error}");
    replicator.replicate(term.run_log(), &mut |_| {}).await.unwrap();
    assert_eq!(steps(&there.run()).await, [10, 20]);

    // The run is resumed at the replica.
    there.run().start_term("elsewhere").await.unwrap();
    for _ in 0..2 {
        let error = replicator.replicate(term.run_log(), &mut |_| {}).await.unwrap_err();
        assert!(
            matches!(&error, ReplicateError::WentOn { epoch: 2, coordinator, .. } if coordinator == "elsewhere"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_newest_run_outcome_wins_whichever_copy_has_it() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    term.append(stopped(10)).await.unwrap();
    let (stale, there) = (empty(), empty());
    copy(&scene.run(), &stale.run(), CheckpointSelection::All).await.unwrap();
    let mut term = scene.run().start_term("again").await.unwrap();
    term.append(Record::Resumed { step: 10 }).await.unwrap();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert!(there.run().run_log().await.unwrap().stopped().is_none());
    // The stale copy is behind the other and may not be copied to it. Once it is updated, it has the same outcome.
    let error = copy(&stale.run(), &there.run(), CheckpointSelection::All).await.unwrap_err();
    assert!(matches!(error, CopyError::Replica(ReplicaLogError::WentOn { .. })), "{error}");
    copy(&there.run(), &stale.run(), CheckpointSelection::All).await.unwrap();
    assert!(stale.run().run_log().await.unwrap().stopped().is_none());
    term.append(stopped(11)).await.unwrap();
    copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    copy(&stale.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert_eq!(there.run().run_log().await.unwrap().stopped().unwrap().step, 11);
    assert_eq!(there.run().run_log().await.unwrap().hosted_by(), HostedBy::Embedded);
}

#[tokio::test]
async fn an_outdated_plan_does_not_record_an_outdated_run_outcome() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    term.append(stopped(10)).await.unwrap();
    let there = empty();
    let plan = plan_copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    let mut term = scene.run().start_term("again").await.unwrap();
    term.append(Record::Resumed { step: 10 }).await.unwrap();
    plan.execute("a copy", &SMALL_PACKS, &mut |_| {}).await.unwrap();
    let (ours, theirs) = (scene.run().run_log().await.unwrap(), there.run().run_log().await.unwrap());
    assert_eq!(relation(&ours, &theirs), Relation::Same);
    assert!(theirs.stopped().is_none());
}

#[tokio::test]
async fn a_copy_records_the_end_of_a_run_only_with_the_last_checkpoint() {
    let (scene, mut term) = with_checkpoints(&[10]).await;
    let there = empty();
    let plan = plan_copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    checkpoint(&mut term, &State::small(20), 20).await;
    term.append(finished(20)).await.unwrap();
    let copied = plan.execute("a copy", &SMALL_PACKS, &mut |_| {}).await.unwrap();
    assert!(copied.source_went_on && copied.committed == [10], "{copied:?}");
    assert!(there.run().run_log().await.unwrap().ended().is_none(), "it can be resumed there");
    let copied = copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert!(!copied.source_went_on && copied.committed == [20], "{copied:?}");
    assert_eq!(there.run().run_log().await.unwrap().ended().unwrap().step, 20);

    // A copy of an earlier checkpoint alone can be resumed. Copied again, there is nothing to do.
    let there = empty();
    copy(&scene.run(), &there.run(), CheckpointSelection::Step(10)).await.unwrap();
    let copied = there.run().run_log().await.unwrap();
    assert!(copied.ended().is_none() && copied.checkpoints().len() == 1);
    copy(&scene.run(), &there.run(), CheckpointSelection::Step(10)).await.unwrap();
    assert_eq!(there.run().run_log().await.unwrap().next_number(), copied.next_number());
    // If the last checkpoint cannot be copied, the copy does not record the end.
    damage_newest(&scene).await;
    let there = empty();
    let copied = copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
    assert!(copied.committed == [10] && copied.skipped.len() == 1, "{copied:?}");
    assert!(there.run().run_log().await.unwrap().ended().is_none());
}

/// For each request to the source or the destination: a copy dies or fails at it, and another copy completes the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_interrupted_copy_goes_on_where_it_was() {
    let (scene, mut term) = with_checkpoints(&[]).await;
    // All packs but one are shared.
    let mut state = State::small(1);
    checkpoint(&mut term, &state, 10).await;
    state.bytes[0] ^= 1;
    checkpoint(&mut term, &state, 20).await;
    term.append(stopped(20)).await.unwrap();
    scene.run().put_output(1, 0, "w1 hello\n".into()).await.unwrap();
    let (seen_source, seen_destination) = {
        let there = empty();
        let (source, destination) = (Faulty::over(scene.folder()), Faulty::over(there.folder()));
        copy(&scene.run_over(&source), &there.run_over(&destination), CheckpointSelection::All)
            .await
            .unwrap();
        (source.seen().len(), destination.seen().len())
    };
    let total = plan_copy(&scene.run(), &empty().run(), CheckpointSelection::All)
        .await
        .unwrap()
        .work
        .to_move
        .packs
        .objects;
    assert!(seen_source > total && seen_destination > 2 * total);
    let cases =
        (0..seen_source).map(|at| (Some(at), None)).chain((0..seen_destination).map(|at| (None, Some(at))));
    for (at_source, at_destination) in cases {
        // The source is only read, so a lost answer is the same there as a refused request.
        let faults: &[Fault] = match at_source {
            Some(_) => &[Fault::Unavailable, Fault::CrashBefore],
            None => &Fault::ALL,
        };
        for &fault in faults {
            let case = format!("{fault:?} at {at_source:?}, {at_destination:?}");
            let there = empty();
            let mut source = Faulty::over(scene.folder());
            let mut destination = Faulty::over(there.folder());
            if let Some(at) = at_source {
                source = source.fail_at(at, fault);
            }
            if let Some(at) = at_destination {
                destination = destination.fail_at(at, fault);
            }
            let outcome =
                copy(&scene.run_over(&source), &there.run_over(&destination), CheckpointSelection::All).await;
            let passes = Fault::PASSING.contains(&fault);
            assert!(!passes || outcome.is_ok(), "{case}: {:?}", outcome.err());
            // Committed checkpoints are whole at any time.
            if there.folder().join("r/log").exists() && !there.files("log").is_empty() {
                assert_whole(&there.run()).await;
            }
            let arrived = there.files("packs").len();
            let again = copy(&scene.run(), &there.run(), CheckpointSelection::All).await.unwrap();
            assert_eq!(
                again.moved.packs.objects,
                total - arrived,
                "{case}: packs that had arrived moved again"
            );
            assert_eq!(steps(&there.run()).await, [10, 20], "{case}");
            assert_whole(&there.run()).await;
            assert_eq!(there.run().run_log().await.unwrap().stopped().unwrap().step, 20, "{case}");
        }
    }
}
