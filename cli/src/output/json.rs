//! A run for programs: one JSON object a line and event, on stdout. NaN and infinity are `null`.

use std::{
    collections::BTreeSet,
    io::{Stdout, Write},
};

use serde_json::{Value, json};
use whimbrel_proto::v1::{EndedEvent, Phase, ReplicaStatus, RunStatus, run_event::Event};

use super::{print::Printer, screen::Screen, words};

/// Writes events as JSON.
pub(super) struct Json<W> {
    out: Printer<W>,
    run: String,
    /// Workers that have had their line: each has one, whether a status or an event shows it first.
    workers: BTreeSet<u64>,
}

impl Json<Stdout> {
    pub(super) fn stdout() -> Self {
        Self::new(Printer::stdout())
    }
}

impl<W: Write> Json<W> {
    fn new(out: Printer<W>) -> Self {
        Self { out, run: String::new(), workers: BTreeSet::new() }
    }

    fn worker(&mut self, rank: u32, pid: u32, worker: u64, node: &str) {
        if self.workers.insert(worker) {
            let name = words::worker(worker);
            self.out
                .json(&json!({"event": "worker", "rank": rank, "pid": pid, "worker": name, "node": node}));
        }
    }
}

impl<W: Write + Send> Screen for Json<W> {
    fn status(&mut self, status: &RunStatus) {
        if self.run.is_empty() {
            let RunStatus { run, uri, steps, step, .. } = status;
            self.run.clone_from(run);
            self.out.json(&json!({"event": "run", "run": run, "uri": uri, "steps": steps, "step": step}));
        }
        // Workers that started before this program watched.
        for worker in status.workers.iter().filter(|worker| worker.pid != 0) {
            self.worker(worker.rank, worker.pid, worker.worker, &worker.node);
        }
    }

    fn event(&mut self, event: &Event) {
        let line = match event {
            Event::Worker(event) => return self.worker(event.rank, event.pid, event.worker, &event.node),
            Event::Generation(event) => json!({
                "event": "generation",
                "generation": event.generation,
                "step": event.step,
                "workers": event.workers,
                "origin": event.origin,
                "seconds": event.seconds,
            }),
            Event::Step(event) => json!({
                "event": "step",
                "step": event.step,
                "loss": event.loss,
                "generation": event.generation,
                "workers": event.workers,
                "seconds": event.seconds,
                "compute_seconds": event.compute_seconds,
                "reduce_seconds": event.reduce_seconds,
                "samples": event.samples,
                "tokens": event.tokens,
            }),
            Event::Evaluation(event) => {
                json!({"event": "evaluation", "step": event.step, "val_loss": event.val_loss})
            }
            Event::Checkpoint(event) => json!({
                "event": "checkpoint",
                "step": event.step,
                "manifest": event.manifest,
                "bytes": event.bytes,
                "seconds": event.seconds,
                "blocked_seconds": event.blocked_seconds,
            }),
            Event::Interval(event) => {
                json!({"event": "interval", "seconds": event.seconds, "explanation": event.explanation})
            }
            Event::Replicated(event) => {
                let Some(status) = &event.replica else { return };
                let moved = json!({"bytes": event.bytes, "seconds": event.seconds});
                joined(joined(json!({"event": "replicated"}), replica(status)), moved)
            }
            Event::Exit(event) => {
                // It may have started and ended before this program watched.
                if event.pid != 0 {
                    self.worker(event.rank, event.pid, event.worker, &event.node);
                }
                json!({
                    "event": "exit",
                    "rank": event.rank,
                    "pid": event.pid,
                    "worker": words::worker(event.worker),
                    "node": event.node,
                    "reason": event.reason,
                    "tail": event.tail,
                })
            }
            Event::Warning(event) => json!({"event": "warning", "text": event.text, "tail": event.tail}),
            Event::Phase(event) => {
                json!({"event": "phase", "phase": words::phase(event.phase()), "detail": event.detail})
            }
            Event::Status(_) | Event::Ended(_) => return,
        };
        self.out.json(&line);
    }

