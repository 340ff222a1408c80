//! `whimbrel runs`, `status`, `stop` and `cancel`: how runs stand at a coordinator, and having them end.

use serde::Serialize;
use whimbrel_proto::v1::{RunStatus, WorkerStatus};

use crate::{
    args::client::{CancelArgs, RunsArgs, StatusArgs, StopArgs},
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
    screen::{json::Replica, words},
};

/// A run as JSON. The order of the fields is the order of the keys.
#[derive(Serialize)]
struct Standing<'a> {
    run: &'a str,
    name: &'a str,
    uri: &'a str,
    phase: &'static str,
    detail: &'a str,
    step: u64,
    steps: u64,
    generation: u64,
    epoch: u64,
    loss: Option<f64>,
    val_loss: Option<f64>,
    checkpoint: Option<u64>,
    workers_min: u32,
    workers_max: u32,
    interval: &'a str,
    save_failure: Option<&'a str>,
    replicas: Vec<Replica<'a>>,
    workers: Vec<Worker<'a>>,
}

#[derive(Serialize)]
struct Worker<'a> {
    worker: String,
    rank: u32,
    pid: u32,
    node: &'a str,
    state: &'a str,
    share: u32,
}

impl<'a> From<&'a RunStatus> for Standing<'a> {
    fn from(status: &'a RunStatus) -> Self {
        Self {
            run: &status.run,
            name: &status.name,
            uri: &status.uri,
            phase: words::phase(status.phase()),
            detail: &status.detail,
            step: status.step,
            steps: status.steps,
            generation: status.generation,
            epoch: status.epoch,
            loss: status.loss,
            val_loss: status.val_loss,
            checkpoint: status.checkpoint,
            workers_min: status.workers_min,
            workers_max: status.workers_max,
            interval: &status.interval,
            save_failure: Some(status.save_failure.as_str()).filter(|failure| !failure.is_empty()),
            replicas: status.replicas.iter().map(Replica::from).collect(),
            workers: status.workers.iter().map(Worker::from).collect(),
        }
    }
}

impl<'a> From<&'a WorkerStatus> for Worker<'a> {
    fn from(worker: &'a WorkerStatus) -> Self {
        let WorkerStatus { worker: id, rank, pid, node, state, share } = worker;
        Self { worker: format!("w{id}"), rank: *rank, pid: *pid, node, state, share: *share }
    }
}

/// `whimbrel runs`.
pub(crate) async fn list(args: RunsArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let runs = Client::open(args.access, config).await?.list().await?;
    let mut out = Printer::stdout();
    if args.json {
        runs.iter().for_each(|status| out.json(&Standing::from(status)));
    } else {
        let row = |status: &RunStatus| {
            let workers = status.workers.iter().filter(|worker| worker.share > 0).count();
            [
                status.run.clone(),
                words::phase(status.phase()).to_owned(),
                format!("{}/{}", status.step, status.steps),
                status.loss.map(words::loss).unwrap_or_default(),
                format!("{workers}"),
                status.checkpoint.map(|step| step.to_string()).unwrap_or_default(),
            ]
        };
        let rows: Vec<_> = runs.iter().map(row).collect();
        out.table(["RUN", "PHASE", "STEP", "LOSS", "WORKERS", "CHECKPOINT"], &rows);
    }
    Ok(Code::Done)
}

/// `whimbrel status`.
pub(crate) async fn status(args: StatusArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let status = Client::open(args.access, config).await?.get(&args.run).await?;
    let mut out = Printer::stdout();
    if args.json {
        out.json(&Standing::from(&status));
        return Ok(Code::Done);
    }
    let detail = if status.detail.is_empty() { String::new() } else { format!(": {}", status.detail) };
    out.line(format!("{}  {}{detail}", status.run, words::phase(status.phase())));
    let facts = [
        ("uri", Some(status.uri.clone())),
        ("step", Some(format!("{} of {}", status.step, status.steps))),
        ("loss", status.loss.map(words::loss)),
        ("validation", status.val_loss.map(words::loss)),
        ("checkpoint", status.checkpoint.map(|step| format!("after step {step}"))),
        ("not saved", Some(status.save_failure.clone()).filter(|failure| !failure.is_empty())),
        ("saved every", Some(status.interval.clone()).filter(|words| !words.is_empty())),
        ("generation", Some(format!("{} in epoch {}", status.generation, status.epoch))),
        ("workers", Some(format!("{} to {} wanted", status.workers_min, status.workers_max))),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            out.line(format!("  {name:<11}  {value}"));
        }
    }
    for replica in &status.replicas {
        out.line(format!("  {:<11}  {}, {}", "replica", replica.uri, words::standing(replica)));
    }
    if !status.workers.is_empty() {
        let row = |worker: &WorkerStatus| {
            let WorkerStatus { worker, rank, pid, node, state, share } = worker;
            [
                format!("w{worker}"),
                rank.to_string(),
                node.clone(),
                pid.to_string(),
                state.clone(),
                share.to_string(),
            ]
        };
        let rows: Vec<_> = status.workers.iter().map(row).collect();
        out.line("");
        out.table(["WORKER", "RANK", "NODE", "PROCESS", "STATE", "SHARDS"], &rows);
    }
    Ok(Code::Done)
}

#[derive(Serialize)]
struct Asked<'a> {
    run: &'a str,
    asked: &'static str,
}

/// `whimbrel stop`.
pub(crate) async fn stop(args: StopArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let flags = args.access.repeated();
    Client::open(args.access, config).await?.stop(&args.run).await?;
    let run = &args.run;
    let words =
        format!("{run} saves a checkpoint and stops; `whimbrel watch {run}{flags}` tells when it has");
    confirm(args.json, &Asked { run: &args.run, asked: "stop" }, &words);
    Ok(Code::Done)
}

/// `whimbrel cancel`.
pub(crate) async fn cancel(args: CancelArgs, config: &ClientConfig) -> Result<Code, Failure> {
    Client::open(args.access, config).await?.cancel(&args.run).await?;
    confirm(
        args.json,
        &Asked { run: &args.run, asked: "cancel" },
        &format!("{} is being cancelled", args.run),
    );
    Ok(Code::Done)
}

fn confirm(json: bool, asked: &Asked<'_>, words: &str) {
    let mut out = Printer::stdout();
    if json { out.json(asked) } else { out.line(words) }
}
