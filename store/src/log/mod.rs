//! One run's directory: its log, who may append to it, and the workers' output.
//!
//! Start with [`RunDir`], the directory, and [`RunLog`], its history. [`Term`] is the right to append, and has the argument
//! why only one coordinator can commit. [`lineage`] is about the copies of a run in other stores.
//!
//! | file | is |
//! | --- | --- |
//! | `entry` | one entry of the log, and its encoding |
//! | `run_log` | the whole log, and what follows from it: the epoch, whether the run goes on |
//! | `checkpoints` | the checkpoints that a log names |
//! | `run_dir` | the directory: opened by URI, or found in a store |
//! | `create_entry` | creating one entry, whatever the store answers |
//! | `term` | creating a run, starting a term, appending |
//! | `lineage` | replicas, and which copy of a run is the newest |
//! | `output` | the workers' printed lines |

mod checkpoints;
mod create_entry;
mod entry;
mod lineage;
pub(crate) mod output;
mod run_dir;
mod run_log;
mod term;

pub use checkpoints::CheckpointInfo;
pub use entry::{Ended, Entry, EntryError, HostedBy, Origin, Outcome, Record, ReplicaOf, Stopped};
pub use lineage::{Relation, ReplicaLogError, relation};
pub use run_dir::{RunDir, open_run, open_run_in};
pub use run_log::{LogError, RunLog};
pub use term::{AppendError, CreateError, Term, TermError};

pub(crate) use entry::{identity, name as entry_name};
pub(crate) use lineage::refusal;
