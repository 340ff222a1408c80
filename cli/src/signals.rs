//! The signals by which a user, or the system, asks a running program to stop.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Code, Failure};

/// SIGINT and SIGTERM. Before this is made, either one ends the program.
///
/// SIGHUP is not caught: that would undo `nohup`.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches both signals. Must be called within the runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal. Dropping the future loses none.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A signal ended the work.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {0}")]
struct Interrupted(&'static str);

/// Does the work unless a signal comes first. Then the work is dropped, and the failure says what it `left`.
pub(crate) async fn unless_interrupted<T, E: Into<Failure>>(
    work: impl Future<Output = Result<T, E>>,
    left: &'static str,
) -> Result<T, Failure> {
    let mut signals = Signals::new().map_err(Failure::unexpected)?;
    tokio::select! {
        done = work => done.map_err(Into::into),
        () = signals.next() => Err(Failure::new(Code::Stopped, Interrupted(left))),
    }
}
