//! `whimbrel checkpoint verify`.

use indicatif::MultiProgress;
use whimbrel_state::Hash;
use whimbrel_store::{Limits, ReadManifestError, RunDir, Verifier, VerifyError, shell};

use super::{
    exit_code,
    locate::{find, locate, no_checkpoint, read_log, recorded},
};
use crate::{
    args::checkpoint::VerifyArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    output::{
        checkpoint::verify::{verified, verified_all},
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

/// Some checkpoints of a run are damaged, or were written by a later version of Whimbrel.
#[derive(Debug, thiserror::Error)]
#[error("{} of the {of} checkpoints of {run} cannot be used: {}", why.len(), why.join("; "))]
struct SomeUnusable {
    run: String,
    of: usize,
    why: Vec<String>,
}

/// Reads every byte of a checkpoint, or of all checkpoints of a run, and compares hashes: of each pack, and of the
/// states.
pub(super) async fn verify(
    args: VerifyArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    match locate(&args.run, &args.options, config)? {
        (_, Some(_)) => verify_one(args, config, bars).await,
        (run, None) => verify_all(&run, args.options.json, bars).await,
    }
}

async fn verify_one(args: VerifyArgs, config: &ClientConfig, bars: &MultiProgress) -> Result<Code, Failure> {
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
    let expected = found.checkpoint.state;
    compare(found.uri(), expected, Some(result.state)).map_err(|error| Failure::new(Code::Damaged, error))?;
    verified(run, manifest, Some(result.state), expected.is_some(), args.options.json);
    Ok(Code::Done)
}

/// Verifies the checkpoints of a run that are not quarantined. Prints the good ones, oldest first; the others are the
/// error.
async fn verify_all(run: &RunDir, json: bool, bars: &MultiProgress) -> Result<Code, Failure> {
    let run_log = read_log(run).await?;
    let usable = run_log.checkpoints();
    let quarantined = run_log.all_checkpoints().len() - usable.len();
    if usable.is_empty() {
        return Err(no_checkpoint(run, None));
    }
    let mut checkpoints = Vec::new();
    // The newest first: its packs are read in the state's order, and the digest of its state is computed. A checkpoint
    // that shares packs with one before it has no digest.
    for info in usable.into_iter().rev() {
        let manifest = match run.manifest(&info.manifest).await {
            Err(error @ ReadManifestError::Store(_)) => return Err(error.into()),
            read => read,
        };
        checkpoints.push((recorded(&run_log, info), manifest));
    }
    let of = checkpoints.len();
    let manifests = checkpoints.iter().filter_map(|(_, manifest)| manifest.as_ref().ok());
    let mut meter = Meter::new("verifying", Verifier::bytes_of(manifests), Audience::of(json), bars);
    let mut verifier = Verifier::new(run, &Limits::default());
    let (mut good, mut why, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
    for (checkpoint, manifest) in checkpoints {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                damaged.push(error.is_damage());
                why.push(error.to_string());
                continue;
            }
        };
        let state = match verifier.verify(&manifest, |bytes| meter.advance(bytes)).await {
            Err(VerifyError::Store(error)) => {
                meter.finish();
                return Err(error.into());
            }
            verified => verified,
        };
        let uri = run.checkpoint_uri(manifest.step);
        let state = state.map_err(|error| error.to_string());
        let compared = state.and_then(|state| {
            compare(uri, checkpoint.state, state).map_err(|error| error.to_string()).map(|()| state)
        });
        match compared {
            Ok(state) => good.push((manifest, state, state.is_some() && checkpoint.state.is_some())),
            Err(error) => {
                damaged.push(true);
                why.push(error);
            }
        }
    }
    meter.finish();
    for (manifest, state, is_recorded) in good.iter().rev() {
        verified(run, manifest, *state, *is_recorded, json);
    }
    if why.is_empty() {
        verified_all(good.len(), quarantined, json);
        return Ok(Code::Done);
    }
    let failure = Failure::new(exit_code(damaged), SomeUnusable { run: run.uri().to_owned(), of, why });
    Err(failure.hint(match good.first() {
        Some((newest, ..)) => {
            format!("the newest good checkpoint is {}", shell::word(&run.checkpoint_uri(newest.step)))
        }
        None => "a replica may have whole copies: check it with `whimbrel checkpoint verify`".to_owned(),
    }))
}

/// Compares the digest of a state with the one that the run recorded, where both are known.
fn compare(uri: String, expected: Option<Hash>, found: Option<Hash>) -> Result<(), OtherState> {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => Err(OtherState { uri, expected, found }),
        _ => Ok(()),
    }
}
