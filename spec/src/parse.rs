//! Reads a spec table by table: one function for each. The reader checks each key by itself; the checks that compare
//! keys are here, and so are the defaults.

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use serde_json::Map;
use whimbrel_plan::RunId;

use crate::{
    every::{CheckpointEvery, Every},
    keys,
    mistake::{Mistakes, Problem},
    overrides::Override,
    position::{Lines, Position},
    quote,
    reader::{Positioned, Reader},
    settings,
    spec::{Checkpoint, Evaluate, Keep, Mode, OnNonfinite, ReductionSpec, RunSpec, Train, Workers},
    time,
    tree::{self, Item, Table, Value},
};

/// The longest name, in characters. It leaves 20 characters of a run's id to distinguish runs of the same name.
const LONGEST_NAME: usize = 60;

/// If the batch can be divided into so many.
const DEFAULT_SHARDS: u32 = 8;
const DEFAULT_SEED: u64 = 0;
const DEFAULT_LOCAL: u32 = 2;
const DEFAULT_MIN: u32 = 1;
/// One thread computes the same bits on every machine, and alone as beside other workers.
const DEFAULT_THREADS: u32 = 1;
const DEFAULT_MAX_FAILURES: u32 = 3;
const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const DEFAULT_LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_CHECKPOINT_EVERY: CheckpointEvery =
    CheckpointEvery::Fixed(Every::Time(Duration::from_secs(5 * 60)));
const DEFAULT_KEEP: Keep = Keep { last: 3, every: None };

impl RunSpec {
    /// Reads `text` after applying `overrides` to it in order. `origin` names the text in messages, usually by its
    /// file.
    ///
    /// The error holds every mistake; if the text is not TOML, only the syntax errors.
    pub fn parse(origin: &str, text: &str, overrides: &[Override]) -> Result<Self, Mistakes> {
        let lines = Lines::new(origin, text);
        let tree = tree::parse(&lines, text).map_err(Mistakes::new)?;
        spec(tree, lines.file(), overrides)
    }
}

/// Reads a tree after applying `overrides` to it in order. `file` is the position of keys that are missing.
pub(crate) fn spec(mut tree: Table, file: Position, overrides: &[Override]) -> Result<RunSpec, Mistakes> {
    let mut mistakes = Vec::new();
    for change in overrides {
        mistakes.extend(change.apply(&mut tree, &file).err());
    }
    match Reader::root(tree, file, &mut mistakes, run) {
        Some(spec) if mistakes.is_empty() => Ok(spec),
        _ => Err(Mistakes::new(mistakes)),
    }
}

fn run(top: &mut Reader<'_>) -> Option<RunSpec> {
    // Every table is read before any `?`, so that the mistakes of all are found.
    let name = name(top);
    let setup = top.string(&keys::SETUP).map(|setup| setup.value);
    let try_next = top.string(&keys::TRY_NEXT).map(|try_next| try_next.value);
    let command = command(top);
    let (shards, train) = top.table(&keys::TRAIN, |table| Some(train(table))).unwrap_or_default();
    let evaluate = top.table(&keys::EVALUATE, evaluate);
    let workers = top.table(&keys::WORKERS, |table| workers(table, shards.unwrap_or(u32::MAX)));
    let checkpoint = top.table(&keys::CHECKPOINT, checkpoint);
    let reduction = top.table(&keys::REDUCTION, reduction);
    Some(RunSpec {
        name: name?,
        setup,
        try_next,
        command: command?,
        train: train?,
        evaluate: evaluate?,
        workers: workers?,
        checkpoint: checkpoint?,
        reduction: reduction?,
    })
}

fn name(top: &mut Reader<'_>) -> Option<String> {
    let name = top.parsed(&keys::NAME, |name| {
        let unfit = || Problem::UnfitName { found: name.to_owned(), most: LONGEST_NAME };
        fit_name(name).map(str::to_owned).ok_or_else(unfit)
    });
    name.map(|name| name.value)
}

