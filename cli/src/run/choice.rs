//! A new run, or an unfinished one taken up?

use std::{
    cmp::Reverse,
    io::{self, BufRead, IsTerminal},
};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use whimbrel_plan::RunId;
use whimbrel_proto::with_causes;
use whimbrel_spec::RunSpec;
use whimbrel_store::{LogError, Mode, RunLog, Store, StoreError, shell};

use super::claim::Claim;
use crate::{exit::Failure, print::Printer, screen};

/// Logs read at a time.
const AT_A_TIME: usize = 8;

/// What the user says about unfinished runs.
pub(super) enum Wish {
    /// Nothing: the newest one of this spec is offered.
    Any,
    /// Leave them.
    New,
    /// Take up the newest one of this spec.
    Newest,
    /// Take up this one of the store, under the spec it was submitted with.
    Run(RunId),
    /// The same, named by its URI: a replica too, since nobody means another directory by that.
    At(RunId),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    New,
    Resume(RunId),
}

/// A run of the spec's name that has not ended.
#[derive(Clone, Debug, PartialEq)]
struct Unfinished {
    id: RunId,
    /// Steps applied in its newest checkpoint.
    step: u64,
    steps: u64,
    /// It was stopped, rather than broken off.
    stopped: bool,
    /// It was submitted with a spec that trains the same.
    same: bool,
    /// Another process on this machine runs it.
    busy: bool,
    /// It is a replica of the run in this place, where it goes on.
    replica_of: Option<String>,
    /// When its log was last written.
    last: Timestamp,
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
    #[error("run {run} in {store} is a replica of {source_uri}, where it goes on")]
    Replica { run: RunId, store: String, source_uri: String },
}

/// Decides; asks on a terminal if `may_ask`.
pub(super) async fn choose(
    store: &Store,
    spec: &RunSpec,
    wish: Wish,
    may_ask: bool,
) -> Result<Choice, Failure> {
    match wish {
        Wish::New => return Ok(Choice::New),
        Wish::At(run) => return Ok(Choice::Resume(run)),
        Wish::Run(run) => return unless_replica(store, run).await,
        Wish::Any | Wish::Newest => {}
    }
    let found = unfinished(store, spec).await?;
    let mut say = Printer::stderr();
    let offer = found.iter().find(|run| run.same && !run.busy && run.replica_of.is_none());
    let Some(run) = offer else {
        if let Wish::Newest = wish {
            return Err(nothing(store, spec, &found));
        }
        match found.first() {
            None => {}
            Some(Unfinished { id, replica_of: Some(source), .. }) => {
                let here = store.run(id);
                let uri = shell::word(here.uri());
                say.line(format!(
                    "run {id} here is a replica of {source}; starting a new run (--resume {uri} takes the replica up)"
                ));
            }
            Some(run) if run.same => {
                let id = &run.id;
                say.line(format!(
                    "run {id} is being run by another whimbrel on this machine; starting a new run"
                ));
            }
            Some(run) => {
                let (standing, id) = (run.standing(), &run.id);
                say.line(format!(
                    "run {standing}, under another spec; starting a new run (--resume {id} takes that one up)"
                ));
            }
        }
        return Ok(Choice::New);
    };
    let ask = matches!(wish, Wish::Any) && may_ask && io::stdin().is_terminal() && screen::on_terminal();
    if ask {
        say.text(&format!("Run {}. Resume it? [Y/n] ", run.standing()));
        // Nothing else goes on yet, and Ctrl-C still ends the program.
        if !yes(&mut io::stdin().lock())? {
            return Ok(Choice::New);
        }
    } else {
        say.line(format!("run {}; resuming it (--new starts a new run)", run.standing()));
    }
    Ok(Choice::Resume(run.id.clone()))
}

/// A replica is taken up by whoever names it by its URI; its id is that of the run itself.
async fn unless_replica(store: &Store, run: RunId) -> Result<Choice, Failure> {
    match store.run(&run).run_log().await {
        Ok(run_log) => match run_log.replica_of() {
            Some(of) => Err(replica(store, &run, &of.source)),
            None => Ok(Choice::Resume(run)),
        },
        // Whoever takes it up says what is wrong with it.
        Err(_) => Ok(Choice::Resume(run)),
    }
}

