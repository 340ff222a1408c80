//! Collection keeps the checkpoints that retention names, and never deletes a pack of a save in flight.
use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use crate::support::{Faulty, Scene, State, checkpoint, checkpoints::with_checkpoints, restored, save};
use proptest::prelude::*;
use whimbrel_state::{Hash, Manifest, TensorSpec};
use whimbrel_store::{
    Collected, Collector, CommitError, Entry, HostedBy, KeepEvery, Record, Retention, Store, Term, collect,
    collectable, commit, quarantine,
};

const HOUR: Duration = Duration::from_secs(3600);

fn keep(last: u32) -> Retention {
    Retention { last, every: None, grace: HOUR, in_flight: Vec::new() }
}

fn pack_name(manifest: &Manifest, index: usize) -> String {
    let hash = manifest.packs[index].hash.to_string();
    format!("packs/{}/{hash}.safetensors", &hash[..2])
}

fn steps(term: &Term) -> Vec<u64> {
    term.run_log().checkpoints().iter().map(|checkpoint| checkpoint.step).collect()
}

/// Makes every pack look as if it had been put two hours ago.
fn age_packs(scene: &Scene) {
    for file in scene.files("packs").values() {
        let then = SystemTime::now() - 2 * HOUR;
        File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
    }
}

#[tokio::test]
async fn the_newest_checkpoints_are_kept_and_the_rest_is_deleted() {
    let (scene, mut term) = with_checkpoints(&[1, 2, 3, 4]).await;
    let collected = collect(&mut term, &keep(2)).await.unwrap();
    assert_eq!((collected.manifests.len(), steps(&term)), (2, vec![3, 4]));
    for checkpoint in term.run_log().checkpoints() {
        assert_eq!(
            restored(&scene.run(), &checkpoint.manifest).await.unwrap(),
            State::small(checkpoint.step as u8)
        );
    }
    let manifest = scene.run().manifest(&term.run_log().checkpoints()[0].manifest).await.unwrap();
    assert_eq!(scene.files("packs").len(), 2 * manifest.packs.len());
    assert_eq!(scene.files("manifests").len(), 2);
    // A second collection deletes nothing and records nothing.
    let entries = term.run_log().entries().len();
    assert_eq!(collect(&mut term, &keep(2)).await.unwrap(), Default::default());
    assert_eq!(term.run_log().entries().len(), entries);
}

#[tokio::test]
async fn the_last_checkpoint_is_kept_whatever_the_retention() {
    let (scene, mut term) = with_checkpoints(&[1, 2]).await;
    collect(&mut term, &Retention { last: 0, every: None, grace: Duration::ZERO, in_flight: Vec::new() })
        .await
        .unwrap();
    assert_eq!(steps(&term), [2]);
    let name = term.run_log().checkpoints()[0].manifest.clone();
    assert_eq!(restored(&scene.run(), &name).await.unwrap(), State::small(2));
}

#[tokio::test]
async fn packs_of_a_save_in_flight_stay() {
    let (scene, mut term) = with_checkpoints(&[1]).await;
    let young = save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    collect(&mut term, &keep(1)).await.unwrap();
    commit(&mut term, &young, None).await.unwrap();

    // A save that takes longer than the grace, known to the coordinator.
    let slow = save(&scene.run(), &State::small(10), 10, 2).await.unwrap();
    age_packs(&scene);
    let in_flight = slow.packs.iter().map(|pack| pack.hash).collect();
    checkpoint(&mut term, &State::small(11), 11).await;
    collect(&mut term, &Retention { in_flight, ..keep(1) }).await.unwrap();
    let committed = commit(&mut term, &slow, None).await.unwrap();
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), State::small(10));
}

#[tokio::test]
async fn packs_of_a_dead_save_are_deleted_after_the_grace() {
    let (scene, mut term) = with_checkpoints(&[1]).await;
    save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    let with_litter = scene.files("packs").len();
    assert_eq!(collect(&mut term, &keep(1)).await.unwrap().packs, 0);
    age_packs(&scene);
    let collected = collect(&mut term, &Retention { grace: Duration::ZERO, ..keep(1) }).await.unwrap();
    assert_eq!(collected.packs, with_litter / 2);
    assert_eq!(steps(&term), [1]);
}

#[tokio::test]
async fn a_commit_that_needs_a_deleted_pack_fails_until_it_is_saved_again() {
    let (scene, mut term) = with_checkpoints(&[1, 2]).await;
    // The state is that of step 1 again: every pack exists, and none is put.
    let manifest = save(&scene.run(), &State::small(1), 3, 2).await.unwrap();
    collect(&mut term, &keep(1)).await.unwrap();
    let error = commit(&mut term, &manifest, None).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Lacks { packs, .. } if packs.len() == manifest.packs.len()),
        "{error}"
    );
    assert_eq!(steps(&term), [2]);

    let manifest = save(&scene.run(), &State::small(1), 3, 2).await.unwrap();
    let committed = commit(&mut term, &manifest, None).await.unwrap();
    assert_eq!(restored(&scene.run(), &committed.manifest).await.unwrap(), State::small(1));
}

