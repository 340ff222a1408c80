//! `whimbrel checkpoint verify`.

use indicatif::{HumanBytes, MultiProgress};
use serde::Serialize;
use whimbrel_state::Hash;
use whimbrel_store::{Limits, shell, verify};

use super::{
    counted,
    locate::{find, recorded_state},
    meter::{Audience, Meter},
};
use crate::{
    args::checkpoint::VerifyArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
};

/// Every byte is as it was saved, and yet not what was trained.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state of {uri} hashes to {found}, and the run recorded {expected}: it is not the state that was trained"
)]
struct OtherState {
    uri: String,
    expected: Hash,
    found: Hash,
}

#[derive(Serialize)]
struct Good<'a> {
    run: &'a str,
    uri: String,
    step: u64,
    /// BLAKE3 of the state.
    state: Hash,
    bytes: u64,
}

/// `whimbrel checkpoint verify`.
pub(super) async fn verify_one(
    args: VerifyArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let found = find(&args.run, &args.options, config).await?;
    let (run, manifest) = (&found.run, &found.manifest);
    let mut meter = Meter::new("verifying", manifest.stored_bytes(), Audience::of(args.options.json), bars);
    let verified = verify(run, manifest, &Limits::default(), |bytes| meter.advance(bytes)).await;
    meter.finish();
    let verified = verified.map_err(|error| {
        let failure = Failure::from(error);
        match failure.code() {
            Code::Damaged => failure
                .hint(format!("`whimbrel checkpoint list {}` shows the others", shell::word(run.uri()))),
            _ => failure,
        }
    })?;
    let uri = found.uri();
    let state = verified.state;
    let recorded = recorded_state(&found.run_log, &found.checkpoint);
    if let Some(expected) = recorded.filter(|expected| *expected != state) {
        return Err(Failure::new(Code::Damaged, OtherState { uri, expected, found: state }));
    }
    let mut out = Printer::stdout();
    if args.options.json {
        let (run, step) = (run.id().as_str(), found.checkpoint.step);
        out.json(&Good { run, uri, step, state, bytes: verified.bytes });
    } else {
        out.line(format!(
            "{uri}: all of {} in {} is good",
            HumanBytes(verified.bytes),
            counted(manifest.packs.len(), "pack")
        ));
        let same = if recorded.is_some() { ", as the run recorded" } else { "" };
        out.line(format!("  state       BLAKE3 {state}{same}"));
    }
    Ok(Code::Done)
}
