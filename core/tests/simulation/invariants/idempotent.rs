//! The core does at once everything that follows from an event: called again at the same time without an event, it
//! commands nothing. So there are no endless streams of commands, and nothing waits for the next event by accident.

use std::time::Duration;

use whimbrel_core::{Command, Core, Event};
use whimbrel_plan::NodeId;

/// What the core commands when nothing has happened: a heartbeat of an unknown node changes nothing.
pub(crate) fn commands_without_an_event(core: &mut Core, now: Duration) -> Vec<Command> {
    core.handle(now, Event::NodeHeartbeat { node: NodeId(u64::MAX) })
}
