//! Waiting for sockets, a deadline or an interrupt: the only place in this crate that blocks.

use std::{io, sync::Arc, time::Instant};

use mio::{Events, Poll, Registry, Token, Waker};

use crate::{error::Error, tcp::interrupt::Interrupts};

/// The token of the waker, which other threads use.
const WAKER: Token = Token(usize::MAX);

/// Waits for sockets, a deadline or an interrupt, whichever comes first.
#[derive(Debug)]
pub(crate) struct Wait {
    poll: Poll,
    events: Events,
    interrupts: Arc<Interrupts>,
    generation: u64,
    /// Keeps the waker alive: the interrupter holds a weak reference.
    _waker: Arc<Waker>,
}

impl Wait {
    pub(crate) fn new(interrupts: &Arc<Interrupts>, generation: u64) -> Result<Self, Error> {
        let system = |source| Error::System { doing: "open a poll over sockets", source };
        let poll = Poll::new().map_err(system)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(system)?);
        interrupts.register(&waker);
        let interrupts = Arc::clone(interrupts);
        Ok(Self { poll, events: Events::with_capacity(256), interrupts, generation, _waker: waker })
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits until a socket is ready or until `until`. Returns the events.
    pub(crate) fn until(&mut self, until: Instant) -> Result<&Events, Error> {
        self.check()?;
        let timeout = until.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            // A signal. The caller looks at its sockets and waits again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(source) => return Err(Error::System { doing: "wait for sockets", source }),
        }
        self.check()?;
        Ok(&self.events)
    }

    /// Returns the events that are there, without waiting.
    pub(crate) fn poll_now(&mut self) -> Result<&Events, Error> {
        self.until(Instant::now())
    }

    /// Fails if the generation was interrupted.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.interrupts.includes(self.generation) {
            return Err(Error::Interrupted { generation: self.generation });
        }
        Ok(())
    }
}
