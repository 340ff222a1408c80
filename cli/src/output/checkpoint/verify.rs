//! Checkpoints whose every byte is good.

use serde_json::json;
use whimbrel_state::{Hash, Manifest};
use whimbrel_store::RunDir;

use crate::output::{
    print::Printer,
    words::{bytes, counted},
};

/// Prints a good checkpoint. `state` is the digest of its state, if it was computed; `is_recorded`: the run recorded the
/// same digest.
pub(crate) fn verified(
    run: &RunDir,
    manifest: &Manifest,
    state: Option<Hash>,
    is_recorded: bool,
    json: bool,
) {
    let (uri, size) = (run.checkpoint_uri(manifest.step), manifest.stored_bytes());
    let mut out = Printer::stdout();
    if json {
        out.json(&json!({
            "run": run.id().as_str(),
            "uri": uri,
            "step": manifest.step,
            // Null where packs were read for another checkpoint.
            "state": state,
            "bytes": size,
        }));
        return;
    }
    let packs = counted(manifest.packs.len(), "pack");
    out.line(format!("{uri}: all of {} in {packs} is good", bytes(size)));
    let same = if is_recorded { ", as the run recorded" } else { "" };
    out.facts(&[("state", state.map(|state| format!("BLAKE3 {state}{same}")))]);
}

/// Prints, for people, that all checkpoints of a run are good. Quarantined ones were not read.
pub(crate) fn verified_all(good: usize, quarantined: usize, json: bool) {
    if json {
        return;
    }
    let skipped = match quarantined {
        0 => String::new(),
        1 => "; 1 is quarantined and was not read".to_owned(),
        _ => format!("; {quarantined} are quarantined and were not read"),
    };
    let all =
        if good == 1 { "1 checkpoint is good".to_owned() } else { format!("{good} checkpoints are good") };
    Printer::stdout().line(format!("{all}{skipped}"));
}
