//! `whimbrel cancel`.

use crate::{
    args::client::CancelArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    output,
};

/// Asks the coordinator to end a run for good. Does not wait for that.
pub(super) async fn cancel(args: CancelArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let run = &args.run;
    Client::open(args.access, config).await?.cancel(run).await?;
    output::runs::asked(run, "cancel", &format!("{run} is being cancelled"), args.json);
    Ok(Code::Done)
}
