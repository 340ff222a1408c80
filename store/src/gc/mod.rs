//! Garbage collection: which checkpoints are kept, and the deletion of the others.

pub mod age;
pub mod collect;
pub mod retention;
pub mod temp_files;
