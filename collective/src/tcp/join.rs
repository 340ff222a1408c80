//! Connecting the members of a generation in a full mesh: higher ranks dial lower ones.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{
    Interest, Token,
    net::{TcpListener, TcpStream},
};
use whimbrel_plan::Generation;

use crate::{
    error::{Error, Peer},
    tcp::{
        connection::Connection,
        frame::Stamp,
        handshake::{Handshake, Membership, Refusal},
        wait::Wait,
    },
};

/// For an incoming connection to complete its handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// Incoming connections that may be in their handshake at a time, above the number of members. Of more, those that have
/// sent nothing are dropped first, the oldest before the others.
const MAX_ARRIVALS: usize = 64;
/// The pause between attempts to dial a member: the first, doubled up to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

const LISTENER: Token = Token(usize::MAX - 1);
/// Tokens below are ranks; incoming connections count up from here until their rank is known.
const ARRIVALS: usize = 1 << 32;
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Connects rank `me` with every other member. Returns the streams by rank, `None` at `me`; they are registered for
/// both directions, with the rank as token.
pub(crate) fn join(
    listener: &mut TcpListener,
    generation: &Generation,
    me: usize,
    limit: Duration,
    wait: &mut Wait,
) -> Result<Vec<Option<TcpStream>>, Error> {
    let listen = |source| Error::System { doing: "listen for the members of a generation", source };
    wait.registry().register(listener, LISTENER, Interest::READABLE).map_err(listen)?;
    let mut joining = Joining {
        membership: Membership::new(generation),
        me,
        slots: (0..generation.members.len()).map(|rank| Slot::new(generation, me, rank)).collect(),
        arrivals: Vec::new(),
        arrived: 0,
    };
    let joined = joining.run(listener, limit, wait);
    let deregistered = wait.registry().deregister(listener).map_err(listen);
    let missing = joined.and_then(|missing| deregistered.map(|()| missing));
    let failed = match missing {
        Ok(None) => return Ok(joining.slots.into_iter().map(Slot::into_stream).collect()),
        Ok(Some(rank)) => Error::Unreachable {
            peer: Peer::of(generation, rank),
            waited: limit,
            source: joining.slots[rank].reason(),
        },
        Err(error) => error,
    };
    // Members that are connected already learn that the group does not come about, and why.
    let own = Stamp::new(generation, me);
    for (rank, slot) in joining.slots.into_iter().enumerate() {
        if let Some(stream) = slot.into_stream() {
            Connection::new(stream, rank, own).close(failed.suspected().map(|peer| peer.rank));
        }
    }
    Err(failed)
}

struct Joining {
    membership: Membership,
    me: usize,
    slots: Vec<Slot>,
    arrivals: Vec<Arrival>,
    arrived: usize,
}

/// The state of the connection to a member.
enum Slot {
    Own,
    /// The member dials, and this side waits.
    Awaited,
    Dialling(Box<Dialling>),
    Joined(TcpStream),
}

struct Dialling {
    rank: usize,
    address: SocketAddr,
    attempt: Option<(TcpStream, Handshake)>,
    retry_at: Instant,
    pause: Duration,
    last: Option<io::Error>,
}

/// An incoming connection whose handshake is not complete.
struct Arrival {
    stream: TcpStream,
    address: SocketAddr,
    handshake: Handshake,
    until: Instant,
}

