//! Checkpoints that workers save, through a real store, to workers that read them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test: what goes wrong in it must be loud")]

mod coordinator;

use std::sync::mpsc::channel;

use coordinator::{
    Coordinator,
    linear::{Linear, WIDTH, hire, hire_who, quiet},
};
use whimbrel_plan::Origin;
use whimbrel_proto::v1::{SliceSaved, worker_message::Message};
use whimbrel_state::{Layout, Manifest, Pack, manifest::FORMAT};
use whimbrel_store::{Limits, commit, verify};
use whimbrel_worker::{Checkpoint, CheckpointError, TensorMut, TensorSpec};

const STEPS: u64 = 30;

fn layout() -> Layout {
    let tensors = [("weights", WIDTH), ("bias", 1), ("momentum", WIDTH + 1)];
    Layout::new(tensors.map(|(name, width)| TensorSpec::f32(name, [width])).to_vec()).unwrap()
}

/// Has `workers` workers train to the end and commits what they saved at step 20; returns the manifest's name.
fn trained(coordinator: &mut Coordinator, workers: u64) -> String {
    let ids: Vec<u64> = (1..=workers).collect();
    let threads: Vec<_> = ids.iter().map(|&id| hire(coordinator.environment(id), quiet())).collect();
    coordinator.ready(&ids);
    let members: Vec<_> = ids.iter().map(|&id| (id, None)).collect();
    let generation = coordinator.form(&members, Origin::Initial);
    // Steps 20 and 30: both of them, so that nothing is written any more when this is done.
    let slices: Vec<SliceSaved> =
        ids.iter().map(|&id| [(); 2].map(|()| coordinator.saved(id))[0].clone()).collect();
    assert!(slices.iter().all(|slice| (slice.generation, slice.step) == (generation, 20)));
    let packs = slices.into_iter().flat_map(|slice| slice.packs).map(|pack| Pack::try_from(pack).unwrap());
    let (run, packs) = (coordinator.run.to_string(), packs.collect());
    let manifest = Manifest {
        format: FORMAT,
        run,
        step: 20,
        generation,
        samples: coordinator::linear::SAMPLES,
        fingerprint: Default::default(),
        layout: layout(),
        packs,
    };
    let committed = coordinator.block_on(async |term| {
        let directory = term.run().clone();
        let verified = verify(&directory, &manifest, &Limits::default(), |_| {}).await.unwrap();
        assert_eq!(verified.state, Linear::alone(20), "what is stored is the state after 20 steps");
        commit(term, &manifest, None).await.unwrap()
    });
    ids.iter().for_each(|&id| coordinator.leave(id));
    threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    committed.manifest
}

#[test]
fn what_three_workers_saved_two_others_restore_and_end_with_the_same_bits() {
    let mut coordinator = Coordinator::new(STEPS, |welcome| welcome.checkpoint_every = Some(20));
    let manifest = trained(&mut coordinator, 3);
    let _threads = [4, 5].map(|id| hire(coordinator.environment(id), quiet()));
    coordinator.ready(&[4, 5]);
    coordinator.form(&[(4, None), (5, None)], Origin::Checkpoint { step: 20, manifest });
    assert_eq!(coordinator.applied(4).step, 21, "nothing before the checkpoint is done again");
    for id in [4, 5] {
        assert_eq!(coordinator.completed(id).state, Linear::alone(STEPS).as_bytes());
        coordinator.leave(id);
    }
}

#[test]
fn training_does_not_wait_for_a_slow_store_but_at_its_end() {
    let mut coordinator = Coordinator::new(STEPS, |terms| {
        terms.checkpoint_every = Some(5);
        // A slice is about 1500 bytes: what comes after the first has five seconds to wait.
        terms.bandwidth = Some(300);
    });
    let (go_on, resumed) = channel();
    let _first = hire_who(coordinator.environment(1), move |trainer| {
        trainer.before_update = Box::new(move |step| {
            if step == 8 {
                resumed.recv().unwrap();
            }
        });
    });
    let _second = hire(coordinator.environment(2), quiet());
    coordinator.ready(&[1, 2]);
    coordinator.form(&[(1, None), (2, None)], Origin::Initial);
    let early = [1, 2].map(|id| coordinator.saved(id));
    go_on.send(()).unwrap();
    let [first, second] = [(1, 0), (2, 1)].map(|(id, index): (u64, usize)| {
        [early[index].clone(), coordinator.saved(id), coordinator.saved(id)]
    });
    let steps = |slices: &[SliceSaved; 3]| slices.each_ref().map(|slice| slice.step);
    assert_eq!(steps(&first), steps(&second), "all put off the same saves");
    let [early, middle, last] = steps(&first);
    assert!(early == 5 && (10..15).contains(&middle) && last == STEPS, "{early}, {middle}, {last}");
    for [early, middle, last] in [first, second] {
        assert!(early.blocked_seconds < 1.0 && middle.blocked_seconds < 1.0, "{early:?} {middle:?}");
        assert!(last.blocked_seconds > 1.0, "the last one waits for that in the middle: {last:?}");
    }
    for id in [1, 2] {
        assert_eq!(coordinator.completed(id).state, Linear::alone(STEPS).as_bytes());
        coordinator.leave(id);
    }
}

