//! Checkpoints: cut into packs, committed, read back and verified.

pub mod commit;
pub mod fetch;
pub mod pack;
pub mod quarantine;
pub mod read_state;
pub mod restore;
pub mod save;
pub mod sources;
pub mod strides;
pub mod units;
pub mod verify;
