//! `whimbrel checkpoint verify`.

use indicatif::MultiProgress;
use whimbrel_state::Hash;
use whimbrel_store::{Limits, shell};

use super::locate::find;
use crate::{
    args::checkpoint::VerifyArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    output::{
        checkpoint::verify::verified,
        meter::{Audience, Meter},
    },
};

/// Every byte is as it was saved, but the state is not the one that the run recorded.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state of {uri} hashes to {found}, and the run recorded {expected}: it is not the state that was trained"
)]
struct OtherState {
    uri: String,
    expected: Hash,
    found: Hash,
}

/// Reads every byte of a checkpoint and compares hashes: of each pack, and of the state.
pub(super) async fn verify(
    args: VerifyArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let found = find(&args.run, &args.options, config).await?;
    let (run, manifest) = (&found.run, &found.manifest);
    let mut meter = Meter::new("verifying", manifest.stored_bytes(), Audience::of(args.options.json), bars);
    let result =
        whimbrel_store::verify(run, manifest, &Limits::default(), |bytes| meter.advance(bytes)).await;
    meter.finish();
    let result = result.map_err(|error| {
        let failure = Failure::from(error);
        match failure.code() {
            Code::Damaged => failure
                .hint(format!("`whimbrel checkpoint list {}` shows the others", shell::word(run.uri()))),
            _ => failure,
        }
    })?;
    let recorded = found.checkpoint.state;
    if let Some(expected) = recorded.filter(|expected| *expected != result.state) {
        let error = OtherState { uri: found.uri(), expected, found: result.state };
        return Err(Failure::new(Code::Damaged, error));
    }
    verified(run, manifest, &result, recorded.is_some(), args.options.json);
    Ok(Code::Done)
}
