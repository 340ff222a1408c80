//! `whimbrel logs`.

use serde::Serialize;
use whimbrel_proto::v1::{LogLine, LogsRequest};

use crate::{
    args::client::LogsArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
};

#[derive(Serialize)]
struct Line<'a> {
    worker: &'a str,
    text: &'a str,
}

/// Prints what a run's workers and its setup printed, each line with its author.
pub(crate) async fn logs(args: LogsArgs, config: &ClientConfig) -> Result<Code, Failure> {
    let mut client = Client::open(args.access, config).await?;
    let request = LogsRequest { run: args.run.clone(), worker: args.worker, follow: args.follow };
    let mut lines = client.logs(request).await?;
    let broken = |status| client.broken(format!("go on reading the logs of run {}", args.run), status);
    let mut out = Printer::stdout();
    while let Some(LogLine { worker, text }) = lines.message().await.map_err(broken)? {
        let worker = if worker == 0 { "setup".to_owned() } else { format!("w{worker}") };
        if args.json {
            out.json(&Line { worker: &worker, text: &text });
        } else {
            out.line(format!("{worker:<5} | {text}"));
        }
    }
    Ok(Code::Done)
}
