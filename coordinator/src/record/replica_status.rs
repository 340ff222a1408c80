//! How a replica stands, and how long it is waited for at a run's end.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use whimbrel_proto::v1;
use whimbrel_store::{Limits, RunDir};

/// At a run's end, a replica that gets no pack for this long, or for as long as a pack may take there, is given up …
const PATIENCE: Duration = Duration::from_secs(120);
/// … or after so many failures.
const LAST_TRIES: u32 = 2;

/// How a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The run's directory in it; the store, as long as that cannot be opened.
    pub(crate) uri: String,
    /// Steps applied in the newest checkpoint there, as far as is known.
    pub(crate) newest: Option<u64>,
    /// Bytes of packs that it lacks; at most, until they are looked for.
    pub(crate) lacks: u64,
    /// Why it does not come into step.
    pub(crate) trouble: Option<String>,
    /// Entries of the run's log that it is in step with.
    pub(crate) entries: u64,
    /// Entries of the run's log at present.
    pub(crate) of: u64,
    /// Bytes that have arrived.
    pub(crate) moved: u64,
    /// Rounds that failed.
    pub(crate) failures: u32,
    /// How long it may get no pack and still be thought to get one.
    pub(crate) patience: Duration,
}

impl Standing {
    /// That of a replica of which nothing is known, and which is to have so many entries of the run's log.
    pub(crate) fn new(uri: String, of: u64) -> Self {
        let (newest, lacks, trouble, entries, moved, failures) = (None, 0, None, 0, 0, 0);
        Self { uri, newest, lacks, trouble, entries, of, moved, failures, patience: PATIENCE }
    }

    /// Whether the replica has all it is to have.
    pub(crate) fn is_in_step(&self) -> bool {
        self.entries >= self.of && self.of > 0 && self.trouble.is_none()
    }

    /// As clients are told of it. `newest` is the step of the run's newest checkpoint.
    pub(crate) fn status(&self, newest: Option<u64>) -> v1::ReplicaStatus {
        v1::ReplicaStatus {
            uri: self.uri.clone(),
            checkpoint: self.newest,
            steps_behind: newest.unwrap_or(0).saturating_sub(self.newest.unwrap_or(0)),
            bytes_behind: self.lacks,
            trouble: self.trouble.clone().unwrap_or_default(),
            in_step: self.is_in_step(),
        }
    }
}

/// How long a replica may get no pack. As long as a pack takes that the store is content with, and once more, since those
/// that were too many at a time are begun again; under a bandwidth cap, as long as the packs under way take, and half as
/// long again.
pub(crate) fn patience(replica: &RunDir, limits: &Limits) -> Duration {
    let pack = limits.pack_bytes as u64;
    let under_way = pack.saturating_mul(limits.concurrency.max(1) as u64);
    let capped = limits.bandwidth.map_or(0, |bandwidth| under_way.saturating_mul(3) / 2 / bandwidth.get());
    PATIENCE.max(2 * replica.deadline_of_pack(pack)).max(Duration::from_secs(capped))
}

/// Waits until a replica is in step with so many entries, or nothing suggests any more that it will be, or `last_call`
/// comes; how it stands, if it did not get there.
pub(crate) async fn until_in_step(
    standing: &watch::Receiver<Standing>,
    entries: u64,
    last_call: impl Future,
) -> Option<Standing> {
    tokio::select! {
        biased;
        left = until_given_up(standing.clone(), entries) => left,
        _ = last_call => {
            let now = standing.borrow().clone();
            let trouble = now.trouble.clone().or(Some("the coordinator shuts down".to_owned()));
            Some(Standing { trouble, ..now })
        }
    }
}

async fn until_given_up(mut standing: watch::Receiver<Standing>, entries: u64) -> Option<Standing> {
    let (failures, mut moved) = {
        let now = standing.borrow();
        (now.failures, now.moved)
    };
    let mut moved_at = Instant::now();
    loop {
        let now = standing.borrow_and_update().clone();
        if now.entries >= entries {
            return (!now.is_in_step()).then_some(now);
        }
        if now.failures >= failures + LAST_TRIES {
            return Some(now);
        }
        if now.moved > moved {
            moved = now.moved;
            moved_at = Instant::now();
        }
        match timeout_at(moved_at + now.patience, standing.changed()).await {
            Ok(Ok(())) => {}
            // The keeper has ended, the run having gone on elsewhere; or nothing moves.
            Ok(Err(_)) => return Some(now),
            Err(_) => {
                let seconds = now.patience.as_secs();
                let trouble = now.trouble.clone().or(Some(format!("nothing arrived for {seconds} s")));
                return Some(Standing { trouble, ..now });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;
    use whimbrel_store::Store;

    use super::*;

    fn standing() -> (watch::Sender<Standing>, watch::Receiver<Standing>) {
        watch::channel(Standing { patience: Duration::from_secs(500), ..Standing::new("west".into(), 7) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_waited_for_as_long_as_packs_arrive_in_the_time_that_they_may_take() {
        let (sender, receiver) = standing();
        let slowly = async {
            for pack in 1..=5 {
                sleep(Duration::from_secs(450)).await;
                sender.send_modify(|standing| standing.moved = pack << 26);
            }
            sleep(Duration::from_secs(450)).await;
            sender.send_modify(|standing| standing.entries = 7);
        };
        let (left, ()) = tokio::join!(until_in_step(&receiver, 7, pending::<()>()), slowly);
        assert_eq!(left, None);

        let (_sender, receiver) = standing();
        let began = Instant::now();
        let left = until_in_step(&receiver, 7, pending::<()>()).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 500);
        assert_eq!(left.trouble.unwrap(), "nothing arrived for 500 s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_call_ends_the_wait_however_well_it_goes_on() {
        let (sender, receiver) = standing();
        let moving = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                sender.send_modify(|standing| standing.moved += 1);
            }
        };
        let began = Instant::now();
        let left = tokio::select! {
            left = until_in_step(&receiver, 7, sleep(Duration::from_secs(45))) => left.unwrap(),
            never = moving => never,
        };
        assert_eq!(
            (began.elapsed().as_secs(), left.trouble.as_deref()),
            (45, Some("the coordinator shuts down"))
        );
    }

    #[tokio::test]
    async fn a_store_that_has_shown_no_speed_is_given_the_time_that_a_pack_may_take() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let dir = store.run(&"r-1".parse().unwrap());
        let limits = Limits::default();
        let slowest = Duration::from_secs(30 + (64 << 20) / (256 << 10));
        assert!(patience(&dir, &limits) >= 2 * slowest, "{:?}", patience(&dir, &limits));
        let small = Limits { pack_bytes: 1 << 20, ..limits };
        assert_eq!(patience(&dir, &small), PATIENCE);
        let capped = Limits { bandwidth: std::num::NonZeroU64::new(100 << 10), ..small };
        let at_the_cap = 3 * small.concurrency as u64 * 1024 / 100 / 2;
        assert_eq!(patience(&dir, &capped), PATIENCE.max(Duration::from_secs(at_the_cap)));
    }
}
