//! Opening a run: how this coordinator comes to hold a run's term.
//!
//! | a run is | file | started by |
//! | --- | --- | --- |
//! | submitted | [`submit`] | a client's `Submit` with a spec |
//! | resumed | [`resume`] | a client's `Submit` with a run's id |
//! | adopted | [`adopt`] | the driver at the coordinator's start, for every run in the store that goes on |
//! | opened again | [`reopen`] | the driver, after a panic has ended the run's term |
//!
//! The last three call [`take_over`](take_over::take_over): the one place where a run that exists is taken over. It
//! compares the logs of the run's stores ([`compare`]), starts a term, and copies what only a replica has.
//!
//! [`rival`] decides whether another coordinator holds a run; [`facts`] turns specs and logs into what the core and the store
//! need; [`replicas`] opens the other stores of a run; [`archived`] gives the status of a run that is not opened.

use whimbrel_core::{EarlierTerms, Start};
use whimbrel_spec::RunSpec;
use whimbrel_store::{RunDir, Term};

use self::replicas::Replica;

pub(crate) mod adopt;
mod archived;
pub(crate) mod compare;
pub(crate) mod facts;
pub(crate) mod reopen;
pub(crate) mod replicas;
pub(crate) mod resume;
pub(crate) mod rival;
pub(crate) mod submit;
pub(crate) mod submit_error;
pub(crate) mod take_over;

/// A run whose term this coordinator has started. The driver makes a hosted run of it.
#[derive(Debug)]
pub(crate) struct OpenedRun {
    pub(crate) dir: RunDir,
    pub(crate) spec: RunSpec,
    pub(crate) term: Term,
    pub(crate) start: Start,
    pub(crate) past: EarlierTerms,
    pub(crate) replicas: Vec<Replica>,
    /// Warnings from the opening, for watchers.
    pub(crate) warnings: Vec<String>,
}
