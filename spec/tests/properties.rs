//! Properties of every spec and every text: stored specs are read back equal, and no text makes the parser panic.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value};
use whimbrel_spec::{
    Bandwidth, Checkpoint, CheckpointEvery, Evaluate, Every, Keep, Mode, OnNonfinite, Override,
    ReductionSpec, RunSpec, Train, Workers,
};

const GOOD: &str = r#"name = "x"
command = ["x", 'y']
[train]
steps = 0x10
global_batch = 48
shards = 16
settings = { a = [1, 2.5], "b c" = 1979-05-27, d.e = true }
[evaluate]
every = "200 steps"
[workers]
environment = { K = "v" }
step_timeout = "5m"
[checkpoint]
replicas = ["az://a/b"]
every = "5m"
keep = { last = 3, every = "1000 steps" }
bandwidth = "100 MB/s"
[reduction]
mode = "exact"
"#;

/// Any text, with control characters, which `any::<String>()` never makes.
fn any_text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..24).prop_map(String::from_iter)
}

/// Any text that can be an argument of a process and is not blank.
fn argument() -> impl Strategy<Value = String> {
    any_text().prop_map(|text| format!("t{}", text.replace('\0', "")))
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has only finite numbers", |number| number.is_finite())
            .prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any_text(), inner), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn every() -> impl Strategy<Value = Every> {
    prop_oneof![(1..=u64::MAX).prop_map(Every::Steps), time().prop_map(Every::Time)]
}

fn time() -> impl Strategy<Value = Duration> {
    (1_000_000..=30 * 86_400_000_000_000_u64).prop_map(Duration::from_nanos)
}

fn train() -> impl Strategy<Value = Train> {
    let settings = vec((any_text(), json()), 0..4).prop_map(Map::from_iter);
    (1..=u64::MAX, 1..=1000_u32, 1..=1000_u32, any::<u64>(), settings).prop_map(
        |(steps, shards, shard_size, seed, settings)| Train {
            steps,
            global_batch: shards * shard_size,
            shards,
            seed,
            settings,
        },
    )
}

fn workers(shards: u32) -> impl Strategy<Value = Workers> {
    let counts = (1..=shards).prop_flat_map(|max| (1..=max, 1..=max, Just(max), 1..=u32::MAX, 1..=u32::MAX));
    let name = "[^=\0]+".prop_filter("a reserved name", |name: &String| !name.starts_with("WHIMBREL_"));
    let environment = vec((name, argument()), 0..4).prop_map(BTreeMap::from_iter);
    let timeouts = (time(), time());
    (counts, timeouts, environment).prop_map(|(counts, (step_timeout, leave_timeout), environment)| {
        let (local, min, max, threads, max_failures) = counts;
        Workers { local, min, max, threads, max_failures, step_timeout, leave_timeout, environment }
    })
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let store = option::of(prop_oneof!["s3://[a-z]{1,9}", "[a-z/ ]{1,9}x"]);
    let replicas = vec("gs://[a-z]{1,9}", 0..4).prop_map(|mut uris: Vec<String>| {
        uris.sort();
        uris.dedup();
        uris
    });
    let bandwidth =
        option::of((1_000..=1_000_000_000_000_u64).prop_map(|rate| Bandwidth::try_from(rate).unwrap()));
    let taken = prop_oneof![Just(CheckpointEvery::Auto), every().prop_map(CheckpointEvery::Fixed)];
    let keep = (1..=u32::MAX, option::of(every()));
    (store, replicas, taken, keep, bandwidth).prop_map(|(store, replicas, every, (last, kept), bandwidth)| {
        // Checkpoints must not be kept more often than they are taken.
        let kept = kept.map(|kept| match (kept, every) {
            (Every::Steps(kept), CheckpointEvery::Fixed(Every::Steps(every))) => {
                Every::Steps(kept.max(every))
            }
            (Every::Time(kept), CheckpointEvery::Fixed(Every::Time(every))) => Every::Time(kept.max(every)),
            (kept, _) => kept,
        });
        Checkpoint { store, replicas, every, keep: Keep { last, every: kept }, bandwidth }
    })
}

