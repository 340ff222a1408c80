//! Which exit code goes with which error of a store.

use object_store::Error as Refusal;
use whimbrel_store::{LogError, OpenError, ProbeError, ReadManifestError, StoreError, VerifyError};

use crate::exit::{Code, Failure};

/// A store that says no is bad input; one that does not answer, or answers with its own trouble, is out of reach.
fn code(error: &StoreError) -> Code {
    match error {
        StoreError::Refused { object, source, .. } => match source {
            Refusal::PermissionDenied { .. }
            | Refusal::Unauthenticated { .. }
            | Refusal::NotFound { .. }
            | Refusal::NotSupported { .. }
            | Refusal::NotImplemented { .. }
            | Refusal::InvalidPath { .. } => Code::BadInput,
            // There is no network between us and a folder.
            _ if object.starts_with("file:") => Code::BadInput,
            _ => Code::Unreachable,
        },
        StoreError::Silent { .. } => Code::Unreachable,
        _ => Code::Failed,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(code(&error), error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::bad_input(error)
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        let code = match &error {
            ProbeError::Lacks { source, .. } => code(source),
            ProbeError::Overwrites { .. } | ProbeError::Forgets { .. } => Code::BadInput,
        };
        Self::new(code, error)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let code = match &error {
            LogError::NoRun { .. } => Code::BadInput,
            LogError::Store(source) => code(source),
            LogError::Contradiction { .. } => Code::Unreachable,
            LogError::Entry { .. } | LogError::Hole { .. } | LogError::Order { .. } => Code::Damaged,
        };
        Self::new(code, error)
    }
}

impl From<ReadManifestError> for Failure {
    fn from(error: ReadManifestError) -> Self {
        let code = match &error {
            ReadManifestError::Store(source) => code(source),
            _ => Code::Damaged,
        };
        Self::new(code, error)
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let code = match &error {
            VerifyError::Store(source) => code(source),
            VerifyError::Manifest { .. } | VerifyError::Damaged { .. } => Code::Damaged,
        };
        Self::new(code, error)
    }
}
