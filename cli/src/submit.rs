//! `whimbrel submit`.

use serde::Serialize;
use whimbrel_proto::v1::submit_request::What;

use crate::{
    args::client::SubmitArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
    screen, spec_file, watch,
};

#[derive(Serialize)]
struct Submitted<'a> {
    run: &'a str,
    uri: &'a str,
    step: u64,
}

/// Hands a run to a coordinator; watches it, if that is wanted.
pub(crate) async fn submit(
    args: SubmitArgs,
    config: &ClientConfig,
    bars: &indicatif::MultiProgress,
) -> Result<Code, Failure> {
    let what = match (&args.spec, args.resume) {
        // Its mistakes are told before anybody is called.
        (Some(path), _) => What::Spec(spec_file::read(path, &args.set)?.to_toml()),
        (None, Some(run)) => What::Resume(run),
        (None, None) => return Err(Failure::bad_input("name a run spec, or a run with --resume")),
    };
    let flags = args.access.repeated();
    let mut client = Client::open(args.access, config).await?;
    let submitted = client.submit(what).await?;
    if args.watch {
        let mut screen = screen::open(args.json, bars);
        return watch::to_the_end(client, submitted.run, &flags, screen.as_mut()).await;
    }
    let (run, uri) = (&submitted.run, &submitted.uri);
    let mut out = Printer::stdout();
    if args.json {
        out.json(&Submitted { run, uri, step: submitted.step });
    } else {
        out.line(format!(
            "{run}\n  {uri}\nnext:\n  whimbrel watch {run}{flags}\n  whimbrel logs {run} --follow{flags}"
        ));
    }
    Ok(Code::Done)
}
