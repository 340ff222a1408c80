//! Tasks that end with their owner.

use tokio_util::task::AbortOnDropHandle;

/// Spawns a task. Awaiting the handle gives the result; dropping it aborts the task.
#[expect(clippy::disallowed_methods, reason = "the handle owns the task and reports its failure")]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}
