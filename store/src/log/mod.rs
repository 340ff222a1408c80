//! A run's directory and its log: entries, the whole log, the right to append, and the lineage of copies.

pub mod entry;
pub mod lineage;
pub mod output;
pub mod run_dir;
pub mod run_log;
pub mod term;