#[tokio::test]
async fn packs_that_a_kept_checkpoint_shares_stay() {
    let (scene, mut term) = with_checkpoints(&[]).await;
    let mut other = State::small(1);
    checkpoint(&mut term, &other, 1).await;
    other.bytes[0] ^= 1;
    let kept = checkpoint(&mut term, &other, 2).await;
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!(collected.packs, 1, "the one pack that differs");
    assert_eq!(restored(&scene.run(), &kept.manifest).await.unwrap(), other);
}

#[tokio::test]
async fn a_checkpoint_that_lacks_a_pack_does_not_displace_a_complete_one() {
    let (scene, mut term) = with_checkpoints(&[1, 2, 3]).await;
    let newest = term.run_log().checkpoints()[2].manifest.clone();
    let manifest = scene.run().manifest(&newest).await.unwrap();
    fs::remove_file(&scene.files("packs")[&pack_name(&manifest, 1)]).unwrap();
    collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!(steps(&term), [2, 3]);
    let whole = term.run_log().checkpoints()[0].manifest.clone();
    assert_eq!(restored(&scene.run(), &whole).await.unwrap(), State::small(2));
}

#[tokio::test]
async fn no_pack_is_deleted_while_a_kept_manifest_is_unreadable() {
    let (scene, mut term) = with_checkpoints(&[1, 2, 3]).await;
    let newest = term.run_log().checkpoints()[2].manifest.clone();
    let unreadable = scene.run().manifest(&newest).await.unwrap();
    let its_packs = unreadable.packs.len();
    fs::write(&scene.files("manifests")[&newest], b"{}").unwrap();
    save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    let before = scene.files("packs").len();
    age_packs(&scene);

    // Step 1 is given up, but its packs stay: checkpoints share packs, and any may be the unreadable one's.
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    let [unreadable] = &collected.unreadable[..] else { panic!("{collected:?}") };
    assert!(unreadable.manifest == newest && unreadable.is_damaged, "{unreadable:?}");
    assert_eq!((steps(&term), collected.packs), (vec![2, 3], 0));
    assert_eq!(scene.files("packs").len(), before);

    quarantine(&mut term, &newest, "unreadable", &[]).await.unwrap();
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!((steps(&term), collected.unreadable.len()), (vec![2], 0));
    assert_eq!(scene.files("packs").len(), its_packs);
}

#[tokio::test]
async fn every_deletion_is_recorded_first_even_of_unreferenced_packs_alone() {
    let (scene, mut term) = with_checkpoints(&[1]).await;
    save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    age_packs(&scene);
    let entries = term.run_log().entries().len();
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert!(collected.packs > 0);
    let boundary = Record::Collected { manifests: Vec::new() };
    assert_eq!(term.run_log().entries().len(), entries + 1);
    assert_eq!(term.run_log().entries().last().unwrap().record, boundary);
}

/// The late entry stands for the commit of a coordinator that was paused in the middle of it.
#[tokio::test]
async fn a_commit_that_lands_just_before_the_boundary_keeps_its_packs() {
    let (scene, term) = with_checkpoints(&[1]).await;
    let late = save(&scene.run(), &State::small(9), 9, 2).await.unwrap();
    age_packs(&scene);
    let bytes = serde_json::to_vec(&late).unwrap();
    let manifest = format!("manifests/{:012}-{}.json", 9, Hash::of(&bytes));
    fs::write(scene.folder().join("r").join(&manifest), &bytes).unwrap();
    let entry = Entry {
        format: 1,
        number: term.run_log().next_number() + 1,
        epoch: term.epoch() + 1,
        writer: "late".into(),
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        record: Record::Checkpoint {
            step: 9,
            manifest: manifest.clone(),
            bytes: 1,
            state: None,
            origin: None,
        },
    };
    // It lands after the collection has read the log and decided, and before it writes its boundary.
    let path = scene.folder().join(format!("r/log/{:020}.json", entry.number));
    let body = entry.encode().unwrap();
    let boundary = format!("put r/log/{:020}.json", entry.number);
    let store = Faulty::over(scene.folder()).before(&boundary, move || fs::write(&path, &body).unwrap());
    let mut term = scene.run_over(&store).start_term("c").await.unwrap();
    let collected = collect(&mut term, &keep(1)).await.unwrap();
    assert_eq!(steps(&term), [9], "the late commit counts");
    assert_eq!(collected.manifests.len(), 1);
    assert_eq!(restored(&scene.run(), &manifest).await.unwrap(), State::small(9));
}

