//! The agent: the process on a node that joins it to a coordinator, and starts and ends workers there.
//!
//! - [`run`] joins, executes the coordinator's commands, and joins again after a lost connection (`session`);
//! - `supervisor` starts and ends processes, each in a process group of its own, so that nothing they started is left;
//! - `output` reads what they print, line by line, and keeps the last lines for the report of a failure.

mod output;
mod session;
mod settings;
mod supervisor;

pub use session::{AgentError, Stop, run};
pub use settings::Settings;
