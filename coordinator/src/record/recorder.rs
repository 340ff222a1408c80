//! The one task that holds a run's term, and so the only one that writes its log.
//!
//! It does what it is told in order, one thing at a time: a commit never interleaves with the collection of old
//! checkpoints, which is part of the argument why collection deletes nothing that is needed (see `whimbrel_store`).

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use whimbrel_core::{End, Outcome, RunEvent, Start};
use whimbrel_plan::RunId;
use whimbrel_proto::{v1, with_causes};
use whimbrel_state::{Hash, Manifest, Pack};
use whimbrel_store::{
    AppendError, CollectError, CommitError, Ended, QuarantineError, Record, Retention, Sources, Stopped,
    Store, Term, collect, commit, quarantine, shell,
};

use crate::{driver::input::{Input, Inputs}, events, open::take_over::newest_but, record::{damage_check::{examine, Verdict}, replica_status::Standing, replication::Replication}};

/// How often a recorder that has nothing to write looks whether it is still leading the run.
const LOOK: Duration = Duration::from_secs(30);
/// What must be written is tried again so many times, so long after each failure, on top of the store's own patience.
const ATTEMPTS: u32 = 20;
const AGAIN: Duration = Duration::from_secs(3);
/// A checkpoint that is whole is used again after so many reports of damage to it: more of them are no accident.
const ACQUITTALS: u32 = 3;

/// What to write.
#[derive(Debug)]
pub(crate) enum Task {
    /// A checkpoint all of whose slices are saved.
    Commit {
        manifest: Box<Manifest>,
        /// When its first slice was staged.
        begun: Instant,
        /// The longest that training stood still for it on a worker.
        blocked_seconds: f64,
    },
    /// A worker says that a checkpoint is damaged.
    Quarantine { manifest: String, reason: String },
    /// The run ends.
    End(End),
}

/// Writes what it is told until the way to it is dropped, or the term is lost.
pub(crate) async fn record(
    term: Term,
    sources: Sources,
    unopened: Vec<String>,
    retention: Retention,
    replication: Replication,
    inputs: Inputs,
    mut tasks: mpsc::UnboundedReceiver<Task>,
) {
    let run = term.run().id().clone();
    let mut recorder = Recorder {
        run,
        term,
        sources,
        unopened,
        retention,
        replication,
        inputs,
        parted: false,
        acquitted: BTreeMap::new(),
        passed_over: BTreeSet::new(),
    };
    loop {
        let carried_out = match timeout(LOOK, tasks.recv()).await {
            Ok(Some(task)) => recorder.carry_out(task).await,
            Ok(None) => return recorder.let_go().await,
            Err(_) => recorder.look().await,
        };
        if let Err(lost) = carried_out {
            recorder.replication.leave();
            recorder.say(RunEvent::TermLost { reason: lost.0 });
            return;
        }
    }
}

/// Why nothing may be decided here any more.
struct TermLost(String);

struct Recorder {
    run: RunId,
    term: Term,
    /// The run's directory, and copies of it for what that lacks.
    sources: Sources,
    /// Stores of copies that could not be opened.
    unopened: Vec<String>,
    retention: Retention,
    replication: Replication,
    inputs: Inputs,
    /// The replicas have been waited for.
    parted: bool,
    /// How often checkpoints were said to be damaged that were whole, by their manifests.
    acquitted: BTreeMap<String, u32>,
    /// The manifests of checkpoints that are gone on without.
    passed_over: BTreeSet<String>,
}

