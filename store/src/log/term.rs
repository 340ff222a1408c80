//! The right to append to a run log: one coordinator at a time has it, and one that lost it finds out.
//!
//! # Why only one can commit
//! Entries are created in the order of their numbers, and never changed. A coordinator starts a term with an entry of a
//! higher epoch than all before it. Whoever was leading the run goes on trying the next number it knows of, so before it can
//! append anything *after* that entry it must run into it, and reads there that it is fenced. What it appended
//! *before* that entry, the new coordinator has read, since it took the first free number.
//!
//! So the holder is whoever wrote the *last* term entry of the log. Coordinators' epochs only rise. The terms of
//! [replicas](crate::log::lineage) bear the epoch of the term they copy, and one may follow another: it is fenced no less.
//!
//! # Why a lost answer does no harm
//! A create may succeed and its answer be lost; made again, it is told that the object exists. Each write therefore
//! bears a random name: the entry found in the way is mine if it bears mine. A write that failed for good may still
//! land later; the next append then finds it in its place, with this term's epoch, and goes on behind it.

use jiff::Timestamp;
use tokio::time::sleep;

use crate::{
    gc::collect::Known,
    log::{
        entry::{self, Entry, Mode, Record},
        run_dir::RunDir,
        run_log::{LogError, RunLog, read_entry},
    },
    object::folder::{Created, Folder, random_name},
};

/// A coordinator's term of term over a run, and the log as it knows it.
#[derive(Debug)]
pub struct Term {
    run: RunDir,
    epoch: u64,
    /// The name of the write that took it.
    seat: String,
    run_log: RunLog,
    /// What collections read, and will ask for again.
    pub(crate) known: Known,
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

/// An term that cannot be taken.
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
    /// Another took it, after all that was known.
    #[error("{coordinator} took over the run {run} with epoch {epoch}, and is not disturbed")]
    Taken {
        /// The run's URI.
        run: String,
        /// The epoch now in force.
        epoch: u64,
        /// Who is leading the run now.
        coordinator: String,
    },
}

/// An append that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another coordinator started a term. This one must stop deciding.
    #[error(
        "fenced: {coordinator} took over the run {run} with epoch {epoch}, and whoever held it before must stop"
    )]
    Fenced {
        /// The run's URI.
        run: String,
        /// The epoch now in force.
        epoch: u64,
        /// Who is leading the run now.
        coordinator: String,
    },
    /// The log cannot be read or written. The entry may be there all the same; [`Term::check`] finds out.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl RunDir {
    /// Creates the run: writes the first entry of its log. `spec` is the run spec in TOML.
    pub async fn create(&self, spec: &str, submitter: Mode) -> Result<(), CreateError> {
        let record = Record::Submitted { spec: spec.to_owned(), submitter };
        match place(self.folder(), &draft(0, 0, record)?).await? {
            Placed::Mine => Ok(()),
            Placed::Taken(_) => Err(CreateError::Exists { run: self.uri().to_owned() }),
        }
    }

    /// Takes term: from here on every coordinator with a lower epoch is fenced. `coordinator` says who, in words for
    /// people.
    pub async fn start_term(&self, coordinator: &str) -> Result<Term, TermError> {
        self.start_term_after(u64::MAX, coordinator).await
    }

    /// Takes term, unless somebody else did after the epoch `known`.
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
            match place(self.folder(), &entry).await.map_err(failed)? {
                Placed::Mine => {
                    run_log.push(self.folder(), entry.clone()).map_err(failed)?;
                    tracing::info!(run = self.uri(), epoch, coordinator, "started a term");
                    return Ok(Term::taken(self.clone(), entry, run_log));
                }
                // Somebody else's entry came first, perhaps another coordinator's: the epoch is chosen anew.
                Placed::Taken(entry) => run_log.push(self.folder(), entry).map_err(failed)?,
            }
        }
    }
}

impl Term {
    /// The run.
    pub fn run(&self) -> &RunDir {
        &self.run
    }

    /// This term's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The log as far as this term has read or written it, which is all of it after every successful call.
    pub fn run_log(&self) -> &RunLog {
        &self.run_log
    }

    /// An term just taken by the entry that is the last of `history`.
    pub(crate) fn taken(run: RunDir, taken: Entry, run_log: RunLog) -> Self {
        Self { run, epoch: taken.epoch, seat: taken.writer, run_log, known: Known::default() }
    }

