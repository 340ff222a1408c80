//! What can be wrong with a spec, and the words for it.

use std::{error::Error, fmt};

use crate::{
    bandwidth::InvalidBandwidth,
    every::{Every, InvalidEvery},
    position::Position,
    quote,
    time::InvalidTime,
};

/// Everything that is wrong with a spec, in the order of the text; at least one mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistakes(Vec<Mistake>);

/// One mistake. Shown as `run.toml:7: train.shards: what is wrong; what to write`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// Where it was made.
    pub position: Position,
    /// The dotted key it is about, with an index in brackets for part of an array; empty where the text is not TOML.
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
        /// What the parser says.
        message: String,
        /// The text it stumbled over; may be empty.
        found: String,
    },
    /// Nothing in a spec is called that.
    #[error("there is no such key; {}", instead(meant, table, known))]
    UnknownKey {
        /// The dotted keys that may have been meant; may be empty.
        meant: Vec<String>,
        /// The table it stands in; empty for the top of the file.
        table: &'static str,
        /// The keys that may stand there.
        known: Vec<&'static str>,
    },
    /// A key that a spec must have is not there.
    #[error("missing; add {example} {}", under(table))]
    Missing {
        /// The table it belongs to; empty for the top of the file.
        table: &'static str,
        /// A line that sets it.
        example: &'static str,
    },
    /// A value of another type than the key takes.
    #[error("found {found}, wanted {wanted}, as in {example}")]
    WrongType {
        /// What was written.
        found: String,
        /// The type the key takes.
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
    /// A word that is not among those the key takes.
    #[error(
        "{} is not one of the choices; use {}",
        quote::excerpt(found),
        or(choices.iter().map(|word| quote::string(word)))
    )]
    NoSuchChoice {
        /// What was written.
        found: String,
        /// The words to choose from.
        choices: Vec<&'static str>,
    },
    /// Nothing is written where something must be.
    #[error("empty; write something, as in {example}")]
    Empty {
        /// A line that sets it.
        example: &'static str,
    },
    /// A NUL byte, which neither a process nor a path can be given.
    #[error("holds a NUL byte, which cannot be passed on; take it out")]
    Nul,
    /// A name that cannot begin a run's id.
    #[error(
        "{} cannot begin a run's id; use 1 to {most} of a-z, 0-9, '-', '_' and '.', starting with a letter or a digit",
        quote::excerpt(found)
    )]
    UnfitName {
        /// The name.
        found: String,
        /// The most characters a name may have.
        most: usize,
    },
    /// A step cannot be cut into so many equal shards.
    #[error("{shards} does not divide global_batch ({global_batch}); use {}", or(divisors(*global_batch, *shards)))]
    UnevenShards {
        /// Shards per step.
        shards: u32,
        /// Samples per step.
        global_batch: u32,
    },
    /// More shards than samples.
    #[error(
        "{shards} is more than global_batch ({global_batch}), and a shard holds at least one sample; use {}",
        or(divisors(*global_batch, *shards))
    )]
    EmptyShards {
        /// Shards per step.
        shards: u32,
        /// Samples per step.
        global_batch: u32,
    },
    /// More workers than the run takes in.
    #[error(
        "{found} is more than the run takes in, which is {most} (the lesser of workers.max and train.shards); \
         use {most} or less"
    )]
    TooManyWorkers {
        /// The number written.
        found: u32,
        /// The effective `workers.max`.
        most: u32,
    },
    /// Not an interval.
    #[error(transparent)]
    Every(InvalidEvery),
    /// Not an interval of checkpoints.
    #[error("{0}, or \"auto\"")]
    CheckpointEvery(InvalidEvery),
    /// A time where steps are wanted.
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
        /// What stands before `://`.
        scheme: String,
    },
    /// A replica in the store itself.
    #[error(
        "{} is the store itself, and a replica is a copy elsewhere; name another store",
        quote::excerpt(uri)
    )]
    ReplicaIsStore {
        /// The replica as written.
        uri: String,
    },
    /// A replica that is named before.
    #[error("{} is named twice; take one of the two out", quote::excerpt(uri))]
    ReplicaTwice {
        /// The replica as written.
        uri: String,
    },
    /// Checkpoints to be kept more often than they are taken.
    #[error(
        "\"{keep}\" is more often than checkpoints are taken (\"{every}\"), and every one would be kept for good; \
         use a multiple of that"
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
    #[error("an environment variable's name is not empty and holds neither '=' nor a NUL byte; rename it")]
    UnfitVariable,
    /// An environment variable that is Whimbrel's own.
    #[error("names that begin with WHIMBREL_ are Whimbrel's own; rename it")]
    ReservedVariable,
    /// A setting that JSON has no number for.
    #[error("found {found}, which JSON cannot hold; use a finite number or a string")]
    NotFinite {
        /// What was written.
        found: String,
    },
    /// A setting too deep in others.
    #[error("nested more than {most} deep; flatten the settings")]
    TooDeep {
        /// The most levels of tables and arrays, `[train.settings]` itself not counted.
        most: usize,
    },
}

