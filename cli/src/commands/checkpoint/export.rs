//! `whimbrel checkpoint export`.

use indicatif::MultiProgress;
use whimbrel_spec::RunSpec;
use whimbrel_store::{
    Limits, Sources,
    interop::{self, FileLayout, Selection, SelectionError, key},
};

use super::locate::find;
use crate::{
    args::checkpoint::{ExportArgs, Tensors},
    config::ClientConfig,
    exit::{Code, Failure},
    output::{
        checkpoint::interop::exported,
        meter::{Audience, Meter},
    },
    signals::unless_interrupted,
};

/// Writes a checkpoint as a folder of safetensors files.
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
    // A run that another version submitted may have a spec that this version does not understand.
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
    let written = unless_interrupted(work, "the folder is as it was").await;
    meter.finish();
    written?;

    let left_out = layout.tensors().len() - shards.tensors();
    exported(&found.run, found.manifest.step, folder, &shards, left_out, args.options.json);
    Ok(Code::Done)
}

/// The tensors that the flags select, and their new names.
pub(super) fn selection(tensors: Tensors) -> Result<Selection, SelectionError> {
    Selection::new(&tensors.only, &tensors.without, tensors.rename)
}
