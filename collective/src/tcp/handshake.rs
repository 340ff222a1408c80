//! Mutual challenge and response: each side proves that it knows the generation's key, and neither shows it.
//!
//! ```text
//!   dialler ── hello: version, run, epoch, generation, both ranks, nonce ──────► listener
//!   dialler ◄─────────────── nonce, proof over the hello and both nonces ─────── listener
//!   dialler ── proof over the hello and both nonces ───────────────────────────► listener
//! ```
//!
//! A proof is keyed BLAKE3. The two sides' proofs differ in their first words, so neither can be replayed to the other
//! side. The dialler sends first: while the listener is busy, the dialler's call waits in the listener's queue.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use whimbrel_plan::Generation;

use crate::tcp::frame::run_hash;

/// Raised with every change of the handshake or of frames.
const VERSION: u64 = 1;

const MARK: u64 = u64::from_le_bytes(*b"whimbrel");
const NONCE: usize = 32;
const PROOF: usize = 32;
const HELLO: usize = 64 + NONCE;
const REPLY: usize = NONCE + PROOF;

/// What both sides must agree on.
#[derive(Clone, Copy)]
pub(crate) struct Membership {
    run: u64,
    epoch: u64,
    generation: u64,
    size: usize,
    key: [u8; 32],
}

impl Membership {
    pub(crate) fn new(generation: &Generation) -> Self {
        Self {
            run: run_hash(&generation.run),
            epoch: generation.epoch,
            generation: generation.number,
            size: generation.members.len(),
            key: generation.key,
        }
    }

    fn hello(&self, from: usize, to: usize) -> [u8; 64] {
        let (from, to, size) = (from as u64, to as u64, self.size as u64);
        let words = [MARK, VERSION, self.run, self.epoch, self.generation, size, from, to];
        bytemuck::cast(words.map(u64::to_le))
    }

    fn proof(&self, side: &[u8], hello: &[u8], answer: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(side).update(hello).update(answer);
        hasher.finalize()
    }
}

const DIALLER: &[u8] = b"whimbrel data plane, dialler\n";
const LISTENER: &[u8] = b"whimbrel data plane, listener\n";

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("it closed the connection in the handshake: it is not in this generation, or not yet")]
    Closed,
    #[error("it sent no handshake in time")]
    Silent,
    #[error("too many other connections were in their handshake")]
    Crowded,
    #[error("it does not speak whimbrel's protocol")]
    Foreign,
    #[error("it speaks version {0} of the protocol, and this program version {VERSION}")]
    Version(u64),
    #[error("it belongs to another run")]
    OtherRun,
    #[error("it is in generation {generation} of epoch {epoch}")]
    OtherGeneration { epoch: u64, generation: u64 },
    #[error("it is rank {from} of {size} and looks for rank {to}")]
    WrongRank { from: u64, to: u64, size: u64 },
    #[error("it does not know the generation's key")]
    WrongKey,
}

/// One side of a handshake in progress on a nonblocking connection.
pub(crate) struct Handshake {
    membership: Membership,
    me: usize,
    turn: Turn,
    /// What the proofs cover: the dialler's hello, and the listener's nonce.
    hello: Vec<u8>,
    answer: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    /// Length of the message that is read next.
    expected: usize,
}

#[derive(Clone, Copy)]
enum Turn {
    /// The listener waits for a hello.
    Hello,
    /// The dialler waits for the reply of this rank.
    Reply { to: usize },
    /// The listener waits for the proof of this rank.
    Proof { from: usize },
    /// The handshake is complete once the last message is sent.
    Last { peer: usize },
}

impl Handshake {
    /// The dialler's side, from rank `me` to rank `to`.
    pub(crate) fn dial(membership: Membership, me: usize, to: usize) -> Result<Self, Refusal> {
        let mut hello = membership.hello(me, to).to_vec();
        hello.extend(nonce()?);
        let outgoing = hello.clone();
        Ok(Self { hello, outgoing, ..Self::start(membership, me, Turn::Reply { to }, REPLY) })
    }

    /// The side of the listener, rank `me`.
    pub(crate) fn listen(membership: Membership, me: usize) -> Self {
        Self::start(membership, me, Turn::Hello, HELLO)
    }

