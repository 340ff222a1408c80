//! Checkpoints: a table of a run's, or all that is known of one.

use chrono::SecondsFormat;
use serde_json::{Value, json};
use whimbrel_state::{Hash, Manifest, TensorSpec};
use whimbrel_store::{CheckpointInfo, RunDir, RunLog};

use super::Comparison;
use crate::output::{
    json::joined,
    print::Printer,
    words::{bytes, counted},
};

/// A checkpoint, and the BLAKE3 of its state where the run recorded it.
pub(crate) struct Recorded {
    pub(crate) info: CheckpointInfo,
    pub(crate) state: Option<Hash>,
}

/// Prints the checkpoints of a run, and how its directory compares with another.
pub(crate) fn list(
    run: &RunDir,
    run_log: &RunLog,
    checkpoints: &[Recorded],
    comparison: Option<&Comparison>,
    json: bool,
) {
    let mut out = Printer::stdout();
    if json {
        checkpoints.iter().for_each(|checkpoint| out.json(&value(run, run_log, checkpoint)));
    } else if checkpoints.is_empty() {
        out.line(format!("run {} has no checkpoint yet", run.id()));
    } else {
        let row = |Recorded { info, .. }: &Recorded| {
            let status = match &info.quarantined {
                // The log names it. Whether its bytes are good, `verify` tells.
                None => "recorded".to_owned(),
                Some(reason) => format!("damaged: {reason}"),
            };
            [info.step.to_string(), time(info), bytes(info.bytes), status]
        };
        let rows: Vec<_> = checkpoints.iter().map(row).collect();
        out.line(run.uri());
        if let Some(replica) = run_log.replica_of() {
            out.line(format!("  a replica of {}", replica.source));
        }
        out.table(["STEP", "TIME", "SIZE", "STATUS"], &rows);
    }
    if let Some(comparison) = comparison {
        if json { out.json(&comparison.value()) } else { out.line(comparison.text()) }
    }
}

/// Prints a checkpoint and its tensors.
pub(crate) fn show(run: &RunDir, run_log: &RunLog, checkpoint: &Recorded, manifest: &Manifest, json: bool) {
    let Recorded { info, state } = checkpoint;
    let (layout, tensors) = (&manifest.layout, manifest.layout.tensors());
    let mut out = Printer::stdout();
    if json {
        let more = json!({
            "generation": manifest.generation,
            "packs": manifest.packs.len(),
            "state_bytes": layout.bytes(),
            "tensors": tensors,
        });
        out.json(&joined(value(run, run_log, checkpoint), more));
        return;
    }
    out.line(run.checkpoint_uri(info.step));
    let size = bytes(layout.bytes() as u64);
    out.facts(&[
        ("replica of", run_log.replica_of().map(|replica| replica.source.clone())),
        ("time", Some(time(info))),
        ("generation", Some(manifest.generation.to_string())),
        ("state", Some(format!("{size} in {}", counted(tensors.len(), "tensor")))),
        ("packs", Some(format!("{}, {}", manifest.packs.len(), bytes(manifest.stored_bytes())))),
        ("manifest", Some(info.manifest.clone())),
        ("BLAKE3", state.map(|hash| hash.to_string())),
        ("damaged", info.quarantined.clone()),
    ]);
    let row = |(index, tensor): (usize, &TensorSpec)| {
        let size = bytes(layout.range_of(index).len() as u64);
        [tensor.name.clone(), format!("{:?}", tensor.dtype), format!("{:?}", tensor.shape), size]
    };
    let rows: Vec<_> = tensors.iter().enumerate().map(row).collect();
    out.line("");
    out.table(["TENSOR", "TYPE", "SHAPE", "SIZE"], &rows);
}

fn value(run: &RunDir, run_log: &RunLog, Recorded { info, state }: &Recorded) -> Value {
    json!({
        "run": run.id().as_str(),
        "uri": run.checkpoint_uri(info.step),
        "step": info.step,
        "time": time(info),
        "bytes": info.bytes,
        "manifest": info.manifest,
        "state": state,
        "quarantined": info.quarantined,
        "replica_of": run_log.replica_of().map(|replica| replica.source.as_str()),
    })
}

/// To the second, in UTC.
fn time(checkpoint: &CheckpointInfo) -> String {
    checkpoint.time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
