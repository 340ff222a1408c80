//! Terms: the right to append to a run log. One coordinator at a time has it, and one that lost it finds out at its next
//! append.
//!
//! # Why only one coordinator can commit
//! Entries are created in the order of their numbers and never changed. A coordinator starts a term by creating the next
//! entry with a higher epoch than all before it. The previous coordinator always appends under the next number that it
//! knows of. So before it can append anything *after* the new term's entry it finds that entry under its number, and reads
//! there that it is fenced. Everything that it appended *before* that entry the new coordinator has read, since the new
//! coordinator took the first free number.
//!
//! So the term in force is that of the *last* term entry of the log. The epochs of coordinators only rise. A term of a
//! [replica](super::lineage) has the epoch of the term that it copies; another replica's term in the same epoch fences it
//! all the same.

use super::{
    create_entry::{EntryCreation, create_entry, draft},
    entry::{Entry, HostedBy, Record},
    run_dir::RunDir,
    run_log::{LogError, RunLog},
};

/// A coordinator's term over a run, and the run log as the coordinator knows it.
#[derive(Debug)]
pub struct Term {
    run: RunDir,
    epoch: u64,
    /// The random name of the write that started the term.
    token: String,
    run_log: RunLog,
}

/// A run that cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is taken.
    #[error("there is a run at {run} already; choose another name, or resume it")]
    Exists {
        /// The run's URI.
        run: String,
    },
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A term that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TermError {
    /// The log cannot be read or written.
    #[error("cannot take over the run {run}")]
    Log {
        /// The run's URI.
        run: String,
        /// Why.
        source: LogError,
    },
    /// Another coordinator started a term after the epoch that the caller knew.
    #[error("{coordinator} took over the run {run} with epoch {epoch}, and is left in control")]
    Taken {
        /// The run's URI.
        run: String,
        /// The epoch now in force.
        epoch: u64,
        /// The coordinator that leads the run now.
        coordinator: String,
    },
}

/// An append that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another coordinator started a term. This one must stop.
    #[error(
        "fenced: {coordinator} took over the run {run} with epoch {epoch}, and the coordinator before it must stop"
    )]
    Fenced {
        /// The run's URI.
        run: String,
        /// The epoch now in force.
        epoch: u64,
        /// The coordinator that leads the run now.
        coordinator: String,
    },
    /// The log cannot be read or written. The entry may exist even so; [`Term::check`] finds out.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl RunDir {
    /// Creates the run: writes the first entry of its log. `spec` is the run spec in TOML.
    pub async fn create(&self, spec: &str, hosted_by: HostedBy) -> Result<(), CreateError> {
        let record = Record::Submitted { spec: spec.to_owned(), hosted_by };
        match create_entry(self.folder(), &draft(0, 0, record)?).await? {
            EntryCreation::Created => Ok(()),
            EntryCreation::Taken(_) => Err(CreateError::Exists { run: self.uri().to_owned() }),
        }
    }

    /// Starts a term: from now on every coordinator with a lower epoch is fenced. `coordinator` describes this one, for
    /// people.
    pub async fn start_term(&self, coordinator: &str) -> Result<Term, TermError> {
        self.start_term_after(u64::MAX, coordinator).await
    }

    /// Starts a term, unless another coordinator started one after the epoch `known`.
    pub async fn start_term_after(&self, known: u64, coordinator: &str) -> Result<Term, TermError> {
        let failed = |source| TermError::Log { run: self.uri().to_owned(), source };
        let mut run_log = self.run_log().await.map_err(failed)?;
        loop {
            let epoch = run_log.epoch();
            if epoch > known {
                let other = run_log.leader().to_owned();
                return Err(TermError::Taken { run: self.uri().to_owned(), epoch, coordinator: other });
            }
            let epoch = epoch + 1;
            let record = Record::Term { coordinator: coordinator.to_owned(), replica_of: None };
            let entry = draft(run_log.next_number(), epoch, record).map_err(failed)?;
            match create_entry(self.folder(), &entry).await.map_err(failed)? {
                EntryCreation::Created => {
                    run_log.push(self.folder(), entry.clone()).map_err(failed)?;
                    tracing::info!(run = self.uri(), epoch, coordinator, "started a term");
                    return Ok(Term::started(self.clone(), entry, run_log));
                }
                // Another entry came first, perhaps another coordinator's term: the epoch is chosen again.
                EntryCreation::Taken(entry) => run_log.push(self.folder(), entry).map_err(failed)?,
            }
        }
    }
}

impl Term {
    /// The run.
    pub fn run(&self) -> &RunDir {
        &self.run
    }

    /// The random name of the write that started the term: no other term has it.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// This term's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The log as far as this term has read or written it, which is all of it after every successful call.
    pub fn run_log(&self) -> &RunLog {
        &self.run_log
    }

    /// The term that `entry`, the last of `run_log`, started.
    pub(super) fn started(run: RunDir, entry: Entry, run_log: RunLog) -> Self {
        Self { run, epoch: entry.epoch, token: entry.writer, run_log }
    }

    /// Appends a record and returns its entry's number.
    pub async fn append(&mut self, record: Record) -> Result<u64, AppendError> {
        loop {
            if let Some(number) = self.append_next(record.clone()).await? {
                return Ok(number);
            }
        }
    }

    /// Appends a record as the very next entry. `None` if another entry of this term came first: an earlier write that
    /// failed and landed later. [`run_log`](Self::run_log) then has that entry.
    ///
    /// For records that depend on the log as it is now, and must be decided again when it has grown.
    pub(crate) async fn append_next(&mut self, record: Record) -> Result<Option<u64>, AppendError> {
        self.fenced()?;
        let entry = draft(self.run_log.next_number(), self.epoch, record)?;
        let number = entry.number;
        match create_entry(self.run.folder(), &entry).await? {
            EntryCreation::Created => {
                self.run_log.push(self.run.folder(), entry)?;
                Ok(Some(number))
            }
            // A successor's entry, or an earlier one of this term that landed late.
            EntryCreation::Taken(other) => {
                self.run_log.push(self.run.folder(), other)?;
                self.fenced()?;
                Ok(None)
            }
        }
    }

    /// Reads the end of the log. An error says that this term is over.
    pub async fn check(&mut self) -> Result<(), AppendError> {
        self.run_log.read_on(self.run.folder()).await?;
        self.fenced()
    }

    fn fenced(&self) -> Result<(), AppendError> {
        if self.run_log.token() == Some(&self.token) {
            return Ok(());
        }
        Err(AppendError::Fenced {
            run: self.run.uri().to_owned(),
            epoch: self.run_log.epoch(),
            coordinator: self.run_log.leader().to_owned(),
        })
    }
}
