//! Scenarios: what a run does with its store. The program `scenario-runner` runs them, so that a test can kill it.
//!
//! A scenario uses the public interface of `whimbrel-store`, as the coordinator and the workers do. [`run`] runs one
//! and returns its [`Outcome`]. A scenario that *failed* must have left nothing broken behind: the next
//! [`Scenario::TakeOver`] checks that. A scenario whose outcome is *promise broken* found a promise that was not kept.

mod checkpoints;
mod promise;
mod single_store;
mod state;
mod stores;
mod two_stores;

use serde::{Deserialize, Serialize};

use self::{
    promise::{Broken, ScenarioResult, chain},
    stores::{copy_of, patient_run, run_in},
};

/// What happens to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scenario {
    /// Creates the run, with the checkpoint of step 10.
    Prepare,
    /// A coordinator starts a term, saves and commits steps 20 and 30, and collects old checkpoints.
    Live,
    /// Restores the newest checkpoint.
    Restore,
    /// Creates the run and saves a state that does not compress, with the default limits and the default retry policy.
    SaveMuch {
        /// MiB of the state.
        mebibytes: usize,
    },
    /// Verifies and restores the newest checkpoint, and compares it with the digest in the run log.
    Verify,
    /// Copies the run to another store.
    Copy,
    /// A coordinator with a replica commits steps 20 and 30, replicates each commit, and collects old checkpoints. A
    /// step is acknowledged when the replica has it.
    Replicate,
    /// The check after [`Scenario::Copy`] and [`Scenario::Replicate`]: every checkpoint in the copy is whole, and every
    /// acknowledged step is there; copying again brings the copy up to date; another coordinator takes the run over
    /// there, as if the first store were lost.
    TakeOverCopy {
        /// The newest acknowledged step.
        acknowledged: Option<u64>,
        /// As in [`Scenario::TakeOver`].
        damaged: bool,
    },
    /// Another coordinator takes the run over: every acknowledged step is there, every checkpoint is whole, and the run
    /// continues.
    TakeOver {
        /// The newest step whose commit was acknowledged.
        acknowledged: u64,
        /// Whether the store may hold other bytes than were sent. Damaged checkpoints are then quarantined, and the
        /// promise is kept if one whole checkpoint is left.
        damaged: bool,
    },
}

impl Scenario {
    /// The scenario that prepares the store for this one.
    pub fn setup(self) -> Self {
        match self {
            // Several packs, of several blocks each.
            Self::Verify => Self::SaveMuch { mebibytes: 9 },
            _ => Self::Prepare,
        }
    }

    /// The scenario that checks afterwards whether the promises were kept, whatever the outcome.
    pub fn check(self, acknowledged: Option<u64>, damaged: bool) -> Self {
        match self {
            Self::Verify => Self::Verify,
            Self::Copy | Self::Replicate => Self::TakeOverCopy { acknowledged, damaged },
            _ => Self::TakeOver { acknowledged: acknowledged.unwrap_or(10), damaged },
        }
    }
}

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It ran to its end.
    Completed,
    /// It gave up, for this reason.
    Failed(String),
    /// It found that this promise was not kept.
    PromiseBroken(String),
    /// The program ended during the scenario.
    Died,
    /// The program did not end the scenario before its deadline.
    Hung,
}

/// Runs a scenario on the store at `uri`. Calls `acknowledged` with each step whose commit the store acknowledged.
pub async fn run(scenario: Scenario, uri: &str, acknowledged: impl FnMut(u64)) -> Outcome {
    match try_run(scenario, uri, acknowledged).await {
        Ok(()) => Outcome::Completed,
        Err(error) if error.is::<Broken>() => Outcome::PromiseBroken(error.to_string()),
        Err(error) => Outcome::Failed(chain(error.as_ref())),
    }
}

async fn try_run(scenario: Scenario, uri: &str, acknowledged: impl FnMut(u64)) -> ScenarioResult {
    let run = run_in(uri)?;
    match scenario {
        Scenario::Prepare => single_store::prepare(&run).await,
        Scenario::Live => single_store::live(&run, acknowledged).await,
        Scenario::Restore => single_store::restore_newest(&run).await,
        Scenario::SaveMuch { mebibytes } => {
            single_store::save_much(&patient_run(uri)?, mebibytes, acknowledged).await
        }
        Scenario::Verify => single_store::verify_newest(&run).await,
        Scenario::Copy => two_stores::copy(&run, &copy_of(uri)?, acknowledged).await,
        Scenario::Replicate => two_stores::replicate(&run, &copy_of(uri)?, acknowledged).await,
        Scenario::TakeOverCopy { acknowledged, damaged } => {
            two_stores::take_over(&run, &copy_of(uri)?, acknowledged, damaged).await
        }
        Scenario::TakeOver { acknowledged, damaged } => {
            single_store::take_over(&run, acknowledged, damaged).await
        }
    }
}
