//! Events and figures in words.

use std::time::Duration;

use indicatif::HumanBytes;
use whimbrel_plan::WorkerId;
use whimbrel_proto::v1::{Phase, ReplicaStatus, WorkerExitedEvent, WorkerStartedEvent, run_event::Event};

use super::progress::{Progress, Throughput};

/// An event in words: a line, and the lines to quote under it. `None` for steps, which each screen shows in its own way,
/// for phases that other events make clear, and for workers that end because the run does.
pub(crate) fn event<'a>(event: &'a Event, progress: &Progress) -> Option<(String, &'a [String])> {
    let line = match event {
        Event::Worker(WorkerStartedEvent { rank, pid, worker, node }) => started(*worker, *rank, node, *pid),
        Event::Exit(exit) if progress.ending && exit.tail.is_empty() => return None,
        Event::Exit(exit) => {
            let (name, WorkerExitedEvent { rank, node, reason, .. }) = (worker(exit.worker), exit);
            let line = format!("worker {name} (rank {rank}) on {node} ended: {reason}");
            return Some((line, &exit.tail));
        }
        Event::Generation(generation) => {
            let gap = match generation.seconds {
                // There is no generation before the first.
                gap if gap > 0.0 && generation.generation > 1 => format!(", {gap:.2} s after the last"),
                _ => String::new(),
            };
            format!(
                "generation {} from step {} with {}, state from {}{gap}",
                generation.generation,
                generation.step,
                workers(generation.workers),
                origin(&generation.origin),
            )
        }
        Event::Evaluation(evaluation) => {
            format!(
                "evaluation after step {}: validation loss {}",
                evaluation.step,
                loss(evaluation.val_loss)
            )
        }
        Event::Checkpoint(checkpoint) => format!(
            "checkpoint after step {}: {} in {:.2} s, training was blocked for {:.3} s",
            checkpoint.step,
            bytes(checkpoint.bytes),
            checkpoint.seconds,
            checkpoint.blocked_seconds,
        ),
        Event::Interval(interval) => format!("checkpoints from now on: {}", interval.explanation),
        Event::Replicated(replicated) => {
            let replica = replicated.replica.as_ref()?;
            let moved = match replicated.bytes {
                0 => String::new(),
                bytes => format!(" ({} in {:.2} s)", self::bytes(bytes), replicated.seconds),
            };
            format!("replica {}: {}{moved}", replica.uri, self::replica(replica))
        }
        Event::Warning(warning) => return Some((format!("warning: {}", warning.text), &warning.tail)),
        Event::Phase(event) => match event.phase() {
            Phase::Waiting | Phase::Starting | Phase::Regrouping | Phase::Stopping
                if !event.detail.is_empty() =>
            {
                format!("{}: {}", phase(event.phase()), event.detail)
            }
            _ => return None,
        },
        Event::Status(_) | Event::Step(_) | Event::Ended(_) => return None,
    };
    Some((line, &[]))
}

/// The status of a replica: `up to date, checkpoint 800`, or how far behind and why.
pub(crate) fn replica(status: &ReplicaStatus) -> String {
    let checkpoint = match status.checkpoint {
        Some(step) => format!("checkpoint {step}"),
        None => "no checkpoint yet".to_owned(),
    };
    if status.up_to_date {
        return format!("up to date, {checkpoint}");
    }
    let steps = match status.steps_behind {
        0 => String::new(),
        1 => ", 1 step behind".to_owned(),
        steps => format!(", {steps} steps behind"),
    };
    let bytes = match status.bytes_behind {
        0 => String::new(),
        bytes => format!(", lacks {}", self::bytes(bytes)),
    };
    let problem = if status.problem.is_empty() { String::new() } else { format!(": {}", status.problem) };
    format!("{checkpoint}{steps}{bytes}{problem}")
}

