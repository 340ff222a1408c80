//! `whimbrel checkpoint collect`.

use whimbrel_spec::{Every, Keep, RunSpec};
use whimbrel_store::{KeepEvery, ReplicaOf, Retention, RunDir, RunLog, Term, collectable, open_run, shell};

use super::{
    exit_code,
    locate::{locate_run, read_log},
};
use crate::{
    args::checkpoint::CollectArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    output::checkpoint::collect as output,
};

/// A run in which nothing may be collected.
#[derive(Debug, thiserror::Error)]
enum CollectInputError {
    #[error(
        "run {run} is not stopped, and only the holder of its term may delete; the coordinator that runs it, if there is one, collects by itself"
    )]
    NotStopped { run: String },
    #[error(
        "{run} is a replica of {source_uri}, which cannot be reached; collecting in a replica needs the log of the run itself"
    )]
    Replica { run: String, source_uri: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot read how many checkpoints to keep from the spec in the run log")]
    Spec(#[source] whimbrel_spec::Mistakes),
}

/// Deletes the checkpoints of a run that are not to be kept, and unreferenced packs; or says what it would delete.
pub(super) async fn collect(args: CollectArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let run = locate_run(&args.run, "`checkpoint collect`", &args.options, config)?;
    let run_log = read_log(&run).await?;
    let retention = retention(&args, &run_log)?;
    let collected = if args.dry_run {
        collectable(&run, &run_log, &retention).await?
    } else {
        let mut term = start_term(&run, &run_log, args.take_over).await?;
        whimbrel_store::collect(&mut term, &retention).await?
    };
    let all = run_log.all_checkpoints();
    let (deleted, kept): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|checkpoint| collected.checkpoints.contains(&checkpoint.manifest));
    let kept: Vec<u64> = kept.iter().map(|checkpoint| checkpoint.step).collect();
    output::collected(&run, &collected, deleted.len(), &kept, args.dry_run, args.options.json);
    Ok(exit_code(collected.unreadable.iter().map(|unreadable| unreadable.is_damaged)))
}

/// What to keep: as the flags say, or else the run's spec.
fn retention(args: &CollectArgs, run_log: &RunLog) -> Result<Retention, Failure> {
    let keep = match (args.keep, args.keep_every) {
        (Some(last), every) => Keep { last: last.get(), every },
        (None, every) => {
            let spec = RunSpec::parse("the run's spec", run_log.spec(), &[])
                .map_err(|error| Failure::bad_input(CollectInputError::Spec(error)).hint("give --keep N"))?;
            let keep = spec.checkpoint.keep;
            Keep { every: every.or(keep.every), ..keep }
        }
    };
    let every = keep.every.map(|every| match every {
        Every::Steps(steps) => KeepEvery::Steps(steps),
        Every::Time(time) => KeepEvery::Time(time),
    });
    Ok(Retention { last: keep.last, every, grace: args.grace, in_flight: Vec::new() })
}

/// Starts the term that may delete. In a replica it starts a replica's term: a plain term would make the replica the run
/// itself.
async fn start_term(run: &RunDir, run_log: &RunLog, take_over: bool) -> Result<Term, Failure> {
    let who = format!("whimbrel checkpoint collect, process {}", std::process::id());
    if let Some(ReplicaOf { source, .. }) = run_log.replica_of() {
        let lost = |error: Box<dyn std::error::Error + Send + Sync>| {
            let (at, source_uri) = (run.uri().to_owned(), source.clone());
            Failure::unreachable(CollectInputError::Replica { run: at, source_uri, source: error }).hint(
                format!(
                    "`whimbrel run run.toml --resume {}` makes it the run itself",
                    shell::word(run.uri())
                ),
            )
        };
        let (source, _) = open_run(source).map_err(|error| lost(error.into()))?;
        let source_log = source.run_log().await.map_err(|error| lost(error.into()))?;
        return Ok(run.become_replica_of(&source, &source_log, &who).await?);
    }
    if run_log.stopped().is_none() && run_log.ended().is_none() && !take_over {
        let error = CollectInputError::NotStopped { run: run.uri().to_owned() };
        return Err(Failure::bad_input(error)
            .hint("stop it first; or give --take-over if no coordinator runs it any more"));
    }
    Ok(run.start_term(&who).await?)
}
