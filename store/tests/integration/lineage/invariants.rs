//! The invariants, and the observations that they are checked against.

use std::collections::HashMap;

use object_store::path::Path;
use whimbrel_store::{Entry, Limits, LogError, Origin, Record, Relation, RunLog, relation, verify};

use super::world::World;

/// What was observed until now.
#[derive(Default)]
pub(crate) struct Observations {
    /// Entries that a store acknowledged to a coordinator: store, number, name.
    acknowledged: Vec<(usize, u64, String)>,
    /// Who wrote each entry of each log, by store and name.
    writers: HashMap<(usize, String), String>,
    /// The newest checkpoint of each store.
    newest: HashMap<usize, Origin>,
    /// Each term that a coordinator started, and the term before it in its store.
    tree: HashMap<String, Option<String>>,
}

impl Observations {
    pub(crate) fn acknowledged(&mut self, store: usize, number: u64, coordinator: &str) {
        self.acknowledged.push((store, number, coordinator.to_owned()));
    }

    pub(crate) fn written(&mut self, store: usize, at: &Path, actor: &str) {
        self.writers.insert((store, at.to_string()), actor.to_owned());
    }

    /// The writer of a term entry wrote all entries up to the next one.
    fn assert_one_writer(&self, store: usize, run_log: &RunLog) {
        let mut holder = None;
        for entry in run_log.entries() {
            let writer = self.writers.get(&(store, format!("r/log/{:020}.json", entry.number)));
            match entry.record {
                Record::Term { .. } => holder = writer,
                Record::Submitted { .. } => {}
                _ => assert_eq!(writer, holder, "entry {} of store {store}", entry.number),
            }
        }
    }

    /// Whether `term` is `ancestor`, or was started after it in its lineage.
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

/// The identity of the term that an entry starts.
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

pub(crate) async fn check_all(world: &World) {
    let mut run_logs = Vec::new();
    for store in world.all_stores() {
        let run = store.run();
        let run_log = match run.run_log().await {
            Ok(run_log) => run_log,
            Err(LogError::NoRun { .. }) => continue,
            Err(error) => panic!("{store}: {error}"),
        };
        let checkpoints = run_log.checkpoints();
        for checkpoint in &checkpoints {
            let context = format!("{store}, step {}", checkpoint.step);
            let manifest = run.manifest(&checkpoint.manifest).await;
            let manifest = manifest.unwrap_or_else(|error| panic!("{context}: {error}"));
            let verified = verify(&run, &manifest, &Limits::default(), |_| {}).await;
            let verified = verified.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(Some(verified.state), checkpoint.state, "{context}");
        }
        world.observe(|seen| {
            let newest = checkpoints.last().map(|checkpoint| checkpoint.origin);
            let before = seen.newest.get(&store.number).copied();
            assert!(newest >= before, "{store}: the newest checkpoint was {before:?} and is {newest:?}");
            if let Some(newest) = newest {
                seen.newest.insert(store.number, newest);
            }
            seen.learn(&run_log);
            seen.assert_one_writer(store.number, &run_log);
        });
        run_logs.push((store.number, run_log));
    }
    world.observe(|seen| {
        for (store, number, coordinator) in &seen.acknowledged {
            let (_, run_log) = run_logs.iter().find(|(number, _)| number == store).unwrap();
            let before = &run_log.entries()[..=*number as usize];
            let holder = before.iter().rev().find_map(|entry| match &entry.record {
                Record::Term { coordinator, .. } => Some(coordinator),
                _ => None,
            });
            assert_eq!(holder, Some(coordinator), "entry {number} of store {store}");
        }
        for (a, source) in &run_logs {
            for (b, other) in &run_logs {
                assert_eq!(relation(source, other), seen.expected(source, other), "{b} to {a}");
            }
        }
    });
}
