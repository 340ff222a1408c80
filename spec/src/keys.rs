//! Every key of a spec: its table, an example, and whether it is required.
//!
//! `parse.rs` takes the keys through these constants, so a key that is not here cannot be read. The test at the end
//! compares them with docs/run-spec.md, which describes each key for users.

/// A key of the spec.
#[derive(Debug, PartialEq)]
pub(crate) struct Key {
    /// The table it belongs to; empty for the top level.
    pub(crate) table: &'static str,
    /// Its name within the table.
    pub(crate) name: &'static str,
    /// A line that sets it.
    pub(crate) example: &'static str,
    /// Whether a spec must have it.
    pub(crate) required: bool,
}

impl Key {
    const fn required(table: &'static str, name: &'static str, example: &'static str) -> Self {
        Self { table, name, example, required: true }
    }

    const fn optional(table: &'static str, name: &'static str, example: &'static str) -> Self {
        Self { table, name, example, required: false }
    }

    /// The key with its table: `train.steps`.
    pub(crate) fn dotted(&self) -> String {
        if self.table.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.table, self.name) }
    }
}

pub(crate) const NAME: Key = Key::required("", "name", r#"name = "char-lm""#);
pub(crate) const SETUP: Key = Key::optional("", "setup", r#"setup = "cargo build -p char-lm""#);
pub(crate) const COMMAND: Key = Key::required("", "command", r#"command = ["target/debug/char-lm"]"#);
pub(crate) const TRY_NEXT: Key =
    Key::optional("", "try_next", r#"try_next = "target/debug/char-lm sample {checkpoint}""#);
// Not required itself: if the table is missing, each of its required keys is reported.
pub(crate) const TRAIN: Key = Key::optional("", "train", "[train]");
pub(crate) const EVALUATE: Key = Key::optional("", "evaluate", "[evaluate]");
pub(crate) const WORKERS: Key = Key::optional("", "workers", "[workers]");
pub(crate) const CHECKPOINT: Key = Key::optional("", "checkpoint", "[checkpoint]");
pub(crate) const REDUCTION: Key = Key::optional("", "reduction", "[reduction]");

pub(crate) const STEPS: Key = Key::required("train", "steps", "steps = 2000");
pub(crate) const GLOBAL_BATCH: Key = Key::required("train", "global_batch", "global_batch = 48");
pub(crate) const SHARDS: Key = Key::optional("train", "shards", "shards = 16");
pub(crate) const SEED: Key = Key::optional("train", "seed", "seed = 1");
pub(crate) const SETTINGS: Key = Key::optional("train", "settings", "[train.settings]");

pub(crate) const EVALUATE_EVERY: Key = Key::optional("evaluate", "every", r#"every = "200 steps""#);

pub(crate) const LOCAL: Key = Key::optional("workers", "local", "local = 2");
pub(crate) const MIN: Key = Key::optional("workers", "min", "min = 1");
pub(crate) const MAX: Key = Key::optional("workers", "max", "max = 64");
pub(crate) const THREADS: Key = Key::optional("workers", "threads", "threads = 1");
pub(crate) const MAX_FAILURES: Key = Key::optional("workers", "max_failures", "max_failures = 3");
pub(crate) const STEP_TIMEOUT: Key = Key::optional("workers", "step_timeout", r#"step_timeout = "5m""#);
pub(crate) const LEAVE_TIMEOUT: Key = Key::optional("workers", "leave_timeout", r#"leave_timeout = "30s""#);
pub(crate) const ENVIRONMENT: Key =
    Key::optional("workers", "environment", r#"environment = { RUST_LOG = "info" }"#);

pub(crate) const STORE: Key = Key::optional("checkpoint", "store", r#"store = "s3://bucket/runs""#);
pub(crate) const REPLICAS: Key =
    Key::optional("checkpoint", "replicas", r#"replicas = ["az://container/runs"]"#);
pub(crate) const CHECKPOINT_EVERY: Key =
    Key::optional("checkpoint", "every", r#"every = "200 steps" or every = "5m" or every = "auto""#);
pub(crate) const KEEP: Key =
    Key::optional("checkpoint", "keep", r#"keep = 3 or keep = { last = 3, every = "1000 steps" }"#);
pub(crate) const BANDWIDTH: Key = Key::optional("checkpoint", "bandwidth", r#"bandwidth = "100 MB/s""#);

/// The name of the table that `checkpoint.keep` may be.
pub(crate) const KEEP_TABLE: &str = "checkpoint.keep";
pub(crate) const KEEP_LAST: Key = Key::optional(KEEP_TABLE, "last", "last = 3");
pub(crate) const KEEP_EVERY: Key = Key::optional(KEEP_TABLE, "every", r#"every = "1000 steps""#);

pub(crate) const MODE: Key = Key::optional("reduction", "mode", r#"mode = "exact""#);
pub(crate) const ON_NONFINITE: Key = Key::optional("reduction", "on_nonfinite", r#"on_nonfinite = "stop""#);

/// All keys: those of the top level, then table by table. Messages list the keys of a table in this order.
pub(crate) const ALL: [&Key; 32] = [
    &NAME,
    &SETUP,
    &COMMAND,
    &TRY_NEXT,
    &TRAIN,
    &EVALUATE,
    &WORKERS,
    &CHECKPOINT,
    &REDUCTION,
    &STEPS,
    &GLOBAL_BATCH,
    &SHARDS,
    &SEED,
    &SETTINGS,
    &EVALUATE_EVERY,
    &LOCAL,
    &MIN,
    &MAX,
    &THREADS,
    &MAX_FAILURES,
    &STEP_TIMEOUT,
    &LEAVE_TIMEOUT,
    &ENVIRONMENT,
    &STORE,
    &REPLICAS,
    &CHECKPOINT_EVERY,
    &KEEP,
    &KEEP_LAST,
    &KEEP_EVERY,
    &BANDWIDTH,
    &MODE,
    &ON_NONFINITE,
];

/// The longest name, in bytes, that is compared with the known keys to suggest one.
const LONGEST_TYPO: usize = 40;

/// Tables whose keys the user chooses.
const FREE: [&Key; 2] = [&SETTINGS, &ENVIRONMENT];

/// The key at a path of names. `Ok(None)` is a key of a table whose keys the user chooses. The error for an unknown key
/// is the innermost known table and the first unknown name in it.
pub(crate) fn find(path: &[String]) -> Result<Option<&'static Key>, (&'static str, &str)> {
    let mut table = "";
    for (index, name) in path.iter().enumerate() {
        let Some(key) = ALL.into_iter().find(|key| key.table == table && key.name == name) else {
            return Err((table, name));
        };
        if index + 1 == path.len() {
            return Ok(Some(key));
        }
        if FREE.contains(&key) {
            return Ok(None);
        }
        let dotted = key.dotted();
        match ALL.into_iter().find(|key| key.table == dotted) {
            Some(inner) => table = inner.table,
            // The key is not a table, so it has no keys.
            None => return Err((table, name)),
        }
    }
    Err((table, ""))
}

/// The names of the keys in `table`.
pub(crate) fn names_in(table: &str) -> impl Iterator<Item = &'static str> {
    ALL.into_iter().filter(move |key| key.table == table).map(|key| key.name)
}

/// The dotted keys that a user may have meant by `name` in `table`: keys of that name in other tables, otherwise the
/// most similar key of this table.
pub(crate) fn meant_by(table: &str, name: &str) -> Vec<String> {
    if name.len() > LONGEST_TYPO {
        return Vec::new();
    }
    let name = name.to_lowercase();
    // A user who writes `every` at the top level does not mean `checkpoint.keep.every`.
    let outer = |key: &&Key| !key.table.contains('.');
    let elsewhere: Vec<String> =
        ALL.into_iter().filter(outer).filter(|key| key.name == name).map(|key| key.dotted()).collect();
    if !elsewhere.is_empty() {
        return elsewhere;
    }
    let distance = |key: &&Key| strsim::damerau_levenshtein(key.name, &name);
    let near = |key: &&Key| {
        let part = name.len() >= 3 && (key.name.contains(&name) || name.contains(key.name));
        part || distance(key) <= (name.len() / 3).max(1)
    };
    let here = ALL.into_iter().filter(|key| key.table == table);
    here.filter(near).min_by_key(distance).map(|key| key.dotted()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunSpec;

    #[test]
    fn the_examples_together_form_a_valid_spec() {
        let (tables, values): (Vec<&Key>, Vec<&Key>) =
            ALL.into_iter().partition(|key| key.example.starts_with('['));
        let mut text = String::new();
        for (name, header) in
            std::iter::once(("", "")).chain(tables.iter().map(|key| (key.name, key.example)))
        {
            text += &format!("{header}\n");
            for key in values.iter().filter(|key| key.table == name) {
                text += &format!("{}\n", key.example.split(" or ").next().unwrap());
            }
        }
        let spec = RunSpec::parse("examples", &text, &[]).unwrap();
        assert!(spec.setup.is_some() && spec.evaluate.every.is_some() && spec.checkpoint.store.is_some());
    }

    /// The rows of the table in docs/run-spec.md: key, type, default, meaning.
    fn documented() -> Vec<[&'static str; 4]> {
        let page = include_str!("../../docs/run-spec.md");
        let rows = page.lines().skip_while(|line| !line.starts_with("| key |")).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            cells.try_into().unwrap_or_else(|cells| panic!("four cells are expected, found {cells:?}"))
        })
        .collect()
    }

    fn code(cell: &str) -> Option<&str> {
        cell.strip_prefix('`')?.strip_suffix('`')
    }

    #[test]
    fn the_documentation_lists_every_key_and_says_which_are_required() {
        // The five tables of the top level are not rows by themselves.
        let is_row = |key: &&Key| !(key.table.is_empty() && key.example.starts_with('['));
        let mut keys: Vec<(String, bool)> =
            ALL.into_iter().filter(is_row).map(|key| (key.dotted(), key.required)).collect();
        let mut rows: Vec<(String, bool)> = documented()
            .iter()
            .map(|[key, _, default, _]| (code(key).unwrap().to_owned(), *default == "required"))
            .collect();
        keys.sort();
        rows.sort();
        assert_eq!(rows, keys);
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        const MINIMAL: &str =
            "name = 'x'\ncommand = ['x']\ntrain = { steps = 1, global_batch = 4, shards = 4 }\n";
        let mut defaults = Vec::new();
        for [key, _, default, _] in documented() {
            // A default without code marks is described in words: no value is used.
            if let Some(default) = code(default) {
                defaults.push(format!("{}={default}", code(key).unwrap()).parse().unwrap());
            }
        }
        assert!(defaults.len() > 10, "the defaults are found in the table");
        let expected = RunSpec::parse("minimal", MINIMAL, &[]).unwrap();
        assert_eq!(RunSpec::parse("minimal", MINIMAL, &defaults).unwrap(), expected);
    }

    #[test]
    fn a_typing_error_gets_a_suggestion_and_an_unrelated_name_none() {
        for (table, name, meant) in [
            ("train", "Steps", &["train.steps"][..]),
            ("train", "global-batch", &["train.global_batch"]),
            ("train", "batch", &["train.global_batch"]),
            ("workers", "timeout", &["workers.step_timeout"]),
            ("", "mode", &["reduction.mode"]),
            ("", "every", &["evaluate.every", "checkpoint.every"]),
            ("train", "x", &[]),
            ("", "colour", &[]),
        ] {
            assert_eq!(meant_by(table, name), meant, "{name} in [{table}]");
        }
    }
}