impl Joining {
    /// Runs until all members are connected, or until the limit. Then it returns a rank that is missing.
    fn run(
        &mut self,
        listener: &TcpListener,
        limit: Duration,
        wait: &mut Wait,
    ) -> Result<Option<usize>, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let now = Instant::now();
            self.accept(listener, now, wait)?;
            self.advance_arrivals(now, wait)?;
            let mut next = deadline;
            for slot in &mut self.slots {
                let Slot::Dialling(dialling) = slot else { continue };
                if let Some(stream) = dialling.advance(self.membership, self.me, now, wait) {
                    *slot = Slot::Joined(stream);
                } else if dialling.attempt.is_none() {
                    next = next.min(dialling.retry_at);
                }
            }
            let missing = self.slots.iter().position(Slot::is_missing);
            if missing.is_none() || now >= deadline {
                return Ok(missing);
            }
            let until = self.arrivals.iter().map(|arrival| arrival.until).fold(next, Instant::min);
            wait.until(until)?;
        }
    }

    fn accept(&mut self, listener: &TcpListener, now: Instant, wait: &Wait) -> Result<(), Error> {
        loop {
            let (mut stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The connection was closed before it was accepted, or a signal came.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(source) => return Err(Error::System { doing: "accept a connection", source }),
            };
            self.arrived += 1;
            let token = Token(ARRIVALS + self.arrived);
            let ready =
                stream.set_nodelay(true).and_then(|()| wait.registry().register(&mut stream, token, BOTH));
            match ready {
                Ok(()) => {
                    let handshake = Handshake::listen(self.membership, self.me);
                    self.arrivals.push(Arrival { stream, address, handshake, until: now + HANDSHAKE });
                }
                Err(error) => Self::refuse(address, &Refusal::Io(error)),
            }
        }
    }

    fn advance_arrivals(&mut self, now: Instant, wait: &Wait) -> Result<(), Error> {
        for mut arrival in std::mem::take(&mut self.arrivals) {
            match arrival.handshake.advance(&mut arrival.stream) {
                Ok(Some(rank)) => {
                    let mut stream = arrival.stream;
                    let known = wait.registry().reregister(&mut stream, Token(rank), BOTH);
                    known.map_err(|source| Error::System { doing: "watch a connection", source })?;
                    // A member that dials again has given up its first connection.
                    self.slots[rank] = Slot::Joined(stream);
                }
                Ok(None) if now < arrival.until => self.arrivals.push(arrival),
                Ok(None) => Self::refuse(arrival.address, &Refusal::Silent),
                Err(refusal) => Self::refuse(arrival.address, &refusal),
            }
        }
        while self.arrivals.len() > MAX_ARRIVALS + self.slots.len() {
            let silent = self.arrivals.iter().position(|arrival| !arrival.handshake.has_received());
            let arrival = self.arrivals.remove(silent.unwrap_or(0));
            Self::refuse(arrival.address, &Refusal::Crowded);
        }
        Ok(())
    }

    fn refuse(address: SocketAddr, why: &Refusal) {
        tracing::warn!(%address, why = %Chain(why), "dropped a connection to the data plane");
    }
}

impl Slot {
    fn new(generation: &Generation, me: usize, rank: usize) -> Self {
        match rank.cmp(&me) {
            std::cmp::Ordering::Equal => Self::Own,
            std::cmp::Ordering::Greater => Self::Awaited,
            std::cmp::Ordering::Less => Self::Dialling(Box::new(Dialling {
                rank,
                address: generation.members[rank].address,
                attempt: None,
                retry_at: Instant::now(),
                pause: RETRY.0,
                last: None,
            })),
        }
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Awaited | Self::Dialling(_))
    }

    /// Why the connection is missing.
    fn reason(&mut self) -> io::Error {
        let last = match self {
            Self::Dialling(dialling) => dialling.last.take(),
            Self::Own | Self::Awaited | Self::Joined(_) => None,
        };
        last.unwrap_or_else(|| {
            let why = if matches!(self, Self::Awaited) { "it never connected" } else { "it never answered" };
            io::Error::new(io::ErrorKind::TimedOut, why)
        })
    }

    fn into_stream(self) -> Option<TcpStream> {
        match self {
            Self::Joined(stream) => Some(stream),
            Self::Own | Self::Awaited | Self::Dialling(_) => None,
        }
    }
}

impl Dialling {
    /// Continues to dial. Returns the connection once the handshake is complete.
    fn advance(&mut self, membership: Membership, me: usize, now: Instant, wait: &Wait) -> Option<TcpStream> {
        if self.attempt.is_none() && now >= self.retry_at {
            match self.dial(membership, me, wait) {
                Ok(attempt) => self.attempt = Some(attempt),
                Err(error) => self.failed(error, now),
            }
        }
        let (mut stream, mut handshake) = self.attempt.take()?;
        match handshake.advance(&mut stream) {
            Ok(Some(_)) => return Some(stream),
            // There is no deadline but the join's: while the member computes, the call waits in its listener's queue.
            Ok(None) => self.attempt = Some((stream, handshake)),
            Err(Refusal::Io(error)) => self.failed(error, now),
            Err(refusal) => self.failed(io::Error::other(refusal), now),
        }
        None
    }

    fn dial(&self, membership: Membership, me: usize, wait: &Wait) -> io::Result<(TcpStream, Handshake)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        wait.registry().register(&mut stream, Token(self.rank), BOTH)?;
        let handshake = Handshake::dial(membership, me, self.rank).map_err(io::Error::other)?;
        Ok((stream, handshake))
    }

    fn failed(&mut self, error: io::Error, now: Instant) {
        tracing::debug!(rank = self.rank, address = %self.address, %error, "dialling a member failed; trying again");
        self.last = Some(error);
        self.retry_at = now + self.pause;
        self.pause = (self.pause * 2).min(RETRY.1);
    }
}

/// An error with its sources, for a log line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        self.0.source().map_or(Ok(()), |source| write!(f, ": {}", Chain(source)))
    }
}
