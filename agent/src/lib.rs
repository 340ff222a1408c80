//! The process on a node that joins it to a coordinator and keeps its workers.
//!
//! - [`run`] joins, stays, and joins again when the connection was lost;
//! - `session` is one attendance: what the coordinator says is done, what the processes do is told;
//! - `keeper` starts processes, and ends them, each in a process group of its own, so that nothing they started is left;
//! - `output` reads what they print, line by line, and keeps the last lines for the case that they fail.

mod keeper;
mod output;
mod session;
mod settings;

pub use session::{AgentError, run};
pub use settings::Settings;
