//! `whimbrel run`: a whole run on this machine, from the spec to the end.
//!
//! Coordinator and agent live in this process and are spoken to over gRPC like any others; only the workers are
//! processes of their own. [`choice`] decides whether an unfinished run is taken up, [`mod@claim`] keeps two commands from
//! taking up the same one, [`host`] is the coordinator and the agent.

mod choice;
mod claim;
mod host;

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
    choice::{Choice, Wish},
    claim::Claim,
    host::Host,
};
use crate::{
    args::run::RunArgs,
    client::{Client, ClientError},
    config::ClientConfig,
    exit::{Code, Failure},
    screen::{self, Screen},
    signals::Signals,
    spec_file,
    watch::{self, Watch},
};

/// Runs a spec to its end, or to the user's.
pub(crate) async fn run(args: RunArgs, config: &ClientConfig, bars: &MultiProgress) -> Result<Code, Failure> {
    let spec = spec_file::read(&args.spec, &overrides(&args)?)?;
    let (store, wish) = destination(&args, &spec, config)?;
    store.probe().await?;
    let choice = choice::choose(&store, &spec, wish, !args.json).await?;
    let claim = match &choice {
        Choice::New => None,
        Choice::Resume(run) => Some(claim(&store, run)?),
    };

    let mut screen = screen::open(args.json, bars);
    let mut signals = Signals::new().map_err(Failure::unexpected)?;
    let mut host = Host::start(store.clone(), spec.workers.local).await?;
    let mut client = Client::connect(host.access()).await?;
    let what = match choice {
        Choice::New => What::Spec(spec.to_toml()),
        Choice::Resume(run) => What::Resume(run.to_string()),
    };
    let submitted = tokio::select! {
        submitted = client.submit(what) => submitted,
        () = signals.next() => {
            screen.note("stopping at once, before the run has begun");
            host.abandon().await;
            return Ok(Code::Stopped);
        }
    };
    let SubmitResponse { run, .. } = submitted?;
    let _claim = match claim {
        Some(claim) => claim,
        None => self::claim(&store, &run.parse().map_err(Failure::unexpected)?)?,
    };

    let mut watch = Watch::new(client.clone(), run.clone());
    let ended = match attend(&mut host, &client, &run, &mut watch, &mut signals, screen.as_mut()).await {
        Ok(Some(ended)) => {
            host.leave().await;
            ended
        }
        Ok(None) => {
            host.abandon().await;
            left(&store, &run, &watch).await
        }
        Err(failure) => {
            host.abandon().await;
            return Err(failure.hint("the same command takes the run up from its last checkpoint"));
        }
    };
    let (spec_path, name) = (args.spec.display().to_string(), name(&args, &store, &run)?);
    let again = format!("whimbrel run {} --resume {}", shell::word(&spec_path), shell::word(&name));
    screen.end(&ended, &watch.next_commands(&ended, &again, spec.try_next.as_deref()));
    drop(screen);
    watch::outcome(&run, ended)
}

/// How the user names a run that is to be taken up again: by its id where the spec in its file says which store it is
/// in.
fn name(args: &RunArgs, store: &Store, run: &str) -> Result<String, Failure> {
    let by_uri = matches!(&args.resume, Some(Some(run)) if run.contains('/'));
    let set_by_flag = |set: &Override| set.to_string().starts_with("checkpoint.store");
    if !by_uri && args.store.is_none() && !args.set.iter().any(set_by_flag) {
        return Ok(run.to_owned());
    }
    Ok(store.run(&run.parse().map_err(Failure::unexpected)?).uri().to_owned())
}

/// How the run stands that was left at once: it may have ended, and its replicas be behind, which its log tells.
async fn left(store: &Store, run: &str, watch: &Watch) -> EndedEvent {
    let Ok(id) = run.parse() else { return watch.abandoned() };
    match store.run(&id).run_log().await {
        Ok(run_log) => run_log.ended().map_or_else(|| watch.abandoned(), |ended| watch.left_behind(ended)),
        Err(error) => {
            tracing::warn!(
                run,
                error = with_causes(&error),
                "its log cannot be read: whether it has ended is not known"
            );
            watch.abandoned()
        }
    }
}

/// Shows the run until it ends. The first signal has it stopped; at the second there is no end to tell of.
async fn attend(
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
            seen = watch.next() => {
                if let Some(ended) = seen?.show(screen) {
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
        // It has ended just now: the end is on its way.
        Err(error) if error.is(GrpcCode::FailedPrecondition) => Ok(()),
        other => other,
    }
}

/// `--set`, and `--workers` as one more of them, so that the spec's own checks apply.
fn overrides(args: &RunArgs) -> Result<Vec<Override>, Failure> {
    let mut overrides = args.set.clone();
    if let Some(workers) = args.workers.map(NonZero::get) {
        overrides.push(format!("workers.local={workers}").parse().map_err(Failure::unexpected)?);
    }
    Ok(overrides)
}

/// The store, and what to do about unfinished runs in it. A run resumed by its URI brings its own store.
fn destination(args: &RunArgs, spec: &RunSpec, config: &ClientConfig) -> Result<(Store, Wish), Failure> {
    let wish = match (&args.resume, args.new) {
        (Some(Some(run)), _) if run.contains('/') => return named_by_uri(run),
        (Some(Some(run)), _) => Wish::Run(run.parse().map_err(Failure::bad_input)?),
        (Some(None), _) => Wish::Newest,
        (None, true) => Wish::New,
        (None, false) => Wish::Any,
    };
    let places = [args.store.as_ref(), spec.checkpoint.store.as_ref(), config.store.as_ref()];
    let Some(uri) = places.into_iter().flatten().next() else {
        let error = "no store is named: the run's directory has no place to go";
        return Err(Failure::bad_input(error)
            .hint("add store = \"runs\" under [checkpoint] of the spec, or give --store URI"));
    };
    Ok((Store::open(uri)?, wish))
}

fn named_by_uri(uri: &str) -> Result<(Store, Wish), Failure> {
    let (run, step) = open_run(uri)?;
    if step.is_some() {
        let error =
            format!("{uri:?} names a step, and a run is resumed from its newest checkpoint; leave the @ out");
        return Err(Failure::bad_input(error));
    }
    Ok((Store::open(&run.store_uri())?, Wish::At(run.id().clone())))
}

fn claim(store: &Store, run: &RunId) -> Result<Claim, Failure> {
    Claim::take(store.run(run).uri()).ok_or_else(|| {
        Failure::bad_input(format!("run {run} is being run by another whimbrel on this machine"))
    })
}