    /// On stderr: a note is for people, and not among the lines for programs.
    fn note(&mut self, text: &str) {
        Printer::stderr().line(text);
    }

    fn end(&mut self, ended: &EndedEvent, _next: &[String]) {
        let checkpoint = known(&ended.checkpoint);
        let line = match ended.phase() {
            Phase::Finished => json!({
                "event": "finished",
                "run": self.run,
                "step": ended.step,
                "loss": ended.loss,
                "val_loss": ended.val_loss,
                // BLAKE3 in hexadecimal; unknown where the run had finished before this program watched.
                "state": known(&ended.state),
                "checkpoint": checkpoint,
                "seconds": ended.seconds,
            }),
            phase => {
                let event = match phase {
                    Phase::Failed | Phase::Cancelled => words::phase(phase),
                    _ => words::phase(Phase::Stopped),
                };
                json!({
                    "event": event,
                    "run": self.run,
                    "step": ended.step,
                    "reason": ended.reason,
                    "tail": ended.tail,
                    "checkpoint": checkpoint,
                })
            }
        };
        let replicas = match ended.replicas.as_slice() {
            [] => json!({}),
            replicas => json!({"replicas": replicas.iter().map(replica).collect::<Vec<_>>()}),
        };
        // A run that its program ended early is finished, and says so.
        let early = known(&ended.reason).filter(|_| ended.phase() == Phase::Finished);
        let early = early.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
        self.out.json(&joined(joined(line, early), replicas));
    }
}

/// The status of a replica, also part of `whimbrel status --json`.
pub(super) fn replica(status: &ReplicaStatus) -> Value {
    json!({
        "replica": status.uri,
        "up_to_date": status.up_to_date,
        // Steps applied in the newest checkpoint there.
        "checkpoint": status.checkpoint,
        "steps_behind": status.steps_behind,
        "bytes_behind": status.bytes_behind,
        "problem": known(&status.problem),
    })
}

/// One object with the keys of both.
pub(super) fn joined(mut first: Value, second: Value) -> Value {
    if let (Value::Object(first), Value::Object(second)) = (&mut first, second) {
        first.extend(second);
    }
    first
}

