//! `whimbrel checkpoint import`.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
};

use indicatif::MultiProgress;
use whimbrel_coordinator::{new_run_id, open_replicas};
use whimbrel_plan::RunId;
use whimbrel_spec::RunSpec;
use whimbrel_state::{Layout, LayoutError};
use whimbrel_store::{
    AppendError, CommitError, CreateError, Limits, LogError, RunDir, RunLog, Store,
    interop::{self, ImportError, ImportOptions, Model, SPEC, key},
    open_run, shell,
    uri::inside,
};

use super::export::selection;
use crate::{
    args::checkpoint::ImportArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    output::{
        checkpoint::interop::{Imported, imported},
        meter::{Audience, Meter},
        print::Printer,
    },
    signals::unless_interrupted,
    spec_file,
};

/// Packs that are saved at a time; each is in memory meanwhile.
const AT_A_TIME: usize = 8;

/// Flags and folder do not make a checkpoint of a run.
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
    #[error("the run ends after step {steps}, and this is its state after step {step}")]
    PastItsEnd { step: u64, steps: u64 },
    #[error("the checkpoint after step {step} of the run {run} has other tensors than {}", folder.display())]
    OtherState { run: String, folder: PathBuf, step: u64, source: LayoutError },
}

/// Makes a checkpoint of a folder of safetensors files: of a new run, or of a run that is stopped.
pub(super) async fn import(
    args: ImportArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let selection = selection(args.tensors.clone()).map_err(Failure::bad_input)?;
    let folder = args.folder.clone();
    let open = move || Model::open(&folder, &selection);
    let model = Arc::new(tokio::task::spawn_blocking(open).await.map_err(Failure::unexpected)??);
    let number = |key, given: Option<u64>| number(&args.folder, &model, key, given);
    let step = number(key::STEP, args.step)?.unwrap_or(0);
    let samples = number(key::SAMPLES, args.samples.map(NonZero::get))?
        .filter(|&samples| samples > 0)
        .ok_or_else(|| {
            Failure::bad_input(ImportInputError::Samples { folder: args.folder.clone() })
                .hint("give --samples N: the order of the samples depends on their number")
        })?;
    let (run, spec) = target(&args, step, model.layout(), config).await?;
    let replicas = spec.as_ref().map_or(Vec::new(), |spec| spec.checkpoint.replicas.clone());
    let spec = spec.map(|spec| spec.to_toml());
    let is_new = spec.is_some();
    if is_new && args.run.is_none() && !args.options.json {
        // If this process is killed, its user needs the id.
        let id = run.id();
        Printer::stderr().line(format!(
            "importing as run {id}; if it is interrupted, the same command with --run {id} continues it"
        ));
    }
    let who = format!("whimbrel checkpoint import, process {}", std::process::id());
    let options = ImportOptions { step, samples, spec, start_term: args.take_over, who };

    let bytes = model.layout().bytes() as u64;
    let mut meter = Meter::new("importing", bytes, Audience::of(args.options.json), bars);
    let mut progress = |bytes| meter.advance(bytes);
    let limits = Limits { concurrency: AT_A_TIME, ..Limits::default() };
    let work = async {
        let result = interop::import(&run, model.clone(), &options, &limits, &mut progress).await;
        result.map_err(|error| {
            let left = is_new.then(|| left_of(&run, &error)).flatten();
            let failure = Failure::from(error);
            left.into_iter().fold(failure, Failure::hint)
        })
    };
    let result = unless_interrupted(work, "no checkpoint was made; what is saved stays").await;
    meter.finish();
    let result = result.map_err(|failure| match failure.code() {
        Code::Stopped if is_new => failure.hint(go_on(&run)),
        Code::Stopped => failure.hint("the same command continues it"),
        _ => failure,
    })?;

    let beside = Some(args.folder.join(SPEC)).filter(|beside| beside.is_file());
    let spec = args.spec.or(beside).unwrap_or_else(|| SPEC.into()).display().to_string();
    let next = format!("whimbrel run {} --resume {}", shell::word(&spec), shell::word(run.uri()));
    let (state, tensors) = (result.state, model.layout().tensors().len());
    let made = Imported { run: &run, step, state, tensors, bytes, replicas: &replicas, next };
    imported(&made, args.options.json);
    Ok(Code::Done)
}

/// The number that is given, or else the one in the metadata of the folder.
fn number(
    folder: &Path,
    model: &Model,
    key: &'static str,
    given: Option<u64>,
) -> Result<Option<u64>, Failure> {
    let stored = || {
        let value = model.metadata().get(key)?;
        let (folder, wrong) = (folder.to_owned(), value.clone());
        let wrong = |_| ImportInputError::Number { folder, key, value: wrong };
        Some(value.parse().map_err(wrong).map_err(Failure::bad_input))
    };
    match given {
        Some(number) => Ok(Some(number)),
        None => stored().transpose(),
    }
}

