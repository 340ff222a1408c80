//! What a run's spec and log say, in the words of the core and the store.

use std::time::Duration;

use whimbrel_core::{CheckpointEvery, Past, RunFacts};
use whimbrel_spec::{self as spec, Bandwidth, Every, Keep, RunSpec};
use whimbrel_store::{Entry, KeepEvery, Limits, Record, Retention, RunLog};

/// The part of a spec that the core decides by.
pub(crate) fn run(spec: &RunSpec) -> RunFacts {
    RunFacts {
        steps: spec.train.steps,
        shards: spec.train.shards,
        workers_min: spec.workers.min,
        workers_max: spec.workers.max.min(spec.train.shards),
        max_failures: spec.workers.max_failures,
        step_timeout: spec.workers.step_timeout,
        checkpoint: match spec.checkpoint.every {
            spec::CheckpointEvery::Fixed(Every::Steps(steps)) => CheckpointEvery::Steps(steps),
            spec::CheckpointEvery::Fixed(Every::Time(time)) => CheckpointEvery::Time(time),
            spec::CheckpointEvery::Auto => CheckpointEvery::Auto,
        },
        has_setup: spec.setup.is_some(),
    }
}

/// What a spec says of the checkpoints to keep.
pub(crate) fn retention(spec: &RunSpec) -> Retention {
    let Keep { last, every } = spec.checkpoint.keep;
    let every = every.map(|every| match every {
        Every::Steps(steps) => KeepEvery::Steps(steps),
        Every::Time(time) => KeepEvery::Time(time),
    });
    Retention { last, every, ..Retention::default() }
}

/// What a spec says of how fast bytes are sent.
pub(crate) fn limits(spec: &RunSpec) -> Limits {
    let bandwidth = spec.checkpoint.bandwidth.map(Bandwidth::bytes_per_second);
    Limits { bandwidth, ..Limits::default() }
}

/// What a run has been through, by its log: how long coordinators held it, each from starting a term to its last word, and
/// how many of them went without saying that the run had stopped or ended, its workers with them. One that never came so far
/// as to have the run go on had none.
pub(crate) fn past(run_log: &RunLog) -> Past {
    let mut past = Past::default();
    let mut terms = terms(run_log);
    // The last term is the one that has just begun.
    terms.pop();
    for (index, term) in terms.into_iter().enumerate() {
        let (Some(first), Some(last)) = (term.first(), term.last()) else { continue };
        past.trained += Duration::try_from(last.time.duration_since(first.time)).unwrap_or_default();
        let parted = |entry: &Entry| matches!(entry.record, Record::Stopped(_) | Record::Ended(_));
        past.failures += u32::from(has_gone_on(index, term) && !term.iter().any(parted));
    }
    past
}

/// Whether whoever started a term last came so far as to have the run go on.
pub(crate) fn goes_on(run_log: &RunLog) -> bool {
    let terms = terms(run_log);
    terms.last().is_some_and(|last| has_gone_on(terms.len() - 1, last))
}

/// The entries of a log by the epochs in which they were written; replicas write in the epoch of whom they replica.
fn terms(run_log: &RunLog) -> Vec<&[Entry]> {
    let terms = run_log.entries().chunk_by(|entry, next| entry.epoch == next.epoch);
    // Before the first term there is none.
    terms.filter(|term| term.first().is_some_and(|first| first.epoch > 0)).collect()
}

/// Whether a term came so far as to have the run go on, which the first does with its term.
fn has_gone_on(index: usize, term: &[Entry]) -> bool {
    index == 0 || term.iter().any(|entry| matches!(entry.record, Record::Resumed { .. }))
}

#[cfg(test)]
mod tests {
    use whimbrel_store::{Mode, Stopped, Store};

    use super::*;

    #[tokio::test]
    async fn what_a_run_has_been_through_is_read_from_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let (here, copy) = (store.run(&"r-1".parse().unwrap()), folder.path().join("copy"));
        here.create("a spec", Mode::Service).await.unwrap();
        let first = here.start_term("the first").await.unwrap();
        assert_eq!(past(first.run_log()), Past::default(), "it has only just begun");
        // The first went without a word, the second stopped the run, and the third has just taken it up.
        let mut second = here.start_term("the second").await.unwrap();
        assert_eq!(past(second.run_log()).failures, 1);
        let stopped = Stopped { step: 0, reason: "stopped".into() };
        second.append(Record::Stopped(stopped)).await.unwrap();
        let mut third = here.start_term("the third").await.unwrap();
        let been = past(third.run_log());
        assert_eq!(been.failures, 1);
        let entries = third.run_log().entries();
        let trained = entries[3].time.duration_since(entries[2].time);
        assert_eq!(
            been.trained,
            Duration::try_from(trained).unwrap(),
            "the first wrote nothing but that it was there"
        );

        // Replicas, however many, are no terms of their own: whoever takes up the copy knows of one that went.
        let copy = Store::open(copy.to_str().unwrap()).unwrap().run(here.id());
        for _ in 0..3 {
            copy.become_replica_of(&here, third.run_log(), "a test").await.unwrap();
        }
        let taken_up = copy.start_term("the fourth").await.unwrap();
        assert_eq!(past(taken_up.run_log()).failures, 1);

        // The third has the run go on, and goes without a word. One that cannot take it up yet has no workers to lose, however
        // often it tries.
        third.append(Record::Resumed { step: 0 }).await.unwrap();
        for _ in 0..5 {
            here.start_term("the fourth").await.unwrap();
        }
        assert_eq!(past(&here.run_log().await.unwrap()).failures, 2);
    }

    #[test]
    fn a_spec_says_what_is_kept_and_how_fast_it_is_sent() {
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
        assert_eq!(run(&steps).checkpoint, CheckpointEvery::Auto);
        let time = read("keep = { every = \"6h\" }");
        assert_eq!(retention(&time).every, Some(KeepEvery::Time(Duration::from_secs(6 * 3600))));
    }
}
