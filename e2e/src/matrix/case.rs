//! A case of the crash matrix: which program runs, and what happens at which of its operations.

use std::{fmt, path::PathBuf, process::Command};

use whimbrel_testbed::proxy::{Fault, Operation};

use crate::scenario::Scenario;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// The proxy injects a fault.
    Fault(Fault),
    /// SIGKILL ends the program before the request reaches the server.
    KillBefore,
    /// SIGKILL ends the program after the server has executed the request and before the program gets the answer.
    KillAfter,
}

/// One case of the matrix.
#[derive(Clone, Debug)]
pub struct Case {
    /// The scenario that runs.
    pub scenario: Scenario,
    /// The operation at which the injection happens.
    pub operation: Operation,
    /// What happens at the operation.
    pub injection: Injection,
}

/// A command that does the same to a store as a scenario, given the store's URI.
pub type StoreCommand = fn(&str) -> Command;

/// The program under test: `scenario-runner`, which also prepares and checks stores, or a command in its place.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) runner: PathBuf,
    pub(super) command: Option<StoreCommand>,
}

impl Injection {
    /// Whether the client must recover by itself, so that the scenario completes.
    pub(super) fn must_be_survived(self) -> bool {
        use Fault as F;
        matches!(
            self,
            Self::Fault(
                F::Unavailable
                    | F::Throttled
                    | F::CutBefore
                    | F::Late
                    | F::AnswerLost
                    | F::CutInAnswer
                    | F::SlowDrip
            )
        )
    }

    pub(super) fn kills(self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfter)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, operation, injection } = self;
        match injection {
            Injection::Fault(fault) => write!(f, "{scenario:?}: {fault:?} at {operation}"),
            kill => write!(f, "{scenario:?}: {kill:?} at {operation}"),
        }
    }
}
