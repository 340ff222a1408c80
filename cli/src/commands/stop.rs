//! `whimbrel stop`.

use crate::{
    args::client::StopArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    output,
};

/// Asks the coordinator to save a checkpoint of a run and to stop it. Does not wait for that.
pub(super) async fn stop(args: StopArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let flags = args.access.repeated();
    let run = &args.run;
    Client::open(args.access, config).await?.stop(run).await?;
    let text = format!("{run} saves a checkpoint and stops; `whimbrel watch {run}{flags}` shows when it has");
    output::runs::asked(run, "stop", &text, args.json);
    Ok(Code::Done)
}
