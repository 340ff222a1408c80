//! `whimbrel checkpoint copy`.

use std::{
    io::{self, BufRead, IsTerminal},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, MultiProgress};
use serde::Serialize;
use whimbrel_plan::RunId;
use whimbrel_store::{
    Amount, CheckpointSelection, Copied, CopyPlan, CopyProgress, Limits, LogError, Price, Prices, RunDir,
    Store, egress_price, open_run, plan_copy, shell, uri::parent,
};

use super::{
    counted, incomplete,
    interrupt::unless_interrupted,
    locate::locate,
    meter::{Audience, Meter},
};
use crate::{
    args::checkpoint::CopyArgs,
    config::Config,
    exit::{Code, Failure},
    print::Printer,
    screen::{self, words},
};

/// What costs less, in dollars, is not asked about.
const ASK_FROM: f64 = 1.0;

/// A copy that makes no sense, or was not wanted.
#[derive(Debug, thiserror::Error)]
enum CopyInputError {
    #[error("{uri:?} names a step, and --newest another; leave one of them out")]
    Both { uri: String },
    #[error("it was not agreed to; nothing was copied")]
    NotAgreed,
}

/// An event of a copy. The order of the fields is the order of the keys.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Plan {
        source: &'a str,
        destination: &'a str,
        /// The steps of all checkpoints that will be there.
        checkpoints: Vec<u64>,
        packs: usize,
        bytes: u64,
        packs_there: usize,
        bytes_there: u64,
        /// Dollars at most; null where nobody knows.
        usd: Option<f64>,
        price: String,
    },
    Checkpoint {
        step: u64,
    },
    Copied {
        destination: &'a str,
        checkpoints: &'a [u64],
        packs: usize,
        bytes: u64,
        seconds: f64,
        left_out: Vec<LeftOut>,
        source_went_on: bool,
    },
}

#[derive(Serialize)]
struct LeftOut {
    step: u64,
    why: String,
}

/// `whimbrel checkpoint copy`.
pub(super) async fn copy(args: CopyArgs, config: &Config, bars: &MultiProgress) -> Result<Code, Failure> {
    let prices = Prices::new(config.egress.clone())
        .map_err(|error| Failure::bad_input(error).hint("it stands under [egress] in the settings file"))?;
    let (source, step) = locate(&args.source, &args.options, &config.client)?;
    let which = match (step, args.newest) {
        (None, false) => CheckpointSelection::All,
        (None, true) => CheckpointSelection::Newest,
        (Some(step), false) => CheckpointSelection::Step(step),
        (Some(_), true) => return Err(Failure::bad_input(CopyInputError::Both { uri: args.source })),
    };
    let (store, destination) = destination(&args.destination, source.id()).await?;
    let plan = plan_copy(&source, &destination, which).await?;
    let price = egress_price(source.uri(), destination.uri(), plan.to_move.bytes, &prices);
    say(&plan, &price, args.options.json);
    if args.dry_run {
        return Ok(Code::Done);
    }
    let asks = price.usd() >= ASK_FROM && !args.yes && !args.options.json;
    if asks && io::stdin().is_terminal() && screen::on_terminal() && !agreed()? {
        return Err(Failure::bad_input(CopyInputError::NotAgreed));
    }
    store.probe().await?;

    let limits = limits(&args);
    let audience = if args.options.json { Audience::Programs } else { Audience::People };
    let mut meter = Meter::new("copying", plan.to_move.bytes, audience, bars);
    let mut out = Printer::stdout();
    let mut progress = |seen| match seen {
        CopyProgress::Moved { bytes } | CopyProgress::Found { bytes } | CopyProgress::Bad { bytes, .. } => {
            meter.advance(bytes);
        }
        CopyProgress::Committed { step } if args.options.json => out.json(&Event::Checkpoint { step }),
        CopyProgress::Committed { .. } => {}
    };
    let started = Instant::now();
    let was_there = plan.checkpoints.iter().any(|planned| planned.committed);
    let who = format!("whimbrel checkpoint copy, process {}", std::process::id());
    let work = Box::pin(plan.execute(&who, &limits, &mut progress));
    let left = "what has arrived stays, and the same command goes on from there";
    let copied = unless_interrupted(work, left).await;
    meter.finish();
    let copied = copied?;
    let time = started.elapsed();
    let next = Next {
        usable: was_there || !copied.committed.is_empty(),
        // What cannot be read just now is no reason to say nothing.
        resumable: destination.run_log().await.map_or(true, |run_log| run_log.ended().is_none()),
    };
    report(&destination, &copied, next, time, args.options.json);
    Ok(incomplete(copied.skipped.iter().map(|left_out| left_out.why.is_damage())))
}

fn limits(args: &CopyArgs) -> Limits {
    let usual = Limits::default();
    Limits {
        concurrency: args.concurrency.map_or(usual.concurrency, |number| number.get()),
        bandwidth: args.bandwidth.map(|rate| rate.bytes_per_second()),
        ..usual
    }
}

