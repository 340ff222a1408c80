//! `whimbrel checkpoint export`.

use std::path::Path;

use indicatif::{HumanBytes, MultiProgress};
use serde::Serialize;
use whimbrel_spec::RunSpec;
use whimbrel_store::{
    Limits, Sources,
    interop::{self, FileLayout, Selection, SelectionError, key},
};

use super::{
    counted,
    interrupt::unless_interrupted,
    locate::find,
    meter::{Audience, Meter},
};
use crate::{
    args::checkpoint::{ExportArgs, Tensors},
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
};

#[derive(Serialize)]
struct Exported<'a> {
    run: &'a str,
    uri: String,
    step: u64,
    folder: &'a Path,
    files: Vec<&'a str>,
    tensors: usize,
    left_out: usize,
    bytes: u64,
}

/// `whimbrel checkpoint export`.
pub(super) async fn export(
    args: ExportArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let found = find(&args.run, &args.options, config).await?;
    let (layout, spec) = (&found.manifest.layout, found.run_log.spec());
    let selection = selection(args.tensors).map_err(Failure::bad_input)?;
    let mut metadata = vec![
        (key::RUN, found.run.id().to_string()),
        (key::STEP, found.manifest.step.to_string()),
        (key::SAMPLES, found.manifest.samples.to_string()),
    ];
    // The log of a run that another version submitted may hold a spec that this one does not understand.
    if let Ok(spec) = RunSpec::parse("the run's spec", spec, &[]) {
        metadata.push((key::SEED, spec.train.seed.to_string()));
    }
    let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let shards =
        FileLayout::new(layout, &selection, args.shard_size.0, metadata).map_err(Failure::bad_input)?;

    let mut meter = Meter::new("exporting", shards.bytes(), Audience::of(args.options.json), bars);
    let sources = Sources::new(found.run.clone());
    let from = (&sources, &found.manifest);
    let mut progress = |bytes| meter.advance(bytes);
    let (limits, folder) = (Limits::default(), args.folder.as_path());
    let work = interop::export(from, &shards, spec, folder, args.force, &limits, &mut progress);
    let exported = unless_interrupted(work, "the folder is as it was").await;
    meter.finish();
    exported?;

    let left_out = layout.tensors().len() - shards.tensors();
    let mut out = Printer::stdout();
    if args.options.json {
        out.json(&Exported {
            run: found.run.id().as_str(),
            uri: found.uri(),
            step: found.checkpoint.step,
            folder,
            files: shards.names().collect(),
            tensors: shards.tensors(),
            left_out,
            bytes: shards.bytes(),
        });
        return Ok(Code::Done);
    }
    let without = if left_out > 0 { format!(", {left_out} left out") } else { String::new() };
    out.line(format!(
        "{}: {}, {}{without}",
        found.uri(),
        counted(shards.tensors(), "tensor"),
        HumanBytes(shards.bytes())
    ));
    for name in shards.names().chain([interop::SPEC]) {
        out.line(format!("  {}", folder.join(name).display()));
    }
    Ok(Code::Done)
}

/// The tensors that are meant.
pub(super) fn selection(tensors: Tensors) -> Result<Selection, SelectionError> {
    Selection::new(&tensors.only, &tensors.without, tensors.rename)
}
