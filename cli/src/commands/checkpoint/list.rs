//! `whimbrel checkpoint list`.

use super::{
    comparison,
    locate::{locate_run, read_log, recorded},
};
use crate::{
    args::checkpoint::ListArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    output::checkpoint::list,
};

/// Lists a run's checkpoints; compares its directory with another one if asked to.
pub(super) async fn list(args: ListArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let run = locate_run(&args.run, "`checkpoint list`", &args.options, config)?;
    let run_log = read_log(&run).await?;
    let comparison = match &args.against {
        Some(other) => {
            let other = locate_run(other, "--against", &args.options, config)?;
            Some(comparison::compare(&run, &run_log, &other).await?)
        }
        None => None,
    };
    let checkpoints = run_log.all_checkpoints();
    let checkpoints: Vec<_> = checkpoints.into_iter().map(|info| recorded(&run_log, info)).collect();
    list::list(&run, &run_log, &checkpoints, comparison.as_ref(), args.options.json);
    Ok(Code::Done)
}
