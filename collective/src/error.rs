//! The errors of the data plane, and the worker that each points to.

use std::{fmt, io, net::SocketAddr, time::Duration};

use whimbrel_plan::{Generation, WorkerId};

/// A member of a generation, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its rank in the generation.
    pub rank: usize,
    /// The worker.
    pub worker: WorkerId,
    /// Its data address, as the generation gives it.
    pub address: SocketAddr,
}

impl Peer {
    /// The member of rank `rank`, which the generation has.
    pub(crate) fn of(generation: &Generation, rank: usize) -> Self {
        let member = &generation.members[rank];
        Self { rank, worker: member.worker, address: member.address }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rank {}, {})", self.worker, self.rank, self.address)
    }
}

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// The all-reduce of a step.
    AllReduce {
        /// The step.
        step: u64,
    },
    /// The exchange of notes of a step.
    Exchange {
        /// The step.
        step: u64,
    },
    /// Sending the state to members that lack it.
    SendState,
    /// Receiving the state from a member that holds it.
    ReceiveState,
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllReduce { step } => write!(f, "the all-reduce of step {step}"),
            Self::Exchange { step } => write!(f, "the exchange of notes of step {step}"),
            Self::SendState => f.write_str("sending the state"),
            Self::ReceiveState => f.write_str("receiving the state"),
        }
    }
}

/// Why a group could not be joined, or an operation failed.
///
/// All but [`Misuse`](Self::Misuse) end the group: its connections are closed, and the run needs a new generation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection to a peer broke: most likely its process or its machine died.
    #[error("lost the connection to {peer} in {during}; report it, and join the next generation")]
    Lost {
        /// The peer.
        peer: Peer,
        /// The operation.
        during: During,
        /// The error of the connection.
        #[source]
        source: io::Error,
    },
    /// A peer left the group on purpose, after a failure on its side or an interrupt.
    #[error("{peer} left the group in {during}{}; join the next generation", blame(.blamed.as_ref()))]
    Abandoned {
        /// The peer that left.
        peer: Peer,
        /// The operation.
        during: During,
        /// The peer that it blames for the failure.
        blamed: Option<Peer>,
    },
    /// No byte moved for [`Limits::step`](crate::Limits::step): a process hangs, or a network drops packets.
    #[error("no byte moved for {waited:?} in {during}, and {peer} owes most; missing: {}", list(.missing))]
    TimedOut {
        /// The first of the peers that owe most.
        peer: Peer,
        /// The operation.
        during: During,
        /// How long no byte moved.
        waited: Duration,
        /// All peers that owe as much. Peers that only wait for others are not among them.
        missing: Vec<Peer>,
    },
    /// A peer sent an unexpected frame: it runs other code, or another training program.
    #[error(
        "{peer} sent {found} in {during}, where {expected} was expected; check that all workers run the same program"
    )]
    Frame {
        /// The peer.
        peer: Peer,
        /// The operation.
        during: During,
        /// The frame that was expected.
        expected: String,
        /// The frame that was received.
        found: String,
    },
    /// Another thread interrupted the generation.
    #[error("generation {generation} was interrupted; join the one that replaces it")]
    Interrupted {
        /// The generation of the operation.
        generation: u64,
    },
    /// No connection to a member could be made in time.
    #[error(
        "could not join with {peer} within {waited:?}; check that it runs and that its address can be reached from here"
    )]
    Unreachable {
        /// The member.
        peer: Peer,
        /// How long this worker tried.
        waited: Duration,
        /// The error of the last attempt.
        #[source]
        source: io::Error,
    },
    /// The operating system refused an operation that concerns no peer.
    #[error("could not {doing}; check the limits on open files")]
    System {
        /// The operation.
        doing: &'static str,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The caller's arguments contradict the group. Nothing was sent.
    #[error("misuse of the group: {0}")]
    Misuse(String),
}

impl Error {
    /// The worker that this error points to, if to any. It is evidence, not proof: the network may be at fault.
    pub fn suspect(&self) -> Option<WorkerId> {
        self.suspected().map(|peer| peer.worker)
    }

    pub(crate) fn suspected(&self) -> Option<Peer> {
        match self {
            Self::Lost { peer, .. }
            | Self::TimedOut { peer, .. }
            | Self::Frame { peer, .. }
            | Self::Unreachable { peer, .. } => Some(*peer),
            Self::Abandoned { blamed, .. } => *blamed,
            Self::Interrupted { .. } | Self::System { .. } | Self::Misuse(_) => None,
        }
    }
}

fn blame(blamed: Option<&Peer>) -> String {
    blamed.map_or_else(String::new, |peer| format!(" because of {peer}"))
}

fn list(peers: &[Peer]) -> String {
    let names: Vec<String> = peers.iter().map(Peer::to_string).collect();
    names.join(", ")
}
