//! `whimbrel checkpoint collect`.

use indicatif::HumanBytes;
use serde::Serialize;
use whimbrel_spec::{Every, Keep, RunSpec};
use whimbrel_store::{
    Collected, KeepEvery, ReplicaOf, Retention, RunDir, RunLog, Term, UnreadableManifest, collect,
    collectable, open_run, shell,
};

use super::{
    counted, incomplete,
    locate::{history_of, locate_run},
};
use crate::{
    args::checkpoint::CollectArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
};

/// A run that is not collected in.
#[derive(Debug, thiserror::Error)]
enum CollectInputError {
    #[error(
        "run {run} is not stopped, and only the holder of its term may delete: a coordinator that works on it collects by itself, and would be fenced by this"
    )]
    NotStopped { run: String },
    #[error("{run} is a replica of {source_uri}, which cannot be reached to say what it is a copy of")]
    Replica { run: String, source_uri: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the spec in the run's log cannot be read, and says how many checkpoints to keep")]
    Spec(#[source] whimbrel_spec::Mistakes),
}

/// What went, or would go.
#[derive(Serialize)]
struct Told<'a> {
    run: &'a str,
    deleted: bool,
    checkpoints: usize,
    packs: usize,
    bytes: u64,
    kept: Vec<u64>,
    unreadable: Vec<&'a str>,
}

/// `whimbrel checkpoint collect`.
pub(super) async fn collect_one(args: CollectArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let run = locate_run(&args.run, "`checkpoint collect`", &args.options, config)?;
    let run_log = history_of(&run).await?;
    let retention = retention(&args, &run_log)?;
    let collected = if args.dry_run {
        collectable(&run, &run_log, &retention).await?
    } else {
        let mut term = start_term(&run, &run_log, args.take_over).await?;
        collect(&mut term, &retention).await?
    };
    let (gone, kept): (Vec<_>, Vec<_>) = run_log
        .all_checkpoints()
        .into_iter()
        .partition(|checkpoint| collected.checkpoints.contains(&checkpoint.manifest));
    tell(&run, &collected, gone.len(), kept.iter().map(|checkpoint| checkpoint.step).collect(), &args);
    Ok(incomplete(collected.unreadable.iter().map(|unreadable| unreadable.is_damaged)))
}

/// What to keep: by the flags, and otherwise as the run's own spec says.
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

/// The right to delete. In a replica that is a replica's: a coordinator's own would say that the run goes on there.
async fn start_term(run: &RunDir, run_log: &RunLog, insist: bool) -> Result<Term, Failure> {
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
    if run_log.stopped().is_none() && run_log.ended().is_none() && !insist {
        let error = CollectInputError::NotStopped { run: run.uri().to_owned() };
        return Err(Failure::bad_input(error)
            .hint("stop it first; or give --take-over, if nobody works on it any more"));
    }
    Ok(run.start_term(&who).await?)
}

fn tell(run: &RunDir, collected: &Collected, checkpoints: usize, kept: Vec<u64>, args: &CollectArgs) {
    let mut out = Printer::stdout();
    if args.options.json {
        out.json(&Told {
            run: run.id().as_str(),
            deleted: !args.dry_run,
            checkpoints,
            packs: collected.packs,
            bytes: collected.bytes,
            kept,
            unreadable: collected.unreadable.iter().map(|unreadable| unreadable.manifest.as_str()).collect(),
        });
        return;
    }
    let verb = if args.dry_run { "would delete" } else { "deleted" };
    out.line(format!(
        "{}: {verb} {} and {}, {}",
        run.uri(),
        counted(checkpoints, "checkpoint"),
        counted(collected.packs, "pack"),
        HumanBytes(collected.bytes)
    ));
    let steps: Vec<String> = kept.iter().map(u64::to_string).collect();
    out.line(format!(
        "  kept        after step {}",
        if steps.is_empty() { "–".into() } else { steps.join(", ") }
    ));
    for UnreadableManifest { why, .. } in &collected.unreadable {
        out.line(format!("  unreadable  {why}; its packs are not known, so none went that might be its own"));
    }
}
