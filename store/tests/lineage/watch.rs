//! What must hold whatever was done.

use std::collections::HashMap;

use object_store::path::Path;
use whimbrel_store::{Entry, Limits, LogError, Origin, Record, Relation, RunLog, relation, verify};

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
    /// Each term ever taken by a coordinator, and the one that its place was under before.
    tree: HashMap<String, Option<String>>,
}

impl Watch {
    pub(crate) fn acknowledged(&mut self, place: usize, number: u64, coordinator: &str) {
        self.acknowledged.push((place, number, coordinator.to_owned()));
    }

    pub(crate) fn written(&mut self, place: usize, at: &Path, actor: &str) {
        self.writers.insert((place, at.to_string()), actor.to_owned());
    }

    /// Whoever wrote the last term entry wrote all that follows.
    fn assert_one_writer(&self, place: usize, run_log: &RunLog) {
        let mut holder = None;
        for entry in run_log.entries() {
            let writer = self.writers.get(&(place, format!("r/log/{:020}.json", entry.number)));
            match entry.record {
                Record::Term { .. } => holder = writer,
                Record::Submitted { .. } => {}
                _ => assert_eq!(writer, holder, "entry {} of place {place}", entry.number),
            }
        }
    }

    /// Whether `term` is `ancestor`, or was taken over what `ancestor` left.
    fn descends(&self, term: &str, ancestor: &str) -> bool {
        let mut at = Some(term.to_owned());
        while let Some(term) = at {
            if term == ancestor {
                return true;
            }
            at = self.tree.get(&term).cloned().flatten();
        }
        false
    }

    fn learn(&mut self, run_log: &RunLog) {
        let mut before = None;
        for entry in run_log.entries() {
            let Some(term) = identity(entry) else { continue };
            if let Record::Term { replica_of: None, .. } = entry.record {
                self.tree.entry(term.clone()).or_insert(before);
            }
            before = Some(term);
        }
    }

    fn expected(&self, source: &RunLog, other: &RunLog) -> Relation {
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

/// The term that an entry takes or replicas.
fn identity(entry: &Entry) -> Option<String> {
    match &entry.record {
        Record::Term { replica_of: Some(replica), .. } => Some(replica.term.clone()),
        Record::Term { replica_of: None, .. } => Some(entry.writer.clone()),
        _ => None,
    }
}

fn last(run_log: &RunLog) -> Option<String> {
    run_log.entries().iter().rev().find_map(identity)
}

pub(crate) async fn everything(world: &World) {
    let mut run_logs = Vec::new();
    for place in world.all_watched() {
        let run = place.run();
        let run_log = match run.run_log().await {
            Ok(run_log) => run_log,
            Err(LogError::NoRun { .. }) => continue,
            Err(error) => panic!("{place}: {error}"),
        };
        let checkpoints = run_log.checkpoints();
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
            watch.learn(&run_log);
            watch.assert_one_writer(place.number, &run_log);
        });
        run_logs.push((place.number, run_log));
    }
    world.watch(|watch| {
        for (place, number, coordinator) in &watch.acknowledged {
            let (_, run_log) = run_logs.iter().find(|(number, _)| number == place).unwrap();
            let before = &run_log.entries()[..=*number as usize];
            let holder = before.iter().rev().find_map(|entry| match &entry.record {
                Record::Term { coordinator, .. } => Some(coordinator),
                _ => None,
            });
            assert_eq!(holder, Some(coordinator), "entry {number} of place {place}");
        }
        for (a, source) in &run_logs {
            for (b, other) in &run_logs {
                assert_eq!(relation(source, other), watch.expected(source, other), "{b} to {a}");
            }
        }
    });
}