/// The name, if a run's id can begin with it.
pub(crate) fn fit_name(name: &str) -> Option<&str> {
    (name.len() <= LONGEST_NAME && name.parse::<RunId>().is_ok()).then_some(name)
}

fn command(top: &mut Reader<'_>) -> Option<Vec<String>> {
    let key = &keys::COMMAND;
    let item = top.take(key)?;
    let Value::Array(items) = item.value else { return top.wrong_type(key, &item, "an array of strings") };
    if items.is_empty() {
        top.report(item.position, key.dotted(), Problem::Empty { example: key.example, unset: None });
        return None;
    }
    let mut words = Vec::with_capacity(items.len());
    for (index, Item { position, value }) in items.into_iter().enumerate() {
        let problem = match value {
            Value::String(word) if word.contains('\0') => Problem::Nul,
            // The program must not be empty; an argument may be.
            Value::String(word) if index == 0 && word.trim().is_empty() => {
                Problem::Empty { example: key.example, unset: None }
            }
            Value::String(word) => {
                words.push(word);
                continue;
            }
            other => Problem::WrongType {
                found: other.describe(),
                wanted: "a string",
                example: key.example.to_owned(),
            },
        };
        top.report(position, format!("{}[{index}]", key.dotted()), problem);
    }
    Some(words)
}

/// Also returns the number of shards by itself: the workers are checked against it even if another key is wrong.
fn train(table: &mut Reader<'_>) -> (Option<u32>, Option<Train>) {
    let steps = table.number(&keys::STEPS, 1..=u64::MAX);
    let global_batch = table.number(&keys::GLOBAL_BATCH, 1..=u32::MAX);
    let has_shards = table.has(&keys::SHARDS);
    let shards = table.number(&keys::SHARDS, 1..=u32::MAX);
    let seed = table.number(&keys::SEED, 0..=u64::MAX);
    let settings = match table.take(&keys::SETTINGS) {
        None => Map::new(),
        Some(Item { value: Value::Table(entries), .. }) => {
            settings::to_json(&keys::SETTINGS.dotted(), entries, table.mistakes())
        }
        Some(item) => table.wrong_type(&keys::SETTINGS, &item, "a table").unwrap_or_default(),
    };
    if let (Some(global_batch), Some(Positioned { position, value: shards })) = (&global_batch, &shards) {
        let (shards, global_batch) = (*shards, global_batch.value);
        if shards > global_batch {
            let problem = Problem::EmptyShards { shards, global_batch };
            table.report(position.clone(), keys::SHARDS.dotted(), problem);
        } else if !global_batch.is_multiple_of(shards) {
            let problem = Problem::UnevenShards { shards, global_batch };
            table.report(position.clone(), keys::SHARDS.dotted(), problem);
        }
    }
    let shards = match (&shards, &global_batch) {
        (None, Some(global_batch)) if !has_shards => Some(default_shards(**global_batch)),
        (shards, _) => shards.as_ref().map(|shards| **shards),
    };
    let train = || {
        Some(Train {
            steps: *steps?,
            global_batch: *global_batch?,
            shards: shards?,
            seed: seed.map_or(DEFAULT_SEED, |seed| *seed),
            settings,
        })
    };
    (shards, train())
}

/// The greatest divisor of the batch that is at most [`DEFAULT_SHARDS`].
fn default_shards(global_batch: u32) -> u32 {
    (1..=DEFAULT_SHARDS).rev().find(|shards| global_batch.is_multiple_of(*shards)).unwrap_or(1)
}

fn evaluate(table: &mut Reader<'_>) -> Option<Evaluate> {
    let every = table.parsed(&keys::EVALUATE_EVERY, |text| match text.parse().map_err(Problem::Every)? {
        Every::Steps(steps) => Ok(steps),
        Every::Time(_) => Err(Problem::NotInSteps { found: text.to_owned() }),
    });
    Some(Evaluate { every: every.map(|every| *every) })
}

