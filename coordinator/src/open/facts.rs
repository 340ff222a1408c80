//! Turns a run's spec and log into what the core and the store need. Called when a run is opened.

use std::collections::BTreeSet;

use whimbrel_core::{CheckpointEvery, EarlierTerms, RunFacts, Start};
use whimbrel_spec::{self as spec, Bandwidth, Every, Keep, RunSpec};
use whimbrel_store::{Entry, KeepEvery, Limits, Record, Retention, RunLog};

/// The part of a spec that the core needs.
pub(crate) fn run_facts(spec: &RunSpec) -> RunFacts {
    RunFacts {
        steps: spec.train.steps,
        shards: spec.train.shards,
        workers_min: spec.workers.min,
        workers_max: spec.workers.max.min(spec.train.shards),
        max_failures: spec.workers.max_failures,
        step_timeout: spec.workers.step_timeout,
        leave_timeout: spec.workers.leave_timeout,
        checkpoint: match spec.checkpoint.every {
            spec::CheckpointEvery::Fixed(Every::Steps(steps)) => CheckpointEvery::Steps(steps),
            spec::CheckpointEvery::Fixed(Every::Time(time)) => CheckpointEvery::Time(time),
            spec::CheckpointEvery::Auto => CheckpointEvery::Auto,
        },
        has_setup: spec.setup.is_some(),
    }
}

/// Which checkpoints the spec keeps.
pub(crate) fn retention(spec: &RunSpec) -> Retention {
    let Keep { last, every } = spec.checkpoint.keep;
    let every = every.map(|every| match every {
        Every::Steps(steps) => KeepEvery::Steps(steps),
        Every::Time(time) => KeepEvery::Time(time),
    });
    Retention { last, every, ..Retention::default() }
}

/// How fast the spec lets bytes be sent.
pub(crate) fn limits(spec: &RunSpec) -> Limits {
    let bandwidth = spec.checkpoint.bandwidth.map(Bandwidth::bytes_per_second);
    Limits { bandwidth, ..Limits::default() }
}

/// Where a run goes on from: its newest good checkpoint whose manifest is not in `without`, or its beginning.
pub(crate) fn start_without(run_log: &RunLog, without: &BTreeSet<String>) -> Start {
    let newest = run_log.checkpoints().into_iter().rfind(|found| !without.contains(&found.manifest));
    newest.map_or(Start::Initial, |found| Start::Checkpoint { step: found.step, manifest: found.manifest })
}

/// How long the run has been led, and how often its workers were lost, by its log. For the automatic checkpoint interval.
///
/// A term counts from its first to its last entry. It counts as a failure if it had the run go on and then ended without an
/// entry that the run stopped or ended: its workers went with it.
pub(crate) fn past(run_log: &RunLog) -> EarlierTerms {
    let mut past = EarlierTerms::default();
    let mut terms = terms(run_log);
    // The last term is the one that has just begun.
    terms.pop();
    for (index, term) in terms.into_iter().enumerate() {
        let (Some(first), Some(last)) = (term.first(), term.last()) else { continue };
        past.trained += (last.time - first.time).to_std().unwrap_or_default();
        let is_end = |entry: &Entry| matches!(entry.record, Record::Stopped(_) | Record::Ended(_));
        past.failures += u32::from(term_has_gone_on(index, term) && !term.iter().any(is_end));
    }
    past
}

/// Whether the coordinator of the last term has had the run go on.
pub(crate) fn has_gone_on(run_log: &RunLog) -> bool {
    let terms = terms(run_log);
    terms.last().is_some_and(|last| term_has_gone_on(terms.len() - 1, last))
}

/// The entries of a log by term. Replication entries have the epoch of the term that they copy.
fn terms(run_log: &RunLog) -> Vec<&[Entry]> {
    let terms = run_log.entries().chunk_by(|entry, next| entry.epoch == next.epoch);
    // Entries before the first term have epoch 0.
    terms.filter(|term| term.first().is_some_and(|first| first.epoch > 0)).collect()
}

/// Whether a term had the run go on. The first term does so by starting.
fn term_has_gone_on(index: usize, term: &[Entry]) -> bool {
    index == 0 || term.iter().any(|entry| matches!(entry.record, Record::Resumed { .. }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use whimbrel_store::{HostedBy, Stopped, Store};

    use super::*;

    #[tokio::test]
    async fn terms_without_an_end_count_as_failures() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let (here, copy) = (store.run(&"r-1".parse().unwrap()), folder.path().join("copy"));
        here.create("a spec", HostedBy::Service).await.unwrap();
        let first = here.start_term("the first").await.unwrap();
        assert_eq!(past(first.run_log()), EarlierTerms::default(), "it has only just begun");
        // The first term has no end, the second stopped the run, and the third has just begun.
        let mut second = here.start_term("the second").await.unwrap();
        assert_eq!(past(second.run_log()).failures, 1);
        let stopped = Stopped { step: 0, reason: "stopped".into() };
        second.append(Record::Stopped(stopped)).await.unwrap();
        let mut third = here.start_term("the third").await.unwrap();
        let before = past(third.run_log());
        assert_eq!(before.failures, 1);
        let entries = third.run_log().entries();
        let trained = entries[3].time - entries[2].time;
        assert_eq!(
            before.trained,
            trained.to_std().unwrap(),
            "the first term has one entry, and so no duration"
        );

        // Replication entries are not terms: a coordinator that takes the copy over counts one failure.
        let copy = Store::open(copy.to_str().unwrap()).unwrap().run(here.id());
        for _ in 0..3 {
            copy.become_replica_of(&here, third.run_log(), "a test").await.unwrap();
        }
        let taken_over = copy.start_term("the fourth").await.unwrap();
        assert_eq!(past(taken_over.run_log()).failures, 1);

        // The third term has the run go on, and has no end. The terms after it do not have the run go on: they had no workers
        // to lose.
        third.append(Record::Resumed { step: 0 }).await.unwrap();
        for _ in 0..5 {
            here.start_term("the fourth").await.unwrap();
        }
        assert_eq!(past(&here.run_log().await.unwrap()).failures, 2);
    }

    #[test]
    fn retention_and_limits_come_from_the_spec() {
        let text = "name = \"t\"\ncommand = [\"true\"]\n[train]\nsteps = 4\nglobal_batch = 4\nshards = 2\n";
        let read =
            |more: &str| RunSpec::parse("run.toml", &format!("{text}[checkpoint]\n{more}"), &[]).unwrap();
        let plain = read("");
        assert_eq!(
            (retention(&plain).last, retention(&plain).every, limits(&plain).bandwidth),
            (3, None, None)
        );
        let steps =
            read("every = \"auto\"\nkeep = { last = 2, every = \"100 steps\" }\nbandwidth = \"8 Mbit/s\"");
        assert_eq!((retention(&steps).last, retention(&steps).every), (2, Some(KeepEvery::Steps(100))));
        assert_eq!(limits(&steps).bandwidth.unwrap().get(), 1_000_000);
        assert_eq!(run_facts(&steps).checkpoint, CheckpointEvery::Auto);
        let time = read("keep = { every = \"6h\" }");
        assert_eq!(retention(&time).every, Some(KeepEvery::Time(Duration::from_secs(6 * 3600))));
    }
}
