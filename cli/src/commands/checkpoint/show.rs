//! `whimbrel checkpoint show`.

use super::locate::{Found, find};
use crate::{
    args::checkpoint::ShowArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    output::checkpoint::list,
};

/// Shows what a checkpoint holds, from its manifest and the run log.
pub(super) async fn show(args: ShowArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let Found { run, run_log, checkpoint, manifest } = find(&args.run, &args.options, config).await?;
    list::show(&run, &run_log, &checkpoint, &manifest, args.options.json);
    Ok(Code::Done)
}