/// The store and the run's directory in it: the one that is named, or that of the run's own name in the store that is.
async fn destination(uri: &str, run: &RunId) -> Result<(Store, RunDir), Failure> {
    if let Some((store, name)) = parent(uri)
        && name == run.as_str()
    {
        let store = Store::open(&store)?;
        let directory = store.run(run);
        return Ok((store, directory));
    }
    // The directory of another run is no store: that the names differ is then said.
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

/// Says what will move, and what that costs.
fn say(plan: &CopyPlan, price: &Price, json: bool) {
    let steps = || plan.checkpoints.iter().rev().map(|planned| planned.checkpoint.step).collect::<Vec<_>>();
    let (source, destination) = (plan.source().uri(), plan.destination().uri());
    let mut out = Printer::stdout();
    if json {
        let (to_move, there) = (plan.to_move, plan.there);
        out.json(&Event::Plan {
            source,
            destination,
            checkpoints: steps(),
            packs: to_move.packs,
            bytes: to_move.bytes,
            packs_there: there.packs,
            bytes_there: there.bytes,
            usd: (!matches!(price, Price::Unknown)).then(|| price.usd()),
            price: price.to_string(),
        });
        return;
    }
    let there = plan.checkpoints.iter().filter(|planned| planned.committed).count();
    let known = match there {
        0 => String::new(),
        1 => ", of which 1 is there".into(),
        _ => format!(", of which {there} are there"),
    };
    out.line(format!("{source}\n  to           {destination}"));
    out.line(format!("  checkpoints  {}{known}", listed(&steps())));
    out.line(format!("  to move      {}", amount(plan.to_move)));
    if plan.there.packs > 0 {
        out.line(format!("  there        {}", amount(plan.there)));
    }
    out.line(format!("  price        {price}"));
    for out_of in &plan.skipped {
        out.line(format!("  left out     step {}: {}", out_of.step, out_of.why));
    }
}

/// What can be done with a copy.
#[derive(Clone, Copy)]
struct Next {
    /// There is a checkpoint in it.
    usable: bool,
    /// The run has not ended.
    resumable: bool,
}

/// Says what was copied, and how to go on with it.
fn report(destination: &RunDir, copied: &Copied, next: Next, time: Duration, json: bool) {
    let uri = destination.uri();
    let mut out = Printer::stdout();
    if json {
        let left_out =
            |out: &whimbrel_store::SkippedCheckpoint| LeftOut { step: out.step, why: out.why.to_string() };
        out.json(&Event::Copied {
            destination: uri,
            checkpoints: &copied.committed,
            packs: copied.moved.packs,
            bytes: copied.moved.bytes,
            seconds: time.as_secs_f64(),
            left_out: copied.skipped.iter().map(left_out).collect(),
            source_went_on: copied.source_went_on,
        });
        return;
    }
    let rate = copied.moved.bytes as f64 / time.as_secs_f64().max(1e-3);
    match copied.committed.as_slice() {
        [] if copied.moved.packs == 0 && !copied.skipped.is_empty() => out.line("nothing was copied"),
        [] if copied.moved.packs == 0 => out.line("nothing to copy: it is all there"),
        steps => {
            let (moved, time) = (amount(copied.moved), words::time(time));
            out.line(format!("copied {}: {moved} in {time}, {}/s", listed(steps), HumanBytes(rate as u64)));
        }
    }
    for left_out in &copied.skipped {
        out.line(format!("left out: the checkpoint after step {}: {}", left_out.step, left_out.why));
    }
    if copied.source_went_on {
        out.line("the run has saved more since the copy was planned: the same command copies that, too");
    }
    if !next.usable {
        return;
    }
    let pasted = shell::word(uri);
    out.line("next:");
    out.line(format!("  whimbrel checkpoint verify {pasted}"));
    if next.resumable {
        out.line(format!("  whimbrel run run.toml --resume {pasted}"));
    }
}

fn amount(amount: Amount) -> String {
    format!("{}, {}", counted(amount.packs, "pack"), HumanBytes(amount.bytes))
}

/// `3 checkpoints, after steps 20 to 60`
fn listed(steps: &[u64]) -> String {
    match (steps, steps.iter().min(), steps.iter().max()) {
        ([step], ..) => format!("the checkpoint after step {step}"),
        (_, Some(first), Some(last)) => {
            format!("{} checkpoints, after steps {first} to {last}", steps.len())
        }
        _ => "no checkpoint".into(),
    }
}

/// Asks; only yes is yes.
fn agreed() -> Result<bool, Failure> {
    Printer::stderr().text("Copy them? [y/N] ");
    let mut line = String::new();
    // Nothing else goes on yet, and Ctrl-C still ends the program.
    io::stdin().lock().read_line(&mut line).map_err(Failure::unexpected)?;
    Ok(["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()))
}
