//! A worker's listening socket in the data plane, and the limits of its waits.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mio::net::TcpListener;
use whimbrel_plan::Generation;

use crate::{
    error::Error,
    tcp::{
        interrupt::{Interrupter, Interrupts},
        join::join,
        mesh::Mesh,
        wait::Wait,
    },
};

/// How long to wait for peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For all members of a generation to connect.
    pub connect: Duration,
    /// For a byte to move in an operation. Members start an operation when they are ready, so this must be longer than
    /// the slowest member takes to compute its shards.
    pub step: Duration,
}

/// A worker's socket in the data plane. It is bound once and used for one generation after another.
///
/// ```no_run
/// # use std::time::Duration;
/// # use whimbrel_collective::{Accumulator, Endpoint, Limits, Reduction};
/// # fn example(generation: &whimbrel_plan::Generation, rank: usize) -> Result<(), Box<dyn std::error::Error>> {
/// let mut endpoint = Endpoint::bind("0.0.0.0:0".parse()?)?;
/// let limits = Limits { connect: Duration::from_secs(30), step: Duration::from_secs(60) };
/// let mut group = endpoint.join(generation, rank, limits)?;
/// let mut accumulator = Accumulator::new(Reduction::Exact, 1_000_000, generation.shards);
/// let mut sum = vec![0.0; 1_000_000];
/// for step in generation.first_step().. {
///     accumulator.begin(generation.assignment(rank, step));
///     for _shard in generation.assignment(rank, step) {
///         // compute the shard's gradient into `accumulator.next()`, then:
///         accumulator.push();
///     }
///     let notes = group.all_reduce(step, &accumulator, b"loss 1.25", &mut sum)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
    interrupts: Arc<Interrupts>,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the data plane; choose an address of this machine and a free port, or port 0"
)]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The error of the operating system.
    #[source]
    pub source: io::Error,
}

impl Endpoint {
    /// Listens on `address`. Port 0 means any free port.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, interrupts: Arc::default() })
    }

    /// The address that it listens on, with the actual port.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// A handle with which other threads end the operations of this endpoint and of its groups.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.interrupts))
    }

    /// Connects with every other member of `generation`, as its member of rank `rank`.
    pub(crate) fn connect(
        &mut self,
        generation: &Generation,
        rank: usize,
        limits: Limits,
    ) -> Result<Mesh, Error> {
        let mut wait = Wait::new(&self.interrupts, generation.number)?;
        wait.check()?;
        let streams = join(&mut self.listener, generation, rank, limits.connect, &mut wait)?;
        Ok(Mesh::new(generation, rank, streams, wait, limits.step))
    }
}
