//! The clients that watch a run, and the backlog for the first of them.

use tokio::sync::broadcast;
use whimbrel_proto::v1::{
    self,
    run_event::Event::{Exit, Warning},
};

/// Events that may wait for a watcher that reads slowly.
const WATCH_BACKLOG: usize = 16_384;

/// Events kept for the first watcher. `Watch` in the protocol promises this number.
const BACKLOG: usize = 64;

/// The watchers of a run.
#[derive(Debug)]
pub(crate) struct Watchers {
    /// `None` once the run has ended here: watchers' streams end with it.
    events: Option<broadcast::Sender<v1::RunEvent>>,
    /// Exits and warnings for the first watcher; `None` once there was one.
    backlog: Option<Vec<v1::RunEvent>>,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self { events: Some(broadcast::channel(WATCH_BACKLOG).0), backlog: Some(Vec::new()) }
    }

    /// Sends an event to every watcher.
    pub(crate) fn send(&mut self, event: v1::run_event::Event) {
        let is_kept = matches!(event, Exit(_) | Warning(_));
        let event = v1::RunEvent { event: Some(event) };
        if let Some(backlog) = self.backlog.as_mut().filter(|_| is_kept) {
            keep(backlog, event.clone());
        }
        if let Some(events) = &self.events {
            // There may be no watcher.
            events.send(event).ok();
        }
    }

    /// The backlog, if this is the first watcher, and a receiver of what follows, which is closed if the run has ended here.
    pub(crate) fn watch(&mut self) -> (Vec<v1::RunEvent>, broadcast::Receiver<v1::RunEvent>) {
        let events = match &self.events {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        };
        (self.backlog.take().unwrap_or_default(), events)
    }

    /// Ends the watchers' streams.
    pub(crate) fn close(&mut self) {
        self.events = None;
    }
}

/// Adds an event to the backlog. If it is full, the oldest exit makes room, or else the oldest warning; an exit does not
/// displace a warning, since a warning may be sent only once and an exit is one of many.
fn keep(backlog: &mut Vec<v1::RunEvent>, event: v1::RunEvent) {
    let is_exit = |event: &v1::RunEvent| matches!(event.event, Some(Exit(_)));
    if backlog.len() >= BACKLOG {
        match backlog.iter().position(is_exit) {
            Some(oldest) => backlog.remove(oldest),
            None if is_exit(&event) => return,
            None => backlog.remove(0),
        };
    }
    backlog.push(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events;

    #[test]
    fn the_backlog_keeps_the_newest_events_and_prefers_warnings_to_exits() {
        let warning = |number: usize| v1::RunEvent { event: Some(events::warning(number.to_string())) };
        let exit = |pid: u32| v1::RunEvent {
            event: Some(Exit(v1::WorkerExitedEvent { pid, ..v1::WorkerExitedEvent::default() })),
        };
        let mut backlog = vec![warning(0)];
        for pid in 1..=100 {
            keep(&mut backlog, exit(pid));
        }
        assert_eq!((backlog.len(), &backlog[0], &backlog[1]), (BACKLOG, &warning(0), &exit(38)));
        for number in 1..=100 {
            keep(&mut backlog, warning(number));
        }
        keep(&mut backlog, exit(101));
        assert_eq!(
            (backlog.len(), backlog.first(), backlog.last()),
            (BACKLOG, Some(&warning(37)), Some(&warning(100)))
        );
    }
}
