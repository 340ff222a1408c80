//! The tasks that a run has for one term, and what they report.
//!
//! The driver starts them when a term begins: one recorder, one replica task for each replica, one output writer. They
//! never touch the driver's state: everything that they have to say goes through a [`Reporter`](report::Reporter).

pub(crate) mod damage_check;
pub(crate) mod output_writer;
pub(crate) mod recorder;
pub(crate) mod replica_status;
pub(crate) mod replication;
pub(crate) mod report;
