//! `whimbrel checkpoint diff`.

use indicatif::MultiProgress;
use whimbrel_store::{Limits, Sources, diff::DiffPlan};

use super::locate::find;
use crate::{
    args::checkpoint::DiffArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    output::{
        checkpoint::diff::difference,
        meter::{Audience, Meter},
    },
    signals::unless_interrupted,
};

/// Compares two checkpoints, tensor by tensor.
pub(super) async fn diff(
    args: DiffArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let a = find(&args.a, &args.options, config).await?;
    let b = find(&args.b, &args.options, config).await?;
    let plan = DiffPlan::new(&a.manifest, &b.manifest);
    let mut meter = Meter::new("comparing", plan.bytes(), Audience::of(args.options.json), bars);
    let (in_a, in_b) = (Sources::new(a.run.clone()), Sources::new(b.run.clone()));
    let (from_a, from_b) = ((&in_a, &a.manifest), (&in_b, &b.manifest));
    let mut progress = |bytes| meter.advance(bytes);
    let limits = Limits::default();
    let work = plan.execute(from_a, from_b, &limits, &mut progress);
    let found = unless_interrupted(work, "no difference was found yet").await;
    meter.finish();
    let found = found?;
    difference(&a.uri(), &b.uri(), &found, args.options.json);
    Ok(if found.is_none() { Code::Done } else { Code::Failed })
}
