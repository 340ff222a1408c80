//! Work on whichever processor is free.

use tokio_util::task::AbortOnDropHandle;

/// Begins work that goes on beside its caller, and ends with it: awaited, the handle gives the result; dropped, it ends the
/// work where it is.
#[expect(clippy::disallowed_methods, reason = "the handle owns the task, and tells of its failure")]
pub(crate) fn begin<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}
