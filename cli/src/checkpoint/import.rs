//! `whimbrel checkpoint import`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use indicatif::{HumanBytes, MultiProgress};
use serde::Serialize;
use whimbrel_coordinator::new_run_id;
use whimbrel_plan::RunId;
use whimbrel_state::Hash;
use whimbrel_store::{
    Limits, LogError, RunDir, Store,
    interop::{self, ImportOptions, Model, SPEC, key},
    open_run,
    uri::inside,
};

use super::{
    counted,
    export::selection,
    interrupt::unless_interrupted,
    meter::{Audience, Meter},
};
use crate::{
    args::checkpoint::ImportArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
    spec_file,
};

/// Packs under way at a time: each is in memory meanwhile.
const AT_A_TIME: usize = 8;

/// Something that the folder does not say, and nobody else does.
#[derive(Debug, thiserror::Error)]
enum ImportInputError {
    #[error("{} does not say how many samples the data set has that the run is trained on", folder.display())]
    Samples { folder: PathBuf },
    #[error("{} says {key} = {value:?}, which is not a number", folder.display())]
    Number { folder: PathBuf, key: &'static str, value: String },
    #[error("a new run in {store} needs a run spec, and {} has no {SPEC}", folder.display())]
    Spec { folder: PathBuf, store: String },
    #[error("{run} is a run, which has its spec and its id: leave {flag} out")]
    HasIts { run: String, flag: &'static str },
}

#[derive(Serialize)]
struct Imported<'a> {
    run: &'a str,
    uri: String,
    step: u64,
    state: Hash,
    tensors: usize,
    bytes: u64,
}

/// `whimbrel checkpoint import`.
pub(super) async fn import(
    args: ImportArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let selection = selection(args.tensors.clone()).map_err(Failure::bad_input)?;
    let folder = args.folder.clone();
    let open = move || Model::open(&folder, &selection);
    let model = Arc::new(tokio::task::spawn_blocking(open).await.map_err(Failure::unexpected)??);
    let said = |key, given: Option<u64>| number(&args.folder, &model, key, given);
    let step = said(key::STEP, args.step)?.unwrap_or(0);
    let samples = said(key::SAMPLES, args.samples)?.ok_or_else(|| {
        Failure::bad_input(ImportInputError::Samples { folder: args.folder.clone() })
            .hint("give --samples N: the order of the samples depends on their number")
    })?;
    let (run, spec) = target(&args, config).await?;
    let who = format!("whimbrel checkpoint import, process {}", std::process::id());
    let options = ImportOptions { step, samples, spec, take_office: args.take_office, who };

    let bytes = model.layout().bytes() as u64;
    let mut meter = Meter::new("importing", bytes, Audience::of(args.options.json), bars);
    let mut progress = |bytes| meter.advance(bytes);
    let limits = Limits { concurrency: AT_A_TIME, ..Limits::default() };
    let work = interop::import(&run, model.clone(), &options, &limits, &mut progress);
    let imported =
        unless_interrupted(work, "no checkpoint was made; importing again skips what is saved").await;
    meter.finish();
    let imported = imported?;

    let tensors = model.layout().tensors().len();
    let mut out = Printer::stdout();
    if args.options.json {
        let (run, uri) = (run.id().as_str(), run.checkpoint_uri(step));
        out.json(&Imported { run, uri, step, state: imported.state, tensors, bytes });
        return Ok(Code::Done);
    }
    out.line(format!("{}: {}, {}", run.checkpoint_uri(step), counted(tensors, "tensor"), HumanBytes(bytes)));
    out.line(format!("  state       BLAKE3 {}", imported.state));
    let spec = args.spec.unwrap_or_else(|| args.folder.join(SPEC));
    out.line(format!("next:\n  whimbrel run {} --resume {}", spec.display(), run.uri()));
    Ok(Code::Done)
}

/// A number that was given, or that the folder says.
fn number(
    folder: &Path,
    model: &Model,
    key: &'static str,
    given: Option<u64>,
) -> Result<Option<u64>, Failure> {
    let said = || {
        let value = model.metadata().get(key)?;
        let (folder, wrong) = (folder.to_owned(), value.clone());
        let wrong = |_| ImportInputError::Number { folder, key, value: wrong };
        Some(value.parse().map_err(wrong).map_err(Failure::bad_input))
    };
    match given {
        Some(number) => Ok(Some(number)),
        None => said().transpose(),
    }
}

/// The run that the checkpoint becomes part of, and the spec of one to be created.
async fn target(args: &ImportArgs, config: &ClientConfig) -> Result<(RunDir, Option<String>), Failure> {
    if let Some(run) = existing(args, config).await? {
        let flags = [("--spec", args.spec.is_some()), ("--run", args.run.is_some())];
        if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given) {
            let error = ImportInputError::HasIts { run: run.uri().to_owned(), flag };
            return Err(Failure::bad_input(error));
        }
        return Ok((run, None));
    }
    let beside = args.folder.join(SPEC);
    let path = match &args.spec {
        Some(path) => path,
        None if beside.is_file() => &beside,
        None => {
            let error = ImportInputError::Spec { folder: args.folder.clone(), store: args.into.clone() };
            return Err(Failure::bad_input(error).hint("give --spec run.toml, or name a run that is stopped"));
        }
    };
    let spec = spec_file::read(path, &[])?;
    let store = Store::open(&args.into)?;
    store.probe().await?;
    let id = match &args.run {
        Some(id) => id.clone(),
        None => new_run_id(&spec.name).map_err(Failure::unexpected)?,
    };
    Ok((store.run(&id), Some(spec.to_toml())))
}

/// The run that was named, if it is one.
async fn existing(args: &ImportArgs, config: &ClientConfig) -> Result<Option<RunDir>, Failure> {
    let store = args.options.store.as_deref().or(config.store.as_deref());
    let named = match store {
        Some(store) if args.into.parse::<RunId>().is_ok() => open_run(&inside(store, &args.into)),
        _ => open_run(&args.into),
    };
    // What cannot be a run's URI may be a store's.
    let Ok((run, None)) = named else { return Ok(None) };
    match run.history().await {
        Ok(_) => Ok(Some(run)),
        Err(LogError::NoRun { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
