//! Which exit code goes with which error of a store.

use std::error::Error;

use object_store::Error as Refusal;
use whimbrel_coordinator::ReplicaError;
use whimbrel_store::{
    AppendError, CollectError, CommitError, CopyError, CreateError, LogError, OpenError, ProbeError,
    ReadManifestError, Refusal as Meaning, ReplicaLogError, RestoreError, SaveError, StoreError, TermError,
    VerifyError,
    diff::DiffError,
    interop::{ExportError, ImportError, ModelError},
};

use crate::exit::{Code, Failure};

/// A store that says no is bad input; one that does not answer, or answers with its own trouble, is out of reach.
fn code(error: &StoreError) -> Code {
    match error {
        StoreError::Refused { object, source, .. } => match (Meaning::of_answer(source), source) {
            (
                Meaning::NoBucket
                | Meaning::Credentials
                | Meaning::Permission
                | Meaning::Region
                | Meaning::Unsupported,
                _,
            ) => Code::BadInput,
            (_, Refusal::NotFound { .. } | Refusal::InvalidPath { .. }) => Code::BadInput,
            // There is no network between us and a folder.
            _ if object.starts_with("file:") => Code::BadInput,
            (Meaning::Unreachable | Meaning::Other, _) => Code::Unreachable,
        },
        StoreError::Silent { .. } => Code::Unreachable,
        _ => Code::Failed,
    }
}

/// The failure, with what to do where the cause is a cloud that says no.
fn failure(code: Code, error: impl Error + Send + Sync + 'static) -> Failure {
    let mut cause = error.source();
    let hint = loop {
        match cause.map(|error| (error, error.downcast_ref())) {
            Some((_, Some(refusal))) => break advice(Meaning::of_answer(refusal)),
            Some((error, None)) => cause = error.source(),
            None => break None,
        }
    };
    hint.into_iter().fold(Failure::new(code, error), Failure::hint)
}

fn advice(refusal: Meaning) -> Option<&'static str> {
    match refusal {
        Meaning::NoBucket => Some("there is no such bucket or container; look at its name"),
        Meaning::Credentials => Some(
            "the credentials are not accepted, or there are none: they come from the environment, as each cloud's own \
             tools have them",
        ),
        Meaning::Permission => Some("the credentials are good, but do not grant this"),
        Meaning::Region => {
            Some("the bucket is in another region; name it with AWS_REGION or ?region=… behind the URI")
        }
        Meaning::Unreachable => Some("nobody answers there; look at the endpoint and the network"),
        Meaning::Unsupported | Meaning::Other => None,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        failure(code(&error), error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::bad_input(error)
    }
}

fn probe_code(error: &ProbeError) -> Code {
    match error {
        ProbeError::Lacks { refusal: Meaning::Unreachable, .. } => Code::Unreachable,
        ProbeError::Lacks { refusal: Meaning::Other, source, .. } => code(source),
        ProbeError::Lacks { .. } => Code::BadInput,
        ProbeError::Overwrites { .. } | ProbeError::Forgets { .. } => Code::BadInput,
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Self::new(probe_code(&error), error)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        let code = match &error {
            ReplicaError::Open { .. } | ReplicaError::Same { .. } => Code::BadInput,
            ReplicaError::Probe { source, .. } => probe_code(source),
        };
        Self::new(code, error)
    }
}

fn log_code(error: &LogError) -> Code {
    match error {
        LogError::NoRun { .. } => Code::BadInput,
        LogError::Store(source) => code(source),
        LogError::Contradiction { .. } => Code::Unreachable,
        // Not damaged: it is this program that is too old.
        LogError::Entry { source, .. } if !source.is_damage() => Code::BadInput,
        LogError::Entry { .. } | LogError::Hole { .. } | LogError::Order { .. } => Code::Damaged,
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        failure(log_code(&error), error)
    }
}

fn append_code(error: &AppendError) -> Code {
    match error {
        AppendError::Fenced { .. } => Code::Failed,
        AppendError::Log(source) => log_code(source),
    }
}

