//! The full message of every kind of mistake, as a user reads it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use whimbrel_spec::{Override, RunSpec};

const GOOD: &str = r#"name = "char-lm"
command = ["target/debug/char-lm"]

[train]
steps = 2000
global_batch = 48
shards = 16
"#;

/// The messages for a text with overrides; empty if there is no mistake.
fn mistakes_of(text: &str, overrides: &[&str]) -> String {
    let overrides: Vec<Override> = overrides.iter().map(|change| change.parse().unwrap()).collect();
    mistakes_with(text, &overrides)
}

/// The same with overrides that are read already.
fn mistakes_with(text: &str, overrides: &[Override]) -> String {
    RunSpec::parse("run.toml", text, overrides).err().map(|mistakes| mistakes.to_string()).unwrap_or_default()
}

/// Replaces one line of a good spec at a time and checks the message.
#[test]
fn a_wrong_value_of_a_required_key() {
    for (line, wrong, expected) in [
        (
            "shards = 16",
            "shards = 5",
            "run.toml:7: train.shards: 5 does not divide global_batch (48); \
             use 1, 2, 3, 4, 6, 8, 12, 16, 24 or 48",
        ),
        (
            "shards = 16",
            "shards = 96",
            "run.toml:7: train.shards: 96 is more than global_batch (48), and each shard needs at least one sample; \
             use 1, 2, 3, 4, 6, 8, 12, 16, 24 or 48",
        ),
        (
            "steps = 2000",
            "steps = 0",
            "run.toml:5: train.steps: 0 is out of range; use a whole number from 1 to 18446744073709551615",
        ),
        (
            "steps = 2000",
            "steps = \"2000\"",
            "run.toml:5: train.steps: found the string \"2000\", wanted a whole number, as in steps = 2000",
        ),
        (
            "steps = 2000",
            "steps = 2e3",
            "run.toml:5: train.steps: found the number 2e3, wanted a whole number, as in steps = 2000",
        ),
        (
            "global_batch = 48",
            "global_batch = -48",
            "run.toml:6: train.global_batch: -48 is out of range; use a whole number from 1 to 4294967295",
        ),
        (
            "global_batch = 48",
            "global_batch = 0x1_0000_0000",
            "run.toml:6: train.global_batch: 0x100000000 is out of range; use a whole number from 1 to 4294967295",
        ),
        (
            "shards = 16",
            "shards = 99999999999999999999999999999999999999999",
            "run.toml:7: train.shards: 99999999999999999999999999999999999999999 is out of range; \
             use a whole number from 1 to 4294967295",
        ),
        (
            "name = \"char-lm\"",
            "name = \"Char LM\"",
            "run.toml:1: name: \"Char LM\" cannot be the start of a run's id; use 1 to 60 characters of a-z, 0-9, '-', '_' and '.', \
             the first a letter or a digit",
        ),
        (
            "name = \"char-lm\"",
            "name = 7",
            "run.toml:1: name: found the number 7, wanted a string, as in name = \"char-lm\"",
        ),
        (
            "name = \"char-lm\"",
            "name = \" \"",
            "run.toml:1: name: empty; give a value, as in name = \"char-lm\"",
        ),
        (
            "[\"target/debug/char-lm\"]",
            "\"target/debug/char-lm --fast\"",
            "run.toml:2: command: found the string \"target/debug/char-lm --fast\", wanted an array of strings, \
             as in command = [\"target/debug/char-lm\"]",
        ),
        (
            "[\"target/debug/char-lm\"]",
            "[]",
            "run.toml:2: command: empty; give a value, as in command = [\"target/debug/char-lm\"]",
        ),
        (
            "[\"target/debug/char-lm\"]",
            "[\"\", \"\"]",
            "run.toml:2: command[0]: empty; give a value, as in command = [\"target/debug/char-lm\"]",
        ),
        (
            "[\"target/debug/char-lm\"]",
            "[\n  \"train\",\n  4,\n  \"\\u0000\",\n]",
            "run.toml:4: command[1]: found the number 4, wanted a string, as in \
             command = [\"target/debug/char-lm\"]\n\
             run.toml:5: command[2]: contains a NUL byte, which no argument or path can; remove it",
        ),
    ] {
        let text = GOOD.replace(line, wrong);
        assert_ne!(text, GOOD);
        assert_eq!(mistakes_of(&text, &[]), expected, "{wrong}");
    }
}

