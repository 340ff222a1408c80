//! What can be wrong with a spec, and the message for each problem. `reader.rs`, `parse.rs` and `settings.rs` report
//! them.

use std::{error::Error, fmt};

use crate::{
    bandwidth::InvalidBandwidth,
    every::{Every, InvalidEvery},
    keys,
    position::Position,
    quote,
    time::InvalidTime,
};

/// All mistakes in a spec, in the order of the text; at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistakes(Vec<Mistake>);

/// One mistake. Shown as `run.toml:7: train.shards: what is wrong; what to write`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// Where it was written.
    pub position: Position,
    /// The dotted key, with an index in brackets for an element of an array; empty if the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a key or its value, and what to write instead.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The text is not TOML.
    #[error("not TOML: {message}{}", at(found))]
    Syntax {
        /// The parser's message.
        message: String,
        /// The text at which the parser failed; may be empty.
        found: String,
    },
    /// No key of a spec has this name.
    #[error("there is no such key; {}", instead(meant, table, known))]
    UnknownKey {
        /// The dotted keys that may have been meant; may be empty.
        meant: Vec<String>,
        /// The table it was written in; empty for the top level.
        table: &'static str,
        /// The keys of that table.
        known: Vec<&'static str>,
    },
    /// A required key is missing.
    #[error("missing; add {example} {}", under(table))]
    Missing {
        /// The table it belongs to; empty for the top level.
        table: &'static str,
        /// A line that sets it.
        example: &'static str,
    },
    /// A required key is missing in a script.
    #[error(
        "missing; add {example} under [tool.whimbrel{}{table}] in the script's header{}",
        if table.is_empty() { "" } else { "." },
        flag(example)
    )]
    MissingInScript {
        /// The table it belongs to; empty for the top level.
        table: &'static str,
        /// A line that sets it.
        example: &'static str,
    },
    /// A script's header that is not closed.
    #[error("the header that begins here does not end: add the line `# ///` after line {end}")]
    OpenHeader {
        /// The last line of the header, from 1.
        end: usize,
    },
    /// A script with two headers.
    #[error("a second header; the first one begins on line {first}: join the two")]
    SecondHeader {
        /// The line on which the first one begins, from 1.
        first: usize,
    },
    /// A value of the wrong type.
    #[error("found {found}, wanted {wanted}, as in {example}")]
    WrongType {
        /// What was written.
        found: String,
        /// The type that the key takes.
        wanted: &'static str,
        /// A line that sets it.
        example: String,
    },
    /// A number too small or too large.
    #[error("{found} is out of range; use a whole number from {least} to {most}")]
    OutOfRange {
        /// The number as written.
        found: String,
        /// The least allowed.
        least: i128,
        /// The most allowed.
        most: i128,
    },
    /// A word that is not one of the choices.
    #[error(
        "{} is not one of the choices; use {}",
        quote::excerpt(found),
        or(choices.iter().map(|word| quote::string(word)))
    )]
    NoSuchChoice {
        /// What was written.
        found: String,
        /// The choices.
        choices: Vec<&'static str>,
    },
    /// An empty value where one is needed.
    #[error("empty; give a value, as in {example}{}", or_unset(unset))]
    Empty {
        /// A line that sets it.
        example: &'static str,
        /// The key, if the spec may be without it.
        unset: Option<String>,
    },
    /// A key to unset that a spec must have.
    #[error("required, so it cannot be unset; set another value, as in {example}")]
    UnsetRequired {
        /// A line that sets it.
        example: &'static str,
    },
    /// A NUL byte, which neither an argument of a process nor a path can contain.
    #[error("contains a NUL byte, which no argument or path can; remove it")]
    Nul,
    /// A name that cannot be the start of a run's id.
    #[error(
        "{} cannot be the start of a run's id; use 1 to {most} characters of a-z, 0-9, '-', '_' and '.', the first a letter or a digit",
        quote::excerpt(found)
    )]
    UnfitName {
        /// The name.
        found: String,
        /// The longest name allowed, in characters.
        most: usize,
    },
    /// The shards of a step would not be equal in size.
    #[error("{shards} does not divide global_batch ({global_batch}); use {}", or(divisors(*global_batch, *shards)))]
    UnevenShards {
        /// Shards per step.
        shards: u32,
        /// Samples per step.
        global_batch: u32,
    },
    /// More shards than samples.
    #[error(
        "{shards} is more than global_batch ({global_batch}), and each shard needs at least one sample; use {}",
        or(divisors(*global_batch, *shards))
    )]
    EmptyShards {
        /// Shards per step.
        shards: u32,
        /// Samples per step.
        global_batch: u32,
    },
    /// More workers than the run can use.
    #[error(
        "{found} is more than the number of workers that the run can use, {most} (the lesser of workers.max and \
         train.shards); use {most} or less"
    )]
    TooManyWorkers {
        /// The number written.
        found: u32,
        /// The most that the run can use.
        most: u32,
    },
    /// Not an interval.
    #[error(transparent)]
    Every(InvalidEvery),
    /// Not an interval for checkpoints.
    #[error("{0}, or \"auto\"")]
    CheckpointEvery(InvalidEvery),
    /// A time where a number of steps is needed.
    #[error(
        "{} is a time, but evaluations are counted in steps; write it as \"200 steps\"",
        quote::excerpt(found)
    )]
    NotInSteps {
        /// What was written.
        found: String,
    },
    /// Not a duration.
    #[error(transparent)]
    Time(InvalidTime),
    /// A store of an unknown kind.
    #[error(
        "there is no store of the kind {}; use s3://, az://, gs://, file:// or the path of a folder",
        quote::excerpt(scheme)
    )]
    UnknownStore {
        /// The part before `://`.
        scheme: String,
    },
    /// A replica that is the run's own store.
    #[error(
        "{} is the run's own store, and a replica is a copy in another store; name another one",
        quote::excerpt(uri)
    )]
    ReplicaIsStore {
        /// The replica as written.
        uri: String,
    },
    /// A replica that is named twice.
    #[error("{} is named twice; remove one of the two", quote::excerpt(uri))]
    ReplicaTwice {
        /// The replica as written.
        uri: String,
    },
    /// `checkpoint.keep.every` is shorter than `checkpoint.every`.
    #[error(
        "\"{keep}\" is more often than checkpoints are taken (\"{every}\"), so every checkpoint would be kept \
         permanently; use a multiple of \"{every}\""
    )]
    KeptMoreOftenThanTaken {
        /// `checkpoint.keep.every`.
        keep: Every,
        /// `checkpoint.every`.
        every: Every,
    },
    /// Not a bandwidth.
    #[error(transparent)]
    Bandwidth(InvalidBandwidth),
    /// A name that no environment variable can have.
    #[error("an environment variable's name must not be empty or contain '=' or a NUL byte; rename it")]
    UnfitVariable,
    /// An environment variable that Whimbrel itself sets.
    #[error("names that begin with WHIMBREL_ are reserved for Whimbrel; rename it")]
    ReservedVariable,
    /// A number that JSON cannot express.
    #[error("found {found}, which JSON cannot express; use a finite number or a string")]
    NotFinite {
        /// What was written.
        found: String,
    },
    /// A setting that is nested too deeply.
    #[error("nested more than {most} deep; flatten the settings")]
    TooDeep {
        /// The most levels of tables and arrays, not counting `[train.settings]` itself.
        most: usize,
    },
}

