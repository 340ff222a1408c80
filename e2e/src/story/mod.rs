//! What a run does with its store, as short acts that a program of its own plays: `store-story`, which a test can kill.
//!
//! The acts go through the public interface of `whimbrel-store`, as coordinator and workers do. [`play`] plays one, and
//! tells what came of it: an act that *failed* says so and left nothing broken behind, which the next [`Act::TakeOver`]
//! finds out; an act that is *broken* saw a promise not kept.

mod acts;
mod checkpoints;
mod copies;
mod state;

use std::{error::Error, fmt::Write as _, time::Duration};

use serde::{Deserialize, Serialize};
use whimbrel_store::{Limits, Retention, RetryPolicy, RunDir, Store};

/// The run that the acts are about.
const RUN: &str = "r";

/// Packs so small that a state of a few hundred bytes has several.
const LIMITS: Limits = Limits { pack_bytes: 128, concurrency: 3, bandwidth: None };

/// One checkpoint more than one damaged upload can spoil.
const KEEP: Retention = Retention { last: 2, every: None, grace: Duration::ZERO, in_flight: Vec::new() };

/// Something that is done to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Creates the run, with the checkpoint of step 10.
    Prepare,
    /// A coordinator's life: starts a term; saves and commits steps 20 and 30, and collects what is old.
    Live,
    /// Restores the newest checkpoint.
    Restore,
    /// Creates the run and saves a state that does not compress, as a program does with the limits and the patience
    /// that it has by default.
    SaveMuch {
        /// MiB of the state.
        mebibytes: usize,
    },
    /// Verifies and restores the newest checkpoint, against the digest that the log has of it.
    Verify,
    /// Copies the run to another store, as somebody who moves does.
    Copy,
    /// A coordinator's life with a replica: each commit, of steps 20 and 30, is replicated, and what is old collected in
    /// both. An acknowledged step is one that the replica is said to have.
    Replicate,
    /// What [`Act::Copy`] and [`Act::Replicate`] are followed by: what the copy has is whole and has what was
    /// acknowledged; copying again brings it to where the run is; and it is taken over, the first store being lost.
    TakeOverCopy {
        /// The newest step that the copy was said to have.
        acknowledged: Option<u64>,
        /// As in [`Act::TakeOver`].
        damaged: bool,
    },
    /// Another coordinator takes over: what was acknowledged is there, all that is there is whole, and the run goes on.
    TakeOver {
        /// The newest step whose commit was acknowledged.
        acknowledged: u64,
        /// Whether a store may have kept other bytes than it was sent: damage is then set aside, and not a broken
        /// promise as long as a whole checkpoint is left.
        damaged: bool,
    },
}

impl Act {
    /// The act that it follows.
    pub fn prologue(self) -> Self {
        match self {
            // Several blocks, in each of several packs.
            Self::Verify => Self::SaveMuch { mebibytes: 9 },
            _ => Self::Prepare,
        }
    }

    /// The act that shows whether its promises were kept, whatever came of it.
    pub fn epilogue(self, acknowledged: Option<u64>, damaged: bool) -> Self {
        match self {
            Self::Verify => Self::Verify,
            Self::Copy | Self::Replicate => Self::TakeOverCopy { acknowledged, damaged },
            _ => Self::TakeOver { acknowledged: acknowledged.unwrap_or(10), damaged },
        }
    }
}

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It was played to its end.
    Done,
    /// It was given up, for a reason that it tells.
    Failed(String),
    /// A promise is broken.
    Broken(String),
    /// The program ended in it.
    Died,
    /// The program was still at it when nothing should take so long any more.
    Hung,
}

/// A promise that is not kept, as an error, so that `?` ends the act.
#[derive(Debug)]
struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Broken {}

type Played = Result<(), Box<dyn Error + Send + Sync>>;

fn broken(told: impl Into<String>) -> Box<dyn Error + Send + Sync> {
    Box::new(Broken(told.into()))
}

/// Plays an act on the store at `uri`. `acknowledged` is told each step whose commit was reported as done.
pub async fn play(act: Act, uri: &str, acknowledged: impl FnMut(u64)) -> Ending {
    let played = async {
        let run = run_in(uri)?;
        match act {
            Act::Prepare => acts::prepare(&run).await,
            Act::Live => acts::live(&run, acknowledged).await,
            Act::Restore => acts::restore_newest(&run).await,
            Act::SaveMuch { mebibytes } => {
                acts::save_much(&Store::open(uri)?.run(&RUN.parse()?), mebibytes, acknowledged).await
            }
            Act::Verify => acts::verify_newest(&run).await,
            Act::Copy => copies::copy(&run, &run_in(&elsewhere(uri))?, acknowledged).await,
            Act::Replicate => copies::replicate(&run, &run_in(&elsewhere(uri))?, acknowledged).await,
            Act::TakeOverCopy { acknowledged, damaged } => {
                copies::take_over(&run, &run_in(&elsewhere(uri))?, acknowledged, damaged).await
            }
            Act::TakeOver { acknowledged, damaged } => acts::take_over(&run, acknowledged, damaged).await,
        }
    };
    match played.await {
        Ok(()) => Ending::Done,
        Err(error) if error.is::<Broken>() => Ending::Broken(error.to_string()),
        Err(error) => Ending::Failed(chain(error.as_ref())),
    }
}

/// The run in a store, with patience enough for a busy machine, and so little that a store that hangs takes a second.
fn run_in(uri: &str) -> Result<RunDir, Box<dyn Error + Send + Sync>> {
    let patience = RetryPolicy {
        attempts: 4,
        first_wait: Duration::from_millis(2),
        answer: Duration::from_millis(700),
        slowest: 1 << 30,
    };
    Ok(Store::open(uri)?.with_retry_policy(patience).run(&RUN.parse()?))
}

/// The store that the run of the store at `uri` is copied to: another prefix in the same bucket.
fn elsewhere(uri: &str) -> String {
    whimbrel_store::uri::inside(uri, "copy")
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(told, ": {error}").unwrap();
        cause = error.source();
    }
    told.replace('\n', " ")
}