/// Appends one table at a time to a good spec, from line 8 on, and checks the message.
#[test]
fn a_wrong_value_of_an_optional_key() {
    for (section, expected) in [
        (
            "seed = -1",
            "run.toml:8: train.seed: -1 is out of range; use a whole number from 0 to 18446744073709551615",
        ),
        (
            "settings = 3",
            "run.toml:8: train.settings: found the number 3, wanted a table, as in [train.settings]",
        ),
        (
            "settings.rate = nan\nsettings.a = { b = [1, -inf] }",
            "run.toml:8: train.settings.rate: found the number nan, which JSON cannot express; \
             use a finite number or a string\n\
             run.toml:9: train.settings.a.b[1]: found the number -inf, which JSON cannot express; \
             use a finite number or a string",
        ),
        (
            "settings.\"big one\" = 18446744073709551616",
            "run.toml:8: train.settings.\"big one\": 18446744073709551616 is out of range; \
             use a whole number from -9223372036854775808 to 18446744073709551615",
        ),
        (
            "[evaluate]\nevery = \"5m\"",
            "run.toml:9: evaluate.every: \"5m\" is a time, but evaluations are counted in steps; \
             write it as \"200 steps\"",
        ),
        (
            "[evaluate]\nevery = 200",
            "run.toml:9: evaluate.every: found the number 200, wanted a string, as in every = \"200 steps\"",
        ),
        (
            "[evaluate]\nevery = \"0 steps\"",
            "run.toml:9: evaluate.every: \"0 steps\" is not a number of steps; write it as \"200 steps\", \
             with a whole number of at least 1",
        ),
        (
            "[workers]\nmin = 4\nmax = 2",
            "run.toml:9: workers.min: 4 is more than the number of workers that the run can use, 2 \
             (the lesser of workers.max and train.shards); use 2 or less",
        ),
        (
            "[workers]\nlocal = 17\nmax = 64",
            "run.toml:9: workers.local: 17 is more than the number of workers that the run can use, 16 \
             (the lesser of workers.max and train.shards); use 16 or less",
        ),
        (
            "[workers]\nmax_failures = 0",
            "run.toml:9: workers.max_failures: 0 is out of range; use a whole number from 1 to 4294967295",
        ),
        (
            "[workers]\nstep_timeout = \"soon\"",
            "run.toml:9: workers.step_timeout: \"soon\" is not a time; \
             write one such as \"90s\", \"5m\" or \"1h 30m\"",
        ),
        (
            "[workers]\nstep_timeout = \"100 years\"",
            "run.toml:9: workers.step_timeout: \"100 years\" is out of range; use a time from 1ms to 30days",
        ),
        (
            "[workers]\nenvironment = \"A=1\"",
            "run.toml:9: workers.environment: found the string \"A=1\", wanted a table of strings, \
             as in environment = { RUST_LOG = \"info\" }",
        ),
        (
            "[workers.environment]\nTHREADS = 4\nWHIMBREL_TOKEN = \"x\"\n\"A=B\" = \"\"\nZ = \"\\u0000\"",
            "run.toml:9: workers.environment.THREADS: found the number 4, wanted a string, as in THREADS = \"4\"\n\
             run.toml:10: workers.environment.WHIMBREL_TOKEN: names that begin with WHIMBREL_ are reserved for Whimbrel; \
             rename it\n\
             run.toml:11: workers.environment.\"A=B\": an environment variable's name must not be empty or \
             contain '=' or a NUL byte; rename it\n\
             run.toml:12: workers.environment.Z: contains a NUL byte, which no argument or path can; remove it",
        ),
        (
            "[checkpoint]\nstore = \"http://runs\"",
            "run.toml:9: checkpoint.store: there is no store of the kind \"http\"; \
             use s3://, az://, gs://, file:// or the path of a folder",
        ),
        (
            "[checkpoint]\nstore = \"https://example.com/runs\"",
            "run.toml:9: checkpoint.store: there is no store of the kind \"https\"; \
             use s3://, az://, gs://, file:// or the path of a folder",
        ),
        (
            "[checkpoint]\nreplicas = \"az://labwest/runs\"",
            "run.toml:9: checkpoint.replicas: found the string \"az://labwest/runs\", wanted an array of strings, \
             as in replicas = [\"az://container/runs\"]",
        ),
        (
            "[checkpoint]\nstore = \"s3://lab/runs\"\nreplicas = [\n\"az://west/runs\",\n\"ftp://west\",\n3,\n\"\",\n\
             \"s3://lab/runs/\",\n\"az://west/runs\",\n\"gs://south\"]",
            "run.toml:12: checkpoint.replicas[1]: there is no store of the kind \"ftp\"; \
             use s3://, az://, gs://, file:// or the path of a folder\n\
             run.toml:13: checkpoint.replicas[2]: found the number 3, wanted a string, \
             as in replicas = [\"az://container/runs\"]\n\
             run.toml:14: checkpoint.replicas[3]: empty; give a value, as in replicas = [\"az://container/runs\"]\n\
             run.toml:15: checkpoint.replicas[4]: \"s3://lab/runs/\" is the run's own store, and a replica is a copy \
             in another store; name another one\n\
             run.toml:16: checkpoint.replicas[5]: \"az://west/runs\" is named twice; remove one of the two",
        ),
        (
            "[checkpoint]\nstore = \"/data/runs\"\nreplicas = [\"file:///data/runs/\"]",
            "run.toml:10: checkpoint.replicas[0]: \"file:///data/runs/\" is the run's own store, and a replica is a copy \
             in another store; name another one",
        ),
        (
            "[checkpoint]\nevery = \"automatic\"",
            "run.toml:9: checkpoint.every: \"automatic\" is neither a number of steps nor a time; \
             write it as \"200 steps\" or \"5m\", or \"auto\"",
        ),
        (
            "[evaluate]\nevery = \"auto\"",
            "run.toml:9: evaluate.every: \"auto\" is neither a number of steps nor a time; \
             write it as \"200 steps\" or \"5m\"",
        ),
        (
            "[checkpoint]\nkeep = \"3\"",
            "run.toml:9: checkpoint.keep: found the string \"3\", wanted a whole number or a table, \
             as in keep = 3 or keep = { last = 3, every = \"1000 steps\" }",
        ),
        (
            "[checkpoint]\nkeep = { last = 0, every = \"weekly\", first = 1 }",
            "run.toml:9: checkpoint.keep.last: 0 is out of range; use a whole number from 1 to 4294967295\n\
             run.toml:9: checkpoint.keep.every: \"weekly\" is neither a number of steps nor a time; \
             write it as \"200 steps\" or \"5m\"\n\
             run.toml:9: checkpoint.keep.first: there is no such key; [checkpoint.keep] has the keys last, every",
        ),
        (
            "[checkpoint]\nevery = \"100 steps\"\nkeep = { every = \"10 steps\" }",
            "run.toml:10: checkpoint.keep.every: \"10 steps\" is more often than checkpoints are taken \
             (\"100 steps\"), so every checkpoint would be kept permanently; use a multiple of \"100 steps\"",
        ),
        (
            "[checkpoint]\nkeep = { every = \"1m\" }",
            "run.toml:9: checkpoint.keep.every: \"1m\" is more often than checkpoints are taken (\"5m\"), \
             so every checkpoint would be kept permanently; use a multiple of \"5m\"",
        ),
        (
            "[checkpoint]\nbandwidth = \"100 MB\"",
            "run.toml:9: checkpoint.bandwidth: \"100 MB\" is not a bandwidth; write a number and one of \
             B/s, kB/s, MB/s, GB/s, MiB/s, GiB/s, Mbit/s, Gbit/s, as in \"100 MB/s\"",
        ),
        (
            "[checkpoint]\nbandwidth = \"1 B/s\"",
            "run.toml:9: checkpoint.bandwidth: \"1 B/s\" is out of range; use a bandwidth from 1 kB/s to 1000 GB/s",
        ),
        (
            "[checkpoint]\nbandwidth = 100",
            "run.toml:9: checkpoint.bandwidth: found the number 100, wanted a string, \
             as in bandwidth = \"100 MB/s\"",
        ),
        (
            "[checkpoint]\nevery = \"often\"",
            "run.toml:9: checkpoint.every: \"often\" is neither a number of steps nor a time; \
             write it as \"200 steps\" or \"5m\", or \"auto\"",
        ),
        (
            "[checkpoint]\nkeep = 0",
            "run.toml:9: checkpoint.keep: 0 is out of range; use a whole number from 1 to 4294967295",
        ),
        (
            "[reduction]\nmode = \"exakt\"\non_nonfinite = true",
            "run.toml:9: reduction.mode: \"exakt\" is not one of the choices; use \"exact\" or \"f32\"\n\
             run.toml:10: reduction.on_nonfinite: found true, wanted a string, as in on_nonfinite = \"stop\"",
        ),
        ("[[workers]]\nlocal = 2", "run.toml:8: workers: found an array, wanted a table, as in [workers]"),
    ] {
        assert_eq!(mistakes_of(&format!("{GOOD}{section}\n"), &[]), expected, "{section}");
    }
}

