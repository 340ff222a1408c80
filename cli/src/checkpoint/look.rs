//! `whimbrel checkpoint list` and `show`.

use indicatif::HumanBytes;
use serde::Serialize;
use whimbrel_state::{Hash, TensorSpec};
use whimbrel_store::{CheckpointInfo, RunDir, RunLog};

use super::{
    counted,
    locate::{find, history_of, locate_run, recorded_state},
    stands::Stands,
};
use crate::{
    args::checkpoint::{ListArgs, ShowArgs},
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
};

/// A checkpoint as JSON. The order of the fields is the order of the keys.
#[derive(Serialize)]
struct Line<'a> {
    run: &'a str,
    uri: String,
    step: u64,
    time: String,
    bytes: u64,
    manifest: &'a str,
    /// BLAKE3 of the state, where it is on record.
    state: Option<Hash>,
    /// Why it is not to be used, if it is damaged.
    quarantined: Option<&'a str>,
    /// The directory that this one is a replica of.
    replica_of: Option<&'a str>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    checkpoint: Line<'a>,
    generation: u64,
    packs: usize,
    state_bytes: usize,
    tensors: &'a [TensorSpec],
}

/// `whimbrel checkpoint list`.
pub(super) async fn list(args: ListArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let run = locate_run(&args.run, "`checkpoint list`", &args.options, config)?;
    let run_log = history_of(&run).await?;
    let stands = match &args.against {
        Some(other) => {
            let other = locate_run(other, "--against", &args.options, config)?;
            Some(Stands::of(&run, &run_log, &other).await?)
        }
        None => None,
    };
    let checkpoints = run_log.all_checkpoints();
    let mut out = Printer::stdout();
    if args.options.json {
        checkpoints.iter().for_each(|checkpoint| out.json(&line(&run, &run_log, checkpoint)));
    } else if checkpoints.is_empty() {
        out.line(format!("run {} has no checkpoint yet", run.id()));
    } else {
        let row = |checkpoint: &CheckpointInfo| {
            [
                checkpoint.step.to_string(),
                time(checkpoint),
                HumanBytes(checkpoint.bytes).to_string(),
                checkpoint.quarantined.as_ref().map_or("good".into(), |reason| format!("damaged: {reason}")),
            ]
        };
        let rows: Vec<_> = checkpoints.iter().map(row).collect();
        out.line(run.uri());
        if let Some(replica) = run_log.replica_of() {
            out.line(format!("  a replica of {}", replica.source));
        }
        out.table(["STEP", "TIME", "SIZE", "STANDING"], &rows);
    }
    if let Some(stands) = stands {
        if args.options.json { out.json(&stands) } else { out.line(stands.words()) }
    }
    Ok(Code::Done)
}

/// `whimbrel checkpoint show`.
pub(super) async fn show(args: ShowArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let found = find(&args.run, &args.options, config).await?;
    let (run, run_log, checkpoint, manifest) =
        (&found.run, &found.run_log, &found.checkpoint, &found.manifest);
    let tensors = manifest.layout.tensors();
    let mut out = Printer::stdout();
    if args.options.json {
        out.json(&Shown {
            checkpoint: line(run, run_log, checkpoint),
            generation: manifest.generation,
            packs: manifest.packs.len(),
            state_bytes: manifest.layout.bytes(),
            tensors,
        });
        return Ok(Code::Done);
    }
    out.line(found.uri());
    let facts = [
        ("replica of", run_log.replica_of().map(|replica| replica.source.clone())),
        ("time", Some(time(checkpoint))),
        ("generation", Some(manifest.generation.to_string())),
        (
            "state",
            Some(format!(
                "{} in {}",
                HumanBytes(manifest.layout.bytes() as u64),
                counted(tensors.len(), "tensor")
            )),
        ),
        ("packs", Some(format!("{}, {}", manifest.packs.len(), HumanBytes(manifest.stored_bytes())))),
        ("manifest", Some(checkpoint.manifest.clone())),
        ("BLAKE3", recorded_state(run_log, checkpoint).map(|hash| hash.to_string())),
        ("damaged", checkpoint.quarantined.clone()),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            out.line(format!("  {name:<10}  {value}"));
        }
    }
    let row = |(index, tensor): (usize, &TensorSpec)| {
        let bytes = HumanBytes(manifest.layout.range_of(index).len() as u64);
        [tensor.name.clone(), format!("{:?}", tensor.dtype), format!("{:?}", tensor.shape), bytes.to_string()]
    };
    let rows: Vec<_> = tensors.iter().enumerate().map(row).collect();
    out.line("");
    out.table(["TENSOR", "TYPE", "SHAPE", "SIZE"], &rows);
    Ok(Code::Done)
}

fn line<'a>(run: &'a RunDir, run_log: &'a RunLog, checkpoint: &'a CheckpointInfo) -> Line<'a> {
    Line {
        run: run.id().as_str(),
        uri: run.checkpoint_uri(checkpoint.step),
        step: checkpoint.step,
        time: time(checkpoint),
        bytes: checkpoint.bytes,
        manifest: &checkpoint.manifest,
        state: recorded_state(run_log, checkpoint),
        quarantined: checkpoint.quarantined.as_deref(),
        replica_of: run_log.replica_of().map(|replica| replica.source.as_str()),
    }
}

/// To the second, in UTC.
fn time(checkpoint: &CheckpointInfo) -> String {
    format!("{:.0}", checkpoint.time)
}