/// The known figures of a run: `loss 1.8123, validation loss 1.9001, 12.3k tokens/s, 2 workers, generation 1, checkpoint 800`.
pub(crate) fn figures(progress: &Progress) -> String {
    let checkpoint = progress.checkpoint.map(|step| format!("checkpoint {step}"));
    let known = [
        progress.loss.map(|value| format!("loss {}", loss(value))),
        progress.val_loss.map(|(_, value)| format!("validation loss {}", loss(value))),
        progress.throughput().map(throughput),
        (progress.workers > 0).then(|| workers(progress.workers)),
        (progress.generation > 0).then(|| format!("generation {}", progress.generation)),
        checkpoint,
    ];
    known.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The process of a worker has started.
pub(crate) fn started(worker: u64, rank: u32, node: &str, pid: u32) -> String {
    format!("worker {} (rank {rank}) started on {node}, process {pid}", self::worker(worker))
}

/// The name of a worker, `w1`.
pub(crate) fn worker(worker: u64) -> String {
    WorkerId(worker).to_string()
}

/// A phase in one word, also in JSON.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "unknown",
        Phase::Waiting => "waiting",
        Phase::Starting => "starting",
        Phase::Training => "training",
        Phase::Regrouping => "regrouping",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
        Phase::Finished => "finished",
        Phase::Failed => "failed",
        Phase::Cancelled => "cancelled",
    }
}

/// A loss, with four decimals.
pub(crate) fn loss(value: f64) -> String {
    format!("{value:.4}")
}

fn workers(number: u32) -> String {
    counted(number as usize, "worker")
}

/// `1 pack`, `2 packs`.
pub(crate) fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// `3.00 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// `3m 12s`, or `1.4s` below 10 s.
pub(crate) fn time(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
    }
}

fn throughput(throughput: Throughput) -> String {
    let (rate, unit) = match throughput {
        Throughput::Tokens(rate) => (rate, "tokens/s"),
        Throughput::Samples(rate) => (rate, "samples/s"),
    };
    match rate {
        rate if rate >= 1e6 => format!("{:.2}M {unit}", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1}k {unit}", rate / 1e3),
        rate if rate >= 10.0 => format!("{rate:.0} {unit}"),
        rate => format!("{rate:.2} {unit}"),
    }
}

fn origin(origin: &str) -> &str {
    match origin {
        "initial" => "the seed",
        "checkpoint" => "a checkpoint",
        "workers" => "its workers",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_proto::v1::ReplicatedEvent;

    use super::*;

    #[test]
    fn figures_are_short_whatever_their_size() {
        let rates = [0.5, 24.0, 12_345.0, 2_500_000.0].map(|rate| throughput(Throughput::Tokens(rate)));
        assert_eq!(rates, ["0.50 tokens/s", "24 tokens/s", "12.3k tokens/s", "2.50M tokens/s"]);
        let times = [1.44, 9.99, 192.7, 7200.0].map(|seconds| time(Duration::from_secs_f64(seconds)));
        assert_eq!(times, ["1.4s", "10.0s", "3m 12s", "2h"]);
    }

    #[test]
    fn a_replica_is_up_to_date_or_so_far_behind_and_why() {
        let behind = ReplicaStatus {
            uri: "az://west/runs/r".into(),
            checkpoint: Some(800),
            steps_behind: 200,
            bytes_behind: 3 << 20,
            problem: "no answer".into(),
            up_to_date: false,
        };
        assert_eq!(replica(&behind), "checkpoint 800, 200 steps behind, lacks 3.00 MiB: no answer");
        let nearly =
            ReplicaStatus { steps_behind: 1, bytes_behind: 0, problem: String::new(), ..behind.clone() };
        assert_eq!(replica(&nearly), "checkpoint 800, 1 step behind");
        let new = ReplicaStatus { uri: "az://west/runs/r".into(), ..ReplicaStatus::default() };
        assert_eq!(replica(&new), "no checkpoint yet");
        let there = ReplicaStatus { up_to_date: true, checkpoint: Some(1000), ..new };
        assert_eq!(replica(&there), "up to date, checkpoint 1000");
        let arrived = ReplicatedEvent { replica: Some(there), bytes: 5 << 20, seconds: 1.25 };
        let arrived = Event::Replicated(arrived);
        let (line, tail) = event(&arrived, &Progress::default()).unwrap();
        assert_eq!(
            (line.as_str(), tail.len()),
            ("replica az://west/runs/r: up to date, checkpoint 1000 (5.00 MiB in 1.25 s)", 0)
        );
    }
}