impl Mistakes {
    /// Puts mistakes in order, without those that another explains: where `step` stands for `steps`, nobody needs to
    /// hear that `steps` is missing.
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
        // Stable: what is found on one line stays in the order it was found.
        mistakes.sort_by_key(|mistake| mistake.position.order());
        Self(mistakes)
    }

    /// The mistakes, in the order of the text; those made in overrides last.
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
        // What the problem says is part of the mistake's own words.
        self.problem.source()
    }
}

impl Error for Mistakes {}

fn at(found: &str) -> String {
    if found.trim().is_empty() { String::new() } else { format!(", at {}", quote::excerpt(found)) }
}

fn under(table: &str) -> String {
    if table.is_empty() { "at the top, before any [table]".to_owned() } else { format!("under [{table}]") }
}

fn instead(meant: &[String], table: &str, known: &[&'static str]) -> String {
    if !meant.is_empty() {
        return format!("did you mean {}?", or(meant.iter().cloned()));
    }
    let position = if table.is_empty() { "the top of the file".to_owned() } else { format!("[{table}]") };
    format!("{position} takes {}", known.join(", "))
}

/// `a, b or c`.
fn or(words: impl IntoIterator<Item = String>) -> String {
    let mut words: Vec<String> = words.into_iter().collect();
    match (words.pop(), words.is_empty()) {
        (None, _) => String::new(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} or {last}", words.join(", ")),
    }
}

/// The divisors of `number`, ascending; where there are more than twelve, the twelve about `near`.
fn divisors(number: u32, near: u32) -> Vec<String> {
    const SHOWN: usize = 12;
    let small: Vec<u32> = (1..=number.isqrt()).filter(|divisor| number.is_multiple_of(*divisor)).collect();
    let large = small.iter().rev().map(|divisor| number / divisor);
    let mut all: Vec<u32> = small.iter().copied().chain(large).collect();
    // A square's root is its own partner.
    all.dedup();
    let middle = all.partition_point(|&divisor| divisor < near);
    let start = middle.saturating_sub(SHOWN / 2).min(all.len().saturating_sub(SHOWN));
    all.iter().skip(start).take(SHOWN).map(u32::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_are_complete_or_those_nearby() {
        assert_eq!(divisors(1, 7), ["1"]);
        assert_eq!(divisors(36, 5), ["1", "2", "3", "4", "6", "9", "12", "18", "36"]);
        let near = ["15", "16", "18", "20", "24", "30", "36", "40", "45", "48", "60", "72"];
        assert_eq!(divisors(720, 32), near);
        assert_eq!(divisors(720, 10_000).last().unwrap(), "720");
        assert_eq!(divisors(u32::MAX, 1).len(), 12);
    }
}
