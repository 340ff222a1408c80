//! The trace of a simulation as text, and counts of what happened in it.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

/// The lines of a simulation. They are only kept if they are read later: formatting takes most of the time.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(kept: bool) -> Self {
        Self { lines: kept.then(Vec::new) }
    }

    pub(crate) fn note(&mut self, now: Duration, mark: &str, what: &dyn Debug) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} {mark} {what:?}", now.as_secs_f64()));
        }
    }

    pub(crate) fn text(&self) -> String {
        self.lines.as_deref().unwrap_or_default().join("\n")
    }

    /// The last lines, without heartbeats and ticks.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let telling = |line: &&String| !["Tick", "Heard", "Beat"].iter().any(|dull| line.contains(dull));
        let telling: Vec<&str> = self.lines.iter().flatten().filter(telling).map(String::as_str).collect();
        telling[telling.len().saturating_sub(lines)..].join("\n")
    }
}

/// How often each thing happened, by name: shows that the simulation reaches the cases that it is meant for.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10} {what}"))
    }
}
