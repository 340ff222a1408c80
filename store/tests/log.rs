//! The run log: one lineage whoever writes, and whatever becomes of the answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;

use support::{Fault, Faulty, Scene, State, checkpoint, checkpoints::stopped, save};
use tokio::task::JoinSet;
use whimbrel_store::{
    AppendError, CollectError, CommitError, CreateError, Ended, LogError, Mode, OfficeError, Outcome, Record,
    Retention, collect, commit,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contending_coordinators_make_one_lineage_and_lose_no_entry() {
    let scene = Scene::new().await;
    let mut contenders = JoinSet::new();
    for contender in 0..6_u64 {
        let run = scene.run();
        contenders.spawn(async move {
            let mut acknowledged = HashMap::new();
            let mut office = run.take_office(&format!("c{contender}")).await.unwrap();
            for turn in 0..20 {
                let step = contender * 1000 + turn;
                match office.append(stopped(step)).await {
                    Ok(number) => {
                        acknowledged.insert(number, (office.epoch(), step));
                    }
                    Err(AppendError::Fenced { epoch, .. }) => {
                        assert!(epoch > office.epoch());
                        office = run.take_office(&format!("c{contender}")).await.unwrap();
                    }
                    Err(AppendError::Log(error)) => panic!("{error}"),
                }
            }
            acknowledged
        });
    }
    let acknowledged = contenders.join_all().await;
    let history = scene.run().history().await.unwrap();
    let count: usize = acknowledged.iter().map(HashMap::len).sum();
    for (number, (epoch, step)) in acknowledged.into_iter().flatten() {
        let entry = &history.entries()[number as usize];
        assert_eq!((entry.number, entry.epoch, &entry.record), (number, epoch, &stopped(step)));
    }
    let offices =
        history.entries().iter().filter(|entry| matches!(entry.record, Record::Office { .. })).count();
    assert_eq!(history.epoch(), offices as u64, "each office has an epoch of its own");
    assert_eq!(history.entries().len(), 1 + offices + count, "no entry but those acknowledged");
}

#[tokio::test]
async fn a_fenced_coordinator_can_neither_append_nor_commit_nor_delete() {
    let scene = Scene::new().await;
    let run = scene.run();
    let mut paused = run.take_office("paused").await.unwrap();
    checkpoint(&mut paused, &State::small(1), 10).await;
    checkpoint(&mut paused, &State::small(2), 20).await;
    let manifest = save(&run, &State::small(3), 30, 2).await.unwrap();

    let mut successor = run.take_office("successor").await.unwrap();
    successor.append(stopped(20)).await.unwrap();
    let files = scene.files("");

    let fenced = |error: &AppendError| matches!(error, AppendError::Fenced { epoch: 2, coordinator, .. } if coordinator == "successor");
    assert!(fenced(&paused.append(stopped(1)).await.unwrap_err()));
    assert!(fenced(&paused.check().await.unwrap_err()));
    let commit = commit(&mut paused, &manifest, None).await.unwrap_err();
    assert!(matches!(commit, CommitError::Append(error) if fenced(&error)));
    let everything =
        Retention { last: 1, every: None, grace: std::time::Duration::ZERO, in_flight: Vec::new() };
    let collect = collect(&mut paused, &everything).await.unwrap_err();
    assert!(matches!(collect, CollectError::Append(error) if fenced(&error)));

    let mut left = scene.files("");
    left.retain(|name, _| files.contains_key(name));
    assert_eq!(left, files, "a fenced coordinator deleted something");
    assert_eq!(run.history().await.unwrap().checkpoints().last().unwrap().step, 20);
}

#[tokio::test]
async fn an_entry_is_written_once_whatever_answer_is_lost() {
    let clean = Scene::new().await;
    let store = Faulty::over(clean.folder());
    let mut office = clean.run_over(&store).take_office("c").await.unwrap();
    office.append(stopped(1)).await.unwrap();
    let requests = store.seen();

    for (at, request) in requests.iter().enumerate() {
        for fault in Fault::PASSING {
            let scene = Scene::new().await;
            let run = scene.run_over(&Faulty::over(scene.folder()).fail_at(at, fault));
            let mut office = run.take_office("c").await.unwrap();
            let number = office.append(stopped(1)).await.unwrap();
            let history = scene.run().history().await.unwrap();
            let told = format!("{fault:?} at request {at}, {request}");
            assert_eq!((number, history.entries().len(), history.epoch()), (2, 3, 1), "{told}");
            assert_eq!(history.entries(), office.history().entries(), "{told}");
        }
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_and_landed_all_the_same_is_found_in_its_place() {
    let scene = Scene::new().await;
    let mut office = scene.run().take_office("c").await.unwrap();
    // Another program of the same office stands for the write that is still under way when this one gives up.
    let store = Faulty::over(scene.folder());
    let late = whimbrel_store::Entry {
        format: 1,
        number: 2,
        epoch: 1,
        writer: "late".into(),
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        record: stopped(7),
    };
    let path = scene.folder().join("r/log").join(format!("{:020}.json", 2));
    std::fs::write(path, late.encode().unwrap()).unwrap();

    assert_eq!(office.append(stopped(8)).await.unwrap(), 3);
    let history = scene.run_over(&store).history().await.unwrap();
    assert_eq!(history.entries()[2], late);
    assert_eq!(history.entries()[3].record, stopped(8));
}

#[tokio::test]
async fn entries_are_found_though_the_listing_lags() {
    let scene = Scene::new().await;
    let mut office = scene.run().take_office("c").await.unwrap();
    for step in 0..20 {
        office.append(stopped(step)).await.unwrap();
    }
    let blind = scene.run_over(&Faulty::over(scene.folder()).blind());
    assert_eq!(blind.history().await.unwrap().entries().len(), 22);
    assert_eq!(blind.take_office("d").await.unwrap().epoch(), 2);
}

#[tokio::test]
async fn a_lost_entry_is_an_error_and_not_the_end_of_the_log() {
    let scene = Scene::new().await;
    let mut office = scene.run().take_office("c").await.unwrap();
    for step in 0..5 {
        office.append(stopped(step)).await.unwrap();
    }
    for lost in [3, 0] {
        std::fs::remove_file(scene.folder().join(format!("r/log/{lost:020}.json"))).unwrap();
        let error = scene.run().history().await.unwrap_err();
        assert!(
            matches!(&error, LogError::Hole { object } if object.contains(&format!("{lost:020}"))),
            "{error}"
        );
        scene.run().take_office("d").await.unwrap_err();
    }
}

#[tokio::test]
async fn a_run_is_created_once_and_one_that_is_not_there_is_named() {
    let scene = Scene::new().await;
    let again = scene.run().create("other", Mode::Service).await.unwrap_err();
    assert!(matches!(&again, CreateError::Exists { run } if run == "test://store/r"), "{again}");
    let history = scene.run().history().await.unwrap();
    assert_eq!((history.spec(), history.submitter()), ("[run]\nname = \"r\"\n", Mode::Embedded));

    let store = Faulty::over(scene.folder()).store();
    std::fs::create_dir(scene.folder().join("not-a-run")).unwrap();
    assert_eq!(store.runs().await.unwrap(), ["r".parse().unwrap()]);
    let none = store.run(&"not-a-run".parse().unwrap()).history().await.unwrap_err();
    assert!(none.to_string().contains("no run at test://store/not-a-run"), "{none}");
}

#[tokio::test]
async fn the_last_word_says_whether_a_run_goes_on() {
    let scene = Scene::new().await;
    let mut office = scene.run().take_office("c").await.unwrap();
    let ended = Ended {
        outcome: Outcome::Finished,
        step: 9,
        loss: Some(1.25),
        val_loss: None,
        state: Some(State::small(1).digest(9)),
        reason: None,
    };
    office.append(stopped(3)).await.unwrap();
    assert_eq!(office.history().stopped().unwrap().step, 3);
    office.append(Record::Resumed { step: 3 }).await.unwrap();
    assert_eq!((office.history().stopped(), office.history().ended()), (None, None));
    office.append(Record::Ended(ended.clone())).await.unwrap();
    assert_eq!(scene.run().history().await.unwrap().ended(), Some(&ended));
}

#[tokio::test]
async fn an_office_is_not_taken_from_who_took_it_after_all_that_was_known() {
    let scene = Scene::new().await;
    let known = scene.run().take_office("a").await.unwrap().epoch();
    // What the same coordinator adds is no other's office.
    scene
        .run()
        .take_office_after(known, "b")
        .await
        .unwrap()
        .append(Record::Resumed { step: 1 })
        .await
        .unwrap();
    let error = scene.run().take_office_after(known, "c").await.unwrap_err();
    assert!(
        matches!(&error, OfficeError::Taken { epoch, coordinator, .. } if (*epoch, &coordinator[..]) == (known + 1, "b")),
        "{error}"
    );
    let mut third = scene.run().take_office_after(known + 1, "c").await.unwrap();
    third.check().await.unwrap();
    assert_eq!(third.epoch(), known + 2);
}