#[test]
fn an_unknown_key_is_distinguished_from_a_missing_one() {
    for (line, wrong, expected) in [
        // The user made one mistake, so one is reported.
        ("steps =", "step =", "run.toml:5: train.step: there is no such key; did you mean train.steps?"),
        ("[train]", "[trian]", "run.toml:4: trian: there is no such key; did you mean train?"),
        (
            "steps =",
            "timeout =",
            "run.toml:4: train.steps: missing; add steps = 2000 under [train]\n\
             run.toml:5: train.timeout: there is no such key; \
             [train] has the keys steps, global_batch, shards, seed, settings",
        ),
        (
            "[train]",
            "every = 5\n[train]",
            "run.toml:4: every: there is no such key; did you mean evaluate.every or checkpoint.every?",
        ),
        (
            "[train]",
            "colour = \"red\"\n[train]",
            "run.toml:4: colour: there is no such key; the top level has the keys \
             name, setup, command, try_next, train, evaluate, workers, checkpoint, reduction",
        ),
        (
            "[train]",
            "[workers]\nenv = {}\n\"\\u001b[2J\" = 1\n[train]",
            "run.toml:5: workers.env: there is no such key; did you mean workers.environment?\n\
             run.toml:6: workers.\"\\u001B[2J\": there is no such key; [workers] has the keys \
             local, min, max, threads, max_failures, step_timeout, leave_timeout, environment",
        ),
    ] {
        assert_eq!(mistakes_of(&GOOD.replace(line, wrong), &[]), expected, "{wrong}");
    }
}

