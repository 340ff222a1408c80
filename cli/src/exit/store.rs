//! The exit code of each error of a store, and what the user can do about it.

use std::error::Error;

use object_store::Error as Answer;
use whimbrel_coordinator::ReplicaError;
use whimbrel_store::{
    AppendError, CollectError, CommitError, CopyError, CreateError, LogError, OpenError, ProbeError,
    ReadManifestError, Refusal, ReplicaLogError, RestoreError, SaveError, StoreError, TermError, VerifyError,
    diff::DiffError,
    interop::{ExportError, ImportError, ModelError},
};

use super::{Code, Failure};

/// An error of the store crate.
trait StoreFailure: Error {
    /// The exit code that goes with the error.
    fn code(&self) -> Code;

    /// What the user can do about it. By default, advice on the answer of the cloud that caused it.
    fn hint(&self) -> Option<&'static str> {
        advice(self.source())
    }
}

impl<E: StoreFailure + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let (code, hint) = (error.code(), error.hint());
        hint.into_iter().fold(Self::new(code, error), Self::hint)
    }
}

/// Advice on the answer of a cloud, which is among the causes of an error.
fn advice(mut cause: Option<&(dyn Error + 'static)>) -> Option<&'static str> {
    let answer = loop {
        let error = cause?;
        match error.downcast_ref() {
            Some(answer) => break answer,
            None => cause = error.source(),
        }
    };
    match Refusal::of_answer(answer) {
        Refusal::NoBucket => Some("there is no such bucket or container; check its name"),
        Refusal::Credentials => Some(
            "the credentials are missing or not accepted; they come from the environment, as for the cloud's own tools",
        ),
        Refusal::Permission => Some("the credentials are valid, but do not grant this"),
        Refusal::Region => {
            Some("the bucket is in another region; name it with AWS_REGION or ?region=… behind the URI")
        }
        Refusal::Unreachable => Some("nothing answers at this endpoint; check the endpoint and the network"),
        Refusal::Unsupported | Refusal::Other => None,
    }
}

impl StoreFailure for StoreError {
    /// A store that refuses is bad input; one that does not answer, or reports an error of its own, is unreachable.
    fn code(&self) -> Code {
        match self {
            StoreError::Refused { object, source, .. } => match (Refusal::of_answer(source), source) {
                (
                    Refusal::NoBucket
                    | Refusal::Credentials
                    | Refusal::Permission
                    | Refusal::Region
                    | Refusal::Unsupported,
                    _,
                ) => Code::BadInput,
                (_, Answer::NotFound { .. } | Answer::InvalidPath { .. }) => Code::BadInput,
                // A folder is always reachable.
                _ if object.starts_with("file:") => Code::BadInput,
                (Refusal::Unreachable | Refusal::Other, _) => Code::Unreachable,
            },
            StoreError::Silent { .. } => Code::Unreachable,
            _ => Code::Failed,
        }
    }
}

impl StoreFailure for OpenError {
    fn code(&self) -> Code {
        Code::BadInput
    }

    fn hint(&self) -> Option<&'static str> {
        None
    }
}

impl StoreFailure for ProbeError {
    fn code(&self) -> Code {
        match self {
            ProbeError::Lacks { refusal: Refusal::Unreachable, .. } => Code::Unreachable,
            ProbeError::Lacks { refusal: Refusal::Other, source, .. } => source.code(),
            ProbeError::Lacks { .. } => Code::BadInput,
            ProbeError::Overwrites { .. } | ProbeError::Forgets { .. } => Code::BadInput,
        }
    }

    /// The message of the error says what to do.
    fn hint(&self) -> Option<&'static str> {
        None
    }
}

impl StoreFailure for ReplicaError {
    fn code(&self) -> Code {
        match self {
            ReplicaError::Open { .. } | ReplicaError::Same { .. } => Code::BadInput,
            ReplicaError::Probe { source, .. } => source.code(),
        }
    }

    fn hint(&self) -> Option<&'static str> {
        None
    }
}

impl StoreFailure for LogError {
    fn code(&self) -> Code {
        match self {
            LogError::NoRun { .. } => Code::BadInput,
            LogError::Store(source) => source.code(),
            LogError::Contradiction { .. } => Code::Unreachable,
            // A later version of Whimbrel wrote the entry.
            LogError::Entry { source, .. } if !source.is_damage() => Code::BadInput,
            LogError::Entry { .. } | LogError::Hole { .. } | LogError::Order { .. } => Code::Damaged,
        }
    }
}

