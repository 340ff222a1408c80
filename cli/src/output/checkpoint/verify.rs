//! A checkpoint whose every byte is good.

use serde_json::json;
use whimbrel_state::Manifest;
use whimbrel_store::{RunDir, Verified};

use crate::output::{
    print::Printer,
    words::{bytes, counted},
};

/// Prints what was verified. `is_recorded`: the run recorded the same digest of the state.
pub(crate) fn verified(
    run: &RunDir,
    manifest: &Manifest,
    verified: &Verified,
    is_recorded: bool,
    json: bool,
) {
    let (uri, state) = (run.checkpoint_uri(manifest.step), verified.state);
    let mut out = Printer::stdout();
    if json {
        out.json(&json!({
            "run": run.id().as_str(),
            "uri": uri,
            "step": manifest.step,
            "state": state,
            "bytes": verified.bytes,
        }));
        return;
    }
    let packs = counted(manifest.packs.len(), "pack");
    out.line(format!("{uri}: all of {} in {packs} is good", bytes(verified.bytes)));
    let same = if is_recorded { ", as the run recorded" } else { "" };
    out.facts(&[("state", Some(format!("BLAKE3 {state}{same}")))]);
}
