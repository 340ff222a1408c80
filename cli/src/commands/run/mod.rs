//! `whimbrel run`: a whole run on this machine, from the spec to the end.
//!
//! The coordinator and the agent run in this process and are called over gRPC like any others; the workers are processes
//! of their own.
//!
//! - [`unfinished`] finds the runs that may be resumed, [`resume`] decides whether one is;
//! - [`run_lock`] keeps two commands from running the same run;
//! - [`host`] holds the coordinator and the agent.

mod host;
mod resume;
mod run_lock;
mod unfinished;

use std::num::NonZero;

use futures::{StreamExt, stream::FuturesUnordered};
use indicatif::MultiProgress;
use tonic::Code as GrpcCode;
use whimbrel_plan::RunId;
use whimbrel_proto::{
    v1::{EndedEvent, SubmitResponse, submit_request::What},
    with_causes,
};
use whimbrel_spec::{Override, RunSpec};
use whimbrel_store::{Store, open_run, shell};

use self::{
    host::Host,
    resume::{Request, Start, decide},
    run_lock::RunLock,
};
use super::watch;
use crate::{
    args::run::RunArgs,
    client::{Client, ClientError, Watch},
    config::ClientConfig,
    exit::{Code, Failure},
    output::{self, screen::Screen},
    signals::Signals,
    spec_file::{self, Program},
};

/// The store of a script's run, if neither the user nor the script names one: a folder in the working directory.
const SCRIPT_STORE: &str = "runs";

/// Runs a spec until the run ends or the user stops it.
pub(crate) async fn run(args: RunArgs, config: &ClientConfig, bars: &MultiProgress) -> Result<Code, Failure> {
    let mut program = Program::read(&args.spec, &args.program.arguments, &overrides(&args)?)?;
    if let Some(file) = &args.program.save_spec {
        let store = store_uri(&args, &program.spec, config)?.to_owned();
        program.spec.checkpoint.store = Some(store);
        spec_file::save(file, &program.spec)?;
        return Ok(Code::Done);
    }
    program.check_interpreter(&args.spec).await?;
    let spec = program.spec;
    let (store, request) = destination(&args, &spec, config)?;
    store.probe().await?;
    let start = decide(&store, &spec, request, !args.json).await?;
    let lock = match &start {
        Start::New => None,
        Start::Resume(run) => Some(lock(&store, run)?),
    };

    let mut screen = output::open_screen(args.json, bars);
    let mut signals = Signals::new().map_err(Failure::unexpected)?;
    let mut host = Host::start(store.clone(), spec.workers.local).await?;
    let mut client = Client::connect(host.access()).await?;
    let what = match start {
        Start::New => What::Spec(spec.to_toml()),
        Start::Resume(run) => What::Resume(run.to_string()),
    };
    let submitted = tokio::select! {
        submitted = client.submit(what) => submitted,
        () = signals.next() => {
            screen.note("stopping at once, before the run has begun");
            host.abort().await;
            return Ok(Code::Stopped);
        }
    };
    let SubmitResponse { run, .. } = submitted?;
    let _lock = match lock {
        Some(lock) => lock,
        None => self::lock(&store, &run.parse().map_err(Failure::unexpected)?)?,
    };

    let mut watch = Watch::new(client.clone(), run.clone());
    let ended = match follow(&mut host, &client, &run, &mut watch, &mut signals, screen.as_mut()).await {
        Ok(Some(ended)) => {
            let slow = || screen.note("waiting for the workers' programs to end; Ctrl-C ends them at once");
            host.stop(spec.workers.leave_timeout, signals.next(), slow).await;
            ended
        }
        Ok(None) => {
            host.abort().await;
            aborted(&store, &run, &watch).await
        }
        Err(failure) => {
            host.abort().await;
            return Err(failure.hint("the same command resumes the run from its last checkpoint"));
        }
    };
    let (spec_path, name) = (args.spec.display().to_string(), name(&args, &store, &run)?);
    // A spec file is read again as it is; a script may be nothing without its flags.
    let flags = if spec_file::is_script(&args.spec) { args.program.repeated() } else { String::new() };
    let again = format!("whimbrel run {} --resume {}{flags}", shell::word(&spec_path), shell::word(&name));
    screen.end(&ended, &watch::next_commands(watch.uri(), &ended, &again, spec.try_next.as_deref()));
    drop(screen);
    watch::outcome(&run, ended)
}