    fn start(membership: Membership, me: usize, turn: Turn, expected: usize) -> Self {
        let empty = Vec::new;
        let (hello, answer, outgoing, incoming) = (empty(), empty(), empty(), empty());
        Self { membership, me, turn, hello, answer, outgoing, sent: 0, incoming, expected }
    }

    /// Whether the peer has sent a valid message.
    pub(crate) fn has_received(&self) -> bool {
        !matches!(self.turn, Turn::Hello)
    }

    /// Continues as far as the socket allows. Returns the peer's rank once both sides have proved that they know the
    /// key.
    pub(crate) fn advance(&mut self, stream: &mut TcpStream) -> Result<Option<usize>, Refusal> {
        loop {
            while self.sent < self.outgoing.len() {
                match stream.write(&self.outgoing[self.sent..]) {
                    Ok(written) => self.sent += written,
                    Err(error) if not_yet(&error) => return Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Refusal::Io(error)),
                }
            }
            if let Turn::Last { peer } = self.turn {
                return Ok(Some(peer));
            }
            while self.incoming.len() < self.expected {
                let mut bytes = [0; HELLO];
                match stream.read(&mut bytes[..self.expected - self.incoming.len()]) {
                    Ok(0) => return Err(Refusal::Closed),
                    Ok(read) => self.incoming.extend(&bytes[..read]),
                    Err(error) if not_yet(&error) => return Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Refusal::Io(error)),
                }
            }
            self.answer()?;
        }
    }

    /// Handles a complete message.
    fn answer(&mut self) -> Result<(), Refusal> {
        let message = std::mem::take(&mut self.incoming);
        self.sent = 0;
        match self.turn {
            Turn::Hello => {
                let from = self.accept(&message)?;
                self.hello = message;
                self.answer = nonce()?.to_vec();
                let proof = self.membership.proof(LISTENER, &self.hello, &self.answer);
                self.outgoing = [self.answer.as_slice(), proof.as_bytes()].concat();
                (self.turn, self.expected) = (Turn::Proof { from }, PROOF);
            }
            Turn::Reply { to } => {
                let (answer, proof) = message.split_at(NONCE);
                self.answer = answer.to_vec();
                self.verify(LISTENER, proof)?;
                let proof = self.membership.proof(DIALLER, &self.hello, &self.answer);
                self.outgoing = proof.as_bytes().to_vec();
                self.turn = Turn::Last { peer: to };
            }
            Turn::Proof { from } => {
                self.verify(DIALLER, &message)?;
                self.outgoing.clear();
                self.turn = Turn::Last { peer: from };
            }
            Turn::Last { .. } => {}
        }
        Ok(())
    }

    /// The rank that sent the hello, if that rank dials this one in this generation.
    fn accept(&self, hello: &[u8]) -> Result<usize, Refusal> {
        let words: [u64; 8] = bytemuck::pod_read_unaligned(&hello[..64]);
        let [mark, version, run, epoch, generation, size, from, to] = words.map(u64::from_le);
        let here = &self.membership;
        if mark != MARK {
            return Err(Refusal::Foreign);
        }
        if version != VERSION {
            return Err(Refusal::Version(version));
        }
        if run != here.run {
            return Err(Refusal::OtherRun);
        }
        if (epoch, generation) != (here.epoch, here.generation) {
            return Err(Refusal::OtherGeneration { epoch, generation });
        }
        // Higher ranks dial lower ones.
        let dials_me = to == self.me as u64 && from > to && from < size;
        if size != here.size as u64 || !dials_me {
            return Err(Refusal::WrongRank { from, to, size });
        }
        Ok(from as usize)
    }

    fn verify(&self, side: &[u8], proof: &[u8]) -> Result<(), Refusal> {
        // Hashes compare in constant time.
        let expected = self.membership.proof(side, &self.hello, &self.answer);
        if expected == *proof { Ok(()) } else { Err(Refusal::WrongKey) }
    }
}

fn nonce() -> Result<[u8; NONCE], Refusal> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|error| Refusal::Io(io::Error::other(error)))?;
    Ok(nonce)
}

/// Whether the socket is still connecting, or cannot take or give bytes now.
fn not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
