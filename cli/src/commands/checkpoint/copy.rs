//! `whimbrel checkpoint copy`.

use std::{
    io::{self, BufRead, IsTerminal},
    path::Path,
    time::Instant,
};

use indicatif::MultiProgress;
use whimbrel_plan::RunId;
use whimbrel_store::{
    CheckpointSelection, CopyProgress, Limits, LogError, Prices, RunDir, Store, egress_price, open_run,
    plan_copy, uri::parent,
};

use super::{exit_code, locate::locate};
use crate::{
    args::checkpoint::CopyArgs,
    config::Config,
    exit::{Code, Failure},
    output::{
        checkpoint::copy::{self as output, Next},
        meter::{Audience, Meter},
        print::Printer,
        terminal,
    },
    signals::unless_interrupted,
};

/// A copy that costs less, in dollars, starts without a question.
const ASK_FROM: f64 = 1.0;

/// A copy with contradicting arguments, or one that the user declined.
#[derive(Debug, thiserror::Error)]
enum CopyInputError {
    #[error("{uri:?} names a step, and --newest another; leave one of them out")]
    Both { uri: String },
    #[error("the copy was declined; nothing was copied")]
    NotAgreed,
}

/// Copies the checkpoints of a run to another store; first says what will move and what that costs.
pub(super) async fn copy(args: CopyArgs, config: &Config, bars: &MultiProgress) -> Result<Code, Failure> {
    let prices = Prices::new(config.egress.clone())
        .map_err(|error| Failure::bad_input(error).hint("it is set under [egress] of the settings file"))?;
    let (source, step) = locate(&args.source, &args.options, &config.client)?;
    let which = match (step, args.newest) {
        (None, false) => CheckpointSelection::All,
        (None, true) => CheckpointSelection::Newest,
        (Some(step), false) => CheckpointSelection::Step(step),
        (Some(_), true) => return Err(Failure::bad_input(CopyInputError::Both { uri: args.source })),
    };
    let (store, destination) = destination(&args.destination, source.id()).await?;
    let plan = plan_copy(&source, &destination, which).await?;
    let price = egress_price(source.uri(), destination.uri(), plan.work.to_move.bytes(), &prices);
    output::plan(&plan, &price, args.options.json);
    if args.dry_run {
        return Ok(Code::Done);
    }
    let asks = price.usd() >= ASK_FROM && !args.yes && !args.options.json;
    if asks && io::stdin().is_terminal() && terminal::on_terminal() && !confirmed()? {
        return Err(Failure::bad_input(CopyInputError::NotAgreed));
    }
    store.probe().await?;

    let limits = limits(&args);
    let audience = if args.options.json { Audience::Programs } else { Audience::People };
    let mut meter = Meter::new("copying", plan.work.to_move.bytes(), audience, bars);
    let mut progress = |seen| match seen {
        CopyProgress::Moved { bytes }
        | CopyProgress::Found { bytes }
        | CopyProgress::Bad { bytes, .. }
        | CopyProgress::Output { bytes } => meter.advance(bytes),
        CopyProgress::Committed { step, bytes } => {
            meter.advance(bytes);
            if args.options.json {
                output::committed(step);
            }
        }
    };
    let started = Instant::now();
    let was_there = plan.work.checkpoints.iter().any(|planned| planned.committed);
    let who = format!("whimbrel checkpoint copy, process {}", std::process::id());
    let work = Box::pin(plan.execute(&who, &limits, &mut progress));
    let left = "what has arrived stays, and the same command continues from there";
    let copied = unless_interrupted(work, left).await;
    meter.finish();
    let copied = copied?;
    let time = started.elapsed();
    let next = Next {
        usable: was_there || !copied.committed.is_empty(),
        // If the log cannot be read now, the run may well be resumable.
        resumable: destination.run_log().await.map_or(true, |run_log| run_log.ended().is_none()),
    };
    output::copied(&destination, &copied, next, time, args.options.json);
    Ok(exit_code(copied.skipped.iter().map(|left_out| left_out.why.is_damage())))
}

fn limits(args: &CopyArgs) -> Limits {
    let defaults = Limits::default();
    Limits {
        concurrency: args.concurrency.map_or(defaults.concurrency, |number| number.get()),
        bandwidth: args.bandwidth.map(|rate| rate.bytes_per_second()),
        ..defaults
    }
}

/// The store to copy to, and the run's directory in it. `uri` names that directory, or the store.
async fn destination(uri: &str, run: &RunId) -> Result<(Store, RunDir), Failure> {
    if let Some((store, name)) = parent(uri)
        && name == run.as_str()
    {
        let store = Store::open(&store)?;
        let directory = store.run(run);
        return Ok((store, directory));
    }
    // The directory of another run is no store; planning the copy reports that the names differ.
    if let Ok((other, None)) = open_run(uri)
        && (uri.contains("://") || Path::new(uri).is_dir())
    {
        match other.run_log().await {
            Ok(_) => return Ok((Store::open(uri)?, other)),
            Err(LogError::NoRun { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let store = Store::open(uri)?;
    let directory = store.run(run);
    Ok((store, directory))
}

/// Asks whether to copy. Any answer but yes is no.
fn confirmed() -> Result<bool, Failure> {
    Printer::stderr().text("Copy them? [y/N] ");
    let mut line = String::new();
    // Blocking is fine: no other task runs yet, and Ctrl-C still ends the program.
    io::stdin().lock().read_line(&mut line).map_err(Failure::unexpected)?;
    Ok(["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()))
}
