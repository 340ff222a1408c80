//! What this program's output goes to.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Whether stdout and stderr are a terminal on which a line can be drawn over.
pub(crate) fn on_terminal() -> bool {
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && io::stderr().is_terminal() && !dumb
}

/// Whether the user turned colours off: <https://no-color.org>.
pub(crate) fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
