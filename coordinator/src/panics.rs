//! Panics of tasks, as text: a panic is a defect, and must not leave anyone waiting.

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt;

/// Awaits a future; a panic becomes an error with the panic's message. For futures whose state is dropped after a panic.
pub(crate) async fn catch<T>(future: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| message(&*payload))
}

/// The message of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
