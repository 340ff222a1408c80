//! The operations of a group: what each sends to whom, and where what it receives belongs.

pub(crate) mod all_reduce;
pub(crate) mod exchange;
pub(crate) mod transfer;
