//! `whimbrel submit`.

use indicatif::MultiProgress;
use serde_json::json;
use whimbrel_proto::v1::submit_request::What;

use super::watch;
use crate::{
    args::client::SubmitArgs,
    client::Client,
    config::ClientConfig,
    exit::{Code, Failure},
    output::{self, print::Printer},
    spec_file::{self, Program},
};

/// Submits a run to a coordinator, or resumes one there; watches it if asked to.
pub(super) async fn submit(
    args: SubmitArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let what = match (&args.spec, args.resume) {
        // Mistakes in the spec are reported before the coordinator is called.
        (Some(path), _) => {
            let overrides = args.program.overrides().map_err(Failure::unexpected)?;
            let spec = Program::read(path, &args.program.arguments, &overrides)?.spec;
            if let Some(file) = &args.program.save_spec {
                spec_file::save(file, &spec)?;
                return Ok(Code::Done);
            }
            What::Spec(spec.to_toml())
        }
        (None, Some(run)) => What::Resume(run),
        (None, None) => return Err(Failure::bad_input("name a run spec, or a run with --resume")),
    };
    let flags = args.access.repeated();
    let mut client = Client::open(args.access, config).await?;
    let submitted = client.submit(what).await?;
    if args.watch {
        let mut screen = output::open_screen(args.json, bars);
        return watch::to_the_end(client, submitted.run, &flags, screen.as_mut()).await;
    }
    let (run, uri) = (&submitted.run, &submitted.uri);
    let mut out = Printer::stdout();
    if args.json {
        out.json(&json!({"run": run, "uri": uri, "step": submitted.step}));
    } else {
        out.line(format!(
            "{run}\n  {uri}\nnext:\n  whimbrel watch {run}{flags}\n  whimbrel logs {run} --follow{flags}"
        ));
    }
    Ok(Code::Done)
}
