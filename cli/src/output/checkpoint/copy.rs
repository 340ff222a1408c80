//! A copy: its plan, its events and its result.

use std::time::Duration;

use serde_json::json;
use whimbrel_store::{Amount, Copied, CopyPlan, CopySize, Price, RunDir, shell};

use crate::output::{
    print::Printer,
    words::{bytes, counted, time},
};

/// Prints what will move, and what that costs.
pub(crate) fn plan(plan: &CopyPlan, price: &Price, json: bool) {
    let steps: Vec<u64> = plan.work.checkpoints.iter().rev().map(|planned| planned.checkpoint.step).collect();
    let (source, destination) = (plan.work.source().uri(), plan.work.destination().uri());
    let mut out = Printer::stdout();
    if json {
        out.json(&json!({
            "event": "plan",
            "source": source,
            "destination": destination,
            // The steps of all checkpoints that will be there.
            "checkpoints": steps,
            "packs": plan.work.to_move.packs.objects,
            "manifests": plan.work.to_move.manifests.objects,
            // Objects of the workers' output.
            "output": plan.work.to_move.output.objects,
            // Of all these objects.
            "bytes": plan.work.to_move.bytes(),
            "packs_there": plan.work.there.objects,
            "bytes_there": plan.work.there.bytes,
            // Dollars at most; null where no price is known.
            "usd": (!matches!(price, Price::Unknown)).then(|| price.usd()),
            "price": price.to_string(),
        }));
        return;
    }
    let there = match plan.work.checkpoints.iter().filter(|planned| planned.committed).count() {
        0 => String::new(),
        1 => ", of which 1 is there".into(),
        there => format!(", of which {there} are there"),
    };
    out.line(source);
    let mut facts = vec![
        ("to", Some(destination.to_owned())),
        ("checkpoints", Some(format!("{}{there}", listed(&steps)))),
        ("to move", Some(size(&plan.work.to_move))),
        ("there", (plan.work.there.objects > 0).then(|| packs(plan.work.there))),
        ("price", Some(price.to_string())),
    ];
    let left_out = plan.work.skipped.iter();
    facts.extend(left_out.map(|out| ("left out", Some(format!("step {}: {}", out.step, out.why)))));
    out.facts(&facts);
}

/// Prints, for programs, that the checkpoint after `step` is complete in the copy.
pub(crate) fn committed(step: u64) {
    Printer::stdout().json(&json!({"event": "checkpoint", "step": step}));
}

/// What can be done with a copy.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// There is a checkpoint in it.
    pub(crate) usable: bool,
    /// The run has not ended.
    pub(crate) resumable: bool,
}

/// Prints what was copied, and the commands that use it.
pub(crate) fn copied(destination: &RunDir, copied: &Copied, next: Next, took: Duration, json: bool) {
    let uri = destination.uri();
    let mut out = Printer::stdout();
    if json {
        let left_out = copied.skipped.iter().map(|out| json!({"step": out.step, "why": out.why.to_string()}));
        let left_out: Vec<_> = left_out.collect();
        out.json(&json!({
            "event": "copied",
            "destination": uri,
            "checkpoints": copied.committed,
            "packs": copied.moved.packs.objects,
            "manifests": copied.moved.manifests.objects,
            "output": copied.moved.output.objects,
            "bytes": copied.moved.bytes(),
            "seconds": took.as_secs_f64(),
            "left_out": left_out,
            "source_went_on": copied.source_went_on,
        }));
        return;
    }
    let rate = copied.moved.bytes() as f64 / took.as_secs_f64().max(1e-3);
    match copied.committed.as_slice() {
        [] if copied.moved.bytes() == 0 && !copied.skipped.is_empty() => out.line("nothing was copied"),
        [] if copied.moved.bytes() == 0 => out.line("nothing to copy: it is all there"),
        steps => {
            let (moved, took, rate) = (size(&copied.moved), time(took), bytes(rate as u64));
            out.line(format!("copied {}: {moved} in {took}, {rate}/s", listed(steps)));
        }
    }
    for left_out in &copied.skipped {
        out.line(format!("left out: the checkpoint after step {}: {}", left_out.step, left_out.why));
    }
    if copied.source_went_on {
        out.line("the run has saved more since the copy was planned: the same command copies that, too");
    }
    if !next.usable {
        return;
    }
    let pasted = shell::word(uri);
    out.line("next:");
    out.line(format!("  whimbrel checkpoint verify {pasted}"));
    if next.resumable {
        out.line(format!("  whimbrel run run.toml --resume {pasted}"));
    }
}

fn packs(packs: Amount) -> String {
    format!("{}, {}", counted(packs.objects, "pack"), bytes(packs.bytes))
}

/// `32 packs, 3 manifests, 12 output objects, 1.94 GiB`
fn size(size: &CopySize) -> String {
    let mut words = vec![counted(size.packs.objects, "pack")];
    for (amount, what) in [(size.manifests, "manifest"), (size.output, "output object")] {
        if amount.objects > 0 {
            words.push(counted(amount.objects, what));
        }
    }
    words.push(bytes(size.bytes()));
    words.join(", ")
}

/// `3 checkpoints, after steps 20 to 60`
fn listed(steps: &[u64]) -> String {
    match (steps, steps.iter().min(), steps.iter().max()) {
        ([step], ..) => format!("the checkpoint after step {step}"),
        (_, Some(first), Some(last)) => {
            format!("{} checkpoints, after steps {first} to {last}", steps.len())
        }
        _ => "no checkpoint".into(),
    }
}