fn workers(table: &mut Reader<'_>, shards: u32) -> Option<Workers> {
    let counts = 1..=u32::MAX;
    let max = table.number(&keys::MAX, counts.clone()).map_or(shards, |max| max.min(shards));
    let min = table.number(&keys::MIN, counts.clone());
    let local = table.number(&keys::LOCAL, counts.clone());
    for (key, count) in [(&keys::MIN, &min), (&keys::LOCAL, &local)] {
        if let Some(Positioned { position, value: found }) = count
            && *found > max
        {
            let problem = Problem::TooManyWorkers { found: *found, most: max };
            table.report(position.clone(), key.dotted(), problem);
        }
    }
    let threads = table.number(&keys::THREADS, counts.clone());
    let max_failures = table.number(&keys::MAX_FAILURES, counts);
    let [step_timeout, leave_timeout] = [&keys::STEP_TIMEOUT, &keys::LEAVE_TIMEOUT]
        .map(|key| table.parsed(key, |text| time::parse(text).map_err(Problem::Time)));
    Some(Workers {
        local: local.map_or(DEFAULT_LOCAL.min(max), |local| *local),
        min: min.map_or(DEFAULT_MIN, |min| *min),
        max,
        threads: threads.map_or(DEFAULT_THREADS, |threads| *threads),
        max_failures: max_failures.map_or(DEFAULT_MAX_FAILURES, |max_failures| *max_failures),
        step_timeout: step_timeout.map_or(DEFAULT_STEP_TIMEOUT, |timeout| *timeout),
        leave_timeout: leave_timeout.map_or(DEFAULT_LEAVE_TIMEOUT, |timeout| *timeout),
        environment: environment(table).unwrap_or_default(),
    })
}

fn environment(table: &mut Reader<'_>) -> Option<BTreeMap<String, String>> {
    let key = &keys::ENVIRONMENT;
    let item = table.take(key)?;
    let Value::Table(entries) = item.value else { return table.wrong_type(key, &item, "a table of strings") };
    let mut environment = BTreeMap::new();
    for (name, item) in entries {
        let problem = match item.value {
            _ if name.is_empty() || name.contains(['=', '\0']) => Problem::UnfitVariable,
            _ if name.starts_with("WHIMBREL_") => Problem::ReservedVariable,
            Value::String(value) if value.contains('\0') => Problem::Nul,
            Value::String(value) => {
                environment.insert(name, value);
                continue;
            }
            other => Problem::WrongType {
                found: other.describe(),
                wanted: "a string",
                example: format!("{} = {}", quote::key(&name), quoted_scalar(&other)),
            },
        };
        table.report(item.position, format!("{}.{}", key.dotted(), quote::key(&name)), problem);
    }
    Some(environment)
}

/// The value in quotes, as the user should have written it.
fn quoted_scalar(value: &Value) -> String {
    match value {
        Value::Integer(text, _) | Value::Float(text, _) => quote::excerpt(text),
        Value::Boolean(boolean) => quote::string(&boolean.to_string()),
        Value::Date(date) => quote::string(date),
        Value::String(_) | Value::Array(_) | Value::Table(_) => quote::string("value"),
    }
}

fn checkpoint(table: &mut Reader<'_>) -> Option<Checkpoint> {
    let store = table.parsed(&keys::STORE, store_uri).map(|store| store.value);
    let replicas = replicas(table, store.as_deref()).unwrap_or_default();
    let every = table
        .parsed(&keys::CHECKPOINT_EVERY, |text| text.parse().map_err(Problem::CheckpointEvery))
        .map_or(DEFAULT_CHECKPOINT_EVERY, |every| *every);
    let keep = keep(table, every).unwrap_or(DEFAULT_KEEP);
    let bandwidth = table.parsed(&keys::BANDWIDTH, |text| text.parse().map_err(Problem::Bandwidth));
    Some(Checkpoint { store, replicas, every, keep, bandwidth: bandwidth.map(|bandwidth| *bandwidth) })
}

