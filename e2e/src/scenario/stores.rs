//! The run of a scenario and the store of its copy: how they are opened, and their limits.

use std::time::Duration;

use whimbrel_store::{Limits, Retention, RetryPolicy, RunDir, Store};

use super::promise::ScenarioResult;

/// The id of the run.
const RUN: &str = "r";

/// Limits with packs so small that a state of a few hundred bytes has several.
pub(super) const LIMITS: Limits = Limits { pack_bytes: 128, concurrency: 3, bandwidth: None };

/// Keeps one checkpoint more than one damaged upload can damage.
pub(super) const KEEP: Retention =
    Retention { last: 2, every: None, grace: Duration::ZERO, in_flight: Vec::new() };

/// The run in the store at `uri`, with a retry policy that is long enough for a busy machine and short enough that a
/// store that hangs takes two seconds.
pub(super) fn run_in(uri: &str) -> ScenarioResult<RunDir> {
    let retries = RetryPolicy {
        attempts: 4,
        first_wait: Duration::from_millis(2),
        answer: Duration::from_secs(2),
        slowest: 1 << 30,
    };
    Ok(Store::open(uri)?.with_retry_policy(retries).run(&RUN.parse()?))
}

/// The run in the store at `uri`, with the default retry policy.
pub(super) fn patient_run(uri: &str) -> ScenarioResult<RunDir> {
    Ok(Store::open(uri)?.run(&RUN.parse()?))
}

/// The copy of the run in the store at `uri`: under another prefix of the same bucket.
pub(super) fn copy_of(uri: &str) -> ScenarioResult<RunDir> {
    run_in(&whimbrel_store::uri::inside(uri, "copy"))
}