    /// Appends a record and returns its entry's number.
    pub async fn append(&mut self, record: Record) -> Result<u64, AppendError> {
        loop {
            if let Some(number) = self.append_next(record.clone()).await? {
                return Ok(number);
            }
        }
    }

    /// Appends a record as the very next entry; `None` if another entry of this term was there first, which
    /// [`history`](Self::history) then has: an earlier write of its own that was given up, and landed all the same.
    ///
    /// For what is decided by the log as it stands, and to be decided again when it has grown.
    pub(crate) async fn append_next(&mut self, record: Record) -> Result<Option<u64>, AppendError> {
        self.fenced()?;
        let entry = draft(self.run_log.next_number(), self.epoch, record)?;
        let number = entry.number;
        match place(self.run.folder(), &entry).await? {
            Placed::Mine => {
                self.run_log.push(self.run.folder(), entry)?;
                Ok(Some(number))
            }
            // A successor's entry, or one of mine whose answer was lost for good.
            Placed::Taken(other) => {
                self.run_log.push(self.run.folder(), other)?;
                self.fenced()?;
                Ok(None)
            }
        }
    }

    /// Reads the end of the log, and says whether this term still stands.
    pub async fn check(&mut self) -> Result<(), AppendError> {
        self.run_log.read_on(self.run.folder()).await?;
        self.fenced()
    }

    fn fenced(&self) -> Result<(), AppendError> {
        if self.run_log.seat() == Some(&self.seat) {
            return Ok(());
        }
        Err(AppendError::Fenced {
            run: self.run.uri().to_owned(),
            epoch: self.run_log.epoch(),
            coordinator: self.run_log.leader().to_owned(),
        })
    }
}

pub(crate) fn draft(number: u64, epoch: u64, record: Record) -> Result<Entry, LogError> {
    let format = record.format();
    Ok(Entry { format, number, epoch, writer: random_name()?, time: Timestamp::now(), record })
}

/// What became of an entry that was to be created.
pub(crate) enum Placed {
    /// It is in the log.
    Mine,
    /// This one is, under the same number.
    Taken(Entry),
}

/// Creates an entry under its number, and finds out what became of it whatever the store answers.
pub(crate) async fn place(folder: &Folder, entry: &Entry) -> Result<Placed, LogError> {
    let name = entry::name(entry.number);
    let unwritable = |source| LogError::Entry { object: folder.uri_of(&name), source };
    let body = bytes::Bytes::from(entry.encode().map_err(unwritable)?);
    let sort = |found: Entry| if found.writer == entry.writer { Placed::Mine } else { Placed::Taken(found) };
    for attempt in 0..folder.retry_policy().attempts.max(1) {
        match folder.create(&name, body.clone()).await {
            Ok(Created::New) => {
                read_back(folder, &name, &body).await?;
                return Ok(Placed::Mine);
            }
            Ok(Created::Taken) => match read_entry(folder, entry.number).await? {
                Some(found) => return Ok(sort(found)),
                // On S3 a create that races with another is told that the object exists, and the other may yet fail.
                None => sleep(folder.retry_policy().wait(attempt)).await,
            },
            // The write may have landed and every answer been lost.
            Err(error) => {
                return match read_entry(folder, entry.number).await {
                    Ok(Some(found)) => Ok(sort(found)),
                    Ok(None) | Err(_) => Err(error.into()),
                };
            }
        }
    }
    Err(LogError::Contradiction { object: folder.uri_of(&name) })
}

/// Compares an entry that this write created with what was sent, and writes it again where the store has other bytes: a
/// log that cannot be read is a run that is lost. The name is ours, since it was created, so nobody else's entry is
/// overwritten.
async fn read_back(folder: &Folder, name: &str, body: &bytes::Bytes) -> Result<(), LogError> {
    for _ in 0..folder.retry_policy().attempts.max(1) {
        match folder.get(name, entry::MOST_BYTES).await? {
            Some(found) if found == body => return Ok(()),
            _ => {
                tracing::warn!(entry = folder.uri_of(name), "not as it was put: putting it again");
                folder.replace(name, body.clone()).await?;
            }
        }
    }
    Err(LogError::Contradiction { object: folder.uri_of(name) })
}