/// Checks a store's URI by its scheme alone; opening the store checks the rest.
fn store_uri(uri: &str) -> Result<String, Problem> {
    const AZURE: &str = ".blob.core.windows.net";
    let Some((scheme, rest)) = uri.split_once("://") else { return Ok(uri.to_owned()) };
    let host = rest.split('/').next().unwrap_or_default();
    let known = match scheme {
        "file" | "s3" | "az" | "abfs" | "abfss" | "gs" => true,
        "https" => host.ends_with(AZURE),
        _ => false,
    };
    if known { Ok(uri.to_owned()) } else { Err(Problem::UnknownStore { scheme: scheme.to_owned() }) }
}

fn replicas(table: &mut Reader<'_>, store: Option<&str>) -> Option<Vec<String>> {
    let key = &keys::REPLICAS;
    let item = table.take(key)?;
    let Value::Array(items) = item.value else { return table.wrong_type(key, &item, "an array of strings") };
    let mut replicas: Vec<String> = Vec::with_capacity(items.len());
    for (index, Item { position, value }) in items.into_iter().enumerate() {
        let problem = match value {
            Value::String(uri) if uri.contains('\0') => Problem::Nul,
            Value::String(uri) if uri.trim().is_empty() => {
                Problem::Empty { example: key.example, unset: None }
            }
            Value::String(uri) => match store_uri(&uri) {
                Err(problem) => problem,
                Ok(uri) if store.is_some_and(|store| same_store(store, &uri)) => {
                    Problem::ReplicaIsStore { uri }
                }
                Ok(uri) if replicas.iter().any(|other| same_store(other, &uri)) => {
                    Problem::ReplicaTwice { uri }
                }
                Ok(uri) => {
                    replicas.push(uri);
                    continue;
                }
            },
            other => Problem::WrongType {
                found: other.describe(),
                wanted: "a string",
                example: key.example.to_owned(),
            },
        };
        table.report(position, format!("{}[{index}]", key.dotted()), problem);
    }
    Some(replicas)
}

/// Whether two URIs clearly name the same store. Opening the stores finds the other cases.
fn same_store(one: &str, other: &str) -> bool {
    fn bare(uri: &str) -> &str {
        let uri = uri.strip_prefix("file://").filter(|path| path.starts_with('/')).unwrap_or(uri);
        uri.trim_end_matches('/')
    }
    bare(one) == bare(other)
}

/// `keep` is a number, or a table with `last` and `every`.
fn keep(table: &mut Reader<'_>, taken: CheckpointEvery) -> Option<Keep> {
    let counts = 1..=u32::MAX;
    let item = table.take(&keys::KEEP)?;
    let Value::Table(entries) = item.value else {
        return match item.value {
            Value::Integer(..) => {
                table.number_in(&keys::KEEP, item, counts).map(|last| Keep { last: last.value, every: None })
            }
            _ => table.wrong_type(&keys::KEEP, &item, "a whole number or a table"),
        };
    };
    table.inner(keys::KEEP_TABLE, item.position, entries, |table| {
        let last = table.number(&keys::KEEP_LAST, counts);
        let every = table.parsed(&keys::KEEP_EVERY, |text| {
            let keep: Every = text.parse().map_err(Problem::Every)?;
            match taken {
                CheckpointEvery::Fixed(every) if keep.compare(every) == Some(Ordering::Less) => {
                    Err(Problem::KeptMoreOftenThanTaken { keep, every })
                }
                _ => Ok(keep),
            }
        });
        Some(Keep { last: last.map_or(DEFAULT_KEEP.last, |last| *last), every: every.map(|every| *every) })
    })
}

fn reduction(table: &mut Reader<'_>) -> Option<ReductionSpec> {
    let modes = [Mode::Exact, Mode::F32].map(|mode| (mode.as_str(), mode));
    let policies =
        [OnNonfinite::Stop, OnNonfinite::Skip, OnNonfinite::Pass].map(|policy| (policy.as_str(), policy));
    Some(ReductionSpec {
        mode: table.choice(&keys::MODE, &modes).unwrap_or_default(),
        on_nonfinite: table.choice(&keys::ON_NONFINITE, &policies).unwrap_or_default(),
    })
}
