//! Ctrl-C in the middle of something that is as good as not begun, or goes on where it was.

use std::future::Future;

use crate::{
    exit::{Code, Failure},
    signals::Signals,
};

/// The work was cut off by a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {0}")]
struct Interrupted(&'static str);

/// Does the work unless a signal comes first: then it is dropped, which undoes what is half done, and `left` says what
/// is left of it.
pub(super) async fn unless_interrupted<T, E: Into<Failure>>(
    work: impl Future<Output = Result<T, E>>,
    left: &'static str,
) -> Result<T, Failure> {
    let mut signals = Signals::new().map_err(Failure::unexpected)?;
    tokio::select! {
        done = work => done.map_err(Into::into),
        () = signals.next() => Err(Failure::new(Code::Stopped, Interrupted(left))),
    }
}
