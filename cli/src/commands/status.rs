//! `whimbrel status`.

use crate::{
    args::client::StatusArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    output,
};

/// Shows the status of a run and its workers.
pub(super) async fn status(args: StatusArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let status = Client::open(args.access, config).await?.get(&args.run).await?;
    output::runs::one(&status, args.json);
    Ok(Code::Done)
}
