//! What must hold whatever was done.

use std::collections::HashMap;

use object_store::path::Path;
use whimbrel_store::{Entry, History, Limits, LogError, Origin, Record, Relation, relation, verify};

use crate::world::World;

/// What was seen until now.
#[derive(Default)]
pub(crate) struct Watch {
    /// Entries that a store acknowledged to a coordinator: place, number, name.
    acknowledged: Vec<(usize, u64, String)>,
    /// Who wrote each entry of each log, by place and name.
    writers: HashMap<(usize, String), String>,
    /// The newest checkpoint of each place.
    newest: HashMap<usize, Origin>,
    /// Each office ever taken by a coordinator, and the one that its place was under before.
    tree: HashMap<String, Option<String>>,
}

impl Watch {
    pub(crate) fn acknowledged(&mut self, place: usize, number: u64, coordinator: &str) {
        self.acknowledged.push((place, number, coordinator.to_owned()));
    }

    pub(crate) fn written(&mut self, place: usize, at: &Path, actor: &str) {
        self.writers.insert((place, at.to_string()), actor.to_owned());
    }

    /// Whoever wrote the last office entry wrote all that follows.
    fn assert_one_writer(&self, place: usize, history: &History) {
        let mut holder = None;
        for entry in history.entries() {
            let writer = self.writers.get(&(place, format!("r/log/{:020}.json", entry.number)));
            match entry.record {
                Record::Office { .. } => holder = writer,
                Record::Submitted { .. } => {}
                _ => assert_eq!(writer, holder, "entry {} of place {place}", entry.number),
            }
        }
    }

    /// Whether `office` is `ancestor`, or was taken over what `ancestor` left.
    fn descends(&self, office: &str, ancestor: &str) -> bool {
        let mut at = Some(office.to_owned());
        while let Some(office) = at {
            if office == ancestor {
                return true;
            }
            at = self.tree.get(&office).cloned().flatten();
        }
        false
    }

    fn learn(&mut self, history: &History) {
        let mut before = None;
        for entry in history.entries() {
            let Some(office) = identity(entry) else { continue };
            if let Record::Office { mirrors: None, .. } = entry.record {
                self.tree.entry(office.clone()).or_insert(before);
            }
            before = Some(office);
        }
    }

    fn expected(&self, source: &History, other: &History) -> Relation {
        match (last(source), last(other)) {
            (None, None) => Relation::Same,
            (Some(_), None) => Relation::Behind,
            (None, Some(_)) => Relation::Ahead,
            (Some(ours), Some(theirs)) if ours == theirs => Relation::Same,
            (Some(ours), Some(theirs)) if self.descends(&ours, &theirs) => Relation::Behind,
            (Some(ours), Some(theirs)) if self.descends(&theirs, &ours) => Relation::Ahead,
            _ => Relation::Diverged,
        }
    }
}

/// The office that an entry takes or mirrors.
fn identity(entry: &Entry) -> Option<String> {
    match &entry.record {
        Record::Office { mirrors: Some(mirror), .. } => Some(mirror.office.clone()),
        Record::Office { mirrors: None, .. } => Some(entry.writer.clone()),
        _ => None,
    }
}

fn last(history: &History) -> Option<String> {
    history.entries().iter().rev().find_map(identity)
}

pub(crate) async fn everything(world: &World) {
    let mut histories = Vec::new();
    for place in world.all_watched() {
        let run = place.run();
        let history = match run.history().await {
            Ok(history) => history,
            Err(LogError::NoRun { .. }) => continue,
            Err(error) => panic!("{place}: {error}"),
        };
        let checkpoints = history.checkpoints();
        for checkpoint in &checkpoints {
            let told = format!("{place}, step {}", checkpoint.step);
            let manifest = run.manifest(&checkpoint.manifest).await;
            let manifest = manifest.unwrap_or_else(|error| panic!("{told}: {error}"));
            let verified = verify(&run, &manifest, &Limits::default(), |_| {}).await;
            let verified = verified.unwrap_or_else(|error| panic!("{told}: {error}"));
            assert_eq!(Some(verified.state), checkpoint.state, "{told}");
        }
        world.watch(|watch| {
            let newest = checkpoints.last().map(|checkpoint| checkpoint.origin);
            let before = watch.newest.get(&place.number).copied();
            assert!(newest >= before, "{place}: the newest checkpoint was {before:?} and is {newest:?}");
            if let Some(newest) = newest {
                watch.newest.insert(place.number, newest);
            }
            watch.learn(&history);
            watch.assert_one_writer(place.number, &history);
        });
        histories.push((place.number, history));
    }
    world.watch(|watch| {
        for (place, number, coordinator) in &watch.acknowledged {
            let (_, history) = histories.iter().find(|(number, _)| number == place).unwrap();
            let before = &history.entries()[..=*number as usize];
            let holder = before.iter().rev().find_map(|entry| match &entry.record {
                Record::Office { coordinator, .. } => Some(coordinator),
                _ => None,
            });
            assert_eq!(holder, Some(coordinator), "entry {number} of place {place}");
        }
        for (a, source) in &histories {
            for (b, other) in &histories {
                assert_eq!(relation(source, other), watch.expected(source, other), "{b} to {a}");
            }
        }
    });
}
