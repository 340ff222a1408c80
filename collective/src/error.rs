//! What can go wrong among workers, and whom it points to.

use std::{fmt, io, net::SocketAddr, time::Duration};

use whimbrel_plan::WorkerId;

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

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rank {}, {})", self.worker, self.rank, self.address)
    }
}

/// The operation in which something went wrong.
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

/// Why a group could not be joined, or an operation not be finished.
///
/// All but [`Misuse`](Self::Misuse) end the group: its connections are closed, and a new generation is needed to go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection to a peer broke: most likely its process or its machine died.
    #[error("lost the connection to {peer} in {during}; report it, and join the next generation")]
    Lost {
        /// The peer.
        peer: Peer,
        /// What was going on.
        during: During,
        /// What the connection said.
        #[source]
        source: io::Error,
    },
    /// A peer left the group on purpose, because something failed on its side or because it was interrupted.
    #[error("{peer} left the group in {during}{}; join the next generation", blame(.blamed.as_ref()))]
    Abandoned {
        /// Who left.
        peer: Peer,
        /// What was going on.
        during: During,
        /// Whom it holds to be the cause.
        blamed: Option<Peer>,
    },
    /// Nothing moved for as long as [`Limits::step`](crate::Limits::step) allows: a process hangs, or a network swallows.
    #[error("no byte moved for {waited:?} in {during}, and {peer} owes most; missing: {}", list(.missing))]
    TimedOut {
        /// The first of those that owe most.
        peer: Peer,
        /// What was going on.
        during: During,
        /// How long nothing moved.
        waited: Duration,
        /// Everyone who owes as much. Those who only wait for others themselves are not among them.
        missing: Vec<Peer>,
    },
    /// A peer sent something else than what was to come: it runs other code, or another training program.
    #[error(
        "{peer} sent {found} in {during}, where {expected} was to come; check that all workers run the same program"
    )]
    Frame {
        /// The peer.
        peer: Peer,
        /// What was going on.
        during: During,
        /// What was to come.
        expected: String,
        /// What came.
        found: String,
    },
    /// Another thread interrupted the generation.
    #[error("generation {generation} was interrupted; join the one that replaces it")]
    Interrupted {
        /// The generation of the operation.
        generation: u64,
    },
    /// A member did not come into the group in time.
    #[error(
        "could not join with {peer} within {waited:?}; check that it runs and that its address can be reached from here"
    )]
    Unreachable {
        /// The member.
        peer: Peer,
        /// How long was tried.
        waited: Duration,
        /// What the last attempt said.
        #[source]
        source: io::Error,
    },
    /// The operating system refused something that concerns no peer.
    #[error("could not {doing}; check the limits on open files")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The caller's arguments contradict the group; nothing was sent.
    #[error("misuse of the group: {0}")]
    Misuse(String),
}

impl Error {
    /// The worker this points to, if to any. It is evidence, not proof: the link may be at fault.
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
