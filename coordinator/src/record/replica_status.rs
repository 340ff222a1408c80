//! The status of one replica, and how long the recorder waits for it at the end of a run.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use whimbrel_store::{Limits, RunDir};

/// At the end of a run, the recorder gives up a replica that gets no pack for this long, or for [`pack_timeout`] if that is
/// longer.
const TIMEOUT: Duration = Duration::from_secs(120);
/// At the end of a run, the recorder gives up a replica after this many failed rounds.
const LAST_ATTEMPTS: u32 = 2;

/// The status of a replica. Its replica task writes it; the recorder and the driver read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaStatus {
    /// The run's directory in the replica; the store, while that cannot be opened.
    pub(crate) uri: String,
    /// Steps applied in the newest checkpoint there; `None` if there is none or it is not known yet.
    pub(crate) newest: Option<u64>,
    /// Bytes of packs that the replica lacks; an upper bound until they are looked for.
    pub(crate) missing_bytes: u64,
    /// Why the replica is not up to date, for people.
    pub(crate) problem: Option<String>,
    /// Entries of the run's log that the replica has.
    pub(crate) entries: u64,
    /// Entries of the run's log that it must have.
    pub(crate) wanted_entries: u64,
    /// Bytes of packs that have arrived.
    pub(crate) arrived_bytes: u64,
    /// Failed rounds.
    pub(crate) failures: u32,
    /// How long no pack may arrive before the recorder gives the replica up.
    pub(crate) timeout: Duration,
}

impl ReplicaStatus {
    /// The status of a replica of which nothing is known yet and which must have `wanted_entries` entries of the run's log.
    pub(crate) fn unknown(uri: String, wanted_entries: u64) -> Self {
        Self {
            uri,
            newest: None,
            missing_bytes: 0,
            problem: None,
            entries: 0,
            wanted_entries,
            arrived_bytes: 0,
            failures: 0,
            timeout: TIMEOUT,
        }
    }

    /// Whether the replica has all that it must have.
    pub(crate) fn is_up_to_date(&self) -> bool {
        self.entries >= self.wanted_entries && self.wanted_entries > 0 && self.problem.is_none()
    }
}

/// How long no pack may arrive at a replica: twice the time that the store allows for one pack, since packs that did not fit
/// into the bandwidth are begun again; with a bandwidth cap, at least one and a half times what the cap allows for all packs
/// that are sent at once.
pub(crate) fn pack_timeout(replica: &RunDir, limits: &Limits) -> Duration {
    let pack = limits.pack_bytes as u64;
    let in_flight = pack.saturating_mul(limits.concurrency.max(1) as u64);
    let capped = limits.bandwidth.map_or(0, |bandwidth| in_flight.saturating_mul(3) / 2 / bandwidth.get());
    TIMEOUT.max(2 * replica.deadline_of_pack(pack)).max(Duration::from_secs(capped))
}

/// Waits until a replica has `entries` entries of the run's log. Stops waiting when no pack arrives in time, after
/// [`LAST_ATTEMPTS`] failures, when the replica task ends, or when `deadline` completes. Returns `None` if the replica is up
/// to date, else its status, with the problem filled in.
pub(crate) async fn wait_until_up_to_date(
    status: &watch::Receiver<ReplicaStatus>,
    entries: u64,
    deadline: impl Future,
) -> Option<ReplicaStatus> {
    tokio::select! {
        biased;
        left = wait_while_it_progresses(status.clone(), entries) => left,
        _ = deadline => {
            let now = status.borrow().clone();
            let problem = now.problem.clone().or(Some("the coordinator shuts down".to_owned()));
            Some(ReplicaStatus { problem, ..now })
        }
    }
}

async fn wait_while_it_progresses(
    mut status: watch::Receiver<ReplicaStatus>,
    entries: u64,
) -> Option<ReplicaStatus> {
    let (failures, mut arrived_bytes) = {
        let now = status.borrow();
        (now.failures, now.arrived_bytes)
    };
    let mut arrived_at = Instant::now();
    loop {
        let now = status.borrow_and_update().clone();
        if now.entries >= entries {
            return (!now.is_up_to_date()).then_some(now);
        }
        if now.failures >= failures + LAST_ATTEMPTS {
            return Some(now);
        }
        if now.arrived_bytes > arrived_bytes {
            arrived_bytes = now.arrived_bytes;
            arrived_at = Instant::now();
        }
        match timeout_at(arrived_at + now.timeout, status.changed()).await {
            Ok(Ok(())) => {}
            // The replica task has ended.
            Ok(Err(_)) => return Some(now),
            Err(_) => {
                let seconds = now.timeout.as_secs();
                let problem = now.problem.clone().or(Some(format!("nothing arrived for {seconds} s")));
                return Some(ReplicaStatus { problem, ..now });
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

    fn replica_status() -> (watch::Sender<ReplicaStatus>, watch::Receiver<ReplicaStatus>) {
        watch::channel(ReplicaStatus {
            timeout: Duration::from_secs(500),
            ..ReplicaStatus::unknown("west".into(), 7)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_recorder_waits_for_a_replica_as_long_as_packs_arrive_within_the_timeout() {
        let (sender, receiver) = replica_status();
        let slowly = async {
            for pack in 1..=5 {
                sleep(Duration::from_secs(450)).await;
                sender.send_modify(|status| status.arrived_bytes = pack << 26);
            }
            sleep(Duration::from_secs(450)).await;
            sender.send_modify(|status| status.entries = 7);
        };
        let (left, ()) = tokio::join!(wait_until_up_to_date(&receiver, 7, pending::<()>()), slowly);
        assert_eq!(left, None);

        let (_sender, receiver) = replica_status();
        let began = Instant::now();
        let left = wait_until_up_to_date(&receiver, 7, pending::<()>()).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 500);
        assert_eq!(left.problem.unwrap(), "nothing arrived for 500 s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_the_wait_even_while_packs_arrive() {
        let (sender, receiver) = replica_status();
        let moving = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                sender.send_modify(|status| status.arrived_bytes += 1);
            }
        };
        let began = Instant::now();
        let left = tokio::select! {
            left = wait_until_up_to_date(&receiver, 7, sleep(Duration::from_secs(45))) => left.unwrap(),
            never = moving => never,
        };
        assert_eq!(
            (began.elapsed().as_secs(), left.problem.as_deref()),
            (45, Some("the coordinator shuts down"))
        );
    }

    #[tokio::test]
    async fn the_timeout_follows_the_stores_deadline_for_a_pack_and_the_bandwidth_cap() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let dir = store.run(&"r-1".parse().unwrap());
        let limits = Limits::default();
        let slowest = Duration::from_secs(30 + (64 << 20) / (256 << 10));
        assert!(pack_timeout(&dir, &limits) >= 2 * slowest, "{:?}", pack_timeout(&dir, &limits));
        let small = Limits { pack_bytes: 1 << 20, ..limits };
        assert_eq!(pack_timeout(&dir, &small), TIMEOUT);
        let capped = Limits { bandwidth: std::num::NonZeroU64::new(100 << 10), ..small };
        let at_the_cap = 3 * small.concurrency as u64 * 1024 / 100 / 2;
        assert_eq!(pack_timeout(&dir, &capped), TIMEOUT.max(Duration::from_secs(at_the_cap)));
    }
}
