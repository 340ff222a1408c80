//! The connections of a group, and the poll loop that runs operations over them.

use std::time::{Duration, Instant};

use mio::{Events, net::TcpStream};
use whimbrel_plan::Generation;

use crate::{
    error::{During, Error, Peer},
    tcp::{
        connection::{Broken, Connection},
        frame::{Stamp, Unexpected},
        operation::{Operation, Owed},
        wait::Wait,
    },
};

/// The bytes that an operation moved, and the time that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent to all peers, headers included.
    pub sent: u64,
    /// Bytes received from all peers, headers included.
    pub received: u64,
    /// The time of the whole operation.
    pub took: Duration,
    /// The part of it in which this worker only waited for peers.
    pub waited: Duration,
}

/// The connections of a group.
#[derive(Debug)]
pub(crate) struct Mesh {
    me: usize,
    peers: Vec<Peer>,
    /// By rank, which is also the token; `None` at this worker's own. Empty once the mesh is closed.
    connections: Vec<Option<Connection>>,
    wait: Wait,
    /// How long an operation may go without a byte moving.
    idle_timeout: Duration,
    closed: bool,
    traffic: Traffic,
}

impl Mesh {
    pub(crate) fn new(
        generation: &Generation,
        me: usize,
        streams: Vec<Option<TcpStream>>,
        wait: Wait,
        idle_timeout: Duration,
    ) -> Self {
        let own = Stamp::new(generation, me);
        let connection =
            |(rank, stream): (usize, Option<TcpStream>)| Some(Connection::new(stream?, rank, own));
        Self {
            me,
            peers: (0..generation.members.len()).map(|rank| Peer::of(generation, rank)).collect(),
            connections: streams.into_iter().enumerate().map(connection).collect(),
            wait,
            idle_timeout,
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
            // The frame that tells the peers must not be in the middle of another one.
            let connections = self.connections.iter_mut().flatten();
            for connection in connections.filter(|connection| connection.is_sending()) {
                connection.send(operation);
            }
            self.close(error.suspected().map(|peer| peer.rank));
        }
        done
    }

    fn run(&mut self, operation: &mut impl Operation) -> Result<(), Error> {
        self.wait.check()?;
        let mut moved_at = Instant::now();
        loop {
            let moved = operation.compute() | self.advance(operation)?;
            let now = Instant::now();
            if moved {
                moved_at = now;
                let events = self.wait.poll_now()?;
                dispatch(&mut self.connections, events);
                continue;
            }
            let unfinished = self.unfinished(operation);
            if unfinished.is_empty() {
                return Ok(());
            }
            if now >= moved_at + self.idle_timeout {
                return Err(timed_out(operation, &unfinished, now - moved_at));
            }
            let events = self.wait.until(moved_at + self.idle_timeout)?;
            dispatch(&mut self.connections, events);
            self.traffic.waited += now.elapsed();
        }
    }

    /// Sends and receives up to a frame with each peer, so that none waits long for another. Returns whether a byte
    /// moved.
    fn advance(&mut self, operation: &mut impl Operation) -> Result<bool, Error> {
        let (mut sent, mut received) = (0, 0);
        for (connection, peer) in self.connections.iter_mut().zip(&self.peers) {
            let Some(connection) = connection else { continue };
            sent += connection.send(operation);
            received += connection
                .receive(operation)
                .map_err(|broken| failure(broken, *peer, &self.peers, operation.during()))?;
        }
        self.traffic.sent += sent as u64;
        self.traffic.received += received as u64;
        Ok(sent + received > 0)
    }

    /// The peers with which frames are still to be exchanged.
    fn unfinished(&self, operation: &impl Operation) -> Vec<Peer> {
        let unfinished = |connection: &&Connection| {
            let rank = connection.peer();
            connection.is_sending()
                || operation.has_more_for(rank)
                || operation.owed_by(rank) != Owed::Nothing
        };
        let connections = self.connections.iter().flatten().filter(unfinished);
        connections.map(|connection| self.peers[connection.peer()]).collect()
    }

    /// Closes every connection, and tells the peers which rank this worker blames.
    pub(crate) fn close(&mut self, blamed: Option<usize>) {
        self.closed = true;
        for connection in self.connections.drain(..).flatten() {
            connection.close(blamed);
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.close(None);
    }
}

fn dispatch(connections: &mut [Option<Connection>], events: &Events) {
    for event in events {
        if let Some(Some(connection)) = connections.get_mut(event.token().0) {
            connection.on_event(event);
        }
    }
}

fn failure(broken: Broken, peer: Peer, peers: &[Peer], during: During) -> Error {
    match broken {
        Broken::Io(source) => Error::Lost { peer, during, source },
        Broken::Unexpected(Unexpected { expected, found }) => Error::Frame { peer, during, expected, found },
        Broken::Left(blamed) => {
            let blamed = blamed.and_then(|rank| peers.get(rank)).copied();
            Error::Abandoned { peer, during, blamed }
        }
    }
}

/// The error for a group in which no byte moves. It names the peers that owe a contribution of their own; if there are
/// none, those that do not read what they are sent, or owe a result.
fn timed_out(operation: &impl Operation, unfinished: &[Peer], waited: Duration) -> Error {
    let contributes = |peer: &&Peer| operation.owed_by(peer.rank) == Owed::Contribution;
    let mut missing: Vec<Peer> = unfinished.iter().filter(contributes).copied().collect();
    if missing.is_empty() {
        missing = unfinished.to_vec();
    }
    Error::TimedOut { peer: missing[0], during: operation.during(), waited, missing }
}