impl Recorder {
    /// Looks whether another coordinator has started a term, which one that has nothing to write would not notice.
    async fn look(&mut self) -> Result<(), TermLost> {
        match self.term.check().await {
            Err(error @ AppendError::Fenced { .. }) => Err(TermLost(error.to_string())),
            Err(error) => {
                tracing::warn!(run = %self.run, error = with_causes(&error), "the log could not be looked at");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Appends to the log, however long the store takes to come back, within reason.
    async fn append(&mut self, record: Record) -> Result<(), TermLost> {
        let mut attempts = 0;
        loop {
            match self.term.append(record.clone()).await {
                Ok(_) => return Ok(()),
                Err(error @ AppendError::Fenced { .. }) => return Err(TermLost(error.to_string())),
                Err(error) if attempts < ATTEMPTS => {
                    tracing::warn!(run = %self.run, error = with_causes(&error), "the log cannot be written; trying again");
                }
                Err(error) => return Err(TermLost(with_causes(&error))),
            }
            attempts += 1;
            sleep(AGAIN).await;
        }
    }

    fn say(&self, event: RunEvent) {
        self.inputs.send(Input::OfTerm(self.run.clone(), self.term.epoch(), event));
    }

    async fn carry_out(&mut self, task: Task) -> Result<(), TermLost> {
        match task {
            Task::Commit { manifest, begun, blocked_seconds } => {
                self.commit(*manifest, begun, blocked_seconds).await
            }
            Task::Quarantine { manifest, reason } => self.judge(manifest, reason).await,
            Task::End(end) => {
                self.append(record_of(end)).await?;
                self.part().await;
                self.say(RunEvent::EndRecorded);
                Ok(())
            }
        }
    }

    async fn commit(
        &mut self,
        manifest: Manifest,
        begun: Instant,
        blocked_seconds: f64,
    ) -> Result<(), TermLost> {
        let (step, bytes) = (manifest.step, manifest.stored_bytes());
        match commit(&mut self.term, &manifest, None).await {
            Ok(committed) => {
                let seconds = begun.elapsed().as_secs_f64();
                let manifest = committed.manifest;
                let event = v1::CheckpointEvent { step, manifest, bytes, seconds, blocked_seconds };
                self.inputs.send(Input::Committed(self.run.clone(), self.term.epoch(), event));
                let tidied = self.tidy().await;
                self.replication.publish(self.term.run_log());
                tidied
            }
            Err(CommitError::Append(error @ AppendError::Fenced { .. })) => Err(TermLost(error.to_string())),
            Err(error) => {
                self.say(RunEvent::CommitFailed { step, reason: with_causes(&error) });
                Ok(())
            }
        }
    }

    /// Sees to a checkpoint that a worker takes for damaged, and says where the run goes on from.
    ///
    /// A quarantine is for good, and a worker may not reach every store that this coordinator does. So the checkpoint is
    /// read here first, which puts back what the run's directory lacks. Only what no store has whole is put aside.
    async fn judge(&mut self, name: String, reason: String) -> Result<(), TermLost> {
        self.open_the_others();
        let verdict = examine(&self.sources, self.term.run_log(), &name).await;
        match verdict {
            Verdict::Whole if self.acquit(&name) => {
                self.warn(format!("checkpoint {name} is whole by now, and is used again"));
            }
            Verdict::Whole => self.pass_over(name, "it is whole, and no worker can read it")?,
            Verdict::Unknown(why) => self.pass_over(name, &why)?,
            Verdict::Damaged(_) if !self.unopened.is_empty() => {
                let why =
                    format!("it may be whole in {}, not to be opened from here", self.unopened.join(", "));
                self.pass_over(name, &why)?;
            }
            Verdict::Damaged(suspects) => self.put_aside(name, reason, &suspects).await?,
        }
        let start = newest_but(self.term.run_log(), &self.passed_over);
        self.say(RunEvent::Quarantined { start });
        Ok(())
    }

    /// Opens stores of copies that could not be opened until now.
    fn open_the_others(&mut self) {
        self.unopened.retain(|uri| match Store::open(uri) {
            Ok(store) => {
                self.sources = self.sources.clone().with_replica(store.run(&self.run));
                false
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(run = %self.run, uri, error, "a replica still cannot be opened from here");
                true
            }
        });
    }

    /// Whether one more report of damage to a checkpoint that is whole is to be forgotten.
    fn acquit(&mut self, name: &str) -> bool {
        let times = self.acquitted.entry(name.to_owned()).or_default();
        *times += 1;
        *times <= ACQUITTALS
    }

    /// Goes on without a checkpoint that may be good, for this term of term; not from the beginning, though.
    fn pass_over(&mut self, name: String, why: &str) -> Result<(), TermLost> {
        self.passed_over.insert(name.clone());
        let text = format!("checkpoint {name} cannot be used for now: {why}");
        if newest_but(self.term.run_log(), &self.passed_over) == Start::Initial {
            return Err(TermLost(format!("{text}; there is none before it: resume the run when it can be")));
        }
        self.warn(format!("{text}; going on from the one before"));
        Ok(())
    }

    async fn put_aside(&mut self, name: String, reason: String, suspects: &[Pack]) -> Result<(), TermLost> {
        let mut attempts = 0;
        while let Err(error) = quarantine(&mut self.term, &name, &reason, suspects).await {
            let fenced = matches!(error, QuarantineError::Append(AppendError::Fenced { .. }));
            if fenced || attempts == ATTEMPTS {
                return Err(TermLost(with_causes(&error)));
            }
            tracing::warn!(run = %self.run, error = with_causes(&error), "not put aside yet; trying again");
            attempts += 1;
            sleep(AGAIN).await;
        }
        self.replication.publish(self.term.run_log());
        self.warn(format!("checkpoint {name} is damaged in every store, and put aside: {reason}"));
        Ok(())
    }

    /// Tells watchers.
    fn warn(&self, text: String) {
        let warning = events::warning(text);
        self.inputs.send(Input::Tell(self.run.clone(), self.term.epoch(), warning));
    }

    /// Waits for the replicas to get the last of the run, and says which did not.
    async fn part(&mut self) {
        self.parted = true;
        self.inputs.send(Input::Parting(self.run.clone(), self.term.epoch()));
        for Standing { uri, trouble, .. } in self.replication.finish(self.term.run_log()).await {
            let why = trouble.unwrap_or_else(|| "it is not done yet".to_owned());
            let (from, to) = (shell::word(self.term.run().uri()), shell::word(&uri));
            let text = format!(
                "the replica {uri} is not in step with the run, which has ended: {why}; \
                 `whimbrel checkpoint copy {from} {to}` brings it what it lacks"
            );
            self.warn(text);
        }
    }

    /// Nothing more is to be written. A run that goes on under another coordinator has its replicas in step until then,
    /// if the time for a shutdown is enough.
    async fn let_go(self) {
        if self.parted {
            return;
        }
        for Standing { uri, trouble, .. } in self.replication.finish(self.term.run_log()).await {
            tracing::warn!(run = %self.run, replica = uri, trouble, "it is not in step with the run that is let go of");
        }
    }

    /// Deletes checkpoints that need not be kept. A failure is no reason to stop training: the next time tries again.
    async fn tidy(&mut self) -> Result<(), TermLost> {
        match collect(&mut self.term, &self.retention).await {
            Ok(collected) => tracing::debug!(run = %self.run, ?collected, "old checkpoints collected"),
            Err(CollectError::Append(error @ AppendError::Fenced { .. })) => {
                return Err(TermLost(error.to_string()));
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(run = %self.run, error, "old checkpoints could not be deleted");
            }
        }
        Ok(())
    }
}

fn record_of(end: End) -> Record {
    let outcome = match end.outcome {
        Outcome::Finished => whimbrel_store::Outcome::Finished,
        Outcome::Failed => whimbrel_store::Outcome::Failed,
        Outcome::Cancelled => whimbrel_store::Outcome::Cancelled,
        Outcome::Stopped | Outcome::Released => {
            return Record::Stopped(Stopped { step: end.step, reason: end.reason });
        }
    };
    Record::Ended(Ended {
        outcome,
        step: end.step,
        loss: end.loss,
        val_loss: end.val_loss,
        state: end.state.map(|state| Hash::from(blake3::Hash::from_bytes(state))),
        reason: (!end.reason.is_empty()).then_some(end.reason),
    })
}
