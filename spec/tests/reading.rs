//! What a valid spec becomes: every key, every default, every override; and the text that is stored.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use whimbrel_spec::{
    Checkpoint, CheckpointEvery, Evaluate, Every, Keep, Mode, OnNonfinite, Override, ReductionSpec, RunSpec,
};

const FULL: &str = r#"
name    = "char-lm"
setup   = "cargo build -p char-lm"
command = ["target/debug/char-lm", ""]

[train]
steps        = 2_000
global_batch = 48
shards       = 16
seed         = 18446744073709551615

[train.settings]
layers = 4
rate = 1.0
started = 2026-02-03T04:05:06Z
"odd key" = ["é\t\"\\", { x = [], y = {} }]

[evaluate]
every = "100 steps"

[workers]
local = 3
min   = 2
max   = 64
threads = 4
max_failures = 5
step_timeout = "1m 30s"
leave_timeout = "2m"
environment = { RUST_LOG = "info", EMPTY = "" }

[checkpoint]
store = "s3://bucket/runs"
replicas = ["az://container/runs", 'https://lab.blob.core.windows.net/west/runs']
every = "200 steps"
keep  = { every = "1000 steps", last = 4 }
bandwidth = "0.1 GB/s"

[reduction]
mode = "f32"
on_nonfinite = "skip"
"#;

const MINIMAL: &str = "name='x'\ncommand=['x']\ntrain={steps=1, global_batch=8, shards=8}";

