//! Decides whether another coordinator holds a run that this one tries to adopt.

use std::time::Duration;

use tokio::time::Instant;
use whimbrel_store::RunLog;

use crate::open::facts;

/// What adoption remembers of a run's log between two looks at it.
#[derive(Default)]
pub(crate) struct Rival {
    /// The epoch at the first look, or after this coordinator's own last term.
    epoch: Option<u64>,
    /// Since when others have started terms without one of them having the run go on.
    since: Option<Instant>,
    /// A warning about the rival has been logged.
    pub(crate) is_logged: bool,
}

/// Who holds a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// No other coordinator: this one may adopt the run.
    Free,
    /// Another coordinator has started a term. It may be about to have the run go on, or may have failed to.
    Unclear,
    /// Another coordinator has the run go on.
    Rival,
}

impl Rival {
    /// Decides by the run's log as it is now. `me` is this coordinator's name. A coordinator that started a term while this one
    /// tried to adopt the run is left alone, unless it has not had the run go on within `timeout`.
    pub(crate) fn holder(
        &mut self,
        run_log: &RunLog,
        me: &str,
        timeout: impl FnOnce() -> Duration,
    ) -> Holder {
        let epoch = run_log.epoch();
        let by_another = self.epoch.is_some_and(|before| before < epoch) && run_log.coordinator() != Some(me);
        if !by_another {
            *self = Self { epoch: Some(epoch), ..Self::default() };
            return Holder::Free;
        }
        if facts::has_gone_on(run_log) {
            self.since = None;
            return Holder::Rival;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < timeout() { Holder::Unclear } else { Holder::Free }
    }

    /// The state after a look that found epoch 0.
    #[cfg(test)]
    pub(crate) fn after_epoch_0() -> Self {
        Self { epoch: Some(0), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_store::{HostedBy, Record, Store};

    use super::*;

    #[tokio::test]
    async fn a_rival_is_left_alone_unless_it_never_has_the_run_go_on() {
        let timeout = Duration::from_secs(3600);
        let folder = tempfile::tempdir().unwrap();
        let run = Store::open(folder.path().to_str().unwrap()).unwrap().run(&"r-1".parse().unwrap());
        run.create("a spec", HostedBy::Service).await.unwrap();
        let (mut fresh, hour) = (Rival::default(), || timeout);
        assert_eq!(fresh.holder(&run.run_log().await.unwrap(), "me", hour), Holder::Free);
        // The coordinator that a run is submitted to has it go on with its first term.
        run.start_term("the first").await.unwrap();
        assert_eq!(fresh.holder(&run.run_log().await.unwrap(), "me", hour), Holder::Rival);

        // A coordinator that held the run before the first look is taken over from; so is this one itself.
        let mut rival = Rival::default();
        assert_eq!(rival.holder(&run.run_log().await.unwrap(), "me", hour), Holder::Free);
        run.start_term("me").await.unwrap();
        assert_eq!(rival.holder(&run.run_log().await.unwrap(), "me", hour), Holder::Free);
        // The others together have one hour, however many they are.
        run.start_term("another").await.unwrap();
        assert_eq!(rival.holder(&run.run_log().await.unwrap(), "me", hour), Holder::Unclear);
        run.start_term("a third").await.unwrap();
        let run_log = run.run_log().await.unwrap();
        tokio::time::pause();
        tokio::time::advance(timeout - Duration::from_secs(1)).await;
        assert_eq!(rival.holder(&run_log, "me", hour), Holder::Unclear);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(rival.holder(&run_log, "me", hour), Holder::Free);
        tokio::time::resume();
        // A coordinator that has the run go on is left alone for good.
        let mut other = run.start_term("another").await.unwrap();
        other.append(Record::Resumed { step: 0 }).await.unwrap();
        let run_log = run.run_log().await.unwrap();
        assert_eq!(rival.holder(&run_log, "me", hour), Holder::Rival);
        tokio::time::pause();
        tokio::time::advance(2 * timeout).await;
        assert_eq!(rival.holder(&run_log, "me", hour), Holder::Rival);
        tokio::time::resume();
        // A coordinator that takes over from that one has an hour of its own.
        run.start_term("a third").await.unwrap();
        let run_log = run.run_log().await.unwrap();
        assert_eq!(rival.holder(&run_log, "me", hour), Holder::Unclear);
    }
}