fn reduction() -> impl Strategy<Value = ReductionSpec> {
    let mode = select(vec![Mode::Exact, Mode::F32]);
    let on_nonfinite = select(vec![OnNonfinite::Stop, OnNonfinite::Skip, OnNonfinite::Pass]);
    (mode, on_nonfinite).prop_map(|(mode, on_nonfinite)| ReductionSpec { mode, on_nonfinite })
}

fn spec() -> impl Strategy<Value = RunSpec> {
    let top = (
        "[a-z0-9][a-z0-9._-]{0,59}",
        option::of(argument()),
        option::of(argument()),
        argument(),
        vec(argument(), 0..4),
    );
    let train_and_workers = train().prop_flat_map(|train| {
        let shards = train.shards;
        (Just(train), workers(shards))
    });
    let evaluate = option::of(1..=u64::MAX).prop_map(|every| Evaluate { every });
    (top, train_and_workers, evaluate, checkpoint(), reduction()).prop_map(
        |((name, setup, try_next, program, arguments), (train, workers), evaluate, checkpoint, reduction)| {
            RunSpec {
                name,
                setup,
                try_next,
                command: std::iter::once(program).chain(arguments).collect(),
                train,
                evaluate,
                workers,
                checkpoint,
                reduction,
            }
        },
    )
}

/// Reads a text, good or bad. A refused text has a message for each mistake. A spec is stored and read again.
fn survives(text: &str, overrides: &[Override]) -> Result<(), TestCaseError> {
    match RunSpec::parse("run.toml", text, overrides) {
        Ok(spec) => {
            let stored = spec.to_toml();
            let again = RunSpec::parse("stored.toml", &stored, &[]);
            prop_assert_eq!(again, Ok(spec), "{}", stored);
        }
        Err(mistakes) => {
            prop_assert!(!mistakes.as_slice().is_empty());
            let message = mistakes.to_string();
            prop_assert_eq!(message.lines().count(), mistakes.as_slice().len(), "{}", message);
            prop_assert!(!message.contains(|c: char| c.is_control() && c != '\n'), "{message:?}");
        }
    }
    Ok(())
}

/// GOOD with a few parts replaced: closer to a spec than random text.
fn nearly_good() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any_text(),
        select(vec![
            "=", "[", "]", "{", "}", "\"", "'''", "\n", ".", ",", "#", "0", "-", "nan", "train", "_", "\0",
            "1e999"
        ])
        .prop_map(str::to_owned),
    ];
    vec((0..GOOD.len(), 0..6_usize, piece), 1..4).prop_map(|edits| {
        let mut text = GOOD.to_owned();
        for (at, length, piece) in edits {
            let start = text.floor_char_boundary(at);
            let end = text.ceil_char_boundary((at + length).min(text.len()));
            text.replace_range(start.min(end)..end, &piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stored_spec_is_read_back_equal(spec in spec()) {
        let text = spec.to_toml();
        let read = RunSpec::parse("stored.toml", &text, &[]);
        prop_assert_eq!(read, Ok(spec), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any_text()) {
        survives(&text, &[])?;
    }

    #[test]
    fn any_nearly_good_text_is_read_or_refused(text in nearly_good()) {
        survives(&text, &[])?;
    }

    #[test]
    fn any_override_is_read_or_refused(
        key in prop_oneof![any_text(), "[a-z]{1,7}(\\.[a-z_]{1,7}){0,2}", Just("train.settings.a".to_owned())],
        value in any_text(),
    ) {
        if let Ok(change) = format!("{key}={value}").parse::<Override>() {
            survives(GOOD, &[change])?;
        }
        if let Ok(change) = Override::unset(&key) {
            survives(GOOD, &[change])?;
        }
    }
}
