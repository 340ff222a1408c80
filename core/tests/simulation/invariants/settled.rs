//! The core does all that follows from an event at once: asked again at the same moment, it has nothing to add. So
//! there are no endless streams of commands, and nothing waits for the next event by accident.

use std::time::Duration;

use whimbrel_core::{Command, Core, Event};
use whimbrel_plan::NodeId;

/// What the core goes on to do when nothing happens at all.
pub(crate) fn again(core: &mut Core, now: Duration) -> Vec<Command> {
    core.handle(now, Event::NodeHeartbeat { node: NodeId(u64::MAX) })
}
