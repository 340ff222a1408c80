//! `whimbrel logs`.

use serde_json::json;
use whimbrel_proto::v1::{LogLine, LogsRequest};

use crate::{
    args::client::LogsArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    output::{print::Printer, words},
};

/// Prints the output of a run's workers and of its `setup`, each line with the name of the process that wrote it.
pub(super) async fn logs(args: LogsArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let mut client = Client::open(args.access, config).await?;
    let request = LogsRequest { run: args.run.clone(), worker: args.worker, follow: args.follow };
    let mut lines = client.logs(request).await?;
    let broken = |status| client.broken(format!("go on reading the logs of run {}", args.run), status);
    let mut out = Printer::stdout();
    while let Some(LogLine { worker, text }) = lines.message().await.map_err(broken)? {
        let worker = if worker == 0 { "setup".to_owned() } else { words::worker(worker) };
        if args.json {
            out.json(&json!({"worker": worker, "text": text}));
        } else {
            out.line(format!("{worker:<5} | {text}"));
        }
    }
    Ok(Code::Done)
}
