//! Plays acts on stores: a line `<store> <act>` on standard input for each, and on standard output `acknowledged <step>`
//! for each commit, then `done`, `failed <why>` or `broken <what>`.

use std::io::{self, BufRead, Write};

use whimbrel_e2e::story::{Act, Ending, play};

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let say = |line: String| {
        let mut output = io::stdout().lock();
        writeln!(output, "{line}").and_then(|()| output.flush())
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (uri, act) = line.split_once(' ').unwrap_or((&line, ""));
        let act: Act = act.parse()?;
        // Who does not hear of an acknowledgement has ended, and so does this.
        let ending = runtime.block_on(play(act, uri, |step| drop(say(format!("acknowledged {step}")))));
        say(match ending {
            // Only seen from outside.
            Ending::Died | Ending::Hung => continue,
            Ending::Done => "done".into(),
            Ending::Failed(why) => format!("failed {why}"),
            Ending::Broken(what) => format!("broken {what}"),
        })?;
    }
    Ok(())
}