fn replica(store: &Store, run: &RunId, source: &str) -> Failure {
    let uri = shell::word(store.run(run).uri()).into_owned();
    let (run, store, source_uri) = (run.clone(), store.uri().to_owned(), source.to_owned());
    Failure::bad_input(NothingToResume::Replica { run, store, source_uri })
        .hint(format!("if that is gone, --resume {uri} takes the replica up in its place"))
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
            format!("--resume {} takes it up under its own spec; without --resume a new run starts", run.id),
        ),
    }
}

impl Unfinished {
    /// `char-lm-k3x9qa stopped at step 840 of 2000`
    fn standing(&self) -> String {
        let Self { id, step, steps, .. } = self;
        match (self.stopped, step) {
            (true, _) => format!("{id} stopped at step {step} of {steps}"),
            (false, 0) => format!("{id} broke off before its first checkpoint"),
            (false, _) => format!("{id} broke off, with a checkpoint at step {step} of {steps}"),
        }
    }
}

/// The unfinished runs of the spec's name, that last written to first. Runs that a coordinator service looks after are
/// its own to take up, until they are stopped.
async fn unfinished(store: &Store, spec: &RunSpec) -> Result<Vec<Unfinished>, StoreError> {
    let prefix = format!("{}-", spec.name);
    let ids = store.runs().await?.into_iter().filter(|id| id.as_str().starts_with(&prefix));
    let read = |id: RunId| async move {
        let dir = store.run(&id);
        match dir.run_log().await {
            Ok(run_log) => Ok(judge(id, dir.uri(), &run_log, spec)),
            Err(LogError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(run = %id, error = with_causes(&error), "its log cannot be used; it is not offered");
                Ok(None)
            }
        }
    };
    let mut found: Vec<Unfinished> = stream::iter(ids.map(read))
        .buffered(AT_A_TIME)
        .try_filter_map(async |run| Ok(run))
        .try_collect()
        .await?;
    found.sort_by_key(|run| Reverse(run.last));
    Ok(found)
}

/// What a run's log makes of it; `None` if there is nothing to take up.
fn judge(id: RunId, uri: &str, run_log: &RunLog, spec: &RunSpec) -> Option<Unfinished> {
    let stopped = run_log.stopped().is_some();
    if run_log.ended().is_some() || (run_log.hosted_by() == Mode::Service && !stopped) {
        return None;
    }
    let stored = RunSpec::parse("the stored spec", run_log.spec(), &[]).ok()?;
    if stored.name != spec.name {
        return None;
    }
    Some(Unfinished {
        step: run_log.checkpoints().last().map_or(0, |checkpoint| checkpoint.step),
        steps: stored.train.steps,
        stopped,
        same: same_training(&stored, spec),
        busy: Claim::take(uri).is_none(),
        replica_of: run_log.replica_of().map(|replica| replica.source.clone()),
        last: run_log.entries().last().map_or(Timestamp::MIN, |entry| entry.time),
        id,
    })
}

/// Whether two specs differ in nothing but who works and where the checkpoints go.
fn same_training(a: &RunSpec, b: &RunSpec) -> bool {
    let mut b = b.clone();
    b.workers.clone_from(&a.workers);
    b.checkpoint.store.clone_from(&a.checkpoint.store);
    b.checkpoint.replicas.clone_from(&a.checkpoint.replicas);
    *a == b
}

