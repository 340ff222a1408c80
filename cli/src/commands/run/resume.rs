//! Decides what `whimbrel run` starts: a new run, or an unfinished one.

use std::io::{self, BufRead, IsTerminal};

use whimbrel_plan::RunId;
use whimbrel_spec::RunSpec;
use whimbrel_store::{Store, shell};

use super::unfinished::{self, Unfinished};
use crate::{
    exit::Failure,
    output::{print::Printer, screen},
};

/// What the user asked for.
pub(super) enum Request {
    /// Neither flag: offer the newest unfinished run of this spec.
    Either,
    /// `--new`: a new run.
    New,
    /// `--resume`: the newest unfinished run of this spec.
    Newest,
    /// `--resume ID`: this run of the store, under its own spec.
    Id(RunId),
    /// `--resume URI`: the run in this directory. It may be a replica, since the URI names no other directory.
    Uri(RunId),
}

/// What to start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A new run.
    New,
    /// An unfinished run of the store.
    Resume(RunId),
}

/// There is nothing to resume.
#[derive(Debug, thiserror::Error)]
enum NothingToResume {
    #[error("there is no unfinished run of {name} in {store}")]
    None { name: String, store: String },
    #[error("run {run} in {store} is being run by another whimbrel on this machine")]
    Busy { run: RunId, store: String },
    #[error("run {run} in {store} was submitted with another spec")]
    Differs { run: RunId, store: String },
    #[error("run {run} in {store} is a replica of {source_uri}")]
    Replica { run: RunId, store: String, source_uri: String },
}

/// Decides what to start. Asks the user if `may_ask` and there is a terminal.
pub(super) async fn decide(
    store: &Store,
    spec: &RunSpec,
    request: Request,
    may_ask: bool,
) -> Result<Start, Failure> {
    match request {
        Request::New => return Ok(Start::New),
        Request::Uri(run) => return Ok(Start::Resume(run)),
        Request::Id(run) => return unless_replica(store, run).await,
        Request::Either | Request::Newest => {}
    }
    let found = unfinished::find(store, spec).await?;
    let mut err = Printer::stderr();
    let offer = found.iter().find(|run| run.same && !run.busy && run.replica_of.is_none());
    let Some(run) = offer else {
        if let Request::Newest = request {
            return Err(nothing(store, spec, &found));
        }
        if let Some(line) = found.first().and_then(|run| not_offered(store, run)) {
            err.line(line);
        }
        return Ok(Start::New);
    };
    let ask =
        matches!(request, Request::Either) && may_ask && io::stdin().is_terminal() && screen::on_terminal();
    if ask {
        err.text(&format!("Run {}. Resume it? [Y/n] ", run.status()));
        // Blocking is fine: no other task runs yet, and Ctrl-C still ends the program.
        if !yes(&mut io::stdin().lock())? {
            return Ok(Start::New);
        }
    } else {
        err.line(format!("run {}; resuming it (--new starts a new run)", run.status()));
    }
    Ok(Start::Resume(run.id.clone()))
}

/// Why the newest unfinished run is not offered, for a line on stderr.
fn not_offered(store: &Store, run: &Unfinished) -> Option<String> {
    let id = &run.id;
    Some(match &run.replica_of {
        Some(source) => {
            let here = store.run(id);
            let uri = shell::word(here.uri());
            format!(
                "run {id} here is a replica of {source}; starting a new run (--resume {uri} resumes the replica)"
            )
        }
        None if run.same => {
            format!("run {id} is being run by another whimbrel on this machine; starting a new run")
        }
        None => {
            let status = run.status();
            format!("run {status}, under another spec; starting a new run (--resume {id} resumes that one)")
        }
    })
}

/// Refuses a replica: only its URI resumes it, since its id is that of the run itself.
async fn unless_replica(store: &Store, run: RunId) -> Result<Start, Failure> {
    match store.run(&run).run_log().await {
        Ok(run_log) => match run_log.replica_of() {
            Some(of) => Err(replica(store, &run, &of.source)),
            None => Ok(Start::Resume(run)),
        },
        // The coordinator reports what is wrong with it.
        Err(_) => Ok(Start::Resume(run)),
    }
}

fn replica(store: &Store, run: &RunId, source: &str) -> Failure {
    let uri = shell::word(store.run(run).uri()).into_owned();
    let (run, store, source_uri) = (run.clone(), store.uri().to_owned(), source.to_owned());
    Failure::bad_input(NothingToResume::Replica { run, store, source_uri })
        .hint(format!("if that is lost, --resume {uri} resumes the replica in its place"))
}

fn nothing(store: &Store, spec: &RunSpec, found: &[Unfinished]) -> Failure {
    if let Some(Unfinished { id, replica_of: Some(source), .. }) = found.first() {
        return replica(store, id, source);
    }
    let store = store.uri().to_owned();
    match found.first() {
        None => Failure::bad_input(NothingToResume::None { name: spec.name.clone(), store })
            .hint("leave --resume out to start one"),
        Some(run) if run.same => Failure::bad_input(NothingToResume::Busy { run: run.id.clone(), store })
            .hint("leave --resume out to start another one"),
        Some(run) => Failure::bad_input(NothingToResume::Differs { run: run.id.clone(), store }).hint(
            format!("--resume {} resumes it under its own spec; without --resume a new run starts", run.id),
        ),
    }
}

