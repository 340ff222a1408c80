//! A worker's place in the data plane.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mio::net::TcpListener;
use whimbrel_plan::Generation;

use crate::{
    error::Error,
    group::Group,
    tcp::{
        interrupt::{Interrupter, Interrupts},
        join::join,
        mesh::Mesh,
        wait::Wait,
    },
};

/// How long to wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For every member of a generation to come into the group.
    pub connect: Duration,
    /// For a byte to move in an operation. Members start an operation when they are ready: this must be longer than
    /// the slowest takes to compute its shards.
    pub step: Duration,
}

/// A worker's place in the data plane: bound once, it lives through generations.
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
    refused: u64,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the data plane; choose an address of this machine and a free port, or port 0"
)]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl Endpoint {
    /// Listens on `address`; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, interrupts: Arc::default(), refused: 0 })
    }

    /// The address listened on, with the port that was taken.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the operations of this endpoint and of its groups from other threads.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.interrupts))
    }

    /// How many incoming connections were dropped because they could not prove that they belong to the generation
    /// being joined. Each is logged as a warning with its address and the reason.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Connects with every other member of `generation`, as its member of rank `rank`.
    ///
    /// Members may call this at different times; those that are early wait. Connections that do not belong to the
    /// generation are dropped and disturb nobody. Fails with [`Error::Unreachable`] where a member does not come within
    /// [`Limits::connect`], with [`Error::Interrupted`] or with [`Error::Misuse`].
    pub fn join(&mut self, generation: &Generation, rank: usize, limits: Limits) -> Result<Group, Error> {
        generation.check().map_err(|invalid| Error::Misuse(invalid.to_string()))?;
        if rank >= generation.members.len() {
            let (number, size) = (generation.number, generation.members.len());
            return Err(Error::Misuse(format!(
                "rank {rank} of generation {number}, which has {size} members"
            )));
        }
        let mut wait = Wait::new(&self.interrupts, generation.number)?;
        wait.check()?;
        let streams =
            join(&mut self.listener, &mut self.refused, generation, rank, limits.connect, &mut wait)?;
        Ok(Group::new(generation.clone(), Mesh::new(generation, rank, streams, wait, limits.step)))
    }
}