#[test]
fn a_missing_key_names_its_table() {
    assert_eq!(
        mistakes_of("", &[]),
        "run.toml: name: missing; add name = \"char-lm\" at the top, before the first [table]\n\
         run.toml: command: missing; add command = [\"target/debug/char-lm\"] at the top, before the first [table]\n\
         run.toml: train.steps: missing; add steps = 2000 under [train]\n\
         run.toml: train.global_batch: missing; add global_batch = 48 under [train]"
    );
    assert_eq!(
        mistakes_of("train = 5", &["name=x", "command=['x']"]),
        "run.toml:1: train: found the number 5, wanted a table, as in [train]"
    );
}

#[test]
fn a_syntax_error_has_its_line_and_column() {
    for (text, expected) in [
        (
            "name = char-lm\nname = \"x\"\n[train\nsteps = 5",
            "run.toml:1:8: not TOML: string values must be quoted, expected literal string, at \"char-lm\"\n\
             run.toml:2:1: not TOML: duplicate key, at \"name\"\n\
             run.toml:3:7: not TOML: unclosed table, expected `]`",
        ),
        ("x = \"é\" 5", "run.toml:1:9: not TOML: unexpected key or value, expected newline, `#`"),
        ("steps", "run.toml:1:6: not TOML: key with no value, expected `=`"),
    ] {
        assert_eq!(mistakes_of(text, &["train.steps=0"]), expected, "{text}");
    }
}

