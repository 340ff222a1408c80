//! The `Welcome` message: what a worker must know of its run before it builds its trainer.

use tonic::Status;
use whimbrel_proto::v1;
use whimbrel_spec::{CheckpointEvery, Every, Mode, OnNonfinite};

use super::HostedRun;

impl HostedRun {
    /// The answer to a worker's `Hello`, after `step` steps. Fails if the spec's settings cannot be written as JSON.
    pub(crate) fn welcome(&self, step: u64) -> Result<v1::Welcome, Status> {
        let train = &self.spec.train;
        let settings = serde_json::to_string(&train.settings)
            .map_err(|error| Status::internal(format!("cannot write [train.settings] as JSON: {error}")))?;
        Ok(v1::Welcome {
            epoch: self.epoch,
            uri: self.dir().uri().to_owned(),
            seed: train.seed,
            steps: train.steps,
            global_batch: train.global_batch,
            shards: train.shards,
            settings,
            evaluate_every: self.spec.evaluate.every,
            checkpoint_every: match self.spec.checkpoint.every {
                CheckpointEvery::Fixed(Every::Steps(steps)) => Some(steps),
                CheckpointEvery::Fixed(Every::Time(_)) | CheckpointEvery::Auto => None,
            },
            reduction: match self.spec.reduction.mode {
                Mode::Exact => v1::Reduction::Exact,
                Mode::F32 => v1::Reduction::F32,
            }
            .into(),
            on_nonfinite: match self.spec.reduction.on_nonfinite {
                OnNonfinite::Stop => v1::OnNonfinite::Stop,
                OnNonfinite::Skip => v1::OnNonfinite::Skip,
                OnNonfinite::Pass => v1::OnNonfinite::Pass,
            }
            .into(),
            step_timeout_ms: u64::try_from(self.spec.workers.step_timeout.as_millis()).unwrap_or(u64::MAX),
            replicas: self.sources.all().skip(1).map(|replica| replica.uri().to_owned()).collect(),
            bandwidth: self.spec.checkpoint.bandwidth.map(|bandwidth| bandwidth.bytes_per_second().get()),
            threads: self.spec.workers.threads,
            step,
        })
    }
}