#[test]
fn a_damaged_checkpoint_is_resumed_from_a_good_one_and_the_run_can_begin_anew() {
    let mut coordinator = Coordinator::new(STEPS, |welcome| welcome.checkpoint_every = Some(20));
    let manifest = trained(&mut coordinator, 2);
    let packs = url_path(coordinator.term.run().uri()).join("packs");
    for pack in files(&packs) {
        let mut bytes = std::fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
    }
    let _thread = hire(coordinator.environment(4), quiet());
    coordinator.ready(&[4]);
    let generation =
        coordinator.form(&[(4, None)], Origin::Checkpoint { step: 20, manifest: manifest.clone() });
    let failed = coordinator.next(4, "RestoreFailed", |message| match message {
        Message::RestoreFailed(failed) => Some(failed.clone()),
        _ => None,
    });
    assert_eq!((failed.generation, failed.manifest, failed.damaged), (generation, manifest, true));
    assert!(failed.reason.contains("damaged"), "{}", failed.reason);
    // The state is half restored: it is made anew, not trained on.
    coordinator.form(&[(4, None)], Origin::Initial);
    assert_eq!(coordinator.completed(4).state, Linear::alone(STEPS).as_bytes());
    coordinator.leave(4);
}

#[test]
fn what_is_damaged_in_the_run_is_read_from_its_replica_and_whole_again() {
    let elsewhere = tempfile::tempdir().unwrap();
    let replica = elsewhere.path().join("linear-x1");
    let mut coordinator = Coordinator::new(STEPS, |terms| {
        terms.checkpoint_every = Some(20);
        // The second cannot even be opened, and is no reason to go without the first.
        terms.replicas = vec![format!("file://{}", replica.display()), "file:///nowhere/linear-x1".into()];
    });
    let manifest = trained(&mut coordinator, 2);
    let directory = url_path(coordinator.term.run().uri());
    for file in files(&directory) {
        let copy = replica.join(file.strip_prefix(&directory).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(&file, copy).unwrap();
    }
    let packs = files(&directory.join("packs"));
    std::fs::write(&packs[0], "rotten").unwrap();
    packs[1..].iter().for_each(|pack| std::fs::remove_file(pack).unwrap());
    std::fs::remove_file(directory.join(&manifest)).unwrap();

    let _thread = hire(coordinator.environment(4), quiet());
    coordinator.ready(&[4]);
    let generation =
        coordinator.form(&[(4, None)], Origin::Checkpoint { step: 20, manifest: manifest.clone() });
    let healed = coordinator.next(4, "Healed", |message| match message {
        Message::Healed(healed) => Some(healed.clone()),
        _ => None,
    });
    assert_eq!((healed.generation, &healed.manifest), (generation, &manifest));
    assert_eq!(coordinator.completed(4).state, Linear::alone(STEPS).as_bytes());
    coordinator.leave(4);
    let state = coordinator.block_on(async |term| {
        let directory = term.run().clone();
        let manifest = directory.manifest(&manifest).await.unwrap();
        assert_eq!(healed.packs.len(), manifest.packs.len(), "the packs of other steps are not read");
        verify(&directory, &manifest, &Limits::default(), |_| {}).await.unwrap().state
    });
    assert_eq!(state, Linear::alone(20), "the run's own directory is whole again");
}

#[test]
fn a_program_reads_a_checkpoint_by_the_uri_of_its_run() {
    let mut coordinator = Coordinator::new(STEPS, |welcome| welcome.checkpoint_every = Some(20));
    let uri = coordinator.term.run().uri().to_owned();
    assert!(matches!(Checkpoint::open(&uri).unwrap_err(), CheckpointError::None { .. }));
    trained(&mut coordinator, 3);

    #[derive(serde::Deserialize)]
    struct Settings {
        rate: f64,
    }
    for uri in [uri.clone(), format!("{uri}@20")] {
        let checkpoint = Checkpoint::open(&uri).unwrap();
        assert_eq!(checkpoint.step(), 20);
        assert_eq!(checkpoint.settings::<Settings>().unwrap().rate, 0.5);
        assert_eq!(checkpoint.tensors().len(), 3);
        let (mut weights, mut bias, mut momentum) = (vec![0.0; WIDTH], vec![0.0], vec![0.0; WIDTH + 1]);
        checkpoint.load(vec![TensorMut::f32("weights", [WIDTH], &mut weights)]).unwrap();
        let rest = vec![
            TensorMut::f32("momentum", [WIDTH + 1], &mut momentum),
            TensorMut::f32("bias", [1], &mut bias),
        ];
        checkpoint.load(rest).unwrap();
        assert!(weights.iter().chain(&bias).chain(&momentum).all(|value| *value != 0.0));
        let misfit = checkpoint.load(vec![TensorMut::f32("wieghts", [1], &mut bias)]).unwrap_err();
        assert!(matches!(misfit, CheckpointError::Load(_)), "{misfit}");
    }
    let error = Checkpoint::open(&format!("{uri}@25")).unwrap_err().to_string();
    assert!(error.ends_with("has no checkpoint of step 25; it has those of steps 20"), "{error}");
}

fn url_path(uri: &str) -> std::path::PathBuf {
    uri.strip_prefix("file://").unwrap().into()
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