#[test]
fn a_mistake_in_an_override_names_the_override() {
    for (changes, expected) in [
        (
            &["train.step=40"][..],
            "--set train.step=40: train.step: there is no such key; did you mean train.steps?",
        ),
        (
            &["train.steps=many"],
            "--set train.steps=many: train.steps: found the string \"many\", wanted a whole number, \
             as in steps = 2000",
        ),
        (
            &["train.shards=7", "checkpoint.keep=0"],
            "--set train.shards=7: train.shards: 7 does not divide global_batch (48); \
             use 1, 2, 3, 4, 6, 8, 12, 16, 24 or 48\n\
             --set checkpoint.keep=0: checkpoint.keep: 0 is out of range; use a whole number from 1 to 4294967295",
        ),
        // The override makes a line of the text wrong.
        (
            &["train.global_batch=40"],
            "run.toml:7: train.shards: 16 does not divide global_batch (40); \
             use 1, 2, 4, 5, 8, 10, 20 or 40",
        ),
        (
            &["name.first=x"],
            "--set name.first=x: name: found a table, wanted a string, as in name = \"char-lm\"",
        ),
        (
            &["name=\"\"\"a\nb\"\"\""],
            "--set name=\"\"\"a\\nb\"\"\": name: \"a\\nb\" cannot be the start of a run's id; \
             use 1 to 60 characters of a-z, 0-9, '-', '_' and '.', the first a letter or a digit",
        ),
        // A later override of the same key corrects the mistake.
        (&["train.steps=0", "train.steps=40"], ""),
    ] {
        assert_eq!(mistakes_of(GOOD, changes), expected, "{changes:?}");
    }
}

#[test]
fn a_key_that_cannot_be_unset_names_the_override() {
    for (key, expected) in [
        (
            "name",
            "--unset name: name: required, so it cannot be unset; set another value, as in name = \"char-lm\"",
        ),
        (
            "train.steps",
            "--unset train.steps: train.steps: required, so it cannot be unset; set another value, \
             as in steps = 2000",
        ),
        ("setpu", "--unset setpu: setpu: there is no such key; did you mean setup?"),
        (
            "workers.env",
            "--unset workers.env: workers.env: there is no such key; did you mean workers.environment?",
        ),
        (
            "checkpoint.keep.first",
            "--unset checkpoint.keep.first: checkpoint.keep.first: there is no such key; \
             [checkpoint.keep] has the keys last, every",
        ),
        ("setup.first", "--unset setup.first: setup: there is no such key; did you mean setup?"),
    ] {
        assert_eq!(mistakes_with(GOOD, &[Override::unset(key).unwrap()]), expected, "{key}");
    }
}

#[test]
fn an_empty_optional_key_says_how_to_unset_it() {
    assert_eq!(
        mistakes_of(GOOD, &["setup=\"\""]),
        "--set setup=\"\": setup: empty; give a value, as in setup = \"cargo build -p char-lm\"; \
         or remove the key, or give --unset setup"
    );
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_text() {
    let text = r#"name = "-"
comand = ["x"]
[workers]
local = 9
max = 0
[train]
steps = "many"
global_batch = 16
shards = 3
[checkpoint]
every = "1 fortnight"
"#;
    assert_eq!(
        mistakes_of(text, &["reduction.mode=bf16"]),
        "run.toml:1: name: \"-\" cannot be the start of a run's id; use 1 to 60 characters of a-z, 0-9, '-', '_' and '.', \
         the first a letter or a digit\n\
         run.toml:2: comand: there is no such key; did you mean command?\n\
         run.toml:4: workers.local: 9 is more than the number of workers that the run can use, 3 \
         (the lesser of workers.max and train.shards); use 3 or less\n\
         run.toml:5: workers.max: 0 is out of range; use a whole number from 1 to 4294967295\n\
         run.toml:7: train.steps: found the string \"many\", wanted a whole number, as in steps = 2000\n\
         run.toml:9: train.shards: 3 does not divide global_batch (16); use 1, 2, 4, 8 or 16\n\
         run.toml:11: checkpoint.every: \"1 fortnight\" is neither a number of steps nor a time; \
         write it as \"200 steps\" or \"5m\", or \"auto\"\n\
         --set reduction.mode=bf16: reduction.mode: \"bf16\" is not one of the choices; use \"exact\" or \"f32\""
    );
}

#[test]
fn settings_nest_at_most_32_deep() {
    let nested = |depth| format!("{GOOD}settings.a = {}{}\n", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(mistakes_of(&nested(32), &[]), "");
    let key = format!("train.settings.a{}", "[0]".repeat(32));
    assert_eq!(
        mistakes_of(&nested(33), &[]),
        format!("run.toml:8: {key}: nested more than 32 deep; flatten the settings")
    );
}