#[tokio::test]
async fn a_checkpoint_of_each_interval_is_kept_for_good() {
    let (scene, mut term) = with_checkpoints(&[]).await;
    let retention = Retention { every: Some(KeepEvery::Steps(10)), ..keep(2) };
    for step in [4, 9, 12, 15, 21, 24, 28, 33] {
        checkpoint(&mut term, &State::small(step as u8), step).await;
        collect(&mut term, &retention).await.unwrap();
    }
    assert_eq!(steps(&term), [12, 21, 28, 33]);
    let kept: Vec<u64> = retention.kept(term.run_log()).iter().map(|checkpoint| checkpoint.step).collect();
    assert_eq!(kept, steps(&term));
    for checkpoint in term.run_log().checkpoints() {
        let state = restored(&scene.run(), &checkpoint.manifest).await.unwrap();
        assert_eq!(state, State::small(checkpoint.step as u8));
    }
}

#[tokio::test]
async fn temp_files_of_a_killed_put_are_deleted_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let run = Store::open(folder.path().to_str().unwrap()).unwrap().run(&"r".parse().unwrap());
    run.create("", HostedBy::Embedded).await.unwrap();
    let mut term = run.start_term("c").await.unwrap();
    checkpoint(&mut term, &State::small(1), 1).await;
    let packs = folder.path().join("r/packs/ab");
    fs::create_dir_all(&packs).unwrap();
    let left = |name: &str, age: Duration| {
        let file = packs.join(name);
        fs::write(&file, b"half a pack").unwrap();
        let then = SystemTime::now() - age;
        File::options().write(true).open(&file).unwrap().set_modified(then).unwrap();
        file
    };
    let (old, young) = (left("abc.safetensors#1", 2 * HOUR), left("abc.safetensors#2", HOUR / 2));
    let no_number = left("abc#.safetensors", 2 * HOUR);
    assert_eq!(collect(&mut term, &keep(1)).await.unwrap().temp_files, 1);
    assert!(!old.exists() && young.exists() && no_number.exists());
    assert_eq!(steps(&term), [1]);
}

/// A state of one pack, which no other seed has.
fn one_pack(seed: u64) -> State {
    let mut state = State::filled(vec![TensorSpec::f32("weights", [8])], 0);
    state.bytes[..8].copy_from_slice(&seed.to_le_bytes());
    state
}

#[tokio::test]
async fn the_requests_of_a_commit_do_not_grow_with_the_number_of_kept_checkpoints() {
    let keep_all = Retention { every: Some(KeepEvery::Steps(1)), ..keep(3) };
    let keep_newest = keep(3);
    for (retention, kept) in [(&keep_all, 1000), (&keep_newest, 3)] {
        let scene = Scene::new().await;
        let store = Faulty::over(scene.folder());
        let mut term = scene.run_over(&store).start_term("c").await.unwrap();
        let mut collector = Collector::default();
        let mut requests = Vec::new();
        for step in 1..=1000 {
            let manifest = save(term.run(), &one_pack(step), step, 1).await.unwrap();
            let before = store.seen().len();
            commit(&mut term, &manifest, None).await.unwrap();
            collector.collect(&mut term, retention).await.unwrap();
            if [10, 1000].contains(&step) {
                requests.push(store.seen().split_off(before));
            }
        }
        assert_eq!(steps(&term).len(), kept);
        let [few, many] = &requests[..] else { panic!("{requests:#?}") };
        assert_eq!(few.len(), many.len(), "{few:#?}\n{many:#?}");
        assert!(!many.iter().any(|request| request.starts_with("list")), "{many:#?}");
    }
}

#[tokio::test]
async fn a_collector_deletes_nothing_in_favour_of_a_checkpoint_that_lost_a_pack_since() {
    // Of the newest ones.
    let (scene, mut term) = with_checkpoints(&[1, 2]).await;
    let mut collector = Collector::default();
    collector.collect(&mut term, &keep(2)).await.unwrap();
    let lacking = scene.run().manifest(&term.run_log().checkpoints()[1].manifest).await.unwrap();
    fs::remove_file(&scene.files("packs")[&pack_name(&lacking, 1)]).unwrap();
    checkpoint(&mut term, &State::small(3), 3).await;
    collector.collect(&mut term, &keep(2)).await.unwrap();
    assert_eq!(steps(&term), [1, 2, 3]);

    // Of those that are kept for an interval.
    let retention = Retention { every: Some(KeepEvery::Steps(10)), ..keep(1) };
    let (scene, mut term) = with_checkpoints(&[11, 12]).await;
    let mut collector = Collector::default();
    collector.collect(&mut term, &retention).await.unwrap();
    let lacking = scene.run().manifest(&term.run_log().checkpoints()[0].manifest).await.unwrap();
    fs::remove_file(&scene.files("packs")[&pack_name(&lacking, 1)]).unwrap();
    checkpoint(&mut term, &State::small(21), 21).await;
    collector.collect(&mut term, &retention).await.unwrap();
    assert_eq!(steps(&term), [11, 12, 21]);
}

