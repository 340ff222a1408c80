//! The connections of a group, and the poll loop that runs operations over them.

use std::time::{Duration, Instant};

use mio::{Events, net::TcpStream};
use whimbrel_plan::Generation;

use crate::{
    error::{During, Error, Peer},
    tcp::{
        connection::{Broken, Link},
        frame::{Stamp, Unexpected},
        operation::{Operation, Owed},
        wait::Wait,
    },
};

/// What an operation moved, and what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent to all peers, headers included.
    pub sent: u64,
    /// Bytes received from all peers, headers included.
    pub received: u64,
    /// The time of the whole operation.
    pub took: Duration,
    /// The part of it in which there was nothing to do but wait for peers.
    pub waited: Duration,
}

/// The connections of a group.
#[derive(Debug)]
pub(crate) struct Mesh {
    me: usize,
    peers: Vec<Peer>,
    /// By rank, which is also the token; `None` at this worker's own. Empty once the mesh is closed.
    links: Vec<Option<Link>>,
    wait: Wait,
    /// How long an operation may go without a byte moving.
    silence: Duration,
    closed: bool,
    traffic: Traffic,
}

impl Mesh {
    pub(crate) fn new(
        generation: &Generation,
        me: usize,
        streams: Vec<Option<TcpStream>>,
        wait: Wait,
        silence: Duration,
    ) -> Self {
        let own = Stamp::new(generation, me);
        let link = |(rank, stream): (usize, Option<TcpStream>)| Some(Link::new(stream?, rank, own));
        Self {
            me,
            peers: (0..generation.members.len()).map(|rank| Peer::of(generation, rank)).collect(),
            links: streams.into_iter().enumerate().map(link).collect(),
            wait,
            silence,
            closed: false,
            traffic: Traffic::default(),
        }
    }

    /// This worker's rank.
    pub(crate) fn rank(&self) -> usize {
        self.me
    }

    /// What the last operation moved.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Runs an operation to its end. A failure closes the mesh.
    pub(crate) fn drive(&mut self, operation: &mut impl Operation) -> Result<(), Error> {
        if self.closed {
            self.wait.check()?;
            return Err(Error::Misuse(format!(
                "{} in a group that an earlier failure closed; join the next generation",
                operation.during()
            )));
        }
        self.traffic = Traffic::default();
        let began = Instant::now();
        let done = self.run(operation);
        self.traffic.took = began.elapsed();
        if let Err(error) = &done {
            // A farewell can only be said between frames.
            for link in self.links.iter_mut().flatten().filter(|link| link.is_sending()) {
                link.send(operation);
            }
            self.close(error.suspected().map(|peer| peer.rank));
        }
        done
    }

    fn run(&mut self, operation: &mut impl Operation) -> Result<(), Error> {
        self.wait.check()?;
        let mut moved_at = Instant::now();
        loop {
            let moved = operation.work() | self.advance(operation)?;
            let now = Instant::now();
            if moved {
                moved_at = now;
                let events = self.wait.look()?;
                notice(&mut self.links, events);
                continue;
            }
            let unfinished = self.unfinished(operation);
            if unfinished.is_empty() {
                return Ok(());
            }
            if now >= moved_at + self.silence {
                return Err(timed_out(operation, &unfinished, now - moved_at));
            }
            let events = self.wait.until(moved_at + self.silence)?;
            notice(&mut self.links, events);
            self.traffic.waited += now.elapsed();
        }
    }

    /// Moves what can be moved, up to a frame with each peer in each direction, so that none has to wait long for
    /// another. Says whether anything moved.
    fn advance(&mut self, operation: &mut impl Operation) -> Result<bool, Error> {
        let (mut sent, mut received) = (0, 0);
        for (link, peer) in self.links.iter_mut().zip(&self.peers) {
            let Some(link) = link else { continue };
            sent += link.send(operation);
            received += link
                .receive(operation)
                .map_err(|broken| failure(broken, *peer, &self.peers, operation.during()))?;
        }
        self.traffic.sent += sent as u64;
        self.traffic.received += received as u64;
        Ok(sent + received > 0)
    }

    /// The peers with which something is left to exchange.
    fn unfinished(&self, operation: &impl Operation) -> Vec<Peer> {
        let unfinished = |link: &&Link| {
            let rank = link.peer();
            link.is_sending() || operation.has_more_for(rank) || operation.owed_by(rank) != Owed::Nothing
        };
        self.links.iter().flatten().filter(unfinished).map(|link| self.peers[link.peer()]).collect()
    }

    /// Closes every connection, telling the peers whom this worker blames.
    pub(crate) fn close(&mut self, blamed: Option<usize>) {
        self.closed = true;
        for link in self.links.drain(..).flatten() {
            link.close(blamed);
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.close(None);
    }
}

fn notice(links: &mut [Option<Link>], events: &Events) {
    for event in events {
        if let Some(Some(link)) = links.get_mut(event.token().0) {
            link.notice(event);
        }
    }
}

fn failure(broken: Broken, peer: Peer, peers: &[Peer], during: During) -> Error {
    match broken {
        Broken::Io(source) => Error::Lost { peer, during, source },
        Broken::Unexpected(Unexpected { expected, found }) => Error::Frame { peer, during, expected, found },
        Broken::Farewell(blamed) => {
            let blamed = blamed.and_then(|rank| peers.get(rank)).copied();
            Error::Abandoned { peer, during, blamed }
        }
    }
}

/// Who is to blame for silence: those who owe what they have by themselves; if there are none, those who do not take
/// what they are sent or owe what they make of it.
fn timed_out(operation: &impl Operation, unfinished: &[Peer], waited: Duration) -> Error {
    let contributes = |peer: &&Peer| operation.owed_by(peer.rank) == Owed::Contribution;
    let mut missing: Vec<Peer> = unfinished.iter().filter(contributes).copied().collect();
    if missing.is_empty() {
        missing = unfinished.to_vec();
    }
    Error::TimedOut { peer: missing[0], during: operation.during(), waited, missing }
}