impl Mistakes {
    /// Sorts mistakes by position and drops those that another explains: if the user wrote `step` for `steps`, the
    /// unknown key is reported and the missing one is not.
    pub(crate) fn new(mut mistakes: Vec<Mistake>) -> Self {
        let mut meant = Vec::new();
        for mistake in &mistakes {
            if let Problem::UnknownKey { meant: keys, .. } = &mistake.problem {
                meant.extend(keys.iter().cloned());
            }
        }
        let explained = |key: &str| {
            meant.iter().any(|meant| {
                key.strip_prefix(meant.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        mistakes.retain(|mistake| {
            !(matches!(mistake.problem, Problem::Missing { .. }) && explained(&mistake.key))
        });
        // The sort is stable: mistakes on one line stay in the order in which they were found.
        mistakes.sort_by_key(|mistake| mistake.position.order());
        Self(mistakes)
    }

    /// The same mistakes with other problems.
    pub(crate) fn map(mut self, problem: impl Fn(Problem) -> Problem) -> Self {
        self.0 = self
            .0
            .into_iter()
            .map(|mistake| Mistake { problem: problem(mistake.problem), ..mistake })
            .collect();
        self
    }

    /// The mistakes, in the order of the text; those in overrides last.
    pub fn as_slice(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.position)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Mistake {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // `Display` already includes the problem's message, so the source is the problem's source.
        self.problem.source()
    }
}

impl Error for Mistakes {}

fn at(found: &str) -> String {
    if found.trim().is_empty() { String::new() } else { format!(", at {}", quote::excerpt(found)) }
}

fn or_unset(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!("; or remove the key, or give --unset {key}")).unwrap_or_default()
}

/// The flag that sets a key as `example` does.
fn flag(example: &str) -> String {
    let flags = [(keys::STEPS.example, "--steps 2000"), (keys::GLOBAL_BATCH.example, "--batch 48")];
    let flag = flags.iter().find(|(key, _)| *key == example);
    flag.map(|(_, flag)| format!(", or give `whimbrel run` {flag}")).unwrap_or_default()
}

fn under(table: &str) -> String {
    if table.is_empty() {
        "at the top, before the first [table]".to_owned()
    } else {
        format!("under [{table}]")
    }
}

fn instead(meant: &[String], table: &str, known: &[&'static str]) -> String {
    if !meant.is_empty() {
        return format!("did you mean {}?", or(meant.iter().cloned()));
    }
    let table = if table.is_empty() { "the top level".to_owned() } else { format!("[{table}]") };
    format!("{table} has the keys {}", known.join(", "))
}

/// Joins words as `a, b or c`.
fn or(words: impl IntoIterator<Item = String>) -> String {
    let mut words: Vec<String> = words.into_iter().collect();
    match (words.pop(), words.is_empty()) {
        (None, _) => String::new(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} or {last}", words.join(", ")),
    }
}

/// The divisors of `number` in ascending order; if there are more than twelve, the twelve nearest to `near`.
fn divisors(number: u32, near: u32) -> Vec<String> {
    const SHOWN: usize = 12;
    let small: Vec<u32> = (1..=number.isqrt()).filter(|divisor| number.is_multiple_of(*divisor)).collect();
    let large = small.iter().rev().map(|divisor| number / divisor);
    let mut all: Vec<u32> = small.iter().copied().chain(large).collect();
    // The root of a square number appears in both halves.
    all.dedup();
    let middle = all.partition_point(|&divisor| divisor < near);
    let start = middle.saturating_sub(SHOWN / 2).min(all.len().saturating_sub(SHOWN));
    all.iter().skip(start).take(SHOWN).map(u32::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_divisors_are_listed_or_the_twelve_nearest() {
        assert_eq!(divisors(1, 7), ["1"]);
        assert_eq!(divisors(36, 5), ["1", "2", "3", "4", "6", "9", "12", "18", "36"]);
        let near = ["15", "16", "18", "20", "24", "30", "36", "40", "45", "48", "60", "72"];
        assert_eq!(divisors(720, 32), near);
        assert_eq!(divisors(720, 10_000).last().unwrap(), "720");
        assert_eq!(divisors(u32::MAX, 1).len(), 12);
    }
}