/// Found by the test below: a save put a pack again that a kept checkpoint had lost.
#[tokio::test]
async fn a_checkpoint_that_gets_its_lost_pack_back_counts_again() {
    let retention = Retention { every: Some(KeepEvery::Steps(10)), ..keep(1) };
    let (scene, mut term) = with_checkpoints(&[]).await;
    let lost = State::small(11);
    checkpoint(&mut term, &lost, 11).await;
    checkpoint(&mut term, &State::small(12), 12).await;
    let lacking = scene.run().manifest(&term.run_log().checkpoints()[0].manifest).await.unwrap();
    fs::remove_file(&scene.files("packs")[&pack_name(&lacking, 1)]).unwrap();
    let mut collector = Collector::default();
    collector.collect(&mut term, &retention).await.unwrap();
    assert_eq!(steps(&term), [11, 12]);
    checkpoint(&mut term, &lost, 21).await;
    collector.collect(&mut term, &retention).await.unwrap();
    assert_eq!(steps(&term), [11, 21], "the checkpoint of step 11 is whole, and the first of its interval");
}

#[derive(Clone, Debug)]
enum Act {
    /// Commits a state with this many of its packs in common with the others.
    Commit(u8),
    /// Quarantines one of the checkpoints.
    Quarantine(usize),
    /// Deletes a pack of one of the checkpoints, as no program of ours does.
    LosePack(usize),
    Collect,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0_u8..4).prop_map(Act::Commit),
        1 => any::<usize>().prop_map(Act::Quarantine),
        1 => any::<usize>().prop_map(Act::LosePack),
        6 => Just(Act::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Two runs with the same acts: one is collected by one collector, the other by a new one each time.
    #[test]
    fn a_collector_that_remembers_decides_as_one_that_looks_at_everything(
        acts in prop::collection::vec(act(), 1..40), last in 1_u32..4, every in prop::option::of(10_u64..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let retention = Retention { every: every.map(KeepEvery::Steps), ..keep(last) };
        runtime.block_on(async {
            let runs = [with_checkpoints(&[]).await, with_checkpoints(&[]).await];
            let mut remembering = Collector::default();
            let [mut one, mut other] = runs;
            for (number, act) in acts.into_iter().enumerate() {
                for ((scene, term), is_one) in [(&mut one, true), (&mut other, false)] {
                    if let Act::Collect = act {
                        let collected = if is_one {
                            remembering.collect(term, &retention).await
                        } else {
                            collect(term, &retention).await
                        };
                        collected.unwrap();
                        let left = collectable(&scene.run(), term.run_log(), &retention).await.unwrap();
                        assert_eq!(left, Collected { unreadable: left.unreadable.clone(), ..Collected::default() });
                    } else {
                        perform(scene, term, &act, number as u64 * 7 + 1).await;
                    }
                }
                let [a, b] = [&one, &other].map(|(scene, term)| {
                    let mut packs: Vec<String> = scene.files("packs").into_keys().collect();
                    packs.sort();
                    let records: Vec<Record> =
                        term.run_log().entries().iter().map(|entry| entry.record.clone()).collect();
                    (records, packs)
                });
                assert_eq!(a, b);
            }
        });
    }
}

/// Does something to a run, as a function of what is in it.
async fn perform(scene: &Scene, term: &mut Term, act: &Act, step: u64) {
    let checkpoints = term.run_log().all_checkpoints();
    match *act {
        Act::Commit(shared) => {
            let mut state = State::small(0);
            let own = state.bytes.len() - 64 * shared as usize;
            state.bytes[..own].iter_mut().for_each(|byte| *byte ^= step as u8);
            checkpoint(term, &state, step).await;
        }
        Act::Quarantine(which) if !checkpoints.is_empty() => {
            let manifest = &checkpoints[which % checkpoints.len()].manifest;
            quarantine(term, manifest, "a test", &[]).await.unwrap();
        }
        Act::LosePack(which) if !checkpoints.is_empty() => {
            let name = &checkpoints[which % checkpoints.len()].manifest;
            let manifest = scene.run().manifest(name).await.unwrap();
            let pack = pack_name(&manifest, which % manifest.packs.len());
            if let Some(file) = scene.files("packs").get(&pack) {
                fs::remove_file(file).unwrap();
            }
        }
        Act::Quarantine(_) | Act::LosePack(_) | Act::Collect => {}
    }
}
