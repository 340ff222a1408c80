//! A run for programs: one JSON object a line and event, on stdout. What is not a number (NaN, infinity) is `null`.

use std::{
    collections::BTreeSet,
    io::{Stdout, Write},
};

use serde::Serialize;
use whimbrel_proto::v1::{self, EndedEvent, Phase, RunStatus, WorkerExitedEvent, run_event::Event};

use super::{Screen, words};
use crate::print::Printer;

/// Writes events as JSON.
pub(crate) struct Json<W> {
    out: Printer<W>,
    run: String,
    /// Workers told of, so that those in a status are told of once.
    workers: BTreeSet<u64>,
}

/// A line. The order of the fields is the order of the keys.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    Run { run: &'a str, uri: &'a str, steps: u64, step: u64 },
    Worker { rank: u32, pid: u32, worker: String, node: &'a str },
    Generation { generation: u64, step: u64, workers: u32, origin: &'a str, seconds: f64 },
    Step(Step),
    Evaluation { step: u64, val_loss: f64 },
    Checkpoint { step: u64, manifest: &'a str, bytes: u64, seconds: f64, blocked_seconds: f64 },
    Interval { seconds: f64, words: &'a str },
    Replicated(Replicated<'a>),
    Exit { rank: u32, pid: u32, worker: String, node: &'a str, reason: &'a str, tail: &'a [String] },
    Warning { text: &'a str, tail: &'a [String] },
    Phase { phase: &'static str, detail: &'a str },
    Finished(Finished<'a>),
    Failed(Unfinished<'a>),
    Stopped(Unfinished<'a>),
    Cancelled(Unfinished<'a>),
}

#[derive(Serialize)]
struct Step {
    step: u64,
    loss: f64,
    generation: u64,
    workers: u32,
    seconds: f64,
    compute_seconds: f64,
    reduce_seconds: f64,
    samples: u64,
    tokens: Option<u64>,
}

#[derive(Serialize)]
struct Replicated<'a> {
    #[serde(flatten)]
    replica: Replica<'a>,
    bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Finished<'a> {
    run: &'a str,
    step: u64,
    loss: Option<f64>,
    val_loss: Option<f64>,
    /// BLAKE3 of the state in hexadecimal; unknown of a run that had finished before anybody watched.
    state: Option<&'a str>,
    checkpoint: Option<&'a str>,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<Replica<'a>>,
}

#[derive(Serialize)]
struct Unfinished<'a> {
    run: &'a str,
    step: u64,
    reason: &'a str,
    tail: &'a [String],
    checkpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<Replica<'a>>,
}

/// How a copy of the run in another store stands, also in `whimbrel status --json`.
#[derive(Serialize)]
pub(crate) struct Replica<'a> {
    replica: &'a str,
    in_step: bool,
    /// Steps applied in the newest checkpoint there.
    checkpoint: Option<u64>,
    steps_behind: u64,
    bytes_behind: u64,
    trouble: Option<&'a str>,
}

impl<'a> From<&'a v1::ReplicaStatus> for Replica<'a> {
    fn from(replica: &'a v1::ReplicaStatus) -> Self {
        let v1::ReplicaStatus { uri, in_step, checkpoint, steps_behind, bytes_behind, problem } = replica;
        Self {
            replica: uri,
            in_step: *in_step,
            checkpoint: *checkpoint,
            steps_behind: *steps_behind,
            bytes_behind: *bytes_behind,
            trouble: known(problem),
        }
    }
}

impl Json<Stdout> {
    pub(crate) fn stdout() -> Self {
        Self::new(Printer::stdout())
    }
}

impl<W: Write> Json<W> {
    fn new(out: Printer<W>) -> Self {
        Self { out, run: String::new(), workers: BTreeSet::new() }
    }

    fn worker(&mut self, rank: u32, pid: u32, worker: u64, node: &str) {
        if self.workers.insert(worker) {
            self.out.json(&Line::Worker { rank, pid, worker: name(worker), node });
        }
    }
}

impl<W: Write + Send> Screen for Json<W> {
    fn status(&mut self, status: &RunStatus) {
        if self.run.is_empty() {
            let RunStatus { run, uri, steps, step, .. } = status;
            self.run.clone_from(run);
            self.out.json(&Line::Run { run, uri, steps: *steps, step: *step });
        }
        // Those that started before anybody watched.
        for worker in status.workers.iter().filter(|worker| worker.pid != 0) {
            self.worker(worker.rank, worker.pid, worker.worker, &worker.node);
        }
    }

    fn event(&mut self, event: &Event) {
        let line = match event {
            Event::Worker(event) => return self.worker(event.rank, event.pid, event.worker, &event.node),
            Event::Generation(event) => Line::Generation {
                generation: event.generation,
                step: event.step,
                workers: event.workers,
                origin: &event.origin,
                seconds: event.seconds,
            },
            Event::Step(event) => Line::Step((*event).into()),
            Event::Evaluation(event) => Line::Evaluation { step: event.step, val_loss: event.val_loss },
            Event::Checkpoint(event) => Line::Checkpoint {
                step: event.step,
                manifest: &event.manifest,
                bytes: event.bytes,
                seconds: event.seconds,
                blocked_seconds: event.blocked_seconds,
            },
            Event::Interval(event) => Line::Interval { seconds: event.seconds, words: &event.explanation },
            Event::Replicated(event) => {
                let Some(replica) = &event.replica else { return };
                let (bytes, seconds) = (event.bytes, event.seconds);
                Line::Replicated(Replicated { replica: replica.into(), bytes, seconds })
            }
            Event::Exit(event) => {
                let WorkerExitedEvent { rank, pid, worker, node, reason, tail } = event;
                // It may have come and gone before anybody watched.
                if *pid != 0 {
                    self.worker(*rank, *pid, *worker, node);
                }
                Line::Exit { rank: *rank, pid: *pid, worker: name(*worker), node, reason, tail }
            }
            Event::Warning(event) => Line::Warning { text: &event.text, tail: &event.tail },
            Event::Phase(event) => Line::Phase { phase: words::phase(event.phase()), detail: &event.detail },
            Event::Status(_) | Event::Ended(_) => return,
        };
        self.out.json(&line);
    }

    /// For people, so not among the lines for programs.
    fn note(&mut self, text: &str) {
        Printer::stderr().line(text);
    }

    fn end(&mut self, ended: &EndedEvent, _next: &[String]) {
        let (checkpoint, state) = (known(&ended.checkpoint), known(&ended.state));
        let replicas = || ended.replicas.iter().map(Replica::from).collect();
        let unfinished = Unfinished {
            run: &self.run,
            step: ended.step,
            reason: &ended.reason,
            tail: &ended.tail,
            checkpoint,
            replicas: replicas(),
        };
        let line = match ended.phase() {
            Phase::Finished => Line::Finished(Finished {
                run: &self.run,
                step: ended.step,
                loss: ended.loss,
                val_loss: ended.val_loss,
                state,
                checkpoint,
                seconds: ended.seconds,
                replicas: replicas(),
            }),
            Phase::Failed => Line::Failed(unfinished),
            Phase::Cancelled => Line::Cancelled(unfinished),
            _ => Line::Stopped(unfinished),
        };
        self.out.json(&line);
    }
}

impl From<v1::StepEvent> for Step {
    fn from(event: v1::StepEvent) -> Self {
        let v1::StepEvent {
            step,
            loss,
            generation,
            workers,
            seconds,
            compute_seconds,
            reduce_seconds,
            samples,
            tokens,
        } = event;
        Self { step, loss, generation, workers, seconds, compute_seconds, reduce_seconds, samples, tokens }
    }
}

/// The protocol leaves text empty where there is none.
fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn name(worker: u64) -> String {
    whimbrel_plan::WorkerId(worker).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::recorded;

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
    fn a_worker_is_told_of_before_its_exit_even_if_nobody_saw_it_start() {
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
        let replica = v1::ReplicaStatus {
            uri: "az://west/runs/r".into(),
            checkpoint: Some(10),
            steps_behind: 5,
            bytes_behind: 7,
            problem: String::new(),
            in_step: false,
        };
        let replicated = v1::ReplicatedEvent { replica: Some(replica.clone()), bytes: 9, seconds: 0.5 };
        screen.event(&Event::Replicated(replicated));
        screen.event(&Event::Interval(v1::IntervalEvent {
            seconds: 250.5,
            explanation: "auto: every 4m 11s".into(),
        }));
        screen.end(&EndedEvent { replicas: vec![replica], ..recorded::stopped() }, &[]);
        drop(screen);
        let stands = r#""replica":"az://west/runs/r","in_step":false,"checkpoint":10,"steps_behind":5,"bytes_behind":7,"trouble":null"#;
        let expected = [
            format!(r#"{{"event":"replicated",{stands},"bytes":9,"seconds":0.5}}"#),
            r#"{"event":"interval","seconds":250.5,"words":"auto: every 4m 11s"}"#.to_owned(),
            format!(
                r#"{{"event":"stopped","run":"","step":10,"reason":"stopped","tail":[],"checkpoint":"file:///runs/r-k3x9qa@10","replicas":[{{{stands}}}]}}"#
            ),
        ];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), expected);
    }
}
