//! What `whimbrel checkpoint collect` deleted, or would delete.

use serde_json::json;
use whimbrel_store::{Collected, RunDir, UnreadableManifest};

use crate::output::{
    print::Printer,
    words::{bytes, counted},
};

/// Prints what was collected in `run`. `kept` are the steps of the checkpoints that stay.
pub(crate) fn collected(
    run: &RunDir,
    collected: &Collected,
    deleted_checkpoints: usize,
    kept: &[u64],
    dry_run: bool,
    json: bool,
) {
    let mut out = Printer::stdout();
    if json {
        let unreadable: Vec<_> = collected.unreadable.iter().map(|unreadable| &unreadable.manifest).collect();
        out.json(&json!({
            "run": run.id().as_str(),
            "deleted": !dry_run,
            "checkpoints": deleted_checkpoints,
            "packs": collected.packs,
            "bytes": collected.bytes,
            "kept": kept,
            "unreadable": unreadable,
        }));
        return;
    }
    let verb = if dry_run { "would delete" } else { "deleted" };
    let (checkpoints, packs) = (counted(deleted_checkpoints, "checkpoint"), counted(collected.packs, "pack"));
    out.line(format!("{}: {verb} {checkpoints} and {packs}, {}", run.uri(), bytes(collected.bytes)));
    let steps: Vec<String> = kept.iter().map(u64::to_string).collect();
    let steps = if steps.is_empty() { "–".to_owned() } else { steps.join(", ") };
    let mut facts = vec![("kept", Some(format!("after step {steps}")))];
    facts.extend(collected.unreadable.iter().map(|UnreadableManifest { why, .. }| {
        let text = format!("{why}; its packs are not known, so no pack that may belong to it was deleted");
        ("unreadable", Some(text))
    }));
    out.facts(&facts);
}
