//! `whimbrel checkpoint`: looking at a run's checkpoints, straight in its store.

use std::path::Path;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use whimbrel_state::{Hash, Manifest, TensorSpec};
use whimbrel_store::{CheckpointInfo, History, Limits, RunDir, open_run, verify};

use crate::{
    args::checkpoint::{CheckpointCommand, ListArgs, Options, ShowArgs, VerifyArgs},
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
    screen,
};

/// A checkpoint that cannot be looked at, or is not what it should be.
#[derive(Debug, thiserror::Error)]
enum CheckpointError {
    #[error("{run:?} is the name of a run, and no store is named to look for it in")]
    NoStore { run: String },
    #[error("run {run} has no checkpoint{}", step.map_or(" yet".into(), |step| format!(" after step {step}")))]
    None { run: String, step: Option<u64> },
    #[error("{uri:?} names a step, and `checkpoint list` lists all; leave the @ out")]
    Step { uri: String },
    #[error(
        "the state of {uri} hashes to {found}, and the run recorded {expected}: it is not the state that was trained"
    )]
    OtherState { uri: String, expected: Hash, found: Hash },
}

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

#[derive(Serialize)]
struct Good<'a> {
    run: &'a str,
    uri: String,
    step: u64,
    /// BLAKE3 of the state.
    state: Hash,
    bytes: u64,
}

/// `whimbrel checkpoint …`.
pub(crate) async fn checkpoint(
    command: CheckpointCommand,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    match command {
        CheckpointCommand::List(args) => list(args, config).await,
        CheckpointCommand::Show(args) => show(args, config).await,
        CheckpointCommand::Verify(args) => verify_one(args, config, bars).await,
    }
}

async fn list(args: ListArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let (run, step) = locate(&args.run, &args.options, config)?;
    if step.is_some() {
        return Err(Failure::bad_input(CheckpointError::Step { uri: args.run }));
    }
    let history = run.history().await?;
    let checkpoints = history.all_checkpoints();
    let mut out = Printer::stdout();
    if args.options.json {
        checkpoints.iter().for_each(|checkpoint| out.json(&line(&run, &history, checkpoint)));
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
        out.table(["STEP", "TIME", "SIZE", "STANDING"], &rows);
    }
    Ok(Code::Done)
}