impl StoreFailure for AppendError {
    fn code(&self) -> Code {
        match self {
            AppendError::Fenced { .. } => Code::Failed,
            AppendError::Log(source) => source.code(),
        }
    }
}

impl StoreFailure for RestoreError {
    fn code(&self) -> Code {
        match self {
            RestoreError::Store(source) => source.code(),
            RestoreError::Layout { .. } => Code::BadInput,
            RestoreError::Manifest { .. } | RestoreError::Damaged { .. } => Code::Damaged,
        }
    }
}

impl StoreFailure for SaveError {
    fn code(&self) -> Code {
        match self {
            SaveError::Store(source) => source.code(),
            SaveError::Range { .. } => Code::Failed,
        }
    }
}

impl StoreFailure for ModelError {
    fn code(&self) -> Code {
        Code::BadInput
    }

    fn hint(&self) -> Option<&'static str> {
        None
    }
}

impl StoreFailure for ExportError {
    fn code(&self) -> Code {
        match self {
            ExportError::NotEmpty { .. } | ExportError::Write { .. } => Code::BadInput,
            ExportError::Read(source) => source.code(),
            ExportError::Store(source) => source.code(),
        }
    }
}

impl StoreFailure for ImportError {
    fn code(&self) -> Code {
        match self {
            ImportError::Model(_)
            | ImportError::Ended { .. }
            | ImportError::Replica { .. }
            | ImportError::NotStopped { .. } => Code::BadInput,
            ImportError::Save(source) => source.code(),
            ImportError::Log(source) | ImportError::Create(CreateError::Log(source)) => source.code(),
            ImportError::Term(source) => source.code(),
            ImportError::Create(CreateError::Exists { .. }) => Code::BadInput,
            ImportError::Commit(CommitError::Store(source)) => source.code(),
            ImportError::Commit(CommitError::Append(source)) | ImportError::Append(source) => source.code(),
            ImportError::Commit(_) => Code::Failed,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            ImportError::NotStopped { .. } => {
                Some("stop it first; or give --take-over if no coordinator runs it any more")
            }
            _ => advice(self.source()),
        }
    }
}

impl StoreFailure for ReplicaLogError {
    fn code(&self) -> Code {
        match self {
            ReplicaLogError::Log(source) => source.code(),
            ReplicaLogError::WentOn { .. }
            | ReplicaLogError::Diverged { .. }
            | ReplicaLogError::AnotherRun { .. }
            | ReplicaLogError::Itself { .. }
            | ReplicaLogError::NotBegun { .. } => Code::BadInput,
        }
    }
}

impl StoreFailure for CopyError {
    fn code(&self) -> Code {
        match self {
            CopyError::OtherName { .. } | CopyError::NoSuchStep { .. } => Code::BadInput,
            CopyError::Source(source) => source.code(),
            CopyError::Replica(source) => source.code(),
            CopyError::Append(AppendError::Fenced { .. }) => Code::Stopped,
            CopyError::Append(source) => source.code(),
            CopyError::Store(source) => source.code(),
            CopyError::Unreadable { source, .. } => source.code(),
            CopyError::NotWhole { .. } => Code::Failed,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            CopyError::Append(AppendError::Fenced { .. }) => {
                Some("if that is another copy, give the same command again once it is done")
            }
            _ => advice(self.source()),
        }
    }
}

impl StoreFailure for CollectError {
    fn code(&self) -> Code {
        match self {
            CollectError::Append(source) => source.code(),
            CollectError::Store(source) => source.code(),
        }
    }
}

impl StoreFailure for TermError {
    fn code(&self) -> Code {
        match self {
            TermError::Log { source, .. } => source.code(),
            TermError::Taken { .. } => Code::BadInput,
        }
    }
}

impl StoreFailure for DiffError {
    fn code(&self) -> Code {
        match self {
            DiffError::Read(source) => source.code(),
            DiffError::Store(source) => source.code(),
        }
    }
}

impl StoreFailure for ReadManifestError {
    fn code(&self) -> Code {
        match self {
            ReadManifestError::Store(source) => source.code(),
            // A later version of Whimbrel wrote the manifest.
            ReadManifestError::Newer { .. } => Code::BadInput,
            _ => Code::Damaged,
        }
    }
}

impl StoreFailure for VerifyError {
    fn code(&self) -> Code {
        match self {
            VerifyError::Store(source) => source.code(),
            VerifyError::Manifest { .. } | VerifyError::Damaged { .. } => Code::Damaged,
        }
    }
}
