//! What `run` and `submit` take beside a run spec or a script: the script's arguments, and changes to keys of the spec.

use std::{fmt::Display, num::NonZero, path::PathBuf};

use whimbrel_spec::{InvalidOverride, Override};
use whimbrel_store::shell;

use super::{at_least_one, overrides::OverrideArgs};

/// The script's arguments, and changes to keys of the spec.
#[derive(Debug, clap::Args)]
pub(crate) struct ProgramArgs {
    /// The script's arguments. Write those that begin with a dash after `--`.
    #[arg(value_name = "ARGS")]
    pub(crate) arguments: Vec<String>,

    /// Optimizer updates of the whole run [default: train.steps of the spec].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u64>>)]
    steps: Option<NonZero<u64>>,

    /// Samples per step, whatever the number of workers [default: train.global_batch of the spec].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u32>>)]
    batch: Option<NonZero<u32>>,

    /// Equal parts of a step; the most workers that the run can use [default: train.shards of the spec].
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZero<u32>>)]
    shards: Option<NonZero<u32>>,

    /// Seed of the initial state and of the order of samples [default: train.seed of the spec].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    #[command(flatten)]
    pub(crate) changes: OverrideArgs,

    /// Write the run spec, with all changes and defaults, to this new file, and start nothing.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_spec: Option<PathBuf>,
}

impl ProgramArgs {
    /// The changes to the spec, in the order in which they are applied.
    pub(crate) fn overrides(&self) -> Result<Vec<Override>, InvalidOverride> {
        let mut overrides = self.changes.all();
        for (flag, key, value) in self.flags() {
            overrides.push(Override::flag(flag, key, value)?);
        }
        Ok(overrides)
    }

    /// These arguments, for a printed command that repeats them, with a space before each.
    pub(crate) fn repeated(&self) -> String {
        let mut repeated = String::new();
        let mut add = |word: &dyn Display| repeated.push_str(&format!(" {}", shell::word(&word.to_string())));
        for (flag, _, value) in self.flags() {
            add(&flag);
            add(&value);
        }
        for (flag, changes) in [("--set", &self.changes.set), ("--unset", &self.changes.unset)] {
            for change in changes {
                add(&flag);
                add(change);
            }
        }
        if !self.arguments.is_empty() {
            add(&"--");
            self.arguments.iter().for_each(|argument| add(argument));
        }
        repeated
    }

    /// The flags that are given, with their keys and values.
    fn flags(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let flags = [
            ("--steps", "train.steps", self.steps.map(NonZero::get)),
            ("--batch", "train.global_batch", self.batch.map(|batch| batch.get().into())),
            ("--shards", "train.shards", self.shards.map(|shards| shards.get().into())),
            ("--seed", "train.seed", self.seed),
        ];
        flags.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?)))
    }
}