/// The name by which the user resumes the run: its id if the spec file names the store, or else its URI.
fn name(args: &RunArgs, store: &Store, run: &str) -> Result<String, Failure> {
    let by_uri = matches!(&args.resume, Some(Some(run)) if run.contains('/'));
    let changes_store = |change: &Override| change.concerns("checkpoint.store");
    if !by_uri && args.store.is_none() && !args.program.changes.all().iter().any(changes_store) {
        return Ok(run.to_owned());
    }
    Ok(store.run(&run.parse().map_err(Failure::unexpected)?).uri().to_owned())
}

/// The end of a run whose coordinator was aborted. Its log tells whether the run had ended while its replicas were
/// behind.
async fn aborted(store: &Store, run: &str, watch: &Watch) -> EndedEvent {
    let Ok(id) = run.parse() else { return watch.abandoned() };
    match store.run(&id).run_log().await {
        Ok(run_log) => run_log.ended().map_or_else(|| watch.abandoned(), |ended| watch.left_behind(ended)),
        Err(error) => {
            tracing::warn!(
                run,
                error = with_causes(&error),
                "cannot read the run log: whether the run has ended is not known"
            );
            watch.abandoned()
        }
    }
}

/// Shows the run until it ends. The first signal stops the run; at the second this returns `None`.
async fn follow(
    host: &mut Host,
    client: &Client,
    run: &str,
    watch: &mut Watch,
    signals: &mut Signals,
    screen: &mut dyn Screen,
) -> Result<Option<EndedEvent>, Failure> {
    let mut stops = FuturesUnordered::new();
    let mut asked = false;
    loop {
        tokio::select! {
            update = watch.next() => {
                if let Some(ended) = watch::show(update?, screen) {
                    return Ok(Some(ended));
                }
            }
            () = signals.next() => {
                if asked {
                    screen.note("stopping at once");
                    return Ok(None);
                }
                asked = true;
                screen.note("stopping when all is saved; press Ctrl-C again to stop at once");
                stops.push(stop(client.clone(), run));
            }
            Some(stopped) = stops.next() => stopped?,
            failure = host.failed() => return Err(failure),
        }
    }
}

async fn stop(mut client: Client, run: &str) -> Result<(), ClientError> {
    match client.stop(run).await {
        // The run has just ended, and its end is on the way.
        Err(error) if error.is(GrpcCode::FailedPrecondition) => Ok(()),
        other => other,
    }
}

/// The changes to the spec, and `--workers` as one more, so that the spec's own checks apply to it.
fn overrides(args: &RunArgs) -> Result<Vec<Override>, Failure> {
    let mut overrides = args.program.overrides().map_err(Failure::unexpected)?;
    if let Some(workers) = args.workers.map(NonZero::get) {
        let workers = Override::flag("--workers", "workers.local", workers.into());
        overrides.push(workers.map_err(Failure::unexpected)?);
    }
    Ok(overrides)
}

/// The store, and what the user asked for. The URI of a run names its store too.
fn destination(args: &RunArgs, spec: &RunSpec, config: &ClientConfig) -> Result<(Store, Request), Failure> {
    let request = match (&args.resume, args.new) {
        (Some(Some(run)), _) if run.contains('/') => return named_by_uri(run),
        (Some(Some(run)), _) => Request::Id(run.parse().map_err(Failure::bad_input)?),
        (Some(None), _) => Request::Newest,
        (None, true) => Request::New,
        (None, false) => Request::Either,
    };
    Ok((Store::open(store_uri(args, spec, config)?)?, request))
}

fn store_uri<'a>(args: &'a RunArgs, spec: &'a RunSpec, config: &'a ClientConfig) -> Result<&'a str, Failure> {
    let configured = [args.store.as_ref(), spec.checkpoint.store.as_ref(), config.store.as_ref()];
    match configured.into_iter().flatten().next() {
        Some(uri) => Ok(uri),
        None if spec_file::is_script(&args.spec) => Ok(SCRIPT_STORE),
        None => Err(Failure::bad_input("no store is named for the run's directory")
            .hint("add store = \"runs\" under [checkpoint] of the spec, or give --store URI")),
    }
}

fn named_by_uri(uri: &str) -> Result<(Store, Request), Failure> {
    let (run, step) = open_run(uri)?;
    if step.is_some() {
        let error = format!(
            "{uri:?} names a step, but a run resumes from its newest checkpoint; leave out the @ and the step"
        );
        return Err(Failure::bad_input(error));
    }
    Ok((Store::open(&run.store_uri())?, Request::Uri(run.id().clone())))
}

fn lock(store: &Store, run: &RunId) -> Result<RunLock, Failure> {
    RunLock::take(store.run(run).uri()).ok_or_else(|| {
        Failure::bad_input(format!("run {run} is being run by another whimbrel on this machine"))
    })
}