/// Reads an answer; yes is the default.
fn yes(input: &mut impl BufRead) -> Result<bool, Failure> {
    let mut say = Printer::stderr();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).map_err(Failure::unexpected)? == 0 {
            say.line("");
            return Err(Failure::bad_input("there was no answer").hint("give --resume or --new"));
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => say.text("Please answer y or n: "),
        }
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_store::{Record, Stopped};

    use super::*;

    const SPEC: &str =
        "name = \"r\"\ncommand = [\"true\"]\n[train]\nsteps = 40\nglobal_batch = 8\nshards = 4\n";

    fn spec(changes: &[&str]) -> RunSpec {
        let overrides: Vec<_> = changes.iter().map(|change| change.parse().unwrap()).collect();
        RunSpec::parse("run.toml", SPEC, &overrides).unwrap()
    }

    async fn submit(store: &Store, id: &str, spec: &RunSpec, mode: Mode) -> whimbrel_store::Term {
        let run = store.run(&id.parse().unwrap());
        run.create(&spec.to_toml(), mode).await.unwrap();
        run.start_term("a test").await.unwrap()
    }

    #[test]
    fn an_answer_is_yes_no_or_asked_for_again() {
        let answer = |text: &str| yes(&mut text.as_bytes());
        for (text, expected) in
            [("\n", true), ("Y\n", true), ("yes\n", true), ("n\n", false), ("what\nno\n", false)]
        {
            assert_eq!(answer(text).unwrap(), expected, "{text:?}");
        }
        assert!(answer("").is_err());
    }

    #[tokio::test]
    async fn the_newest_unfinished_run_of_the_same_training_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let stop = || Record::Stopped(Stopped { step: 0, reason: "stopped".into() });
        let mut older = submit(&store, "r-older", &spec(&[]), Mode::Embedded).await;
        older.append(stop()).await.unwrap();
        // Broken off: its log just ends.
        submit(&store, "r-newer", &spec(&["workers.min=2"]), Mode::Embedded).await;
        submit(&store, "r-served", &spec(&[]), Mode::Service).await;
        submit(&store, "r-differs", &spec(&["train.seed=9"]), Mode::Embedded).await;
        submit(&store, "r-x-other", &spec(&["name=r-x"]), Mode::Embedded).await;

        let found = unfinished(&store, &spec(&[])).await.unwrap();
        let names: Vec<_> = found.iter().map(|run| (run.id.as_str(), run.same, run.stopped)).collect();
        assert_eq!(names, [("r-differs", false, false), ("r-newer", true, false), ("r-older", true, true)]);

        let given = spec(&["workers.local=3", "checkpoint.store=elsewhere"]);
        let choice = async |spec: &RunSpec, wish| choose(&store, spec, wish, false).await.unwrap();
        let newer = Choice::Resume("r-newer".parse().unwrap());
        assert_eq!(choice(&given, Wish::Any).await, newer);
        assert_eq!(choice(&given, Wish::Newest).await, newer);
        assert_eq!(choice(&given, Wish::New).await, Choice::New);
        assert_eq!(choice(&spec(&["train.steps=41"]), Wish::Any).await, Choice::New);
        assert!(choose(&store, &spec(&["train.steps=41"]), Wish::Newest, false).await.is_err());
        assert_eq!(
            choice(&given, Wish::Run("r-older".parse().unwrap())).await,
            Choice::Resume("r-older".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn a_replica_is_taken_up_by_its_uri_alone() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Store::open(folder.path().join(name).to_str().unwrap()).unwrap();
        let (store, elsewhere) = (open("here"), open("elsewhere"));
        let term = submit(&elsewhere, "r-moved", &spec(&[]), Mode::Embedded).await;
        let run = store.run(&"r-moved".parse().unwrap());
        run.become_replica_of(term.run(), term.run_log(), "a test").await.unwrap();

        let id = || "r-moved".parse::<RunId>().unwrap();
        let choice = async |wish| choose(&store, &spec(&[]), wish, false).await;
        assert_eq!(choice(Wish::Any).await.unwrap(), Choice::New);
        for wish in [Wish::Newest, Wish::Run(id())] {
            let error = format!("{:?}", choice(wish).await.unwrap_err());
            assert!(
                error.contains("Replica") && error.contains(&format!("--resume {}", run.uri())),
                "{error}"
            );
        }
        assert_eq!(choice(Wish::At(id())).await.unwrap(), Choice::Resume(id()));
        // Once it was, it is the run itself.
        run.start_term("a coordinator").await.unwrap();
        assert_eq!(choice(Wish::Any).await.unwrap(), Choice::Resume(id()));
    }
}