/// Reads an answer; yes is the default.
fn yes(input: &mut impl BufRead) -> Result<bool, Failure> {
    let mut err = Printer::stderr();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).map_err(Failure::unexpected)? == 0 {
            err.line("");
            return Err(Failure::bad_input("there was no answer").hint("give --resume or --new"));
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => err.text("Please answer y or n: "),
        }
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_store::{HostedBy, Record, Stopped};

    use super::*;

    const SPEC: &str =
        "name = \"r\"\ncommand = [\"true\"]\n[train]\nsteps = 40\nglobal_batch = 8\nshards = 4\n";

    fn spec(changes: &[&str]) -> RunSpec {
        let overrides: Vec<_> = changes.iter().map(|change| change.parse().unwrap()).collect();
        RunSpec::parse("run.toml", SPEC, &overrides).unwrap()
    }

    async fn submit(store: &Store, id: &str, spec: &RunSpec, mode: HostedBy) -> whimbrel_store::Term {
        let run = store.run(&id.parse().unwrap());
        run.create(&spec.to_toml(), mode).await.unwrap();
        run.start_term("a test").await.unwrap()
    }

    #[test]
    fn an_answer_is_yes_or_no_and_anything_else_asks_again() {
        let answer = |text: &str| yes(&mut text.as_bytes());
        for (text, expected) in
            [("\n", true), ("Y\n", true), ("yes\n", true), ("n\n", false), ("what\nno\n", false)]
        {
            assert_eq!(answer(text).unwrap(), expected, "{text:?}");
        }
        assert!(answer("").is_err());
    }

    #[tokio::test]
    async fn the_newest_unfinished_run_of_the_same_training_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let stop = || Record::Stopped(Stopped { step: 0, reason: "stopped".into() });
        let mut older = submit(&store, "r-older", &spec(&[]), HostedBy::Embedded).await;
        older.append(stop()).await.unwrap();
        // Broken off: its log just ends.
        submit(&store, "r-newer", &spec(&["workers.min=2"]), HostedBy::Embedded).await;
        submit(&store, "r-served", &spec(&[]), HostedBy::Service).await;
        submit(&store, "r-differs", &spec(&["train.seed=9"]), HostedBy::Embedded).await;
        submit(&store, "r-x-other", &spec(&["name=r-x"]), HostedBy::Embedded).await;

        let found = unfinished::find(&store, &spec(&[])).await.unwrap();
        let names: Vec<_> = found.iter().map(|run| (run.id.as_str(), run.same, run.stopped)).collect();
        assert_eq!(names, [("r-differs", false, false), ("r-newer", true, false), ("r-older", true, true)]);

        let given = spec(&["workers.local=3", "checkpoint.store=elsewhere"]);
        let choice = async |spec: &RunSpec, request| decide(&store, spec, request, false).await.unwrap();
        let newer = Start::Resume("r-newer".parse().unwrap());
        assert_eq!(choice(&given, Request::Either).await, newer);
        assert_eq!(choice(&given, Request::Newest).await, newer);
        assert_eq!(choice(&given, Request::New).await, Start::New);
        assert_eq!(choice(&spec(&["train.steps=41"]), Request::Either).await, Start::New);
        assert!(decide(&store, &spec(&["train.steps=41"]), Request::Newest, false).await.is_err());
        assert_eq!(
            choice(&given, Request::Id("r-older".parse().unwrap())).await,
            Start::Resume("r-older".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn only_its_uri_resumes_a_replica() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Store::open(folder.path().join(name).to_str().unwrap()).unwrap();
        let (store, elsewhere) = (open("here"), open("elsewhere"));
        let term = submit(&elsewhere, "r-moved", &spec(&[]), HostedBy::Embedded).await;
        let run = store.run(&"r-moved".parse().unwrap());
        run.become_replica_of(term.run(), term.run_log(), "a test").await.unwrap();

        let id = || "r-moved".parse::<RunId>().unwrap();
        let choice = async |request| decide(&store, &spec(&[]), request, false).await;
        assert_eq!(choice(Request::Either).await.unwrap(), Start::New);
        for request in [Request::Newest, Request::Id(id())] {
            let error = format!("{:?}", choice(request).await.unwrap_err());
            assert!(
                error.contains("Replica") && error.contains(&format!("--resume {}", run.uri())),
                "{error}"
            );
        }
        assert_eq!(choice(Request::Uri(id())).await.unwrap(), Start::Resume(id()));
        // Then it is the run itself.
        run.start_term("a coordinator").await.unwrap();
        assert_eq!(choice(Request::Either).await.unwrap(), Start::Resume(id()));
    }
}
