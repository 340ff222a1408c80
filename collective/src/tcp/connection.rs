//! One connection to a peer: whether its socket is ready, and the frame in progress in each direction.

use std::io::{self, IoSlice, Read, Write};

use mio::{event::Event, net::TcpStream};

use crate::tcp::{
    frame::{Frame, HEADER, Kind, Stamp, Unexpected},
    operation::{Operation, Owed},
};

/// A connection to a peer.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    peer: usize,
    /// The stamps of what this side sends and of what the peer sends.
    own: Stamp,
    theirs: Stamp,
    /// The poll reports changes only, so readiness is kept until the socket says that it would block.
    readable: bool,
    writable: bool,
    outgoing: Option<Outgoing>,
    incoming: Incoming,
    /// Why sending failed. Nothing more is sent.
    broken: Option<io::Error>,
}

#[derive(Debug)]
struct Outgoing {
    frame: Frame,
    header: [u8; HEADER],
    /// Bytes sent of header and payload together.
    sent: usize,
}

#[derive(Debug)]
struct Incoming {
    header: [u8; HEADER],
    /// The frame, once its header is complete.
    frame: Option<Frame>,
    /// Bytes read of the header, or of the payload once there is a frame.
    read: usize,
}

/// Why a connection cannot be used any more.
#[derive(Debug)]
pub(crate) enum Broken {
    Io(io::Error),
    Unexpected(Unexpected),
    /// The peer left the group, and blames this rank.
    Left(Option<usize>),
}

impl From<Unexpected> for Broken {
    fn from(unexpected: Unexpected) -> Self {
        Self::Unexpected(unexpected)
    }
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, peer: usize, own: Stamp) -> Self {
        Self {
            stream,
            peer,
            own,
            theirs: Stamp { source: peer as u32, ..own },
            readable: true,
            writable: true,
            outgoing: None,
            incoming: Incoming { header: [0; HEADER], frame: None, read: 0 },
            broken: None,
        }
    }

    pub(crate) fn on_event(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// The peer's rank.
    pub(crate) fn peer(&self) -> usize {
        self.peer
    }

    /// Whether a frame is partly sent.
    pub(crate) fn is_sending(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Sends up to one frame, as far as the socket takes it. Returns the bytes sent.
    pub(crate) fn send(&mut self, operation: &mut impl Operation) -> usize {
        let mut total = 0;
        while self.writable && self.broken.is_none() {
            let outgoing = match &mut self.outgoing {
                Some(outgoing) => outgoing,
                None => {
                    let Some(frame) = operation.next_frame(self.peer) else { break };
                    let header = self.own.encode(&frame);
                    self.outgoing.insert(Outgoing { frame, header, sent: 0 })
                }
            };
            let payload = operation.payload(self.peer, &outgoing.frame);
            let whole = HEADER + outgoing.frame.length as usize;
            let mut slices = vec![IoSlice::new(&outgoing.header)];
            slices.extend(payload.into_iter().map(IoSlice::new));
            let mut rest = slices.as_mut_slice();
            IoSlice::advance_slices(&mut rest, outgoing.sent);
            match self.stream.write_vectored(rest) {
                Ok(written) => {
                    total += written;
                    outgoing.sent += written;
                    if outgoing.sent == whole {
                        self.outgoing = None;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What the peer sent before it closed may still be readable, and says more than this error.
                    self.broken = Some(error);
                    self.readable = true;
                }
            }
        }
        total
    }

    /// Reads up to one frame, as far as it is there, while the peer owes something. Returns the bytes read.
    pub(crate) fn receive(&mut self, operation: &mut impl Operation) -> Result<usize, Broken> {
        let mut total = 0;
        while self.readable {
            let owes = operation.owed_by(self.peer) != Owed::Nothing;
            if !owes && self.broken.is_none() {
                break;
            }
            let read = match &self.incoming.frame {
                None => self.read_header(),
                Some(frame) => {
                    let buffer = &mut operation.buffer(self.peer, frame)[self.incoming.read..];
                    read(&mut self.stream, buffer)
                }
            };
            let read = match read {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) => return Err(Broken::Io(self.broken.take().unwrap_or(error))),
            };
            total += read;
            self.incoming.read += read;
            if self.incoming.frame.is_none() && self.incoming.read == HEADER {
                let frame = self.theirs.decode(self.incoming.header)?;
                if frame.kind == Kind::Leave {
                    return Err(Broken::Left(frame.index.checked_sub(1).map(|rank| rank as usize)));
                }
                if !owes {
                    break;
                }
                operation.expect(self.peer, &frame)?;
                self.incoming.frame = Some(frame);
                self.incoming.read = 0;
            }
            if let Some(frame) =
                self.incoming.frame.take_if(|frame| frame.length == self.incoming.read as u64)
            {
                self.incoming.read = 0;
                operation.received(self.peer, &frame)?;
                break;
            }
        }
        match self.broken.take() {
            // The peer owes nothing and sent no reason, but its own frames cannot be sent.
            Some(error) if operation.owed_by(self.peer) == Owed::Nothing => Err(Broken::Io(error)),
            broken => {
                self.broken = broken;
                Ok(total)
            }
        }
    }

    fn read_header(&mut self) -> io::Result<usize> {
        read(&mut self.stream, &mut self.incoming.header[self.incoming.read..])
    }

    /// Tells the peer that this side leaves, and which rank it blames. That works only between two frames and where the
    /// socket takes the bytes at once; the connection closes either way.
    pub(crate) fn close(mut self, blamed: Option<usize>) {
        if self.outgoing.is_some_and(|outgoing| outgoing.sent > 0) || self.broken.is_some() {
            return;
        }
        let index = blamed.map_or(0, |rank| rank as u32 + 1);
        let leave = Frame { kind: Kind::Leave, step: 0, index, start: 0, length: 0 };
        if let Err(error) = self.stream.write(&self.own.encode(&leave)) {
            tracing::debug!(peer = self.peer, %error, "could not tell a peer that this worker leaves");
        }
    }
}

/// Reads at least a byte. The end of the stream is an error.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
