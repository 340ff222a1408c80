//! An exported folder, and an imported one.

use std::path::Path;

use serde_json::json;
use whimbrel_state::Hash;
use whimbrel_store::{
    RunDir,
    interop::{FileLayout, SPEC},
    uri::inside,
};

use crate::output::{
    print::Printer,
    words::{bytes, counted},
};

/// Prints the files that were written for the checkpoint of `run` after `step`. `left_out` is the number of tensors that
/// were not selected.
pub(crate) fn exported(
    run: &RunDir,
    step: u64,
    folder: &Path,
    shards: &FileLayout,
    left_out: usize,
    json: bool,
) {
    let uri = run.checkpoint_uri(step);
    let mut out = Printer::stdout();
    if json {
        let files: Vec<_> = shards.names().collect();
        out.json(&json!({
            "run": run.id().as_str(),
            "uri": uri,
            "step": step,
            "folder": folder,
            "files": files,
            "tensors": shards.tensors(),
            "left_out": left_out,
            "bytes": shards.bytes(),
        }));
        return;
    }
    let without = if left_out > 0 { format!(", {left_out} left out") } else { String::new() };
    let tensors = counted(shards.tensors(), "tensor");
    out.line(format!("{uri}: {tensors}, {}{without}", bytes(shards.bytes())));
    for name in shards.names().chain([SPEC]) {
        out.line(format!("  {}", folder.join(name).display()));
    }
}

/// A checkpoint that was made of a folder.
pub(crate) struct Imported<'a> {
    pub(crate) run: &'a RunDir,
    pub(crate) step: u64,
    pub(crate) state: Hash,
    pub(crate) tensors: usize,
    pub(crate) bytes: u64,
    /// The stores of the replicas of a new run.
    pub(crate) replicas: &'a [String],
    /// The command that goes on from the checkpoint.
    pub(crate) next: String,
}

/// Prints the checkpoint that was made.
pub(crate) fn imported(imported: &Imported<'_>, json: bool) {
    let Imported { run, step, state, tensors, bytes: size, replicas, next } = imported;
    let uri = run.checkpoint_uri(*step);
    let mut out = Printer::stdout();
    if json {
        out.json(&json!({
            "run": run.id().as_str(),
            "uri": uri,
            "step": step,
            "state": state,
            "tensors": tensors,
            "bytes": size,
        }));
        return;
    }
    out.line(format!("{uri}: {}, {}", counted(*tensors, "tensor"), bytes(*size)));
    let mut facts = vec![("state", Some(format!("BLAKE3 {state}")))];
    facts.extend(replicas.iter().map(|replica| {
        let uri = inside(replica, run.id().as_str());
        ("replica", Some(format!("{uri}, when the run continues")))
    }));
    out.facts(&facts);
    out.line(format!("next:\n  {next}"));
}
