//! Plays acts on stores: a line of JSON on standard input for each, an array of the store's URI and the act, and on
//! standard output `{"acknowledged": step}` for each commit, then `{"ending": …}`.

use std::io::{self, BufRead, Write};

use serde_json::json;
use whimbrel_e2e::story::{Act, play};

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let say = |line: serde_json::Value| {
        let mut output = io::stdout().lock();
        writeln!(output, "{line}").and_then(|()| output.flush())
    };
    for line in io::stdin().lock().lines() {
        let (uri, act): (String, Act) = serde_json::from_str(&line?)?;
        // Who does not hear of an acknowledgement has ended, and so does this.
        let acknowledged = |step: u64| drop(say(json!({ "acknowledged": step })));
        let ending = runtime.block_on(play(act, &uri, acknowledged));
        say(json!({ "ending": ending }))?;
    }
    Ok(())
}
