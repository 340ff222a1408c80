//! Runs scenarios on stores, as a process that the crash matrix can kill. Standard input has one line of JSON per
//! scenario: an array of the store's URI and the scenario. Standard output has a line `{"acknowledged": step}` for each
//! commit, then `{"outcome": …}`.

use std::io::{self, BufRead, Write};

use serde_json::json;
use whimbrel_e2e::scenario::{Scenario, run};

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let write = |line: serde_json::Value| {
        let mut output = io::stdout().lock();
        writeln!(output, "{line}").and_then(|()| output.flush())
    };
    for line in io::stdin().lock().lines() {
        let (uri, scenario): (String, Scenario) = serde_json::from_str(&line?)?;
        // An error means that the test has ended, and this process ends with it.
        let acknowledged = |step: u64| drop(write(json!({ "acknowledged": step })));
        let outcome = runtime.block_on(run(scenario, &uri, acknowledged));
        write(json!({ "outcome": outcome }))?;
    }
    Ok(())
}