/// The run to which the state after `step` is added; and its spec if the run is to be created.
async fn target(
    args: &ImportArgs,
    step: u64,
    layout: &Layout,
    config: &ClientConfig,
) -> Result<(RunDir, Option<RunSpec>), Failure> {
    if let Some((run, run_log)) = existing(args, config).await? {
        let flags = [
            ("--spec", args.spec.is_some()),
            ("--set", !args.overrides.set.is_empty()),
            ("--unset", !args.overrides.unset.is_empty()),
            ("--run", args.run.is_some()),
        ];
        if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given) {
            let error = ImportInputError::HasIts { run: run.uri().to_owned(), flag };
            return Err(Failure::bad_input(error));
        }
        // A spec that this version does not understand is reported when the run is resumed.
        if let Ok(spec) = RunSpec::parse("the run's spec", run_log.spec(), &[]) {
            check_end(step, &spec)?;
        }
        if let Some(newest) = run_log.newest_checkpoint()
            && let Ok(manifest) = run.manifest(&newest.manifest).await
        {
            manifest.layout.same_as(layout).map_err(|source| {
                let (run, folder, step) = (run.uri().to_owned(), args.folder.clone(), newest.step);
                let error = ImportInputError::OtherState { run, folder, step, source };
                Failure::bad_input(error).hint("import it into a store, as a new run")
            })?;
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
    let mut spec = spec_file::read(path, &args.overrides.all())?;
    check_end(step, &spec)?;
    let store = Store::open(&args.into)?;
    store.probe().await?;
    // The spec may come from another store, and name this one as a replica.
    let is_here = |uri: &str| Store::open(uri).is_ok_and(|replica| replica.uri() == store.uri());
    spec.checkpoint.replicas.retain(|uri| !is_here(uri));
    open_replicas(&store, &mut spec).await.map_err(|error| {
        Failure::from(error).hint(format!(
            "the replicas are those of {}; to import without any, add --set 'checkpoint.replicas=[]'",
            path.display()
        ))
    })?;
    let id = match &args.run {
        Some(id) => id.clone(),
        None => new_run_id(&spec.name).map_err(Failure::unexpected)?,
    };
    Ok((store.run(&id), Some(spec)))
}

/// Checks that the run does not end before `step`.
fn check_end(step: u64, spec: &RunSpec) -> Result<(), Failure> {
    let steps = spec.train.steps;
    if step <= steps {
        return Ok(());
    }
    let error = ImportInputError::PastItsEnd { step, steps };
    Err(Failure::bad_input(error).hint("give another --step; or a new run more steps, --set train.steps=N"))
}

/// What a failed import leaves of a new run, and how to go on; `None` if it leaves nothing.
fn left_of(run: &RunDir, error: &ImportError) -> Option<String> {
    match error {
        // It has no log: no command takes it for a run.
        ImportError::Model(_) | ImportError::Save(_) => {
            Some(format!("{}; to give up, delete that directory: it has no log and is no run", go_on(run)))
        }
        ImportError::Create(CreateError::Log(_)) => Some(go_on(run)),
        // Another process took the run over.
        ImportError::Commit(CommitError::Append(AppendError::Fenced { .. })) => None,
        ImportError::Term(_) | ImportError::Commit(_) => {
            Some(format!("{}, if --take-over is given too", go_on(run)))
        }
        ImportError::Append(_) => {
            Some(format!("its checkpoint is there: --resume {} continues from it", shell::word(run.uri())))
        }
        ImportError::Create(CreateError::Exists { .. })
        | ImportError::Ended { .. }
        | ImportError::Replica { .. }
        | ImportError::NotStopped { .. }
        | ImportError::Log(_) => None,
    }
}

fn go_on(run: &RunDir) -> String {
    format!("the same command with --run {} continues it, and skips what is saved in {}", run.id(), run.uri())
}

/// The named run and its log, if it exists.
async fn existing(args: &ImportArgs, config: &ClientConfig) -> Result<Option<(RunDir, RunLog)>, Failure> {
    let store = args.options.store.as_deref().or(config.store.as_deref());
    let named = match store {
        Some(store) if args.into.parse::<RunId>().is_ok() => open_run(&inside(store, &args.into)),
        _ => open_run(&args.into),
    };
    // What is not the URI of a run may be that of a store.
    let Ok((run, None)) = named else { return Ok(None) };
    match run.run_log().await {
        Ok(run_log) => Ok(Some((run, run_log))),
        Err(LogError::NoRun { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