fn restore_code(error: &RestoreError) -> Code {
    match error {
        RestoreError::Store(source) => code(source),
        RestoreError::Layout { .. } => Code::BadInput,
        RestoreError::Manifest { .. } | RestoreError::Damaged { .. } => Code::Damaged,
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::bad_input(error)
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let code = match &error {
            ExportError::NotEmpty { .. } | ExportError::Write { .. } => Code::BadInput,
            ExportError::Read(source) => restore_code(source),
            ExportError::Store(source) => code(source),
        };
        failure(code, error)
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let save = |error: &SaveError| match error {
            SaveError::Store(source) => code(source),
            SaveError::Range { .. } => Code::Failed,
        };
        let code = match &error {
            ImportError::Model(_)
            | ImportError::Ended { .. }
            | ImportError::Replica { .. }
            | ImportError::NotStopped { .. } => Code::BadInput,
            ImportError::Save(source) => save(source),
            ImportError::Log(source) | ImportError::Create(CreateError::Log(source)) => log_code(source),
            ImportError::Term(source) => office_code(source),
            ImportError::Create(CreateError::Exists { .. }) => Code::BadInput,
            ImportError::Commit(CommitError::Store(source)) => code(source),
            ImportError::Commit(CommitError::Append(source)) | ImportError::Append(source) => {
                append_code(source)
            }
            ImportError::Commit(_) => Code::Failed,
        };
        let is_held = matches!(error, ImportError::NotStopped { .. });
        let failure = failure(code, error);
        if is_held {
            return failure.hint("stop it first; or give --take-over, if nobody works on it any more");
        }
        failure
    }
}

fn replica_log_code(error: &ReplicaLogError) -> Code {
    match error {
        ReplicaLogError::Log(source) => log_code(source),
        ReplicaLogError::WentOn { .. }
        | ReplicaLogError::Diverged { .. }
        | ReplicaLogError::AnotherRun { .. }
        | ReplicaLogError::Itself { .. }
        | ReplicaLogError::NotBegun { .. } => Code::BadInput,
    }
}

impl From<ReplicaLogError> for Failure {
    fn from(error: ReplicaLogError) -> Self {
        failure(replica_log_code(&error), error)
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let code = match &error {
            CopyError::OtherName { .. } | CopyError::NoSuchStep { .. } => Code::BadInput,
            CopyError::Source(source) => log_code(source),
            CopyError::Replica(source) => replica_log_code(source),
            CopyError::Append(AppendError::Fenced { .. }) => Code::Stopped,
            CopyError::Append(source) => append_code(source),
            CopyError::Store(source) => code(source),
            CopyError::Unreadable { source, .. } => manifest_code(source),
            CopyError::NotWhole { .. } => Code::Failed,
        };
        let failure = failure(code, error);
        if code == Code::Stopped {
            return failure.hint("if that is another copy, give the same command again once it is done");
        }
        failure
    }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        let code = match &error {
            CollectError::Append(source) => append_code(source),
            CollectError::Store(source) => code(source),
        };
        failure(code, error)
    }
}

fn office_code(error: &TermError) -> Code {
    match error {
        TermError::Log { source, .. } => log_code(source),
        TermError::Taken { .. } => Code::BadInput,
    }
}

impl From<TermError> for Failure {
    fn from(error: TermError) -> Self {
        failure(office_code(&error), error)
    }
}

impl From<DiffError> for Failure {
    fn from(error: DiffError) -> Self {
        let code = match &error {
            DiffError::Read(source) => restore_code(source),
            DiffError::Store(source) => code(source),
        };
        failure(code, error)
    }
}

fn manifest_code(error: &ReadManifestError) -> Code {
    match error {
        ReadManifestError::Store(source) => code(source),
        // Not damaged: it is this program that is too old.
        ReadManifestError::Newer { .. } => Code::BadInput,
        _ => Code::Damaged,
    }
}

impl From<ReadManifestError> for Failure {
    fn from(error: ReadManifestError) -> Self {
        failure(manifest_code(&error), error)
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let code = match &error {
            VerifyError::Store(source) => code(source),
            VerifyError::Manifest { .. } | VerifyError::Damaged { .. } => Code::Damaged,
        };
        failure(code, error)
    }
}
