//! Checkpoints for programs that only read them: to generate text with a model, to evaluate it, to start another run.

use std::io;

use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use whimbrel_spec::{Mistakes, RunSpec};
use whimbrel_state::{Manifest, TensorMut, TensorSpec};
use whimbrel_store::{
    Limits, LogError, OpenError, ReadManifestError, RestoreError, Sources, open_run, restore_some,
};

/// A checkpoint of a run, open for reading.
///
/// ```no_run
/// use whimbrel_worker::{Checkpoint, TensorMut};
///
/// let checkpoint = Checkpoint::open("runs/char-lm-x1@400")?;
/// let mut bias = vec![0.0; 128];
/// checkpoint.load(vec![TensorMut::f32("head.bias", [128], &mut bias)])?;
/// # Ok::<(), whimbrel_worker::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    runtime: Runtime,
    sources: Sources,
    spec: String,
    manifest: Manifest,
}

/// A checkpoint that cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The threads for reading cannot be set up.
    #[error("cannot set up the reading of a checkpoint; check the limits on processes and open files")]
    Runtime(#[source] io::Error),
    /// The URI names no run that can be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The run's log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run has no checkpoint that can be used.
    #[error("the run {run} has no checkpoint yet; it takes one now and then, and at its end")]
    None {
        /// The run's URI.
        run: String,
    },
    /// The run has no checkpoint of this step.
    #[error("the run {run} has no checkpoint of step {step}; it has those of steps {}", list(.steps))]
    NoSuchStep {
        /// The run's URI.
        run: String,
        /// The step asked for.
        step: u64,
        /// The steps there are.
        steps: Vec<u64>,
    },
    /// The manifest cannot be read.
    #[error("the checkpoint of step {step} cannot be used; try another step of the run, as RUN@STEP")]
    Manifest {
        /// The checkpoint's step.
        step: u64,
        /// What is wrong with it.
        source: ReadManifestError,
    },
    /// The run spec in the log cannot be read.
    #[error("the spec stored with the run {run} cannot be read")]
    Spec {
        /// The run's URI.
        run: String,
        /// What is wrong with it.
        source: Mistakes,
    },
    /// The settings are not what the program expects.
    #[error("[train.settings] of the run {run} do not fit this program")]
    Settings {
        /// The run's URI.
        run: String,
        /// The key that does not fit.
        source: serde_json::Error,
    },
    /// The tensors cannot be read.
    #[error(transparent)]
    Load(#[from] RestoreError),
}

impl Checkpoint {
    /// Opens a checkpoint by its run's URI or path: `runs/char-lm-x1` for the newest one that is not known to be
    /// damaged, `runs/char-lm-x1@400` for that of step 400. Blocks while it reads; each request has its own deadline.
    pub fn open(uri: &str) -> Result<Self, CheckpointError> {
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(CheckpointError::Runtime)?;
        let (run, step) = open_run(uri)?;
        let run_log = runtime.block_on(run.run_log())?;
        let checkpoints = run_log.checkpoints();
        let wanted = |found: u64| step.is_none_or(|step| step == found);
        let Some(checkpoint) = checkpoints.iter().rev().find(|checkpoint| wanted(checkpoint.step)) else {
            let steps: Vec<u64> = checkpoints.iter().map(|checkpoint| checkpoint.step).collect();
            let run = run.uri().to_owned();
            return Err(match step {
                Some(step) if !steps.is_empty() => CheckpointError::NoSuchStep { run, step, steps },
                _ => CheckpointError::None { run },
            });
        };
        let unreadable = |source| CheckpointError::Manifest { step: checkpoint.step, source };
        let manifest = runtime.block_on(run.manifest(&checkpoint.manifest)).map_err(unreadable)?;
        Ok(Self { spec: run_log.spec().to_owned(), runtime, sources: Sources::new(run), manifest })
    }

    /// Steps applied to the state it holds.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// The tensors it holds, by name.
    pub fn tensors(&self) -> &[TensorSpec] {
        self.manifest.layout.tensors()
    }

    /// The `[train.settings]` of the run it belongs to, as the program's own type.
    pub fn settings<S: DeserializeOwned>(&self) -> Result<S, CheckpointError> {
        let run = || self.sources.primary().uri().to_owned();
        let spec = RunSpec::parse("the stored spec", &self.spec, &[])
            .map_err(|source| CheckpointError::Spec { run: run(), source })?;
        serde_json::from_value(spec.train.settings.into())
            .map_err(|source| CheckpointError::Settings { run: run(), source })
    }

    /// Fills these tensors, which need not be all that the checkpoint holds. Only the packs that hold them are read,
    /// and every byte is verified. Blocks until it is done.
    pub fn load(&self, tensors: Vec<TensorMut<'_>>) -> Result<(), CheckpointError> {
        self.runtime.block_on(restore_some(&self.sources, &self.manifest, tensors, &Limits::default()))?;
        Ok(())
    }
}

fn list(steps: &[u64]) -> String {
    let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
    steps.join(", ")
}
