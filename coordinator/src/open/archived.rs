//! The status of a run that this coordinator does not host.

use whimbrel_proto::v1;
use whimbrel_spec::RunSpec;
use whimbrel_store::{Outcome, RunDir, RunLog};

/// The status of a run that this coordinator does not host, from its log.
pub(crate) fn archived_status(dir: &RunDir, run_log: &RunLog) -> v1::RunStatus {
    // A spec that this version cannot read leaves its fields empty.
    let spec = RunSpec::parse("the stored spec", run_log.spec(), &[]).ok();
    let checkpoint = run_log.newest_checkpoint().map(|checkpoint| checkpoint.step);
    let (mut loss, mut val_loss, mut step) = (None, None, checkpoint.unwrap_or(0));
    let mut detail = String::new();
    let phase = match run_log.ended() {
        Some(ended) => {
            (loss, val_loss, step) = (ended.loss, ended.val_loss, ended.step);
            detail = ended.reason.clone().unwrap_or_default();
            match ended.outcome {
                Outcome::Finished => v1::Phase::Finished,
                Outcome::Failed => v1::Phase::Failed,
                Outcome::Cancelled => v1::Phase::Cancelled,
            }
        }
        None => v1::Phase::Stopped,
    };
    if let Some(replica) = run_log.replica_of() {
        detail = format!("a replica of {}", replica.source);
    }
    v1::RunStatus {
        run: dir.id().to_string(),
        name: spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default(),
        uri: dir.uri().to_owned(),
        phase: phase.into(),
        detail,
        step,
        steps: spec.as_ref().map_or(0, |spec| spec.train.steps),
        generation: 0,
        epoch: run_log.epoch(),
        workers: Vec::new(),
        loss,
        val_loss,
        checkpoint,
        workers_min: spec.as_ref().map_or(0, |spec| spec.workers.min),
        workers_max: spec.as_ref().map_or(0, |spec| spec.workers.max),
        interval: spec.as_ref().map(|spec| spec.checkpoint.every.to_string()).unwrap_or_default(),
        replicas: Vec::new(),
        save_failure: String::new(),
    }
}
