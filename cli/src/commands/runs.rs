//! `whimbrel runs`.

use crate::{
    args::client::RunsArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    output,
};

/// Lists the coordinator's runs.
pub(super) async fn runs(args: RunsArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let runs = Client::open(args.access, config).await?.list().await?;
    output::runs::list(&runs, args.json);
    Ok(Code::Done)
}