/// The protocol leaves a text empty where there is none.
pub(super) fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use whimbrel_proto::v1::{self, WorkerExitedEvent};

    use super::*;
    use crate::output::recorded;

    fn played(ended: &EndedEvent) -> Vec<String> {
        let mut out = Vec::new();
        let mut screen = Json::new(Printer::new(&mut out));
        recorded::play(&mut screen);
        screen.end(ended, &["whimbrel checkpoint list".into()]);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_run_that_finishes() {
        let lines = played(&recorded::finished());
        let state = "ab".repeat(32);
        let expected = [
            r#"{"event":"run","run":"r-k3x9qa","uri":"file:///runs/r-k3x9qa","steps":40,"step":0}"#,
            r#"{"event":"worker","rank":1,"pid":101,"worker":"w2","node":"n1"}"#,
            r#"{"event":"worker","rank":0,"pid":100,"worker":"w1","node":"n1"}"#,
            r#"{"event":"phase","phase":"training","detail":""}"#,
            r#"{"event":"generation","generation":1,"step":0,"workers":2,"origin":"initial","seconds":0.0}"#,
            r#"{"event":"step","step":1,"loss":4.0,"generation":1,"workers":2,"seconds":0.25,"compute_seconds":0.1,"reduce_seconds":0.01,"samples":48,"tokens":3072}"#,
        ];
        assert_eq!(lines[..6], expected);
        let expected = [
            r#"{"event":"checkpoint","step":10,"manifest":"manifests/000000000010-ab.json","bytes":3145728,"seconds":0.5,"blocked_seconds":0.02}"#,
            r#"{"event":"exit","rank":1,"pid":101,"worker":"w2","node":"n1","reason":"SIGKILL","tail":["last words"]}"#,
            r#"{"event":"phase","phase":"regrouping","detail":"a worker was lost"}"#,
            r#"{"event":"generation","generation":2,"step":10,"workers":1,"origin":"workers","seconds":0.75}"#,
            r#"{"event":"warning","text":"the store is slow","tail":[]}"#,
        ];
        assert_eq!(lines[15..20], expected);
        let last = format!(
            r#"{{"event":"finished","run":"r-k3x9qa","step":40,"loss":0.1,"val_loss":null,"state":"{state}","checkpoint":"file:///runs/r-k3x9qa@40","seconds":12.5}}"#
        );
        assert_eq!(lines[50..], [r#"{"event":"evaluation","step":40,"val_loss":null}"#, &last]);
    }

    #[test]
    fn a_run_that_does_not_finish() {
        let stopped = played(&recorded::stopped()).pop().unwrap();
        assert_eq!(
            stopped,
            r#"{"event":"stopped","run":"r-k3x9qa","step":10,"reason":"stopped","tail":[],"checkpoint":"file:///runs/r-k3x9qa@10"}"#
        );
        let failed = EndedEvent {
            phase: Phase::Failed.into(),
            step: 3,
            reason: "no".into(),
            tail: vec!["a \"b\"".into()],
            ..EndedEvent::default()
        };
        assert_eq!(
            played(&failed).pop().unwrap(),
            r#"{"event":"failed","run":"r-k3x9qa","step":3,"reason":"no","tail":["a \"b\""],"checkpoint":null}"#
        );
    }

    #[test]
    fn a_worker_has_its_line_before_its_exit_even_if_its_start_was_not_seen() {
        let mut out = Vec::new();
        let mut screen = Json::new(Printer::new(&mut out));
        let exit = |worker, pid| WorkerExitedEvent { worker, pid, node: "n1".into(), ..Default::default() };
        screen.event(&Event::Exit(exit(1, 100)));
        screen.event(&Event::Exit(exit(2, 0)));
        drop(screen);
        let text = String::from_utf8(out).unwrap();
        let expected = [
            r#"{"event":"worker","rank":0,"pid":100,"worker":"w1","node":"n1"}"#,
            r#"{"event":"exit","rank":0,"pid":100,"worker":"w1","node":"n1","reason":"","tail":[]}"#,
            r#"{"event":"exit","rank":0,"pid":0,"worker":"w2","node":"n1","reason":"","tail":[]}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected, "the last could not be started at all");
    }

    #[test]
    fn a_status_after_a_gap_repeats_nothing() {
        let mut out = Vec::new();
        let mut screen = Json::new(Printer::new(&mut out));
        recorded::play(&mut screen);
        screen.status(&recorded::status());
        drop(screen);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches(r#"{"event":"run""#).count(), 1);
        assert_eq!(text.matches(r#"{"event":"worker""#).count(), 2);
    }

    #[test]
    fn replicas_and_intervals() {
        let mut out = Vec::new();
        let mut screen = Json::new(Printer::new(&mut out));
        let replica = ReplicaStatus {
            uri: "az://west/runs/r".into(),
            checkpoint: Some(10),
            steps_behind: 5,
            bytes_behind: 7,
            problem: String::new(),
            up_to_date: false,
        };
        let replicated = v1::ReplicatedEvent { replica: Some(replica.clone()), bytes: 9, seconds: 0.5 };
        screen.event(&Event::Replicated(replicated));
        screen.event(&Event::Interval(v1::IntervalEvent {
            seconds: 250.5,
            explanation: "auto: every 4m 11s".into(),
        }));
        screen.end(&EndedEvent { replicas: vec![replica], ..recorded::stopped() }, &[]);
        drop(screen);
        let status = r#""replica":"az://west/runs/r","up_to_date":false,"checkpoint":10,"steps_behind":5,"bytes_behind":7,"problem":null"#;
        let expected = [
            format!(r#"{{"event":"replicated",{status},"bytes":9,"seconds":0.5}}"#),
            r#"{"event":"interval","seconds":250.5,"explanation":"auto: every 4m 11s"}"#.to_owned(),
            format!(
                r#"{{"event":"stopped","run":"","step":10,"reason":"stopped","tail":[],"checkpoint":"file:///runs/r-k3x9qa@10","replicas":[{{{status}}}]}}"#
            ),
        ];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), expected);
    }
}
