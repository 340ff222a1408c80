//! Retries: which failed requests are sent again, how often, and after which wait.

use std::{io, time::Duration};

use object_store::Error;
use tokio::time::sleep;

use super::{error::StoreError, slow_down::SlowDown};

/// How often and how long a request is tried before it fails.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts at a request before its failure is final; at least one is made. Attempts that the store answers with
    /// "slow down" count a third, since the store is reachable.
    pub attempts: u32,
    /// The wait before the second attempt; each further one is twice as long, up to fifty times this.
    pub first_wait: Duration,
    /// The deadline of an attempt that transfers hardly any bytes.
    pub answer: Duration,
    /// Bytes per second below which a transfer counts as stuck. The deadline of an attempt that transfers `n` bytes is
    /// `answer + n / slowest`, and shorter if the store was faster lately.
    pub slowest: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_millis(200),
            answer: Duration::from_secs(30),
            slowest: 256 << 10,
        }
    }
}

impl RetryPolicy {
    /// The deadline of an attempt that transfers so many bytes.
    pub(crate) fn transfer(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest.max(1))
    }

    /// The wait after attempt `attempt`, counted from 0.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        self.first_wait.saturating_mul((1 << attempt.min(10)).min(50))
    }
}

/// How an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store answered with an error, or the connection failed.
    Error(Error),
    /// The store did not answer within this time.
    Silence(Duration),
}

impl Failure {
    /// The store's request to slow down, if that is the failure.
    pub(crate) fn slow_down(&self) -> Option<SlowDown> {
        match self {
            Self::Error(error) => SlowDown::among_causes_of(error),
            Self::Silence(_) => None,
        }
    }

    /// Whether fewer concurrent transfers may help.
    pub(crate) fn is_push_back(&self) -> bool {
        matches!(self, Self::Silence(_)) || self.slow_down().is_some()
    }
}

/// The cost of a failed attempt; an attempt answered with "slow down" costs 1.
const FAILED: u32 = 3;

/// The attempts at one request so far.
#[derive(Debug)]
pub(crate) struct Retry {
    retry_policy: RetryPolicy,
    verb: &'static str,
    object: String,
    made: u32,
    spent: u32,
}

impl Retry {
    pub(crate) fn new(retry_policy: &RetryPolicy, verb: &'static str, object: String) -> Self {
        Self { retry_policy: retry_policy.clone(), verb, object, made: 0, spent: 0 }
    }

    /// Waits until the next attempt is due, or returns the error if no attempt is left.
    pub(crate) async fn after(&mut self, failure: Failure) -> Result<(), StoreError> {
        let (verb, slow_down) = (self.verb, failure.slow_down());
        self.made += 1;
        self.spent = self.spent.saturating_add(if slow_down.is_some() { 1 } else { FAILED });
        let object = || self.object.clone();
        let (error, is_transient) = match failure {
            Failure::Error(source) => {
                let is_transient = is_transient(&source);
                (StoreError::Refused { verb, object: object(), source }, is_transient)
            }
            Failure::Silence(deadline) => {
                (StoreError::Silent { verb, object: object(), deadline, attempts: self.made }, true)
            }
        };
        if !is_transient || self.spent >= self.retry_policy.attempts.max(1).saturating_mul(FAILED) {
            return Err(error);
        }
        tracing::debug!(verb, object = self.object, attempt = self.made, %error, "trying again");
        let requested = slow_down.and_then(|slow_down| slow_down.retry_after).unwrap_or_default();
        sleep(jittered(self.retry_policy.wait(self.made - 1)).max(requested)).await;
        Ok(())
    }
}

/// Half to all of a wait at random, so that workers that failed together do not retry together.
fn jittered(wait: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    wait.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// Whether another attempt may succeed. Cloud clients report a lost connection, a server error and throttling as
/// `Generic`. A local folder reports a full disk so too, which a retry does not cure.
fn is_transient(error: &Error) -> bool {
    let Error::Generic { source, .. } = error else { return false };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind as Kind;
            let lasting = [
                Kind::PermissionDenied,
                Kind::ReadOnlyFilesystem,
                Kind::StorageFull,
                Kind::QuotaExceeded,
                Kind::NotADirectory,
                Kind::InvalidFilename,
            ];
            return !lasting.contains(&error.kind());
        }
        cause = error.source();
    }
    true
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn retry_policy() -> RetryPolicy {
        RetryPolicy { attempts: 3, first_wait: Duration::from_secs(1), ..RetryPolicy::default() }
    }

    fn generic(source: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Failure::Error(Error::Generic { store: "test", source: Box::new(source) })
    }

    async fn attempts_until_failure(failure: impl Fn() -> Failure) -> (u32, Duration) {
        let (mut retry, began) = (Retry::new(&retry_policy(), "read", "x".into()), Instant::now());
        let mut made = 1;
        while retry.after(failure()).await.is_ok() {
            made += 1;
        }
        (made, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_request_is_retried_with_growing_waits() {
        let (made, took) = attempts_until_failure(|| generic(io::Error::other("cut"))).await;
        assert_eq!(made, 3);
        assert!((1.5..=3.0).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_asks_to_slow_down_gets_the_time_it_asks_for_and_more_attempts() {
        let slow_down = SlowDown { status: 503, retry_after: Some(Duration::from_secs(7)) };
        let (made, took) = attempts_until_failure(|| generic(slow_down)).await;
        assert_eq!(made, 9);
        assert!(took >= Duration::from_secs(8 * 7), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_failure_is_not_retried() {
        let full = || generic(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(attempts_until_failure(full).await, (1, Duration::ZERO));
        let missing = || Failure::Error(Error::NotFound { path: "x".into(), source: "none".into() });
        assert_eq!(attempts_until_failure(missing).await, (1, Duration::ZERO));
    }
}