fn read(text: &str, overrides: &[&str]) -> RunSpec {
    let overrides: Vec<Override> = overrides.iter().map(|change| change.parse().unwrap()).collect();
    RunSpec::parse("run.toml", text, &overrides).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn every_key_is_read() {
    let spec = read(FULL, &[]);
    assert_eq!(spec.name, "char-lm");
    assert_eq!(spec.setup.as_deref(), Some("cargo build -p char-lm"));
    assert_eq!(spec.command, ["target/debug/char-lm", ""]);
    let train = &spec.train;
    assert_eq!((train.steps, train.global_batch, train.shards, train.seed), (2000, 48, 16, u64::MAX));
    let settings = json!({
        "layers": 4,
        "rate": 1.0,
        "started": "2026-02-03T04:05:06Z",
        "odd key": ["é\t\"\\", {"x": [], "y": {}}],
    });
    assert_eq!(serde_json::Value::from(train.settings.clone()), settings);
    assert_eq!(spec.evaluate, Evaluate { every: Some(100) });
    let workers = &spec.workers;
    // There are 16 shards, so at most 16 workers are used.
    assert_eq!((workers.local, workers.min, workers.max, workers.max_failures), (3, 2, 16, 5));
    assert_eq!(workers.step_timeout, Duration::from_secs(90));
    assert_eq!((workers.threads, workers.leave_timeout), (4, Duration::from_secs(120)));
    let environment = [("RUST_LOG", "info"), ("EMPTY", "")].map(|(key, value)| (key.into(), value.into()));
    assert_eq!(workers.environment, BTreeMap::from(environment));
    let replicas = ["az://container/runs", "https://lab.blob.core.windows.net/west/runs"];
    assert_eq!(
        spec.checkpoint,
        Checkpoint {
            store: Some("s3://bucket/runs".into()),
            replicas: replicas.map(str::to_owned).into(),
            every: CheckpointEvery::Fixed(Every::Steps(200)),
            keep: Keep { last: 4, every: Some(Every::Steps(1000)) },
            bandwidth: Some("100 MB/s".parse().unwrap()),
        }
    );
    assert_eq!(spec.reduction, ReductionSpec { mode: Mode::F32, on_nonfinite: OnNonfinite::Skip });
}

#[test]
fn an_absent_key_has_its_default() {
    let spec = read(MINIMAL, &[]);
    assert_eq!((spec.setup, spec.train.seed, spec.train.settings.len()), (None, 0, 0));
    assert_eq!(spec.evaluate.every, None);
    let workers = spec.workers;
    assert_eq!((workers.local, workers.min, workers.max, workers.max_failures), (2, 1, 8, 3));
    assert_eq!((workers.step_timeout, workers.environment.len()), (Duration::from_secs(300), 0));
    assert_eq!((workers.threads, workers.leave_timeout), (1, Duration::from_secs(30)));
    let every = CheckpointEvery::Fixed(Every::Time(Duration::from_secs(300)));
    let keep = Keep { last: 3, every: None };
    let replicas = Vec::new();
    assert_eq!(spec.checkpoint, Checkpoint { store: None, replicas, every, keep, bandwidth: None });
    assert_eq!(spec.reduction, ReductionSpec { mode: Mode::Exact, on_nonfinite: OnNonfinite::Stop });
    // The default number of local workers is at most the number that the run can use.
    assert_eq!(read(MINIMAL, &["train.shards=1"]).workers.local, 1);
}

#[test]
fn overrides_are_applied_in_order() {
    let spec = read(
        FULL,
        &[
            "train.steps=40",
            "name=foo",
            "checkpoint.every=10 steps",
            "train.settings.layers=2",
            "train.settings.new.depth=1",
            "workers.environment={ONLY='this'}",
            "train.steps=50",
        ],
    );
    assert_eq!((spec.train.steps, spec.name.as_str()), (50, "foo"));
    assert_eq!(spec.checkpoint.every, CheckpointEvery::Fixed(Every::Steps(10)));
    assert_eq!(read(MINIMAL, &["checkpoint.every=auto"]).checkpoint.every, CheckpointEvery::Auto);
    assert_eq!(read(FULL, &["checkpoint.keep=7"]).checkpoint.keep, Keep { last: 7, every: None });
    let keep = read(FULL, &["checkpoint.keep.last=7"]).checkpoint.keep;
    assert_eq!(keep, Keep { last: 7, every: Some(Every::Steps(1000)) });
    assert_eq!(spec.train.settings["layers"], 2);
    assert_eq!(spec.train.settings["new"], json!({"depth": 1}));
    // A table replaces a table.
    assert_eq!(spec.workers.environment, BTreeMap::from([("ONLY".into(), "this".into())]));
    // A table that the text does not have is created.
    assert_eq!(read(MINIMAL, &["evaluate.every=2 steps"]).evaluate.every, Some(2));
}

#[test]
fn an_unset_key_has_its_default() {
    let unset = |keys: &[&str]| {
        let overrides: Vec<Override> = keys.iter().map(|key| Override::unset(key).unwrap()).collect();
        RunSpec::parse("run.toml", FULL, &overrides).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    };
    let spec = unset(&["setup", "train.settings.rate", "workers.environment.EMPTY", "checkpoint.keep.every"]);
    assert_eq!(spec.setup, None);
    assert_eq!((spec.train.settings.get("rate"), spec.train.settings["layers"].as_u64()), (None, Some(4)));
    assert_eq!(spec.workers.environment, BTreeMap::from([("RUST_LOG".into(), "info".into())]));
    assert_eq!(spec.checkpoint.keep, Keep { last: 4, every: None });
    // A whole table, and keys that the text does not have.
    let spec =
        unset(&["checkpoint", "evaluate.every", "try_next", "train.settings.absent", "evaluate.every"]);
    assert_eq!(spec.checkpoint, read(MINIMAL, &[]).checkpoint);
    assert_eq!(spec.evaluate.every, None);
}

#[test]
fn a_spec_is_stored_as_toml_with_every_default() {
    let stored = r#"name = "char-lm"
setup = "cargo build -p char-lm"
command = ["target/debug/char-lm", ""]

[train]
steps = 2000
global_batch = 48
shards = 16
seed = 18446744073709551615

[train.settings]
layers = 4
"odd key" = ["é\t\"\\", { x = [], y = {} }]
rate = 1.0
started = "2026-02-03T04:05:06Z"

[evaluate]
every = "100 steps"

[workers]
local = 3
min = 2
max = 16
threads = 4
max_failures = 5
step_timeout = "1m 30s"
leave_timeout = "2m"

[workers.environment]
EMPTY = ""
RUST_LOG = "info"

[checkpoint]
store = "s3://bucket/runs"
replicas = ["az://container/runs", "https://lab.blob.core.windows.net/west/runs"]
every = "200 steps"
keep = { last = 4, every = "1000 steps" }
bandwidth = "100 MB/s"

[reduction]
mode = "f32"
on_nonfinite = "skip"
"#;
    assert_eq!(read(FULL, &[]).to_toml(), stored);
    assert_eq!(read(stored, &[]).to_toml(), stored);
}

#[test]
fn a_null_in_the_settings_is_left_out() {
    let mut spec = read(MINIMAL, &[]);
    spec.train.settings.insert("none".into(), json!(null));
    spec.train.settings.insert("some".into(), json!([1, null, {"a": null}]));
    assert_eq!(read(&spec.to_toml(), &[]).train.settings["some"], json!([1, {}]));
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_accepted() {
    let text = format!("\u{feff}{}", FULL.replace('\n', "\r\n"));
    assert_eq!(read(&text, &[]), read(FULL, &[]));
}
