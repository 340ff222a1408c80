//! Garbage collection: deleting checkpoints that retention does not keep, and packs that no checkpoint names.
//!
//! Start with [`collect`](mod@collect): its head has the rules, and the argument why no save in flight loses a pack.
//!
//! | file | is |
//! | --- | --- |
//! | `retention` | which checkpoints are kept |
//! | `collect` | the protocol: decide, record, delete |
//! | `mark` | the decision: which objects stay, and which are deleted |
//! | `kept` | what is known of the kept checkpoints from one collection to the next |
//! | `age` | how old objects are, by the store's clock |

mod age;
mod collect;
mod kept;
mod mark;
mod retention;

pub use collect::{CollectError, Collected, Collector, collect, collectable};
pub(crate) use kept::Kept;
pub use mark::UnreadableManifest;
pub use retention::{KeepEvery, Retention};
