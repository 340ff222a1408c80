//! The run log: it stays consistent with any number of writers and with lost answers.
use std::collections::HashMap;

use crate::support::{Fault, Faulty, Scene, State, checkpoint, checkpoints::stopped, save};
use tokio::task::JoinSet;
use whimbrel_store::{
    AppendError, CollectError, CommitError, CreateError, Ended, HostedBy, LogError, Outcome, Record,
    Retention, TermError, collect, commit,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contending_coordinators_make_one_log_and_lose_no_entry() {
    let scene = Scene::new().await;
    let mut contenders = JoinSet::new();
    for contender in 0..6_u64 {
        let run = scene.run();
        contenders.spawn(async move {
            let mut acknowledged = HashMap::new();
            let mut term = run.start_term(&format!("c{contender}")).await.unwrap();
            for turn in 0..20 {
                let step = contender * 1000 + turn;
                match term.append(stopped(step)).await {
                    Ok(number) => {
                        acknowledged.insert(number, (term.epoch(), step));
                    }
                    Err(AppendError::Fenced { epoch, .. }) => {
                        assert!(epoch > term.epoch());
                        term = run.start_term(&format!("c{contender}")).await.unwrap();
                    }
                    Err(AppendError::Log(error)) => panic!("{error}"),
                }
            }
            acknowledged
        });
    }
    let acknowledged = contenders.join_all().await;
    let run_log = scene.run().run_log().await.unwrap();
    let count: usize = acknowledged.iter().map(HashMap::len).sum();
    for (number, (epoch, step)) in acknowledged.into_iter().flatten() {
        let entry = &run_log.entries()[number as usize];
        assert_eq!((entry.number, entry.epoch, &entry.record), (number, epoch, &stopped(step)));
    }
    let terms = run_log.entries().iter().filter(|entry| matches!(entry.record, Record::Term { .. })).count();
    assert_eq!(run_log.epoch(), terms as u64, "each term has an epoch of its own");
    assert_eq!(run_log.entries().len(), 1 + terms + count, "no entry but those acknowledged");
}

#[tokio::test]
async fn a_fenced_coordinator_can_neither_append_nor_commit_nor_delete() {
    let scene = Scene::new().await;
    let run = scene.run();
    let mut paused = run.start_term("paused").await.unwrap();
    checkpoint(&mut paused, &State::small(1), 10).await;
    checkpoint(&mut paused, &State::small(2), 20).await;
    let manifest = save(&run, &State::small(3), 30, 2).await.unwrap();

    let mut successor = run.start_term("successor").await.unwrap();
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
    assert_eq!(run.run_log().await.unwrap().checkpoints().last().unwrap().step, 20);
}

#[tokio::test]
async fn an_entry_is_written_once_whichever_answer_is_lost() {
    let clean = Scene::new().await;
    let store = Faulty::over(clean.folder());
    let mut term = clean.run_over(&store).start_term("c").await.unwrap();
    term.append(stopped(1)).await.unwrap();
    let requests = store.seen();

    for (at, request) in requests.iter().enumerate() {
        for fault in Fault::PASSING {
            let scene = Scene::new().await;
            let run = scene.run_over(&Faulty::over(scene.folder()).fail_at(at, fault));
            let mut term = run.start_term("c").await.unwrap();
            let number = term.append(stopped(1)).await.unwrap();
            let run_log = scene.run().run_log().await.unwrap();
            let told = format!("{fault:?} at request {at}, {request}");
            assert_eq!((number, run_log.entries().len(), run_log.epoch()), (2, 3, 1), "{told}");
            assert_eq!(run_log.entries(), term.run_log().entries(), "{told}");
        }
    }
}

#[tokio::test]
async fn an_append_goes_on_after_an_earlier_write_that_landed_late() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    // The entry stands for a write of this term that failed and landed later.
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

    assert_eq!(term.append(stopped(8)).await.unwrap(), 3);
    let run_log = scene.run_over(&store).run_log().await.unwrap();
    assert_eq!(run_log.entries()[2], late);
    assert_eq!(run_log.entries()[3].record, stopped(8));
}

#[tokio::test]
async fn entries_are_found_when_the_listing_lags() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    for step in 0..20 {
        term.append(stopped(step)).await.unwrap();
    }
    let blind = scene.run_over(&Faulty::over(scene.folder()).blind());
    assert_eq!(blind.run_log().await.unwrap().entries().len(), 22);
    assert_eq!(blind.start_term("d").await.unwrap().epoch(), 2);
}

#[tokio::test]
async fn a_lost_entry_is_an_error_and_not_the_end_of_the_log() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    for step in 0..5 {
        term.append(stopped(step)).await.unwrap();
    }
    for lost in [3, 0] {
        std::fs::remove_file(scene.folder().join(format!("r/log/{lost:020}.json"))).unwrap();
        let error = scene.run().run_log().await.unwrap_err();
        assert!(
            matches!(&error, LogError::Hole { object } if object.contains(&format!("{lost:020}"))),
            "{error}"
        );
        scene.run().start_term("d").await.unwrap_err();
    }
}

#[tokio::test]
async fn a_run_is_created_once_and_a_missing_run_is_named() {
    let scene = Scene::new().await;
    let again = scene.run().create("other", HostedBy::Service).await.unwrap_err();
    assert!(matches!(&again, CreateError::Exists { run } if run == "test://store/r"), "{again}");
    let run_log = scene.run().run_log().await.unwrap();
    assert_eq!((run_log.spec(), run_log.hosted_by()), ("[run]\nname = \"r\"\n", HostedBy::Embedded));

    let store = Faulty::over(scene.folder()).store();
    std::fs::create_dir(scene.folder().join("not-a-run")).unwrap();
    assert_eq!(store.runs().await.unwrap(), ["r".parse().unwrap()]);
    let none = store.run(&"not-a-run".parse().unwrap()).run_log().await.unwrap_err();
    assert!(none.to_string().contains("no run at test://store/not-a-run"), "{none}");
}

#[tokio::test]
async fn the_last_status_record_tells_whether_a_run_goes_on() {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("c").await.unwrap();
    let ended = Ended {
        outcome: Outcome::Finished,
        step: 9,
        loss: Some(1.25),
        val_loss: None,
        state: Some(State::small(1).digest(9)),
        reason: None,
    };
    term.append(stopped(3)).await.unwrap();
    assert_eq!(term.run_log().stopped().unwrap().step, 3);
    term.append(Record::Resumed { step: 3 }).await.unwrap();
    assert_eq!((term.run_log().stopped(), term.run_log().ended()), (None, None));
    term.append(Record::Ended(ended.clone())).await.unwrap();
    assert_eq!(scene.run().run_log().await.unwrap().ended(), Some(&ended));
}

#[tokio::test]
async fn a_term_is_not_started_over_one_that_the_caller_does_not_know() {
    let scene = Scene::new().await;
    let known = scene.run().start_term("a").await.unwrap().epoch();
    // An append of the same coordinator is no new term.
    scene
        .run()
        .start_term_after(known, "b")
        .await
        .unwrap()
        .append(Record::Resumed { step: 1 })
        .await
        .unwrap();
    let error = scene.run().start_term_after(known, "c").await.unwrap_err();
    assert!(
        matches!(&error, TermError::Taken { epoch, coordinator, .. } if (*epoch, &coordinator[..]) == (known + 1, "b")),
        "{error}"
    );
    let mut third = scene.run().start_term_after(known + 1, "c").await.unwrap();
    third.check().await.unwrap();
    assert_eq!(third.epoch(), known + 2);
}
