//! Measures the time between steps.

use std::time::Instant;

use whimbrel_proto::v1;

/// The times of a run's steps.
#[derive(Debug, Default)]
pub(crate) struct StepTimer {
    /// Rank 0's report of the step whose event the core takes now.
    reported: Option<v1::StepApplied>,
    /// When the last step of this generation was announced.
    last: Option<Instant>,
}

impl StepTimer {
    /// The first step of a generation has no step before it to measure from.
    pub(crate) fn begin_generation(&mut self) {
        self.last = None;
    }

    /// Takes a worker's report of a step, before the core is told.
    pub(crate) fn report(&mut self, applied: v1::StepApplied) {
        self.reported = Some(applied);
    }

    /// Takes the time of a step that the core announces. Returns seconds: since the step before (for the first step of a
    /// generation, compute and reduce time), compute time, reduce time.
    pub(crate) fn step(&mut self) -> (f64, f64, f64) {
        let now = Instant::now();
        let reported = self.reported.take();
        let (compute, reduce) =
            reported.map_or((0.0, 0.0), |report| (report.compute_seconds, report.reduce_seconds));
        let since_last = self.last.map(|last| now.duration_since(last).as_secs_f64());
        self.last = Some(now);
        (since_last.unwrap_or(compute + reduce), compute, reduce)
    }
}
