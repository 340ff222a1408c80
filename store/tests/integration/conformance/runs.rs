//! The whole life of a run through the public interface, on any store.

use std::time::Duration;

use whimbrel_state::StateBytes;
use whimbrel_store::{
    AppendError, Ended, HostedBy, Outcome, Record, Retention, Store, collect, commit, quarantine,
    restore_some, verify,
};

use crate::support::{SMALL_PACKS, State, checkpoint, restored, save};

pub(crate) async fn suite(store: &Store) {
    assert_eq!(store.runs().await.unwrap(), []);
    let id = "r-conformance".parse().unwrap();
    let run = store.run(&id);
    run.run_log().await.unwrap_err();
    run.create("[run]\nname = \"r\"\n", HostedBy::Service).await.unwrap();
    run.create("[run]\nname = \"r\"\n", HostedBy::Service).await.unwrap_err();
    assert_eq!(store.runs().await.unwrap(), [id]);

    // Three workers save, a coordinator commits, others read.
    let mut term = run.start_term("first").await.unwrap();
    let state = State::small(1);
    let manifest = save(&run, &state, 10, 3).await.unwrap();
    let first = commit(&mut term, &manifest, Some(state.digest(10))).await.unwrap();
    assert_eq!(restored(&run, &first.manifest).await.unwrap(), state);
    let mut some = State::blank(&state.layout);
    let wanted = some.tensors().into_iter().filter(|tensor| tensor.spec.name == "weights").collect();
    restore_some(&run.clone().into(), &manifest, wanted, &SMALL_PACKS).await.unwrap();
    assert_ne!(some, state);
    let verified = verify(&run, &manifest, &SMALL_PACKS, |_| {}).await.unwrap();
    assert_eq!(verified.state, state.digest(10));
    run.put_output(1, 0, "hello\n".into()).await.unwrap();
    assert_eq!(run.output().await.unwrap().len(), 1);

    // Another coordinator takes over; the first finds itself fenced and deletes nothing.
    let mut second = run.start_term("second").await.unwrap();
    assert_eq!(second.epoch(), 2);
    let fenced = commit(&mut term, &manifest, None).await.unwrap_err();
    assert!(fenced.to_string().contains("fenced") || format!("{fenced:?}").contains("Fenced"), "{fenced}");
    let fenced = term.append(Record::Resumed { step: 1 }).await.unwrap_err();
    assert!(matches!(fenced, AppendError::Fenced { epoch: 2, .. }), "{fenced}");

    // A damaged checkpoint is set aside, and the one before it is used.
    let later = State::small(2);
    let damaged = checkpoint(&mut second, &later, 20).await;
    let suspects = run.manifest(&damaged.manifest).await.unwrap().packs;
    quarantine(&mut second, &damaged.manifest, "a test", &suspects[..1]).await.unwrap();
    let usable = run.run_log().await.unwrap().checkpoints();
    assert_eq!(usable.iter().map(|found| found.step).collect::<Vec<_>>(), [10]);
    assert_eq!(restored(&run, &usable[0].manifest).await.unwrap(), state);

    // A collection deletes the rest; the kept checkpoint stays complete.
    let newest = checkpoint(&mut second, &later, 30).await;
    let retention = Retention { last: 1, grace: Duration::ZERO, ..Retention::default() };
    let collected = collect(&mut second, &retention).await.unwrap();
    assert!(collected.manifests.contains(&first.manifest) && collected.packs > 0, "{collected:?}");
    assert_eq!(restored(&run, &newest.manifest).await.unwrap(), later);
    assert_eq!(collect(&mut second, &retention).await.unwrap().packs, 0);

    let ended = Ended {
        outcome: Outcome::Finished,
        step: 30,
        loss: None,
        val_loss: None,
        state: Some(later.digest(30)),
        reason: None,
    };
    second.append(Record::Ended(ended.clone())).await.unwrap();
    // Opened again, it reads the same.
    let run_log = store.run(run.id()).run_log().await.unwrap();
    assert_eq!(run_log.ended(), Some(&ended));
    assert_eq!(run_log.checkpoints().len(), 1);
    let mut whole = State::blank(&later.layout);
    let manifest = run.manifest(&newest.manifest).await.unwrap();
    whimbrel_store::restore(
        &run.clone().into(),
        &manifest,
        &mut StateBytes::new(whole.tensors()).unwrap(),
        &SMALL_PACKS,
    )
    .await
    .unwrap();
    assert_eq!(whole, later);
}
