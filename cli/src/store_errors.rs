//! Which exit code goes with which error of a store.

use object_store::Error as Refusal;
use whimbrel_coordinator::ReplicaError;
use whimbrel_store::{
    AppendError, CollectError, CommitError, CopyError, CreateError, LogError, MirrorError, OfficeError,
    OpenError, ProbeError, ReadManifestError, Refusal as Meaning, RestoreError, SaveError, StoreError,
    VerifyError,
    diff::DiffError,
    interop::{ExportError, ImportError, ModelError},
};

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
        LogError::Entry { .. } | LogError::Hole { .. } | LogError::Order { .. } => Code::Damaged,
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::new(log_code(&error), error)
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
        Self::new(code, error)
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
            ImportError::Log(source)
            | ImportError::Create(CreateError::Log(source))
            | ImportError::Office(OfficeError { source, .. }) => log_code(source),
            ImportError::Create(CreateError::Exists { .. }) => Code::BadInput,
            ImportError::Commit(CommitError::Store(source)) => code(source),
            ImportError::Commit(CommitError::Append(source)) | ImportError::Append(source) => {
                append_code(source)
            }
            ImportError::Commit(_) => Code::Failed,
        };
        let is_held = matches!(error, ImportError::NotStopped { .. });
        let failure = Self::new(code, error);
        if is_held {
            return failure.hint("stop it first; or give --take-office, if nobody works on it any more");
        }
        failure
    }
}

fn mirror_code(error: &MirrorError) -> Code {
    match error {
        MirrorError::Log(source) => log_code(source),
        MirrorError::WentOn { .. }
        | MirrorError::Diverged { .. }
        | MirrorError::AnotherRun { .. }
        | MirrorError::Itself { .. }
        | MirrorError::NotBegun { .. } => Code::BadInput,
    }
}

impl From<MirrorError> for Failure {
    fn from(error: MirrorError) -> Self {
        Self::new(mirror_code(&error), error)
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let code = match &error {
            CopyError::OtherName { .. } | CopyError::NoSuchStep { .. } => Code::BadInput,
            CopyError::Source(source) => log_code(source),
            CopyError::Mirror(source) => mirror_code(source),
            CopyError::Append(source) => append_code(source),
            CopyError::Store(source) => code(source),
            CopyError::NotWhole { .. } => Code::Failed,
        };
        Self::new(code, error)
    }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        let code = match &error {
            CollectError::Append(source) => append_code(source),
            CollectError::Store(source) => code(source),
        };
        Self::new(code, error)
    }
}

impl From<OfficeError> for Failure {
    fn from(error: OfficeError) -> Self {
        Self::new(log_code(&error.source), error)
    }
}

impl From<DiffError> for Failure {
    fn from(error: DiffError) -> Self {
        let code = match &error {
            DiffError::Read(source) => restore_code(source),
            DiffError::Store(source) => code(source),
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