async fn show(args: ShowArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let (run, history, checkpoint, manifest) = find(&args.run, &args.options, config).await?;
    let tensors = manifest.layout.tensors();
    let mut out = Printer::stdout();
    if args.options.json {
        out.json(&Shown {
            checkpoint: line(&run, &history, &checkpoint),
            generation: manifest.generation,
            packs: manifest.packs.len(),
            state_bytes: manifest.layout.bytes(),
            tensors,
        });
        return Ok(Code::Done);
    }
    out.line(uri(&run, checkpoint.step));
    let facts = [
        ("time", Some(time(&checkpoint))),
        ("generation", Some(manifest.generation.to_string())),
        (
            "state",
            Some(format!("{} in {} tensors", HumanBytes(manifest.layout.bytes() as u64), tensors.len())),
        ),
        ("packs", Some(format!("{}, {}", manifest.packs.len(), HumanBytes(manifest.stored_bytes())))),
        ("manifest", Some(checkpoint.manifest.clone())),
        ("BLAKE3", recorded_state(&history, &checkpoint).map(|hash| hash.to_string())),
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

async fn verify_one(args: VerifyArgs, config: &ClientConfig, bars: &MultiProgress) -> Result<Code, Failure> {
    let (run, history, checkpoint, manifest) = find(&args.run, &args.options, config).await?;
    let bar = if screen::on_terminal() && !args.options.json {
        bars.add(ProgressBar::new(manifest.stored_bytes()).with_style(style()))
    } else {
        ProgressBar::hidden()
    };
    let verified = verify(&run, &manifest, &Limits::default(), |bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    let verified = verified.map_err(|error| {
        let failure = Failure::from(error);
        match failure.code() {
            Code::Damaged => {
                failure.hint(format!("`whimbrel checkpoint list {}` shows the others", run.uri()))
            }
            _ => failure,
        }
    })?;
    let uri = uri(&run, checkpoint.step);
    let found = verified.state;
    let recorded = recorded_state(&history, &checkpoint);
    if let Some(expected) = recorded.filter(|expected| *expected != found) {
        return Err(Failure::new(Code::Damaged, CheckpointError::OtherState { uri, expected, found }));
    }
    let mut out = Printer::stdout();
    if args.options.json {
        let (run, step) = (run.id().as_str(), checkpoint.step);
        out.json(&Good { run, uri, step, state: found, bytes: verified.bytes });
    } else {
        out.line(format!(
            "{uri}: all of {} in {} packs are good",
            HumanBytes(verified.bytes),
            manifest.packs.len()
        ));
        let same = if recorded.is_some() { ", as the run recorded" } else { "" };
        out.line(format!("  state       BLAKE3 {found}{same}"));
    }
    Ok(Code::Done)
}

/// The run's directory, and the step that was named.
fn locate(run: &str, options: &Options, config: &ClientConfig) -> Result<(RunDir, Option<u64>), Failure> {
    let store = options.store.as_deref().or(config.store.as_deref());
    let by_itself = run.contains('/') || Path::new(run.split('@').next().unwrap_or(run)).is_dir();
    let opened = match store {
        _ if by_itself => open_run(run)?,
        Some(store) => open_run(&format!("{}/{run}", store.trim_end_matches('/')))?,
        None => {
            let error = CheckpointError::NoStore { run: run.to_owned() };
            return Err(Failure::bad_input(error)
                .hint(format!("give --store URI, or the path or URI of the run: runs/{run}")));
        }
    };
    Ok(opened)
}

/// The checkpoint that was named, or the newest good one, with its manifest.
async fn find(
    run: &str,
    options: &Options,
    config: &ClientConfig,
) -> Result<(RunDir, History, CheckpointInfo, Manifest), Failure> {
    let (run, step) = locate(run, options, config)?;
    let history = run.history().await?;
    let found = match step {
        Some(step) => history.all_checkpoints().into_iter().rfind(|checkpoint| checkpoint.step == step),
        None => history.checkpoints().pop(),
    };
    let Some(checkpoint) = found else {
        let error = CheckpointError::None { run: run.id().to_string(), step };
        return Err(Failure::bad_input(error)
            .hint(format!("`whimbrel checkpoint list {}` shows those there are", run.uri())));
    };
    let manifest = run.manifest(&checkpoint.manifest).await?;
    Ok((run, history, checkpoint, manifest))
}

/// The digest of the checkpoint's state that the run left on record: with the checkpoint, or with its end.
fn recorded_state(history: &History, checkpoint: &CheckpointInfo) -> Option<Hash> {
    let at_the_end = || history.ended().filter(|ended| ended.step == checkpoint.step)?.state;
    checkpoint.state.or_else(at_the_end)
}

fn line<'a>(run: &'a RunDir, history: &History, checkpoint: &'a CheckpointInfo) -> Line<'a> {
    Line {
        run: run.id().as_str(),
        uri: uri(run, checkpoint.step),
        step: checkpoint.step,
        time: time(checkpoint),
        bytes: checkpoint.bytes,
        manifest: &checkpoint.manifest,
        state: recorded_state(history, checkpoint),
        quarantined: checkpoint.quarantined.as_deref(),
    }
}

fn uri(run: &RunDir, step: u64) -> String {
    format!("{}@{step}", run.uri())
}

/// To the second, in UTC.
fn time(checkpoint: &CheckpointInfo) -> String {
    format!("{:.0}", checkpoint.time)
}

fn style() -> ProgressStyle {
    let template = "verifying {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}";
    // The template is a constant; were it wrong, indicatif's own would do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
