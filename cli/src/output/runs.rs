//! The status of runs: a table of all, or all that is known of one.

use serde_json::{Value, json};
use whimbrel_proto::v1::{RunStatus, WorkerStatus};

use super::{
    json::{known, replica},
    print::Printer,
    words,
};

/// Prints a row for each run, or one JSON object a line.
pub(crate) fn list(runs: &[RunStatus], json: bool) {
    let mut out = Printer::stdout();
    if json {
        runs.iter().for_each(|status| out.json(&value(status)));
        return;
    }
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

/// Prints one run and its workers.
pub(crate) fn one(status: &RunStatus, json: bool) {
    let mut out = Printer::stdout();
    if json {
        out.json(&value(status));
        return;
    }
    let detail = known(&status.detail).map_or(String::new(), |detail| format!(": {detail}"));
    out.line(format!("{}  {}{detail}", status.run, words::phase(status.phase())));
    let text = |text| known(text).map(str::to_owned);
    let mut facts = vec![
        ("uri", Some(status.uri.clone())),
        ("step", Some(format!("{} of {}", status.step, status.steps))),
        ("loss", status.loss.map(words::loss)),
        ("validation", status.val_loss.map(words::loss)),
        ("checkpoint", status.checkpoint.map(|step| format!("after step {step}"))),
        ("not saved", text(&status.save_failure)),
        ("saved every", text(&status.interval)),
        ("generation", Some(format!("{} in epoch {}", status.generation, status.epoch))),
        ("workers", Some(format!("{} to {} wanted", status.workers_min, status.workers_max))),
    ];
    let replicas = status.replicas.iter();
    facts.extend(
        replicas.map(|replica| ("replica", Some(format!("{}, {}", replica.uri, words::replica(replica))))),
    );
    out.facts(&facts);
    if !status.workers.is_empty() {
        let row = |worker: &WorkerStatus| {
            let WorkerStatus { worker, rank, pid, node, state, share } = worker;
            let (name, node, state) = (words::worker(*worker), node.clone(), state.clone());
            [name, rank.to_string(), node, pid.to_string(), state, share.to_string()]
        };
        let rows: Vec<_> = status.workers.iter().map(row).collect();
        out.line("");
        out.table(["WORKER", "RANK", "NODE", "PROCESS", "STATE", "SHARDS"], &rows);
    }
}

/// Confirms that a run was asked to end: `asked` is `stop` or `cancel`, `text` what people read.
pub(crate) fn asked(run: &str, asked: &str, text: &str, json: bool) {
    let mut out = Printer::stdout();
    if json { out.json(&json!({"run": run, "asked": asked})) } else { out.line(text) }
}

fn value(status: &RunStatus) -> Value {
    let replicas: Vec<_> = status.replicas.iter().map(replica).collect();
    let workers: Vec<_> = status.workers.iter().map(worker).collect();
    json!({
        "run": status.run,
        "name": status.name,
        "uri": status.uri,
        "phase": words::phase(status.phase()),
        "detail": status.detail,
        "step": status.step,
        "steps": status.steps,
        "generation": status.generation,
        "epoch": status.epoch,
        "loss": status.loss,
        "val_loss": status.val_loss,
        "checkpoint": status.checkpoint,
        "workers_min": status.workers_min,
        "workers_max": status.workers_max,
        "interval": status.interval,
        "save_failure": known(&status.save_failure),
        "replicas": replicas,
        "workers": workers,
    })
}

fn worker(status: &WorkerStatus) -> Value {
    json!({
        "worker": words::worker(status.worker),
        "rank": status.rank,
        "pid": status.pid,
        "node": status.node,
        "state": status.state,
        "share": status.share,
    })
}
