//! Checkpoints: cut into packs, committed, read back and verified.

pub mod block_reader;
pub mod commit;
pub mod pack;
pub mod quarantine;
pub mod read_ahead;
pub mod restore;
pub mod save;
pub mod sources;
pub mod state_ranges;
pub mod state_reader;
pub mod verify;
