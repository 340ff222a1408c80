//! The settings of a run: what the coordinator's `Welcome` says, checked.

use std::{num::NonZeroU64, time::Duration};

use whimbrel_collective::Reduction;
use whimbrel_member::Schedule;
use whimbrel_proto::{border::WireError, v1};
use whimbrel_spec::OnNonfinite;

use crate::trainer::Context;

/// What a worker knows of its run, beyond its generations.
#[derive(Clone, Debug)]
pub(crate) struct RunSettings {
    /// The epoch under which the coordinator decides.
    pub(crate) epoch: u64,
    /// The run's directory.
    pub(crate) uri: String,
    /// Replicas of it in other stores, for what it lacks.
    pub(crate) replicas: Vec<String>,
    /// The limit for saving, in bytes per second.
    pub(crate) bandwidth: Option<NonZeroU64>,
    /// What the program learns of its run.
    pub(crate) context: Context,
    /// Whether the run had applied a step when this worker connected.
    pub(crate) has_begun: bool,
    /// When the run is evaluated, saved and complete.
    pub(crate) schedule: Schedule,
    pub(crate) reduction: Reduction,
    pub(crate) on_nonfinite: OnNonfinite,
    /// The longest wait for peers within one step.
    pub(crate) step_timeout: Duration,
}

impl TryFrom<v1::Welcome> for RunSettings {
    type Error = WireError;

    fn try_from(wire: v1::Welcome) -> Result<Self, WireError> {
        let reduction = match wire.reduction() {
            v1::Reduction::Exact => Reduction::Exact,
            v1::Reduction::F32 => Reduction::F32,
            v1::Reduction::Unspecified => return Err(unknown("welcome.reduction", wire.reduction)),
        };
        let on_nonfinite = match wire.on_nonfinite() {
            v1::OnNonfinite::Stop => OnNonfinite::Stop,
            v1::OnNonfinite::Skip => OnNonfinite::Skip,
            v1::OnNonfinite::Pass => OnNonfinite::Pass,
            v1::OnNonfinite::Unspecified => return Err(unknown("welcome.on_nonfinite", wire.on_nonfinite)),
        };
        if wire.shards == 0 || wire.global_batch == 0 || !wire.global_batch.is_multiple_of(wire.shards) {
            let why =
                format!("{}, which does not divide the global batch of {}", wire.shards, wire.global_batch);
            return Err(WireError::Invalid("welcome.shards", why));
        }
        if wire.threads == 0 {
            return Err(WireError::Invalid("welcome.threads", "0".into()));
        }
        let settings = serde_json::from_str(&wire.settings)
            .map_err(|error| WireError::Invalid("welcome.settings", format!("not JSON: {error}")))?;
        let every = |field, steps: Option<u64>| match steps {
            Some(0) => Err(WireError::Invalid(field, "0".into())),
            steps => Ok(steps),
        };
        Ok(Self {
            epoch: wire.epoch,
            schedule: Schedule {
                steps: wire.steps,
                evaluate_every: every("welcome.evaluate_every", wire.evaluate_every)?,
                checkpoint_every: every("welcome.checkpoint_every", wire.checkpoint_every)?,
            },
            reduction,
            on_nonfinite,
            step_timeout: Duration::from_millis(wire.step_timeout_ms),
            context: Context {
                seed: wire.seed,
                global_batch: wire.global_batch,
                shards: wire.shards,
                steps: wire.steps,
                threads: wire.threads,
                settings,
            },
            has_begun: wire.step > 0,
            uri: wire.uri,
            replicas: wire.replicas,
            bandwidth: match wire.bandwidth.map(NonZeroU64::new) {
                Some(None) => return Err(WireError::Invalid("welcome.bandwidth", "0".into())),
                Some(bandwidth) => bandwidth,
                None => None,
            },
        })
    }
}

fn unknown(field: &'static str, number: i32) -> WireError {
    WireError::Invalid(field, format!("{number} (unknown)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome() -> v1::Welcome {
        v1::Welcome {
            steps: 30,
            global_batch: 12,
            shards: 4,
            threads: 1,
            settings: r#"{"width":8}"#.into(),
            evaluate_every: Some(20),
            reduction: v1::Reduction::Exact.into(),
            on_nonfinite: v1::OnNonfinite::Skip.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_welcome_gives_the_settings() {
        let settings = RunSettings::try_from(welcome()).unwrap();
        let schedule = Schedule { steps: 30, evaluate_every: Some(20), checkpoint_every: None };
        assert_eq!((settings.schedule, settings.on_nonfinite), (schedule, OnNonfinite::Skip));
    }

    #[test]
    fn an_invalid_value_is_refused_by_the_name_of_its_field() {
        let refused = |wire: v1::Welcome| RunSettings::try_from(wire).unwrap_err().to_string();
        assert!(refused(v1::Welcome { shards: 5, ..welcome() }).contains("welcome.shards"));
        assert!(refused(v1::Welcome { shards: 0, ..welcome() }).contains("welcome.shards"));
        assert!(refused(v1::Welcome { threads: 0, ..welcome() }).contains("welcome.threads"));
        assert!(refused(v1::Welcome { settings: "{".into(), ..welcome() }).contains("welcome.settings"));
        assert!(refused(v1::Welcome { evaluate_every: Some(0), ..welcome() }).contains("evaluate_every"));
        assert!(refused(v1::Welcome { bandwidth: Some(0), ..welcome() }).contains("welcome.bandwidth"));
        assert!(refused(v1::Welcome { reduction: 9, ..welcome() }).contains("9 (unknown)"));
    }
}
