//! The operations of a generation's members: what a program calls.

use std::fmt;

use whimbrel_plan::Generation;

use crate::{
    accumulator::Accumulator,
    error::Error,
    operations::{
        all_reduce::AllReduce,
        exchange::Exchange,
        notes::MAX_NOTE,
        transfer::{MAX_PARTS, ReceiveState, SendState},
    },
    schedule::Schedule,
    tcp::{
        endpoint::{Endpoint, Limits},
        mesh::{Mesh, Traffic},
    },
};

/// A generation's members, connected, as one of them sees it.
///
/// Every member calls the same operations with the same steps in the same order. The first failure closes the group:
/// its connections end, the peers learn which worker this one blames, and later calls fail. Dropping the group closes
/// it, too.
pub struct Group {
    generation: Generation,
    mesh: Mesh,
    /// The schedule of the last all-reduce. It is computed once, since nothing in it changes within a generation.
    schedule: Option<Schedule>,
    /// By rank, what was received of its partial sums; kept from step to step.
    inbox: Vec<Vec<f32>>,
}

impl Endpoint {
    /// Connects with every other member of `generation`, as its member of rank `rank`.
    ///
    /// Members may call this at different times; those that are early wait. Connections that do not belong to the
    /// generation are dropped, and joining goes on. Fails with [`Error::Unreachable`] where a member does not connect
    /// within [`Limits::connect`], with [`Error::Interrupted`] or with [`Error::Misuse`].
    pub fn join(&mut self, generation: &Generation, rank: usize, limits: Limits) -> Result<Group, Error> {
        generation.check().map_err(|invalid| Error::Misuse(invalid.to_string()))?;
        let (number, size) = (generation.number, generation.members.len());
        if rank >= size {
            let why = format!("rank {rank} of generation {number}, which has {size} members");
            return Err(Error::Misuse(why));
        }
        let mesh = self.connect(generation, rank, limits)?;
        Ok(Group { generation: generation.clone(), mesh, schedule: None, inbox: vec![Vec::new(); size] })
    }
}

impl Group {
    /// This worker's rank.
    pub fn rank(&self) -> usize {
        self.mesh.rank()
    }

    /// The number of members.
    pub fn size(&self) -> usize {
        self.generation.members.len()
    }

    /// What the last operation moved and how long it took.
    pub fn traffic(&self) -> Traffic {
        self.mesh.traffic()
    }

    /// Sums the gradients of all shards of step `step` into `sum`, of as many elements as the accumulator has, and
    /// gives every rank every rank's `note`, returned by rank.
    ///
    /// Every rank gets the same bits in `sum`. With [`Reduction::Exact`](crate::Reduction::Exact) they do not depend on
    /// the membership or on the shares either. `partials` holds the sums of exactly the shards that the generation
    /// assigns to this rank in this step. A note has at most [`MAX_NOTE`] bytes. After an error the content of `sum` is
    /// unspecified.
    pub fn all_reduce(
        &mut self,
        step: u64,
        partials: &Accumulator,
        note: &[u8],
        sum: &mut [f32],
    ) -> Result<Vec<Vec<u8>>, Error> {
        check_note(note)?;
        self.check_sums(step, partials, sum.len())?;
        let (reduction, elements) = (partials.reduction(), sum.len());
        let known = self.schedule.take();
        let known = known.filter(|schedule| schedule.fits(&self.generation, step, reduction, elements));
        let schedule = self.schedule.insert(known.unwrap_or_else(|| {
            let schedule = Schedule::new(&self.generation, self.mesh.rank(), step, reduction, elements);
            for (rank, inbox) in self.inbox.iter_mut().enumerate() {
                inbox.resize(schedule.inbox_of(rank), 0.0);
            }
            schedule
        }));
        let mut operation = AllReduce::new(schedule, step, partials, note, &mut self.inbox, sum);
        self.mesh.drive(&mut operation)?;
        Ok(operation.into_notes())
    }

    /// Gives every rank every rank's `note`, returned by rank. A note has at most [`MAX_NOTE`] bytes.
    pub fn exchange(&mut self, step: u64, note: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        check_note(note)?;
        let mut operation = Exchange::new(step, self.rank(), self.size(), note);
        self.mesh.drive(&mut operation)?;
        Ok(operation.into_notes())
    }

    /// Sends the state, the bytes of `parts` one after another, to each rank of `to`, all at the same time.
    ///
    /// Each of them must call [`receive_state`](Self::receive_state) with parts of the same lengths.
    pub fn send_state(&mut self, to: &[usize], parts: &[&[u8]]) -> Result<(), Error> {
        to.iter().try_for_each(|&rank| self.check_other(rank))?;
        check_parts(parts.len())?;
        let step = self.generation.first_step();
        self.mesh.drive(&mut SendState::new(step, self.size(), to, parts))
    }

    /// Receives the state that rank `from` sends. Parts of other lengths than the sender's are an [`Error::Frame`] that
    /// names the first that differs.
    pub fn receive_state(&mut self, from: usize, into: &mut [&mut [u8]]) -> Result<(), Error> {
        self.check_other(from)?;
        check_parts(into.len())?;
        let step = self.generation.first_step();
        self.mesh.drive(&mut ReceiveState::new(step, from, into))
    }

    /// Checks that the accumulator holds what the generation assigns to this rank, all of it.
    fn check_sums(&self, step: u64, partials: &Accumulator, elements: usize) -> Result<(), Error> {
        let assigned = self.generation.assignment(self.rank(), step);
        let misuse = |why: String| Err(Error::Misuse(why));
        if partials.elements() != elements {
            return misuse(format!(
                "partial sums of {} elements for a sum of {elements}",
                partials.elements()
            ));
        }
        if partials.shards() != self.generation.shards {
            let (summed, shards) = (partials.shards(), self.generation.shards);
            return misuse(format!("partial sums for {summed} shards in a generation of {shards}"));
        }
        if partials.range() != assigned {
            return misuse(format!(
                "sums of shards {:?}, where step {step} assigns {assigned:?}",
                partials.range()
            ));
        }
        if partials.pushed() as usize != assigned.len() {
            return misuse(format!("{} gradients pushed for shards {assigned:?}", partials.pushed()));
        }
        Ok(())
    }

    fn check_other(&self, rank: usize) -> Result<(), Error> {
        if rank >= self.size() || rank == self.rank() {
            let (me, size) = (self.rank(), self.size());
            return Err(Error::Misuse(format!("a transfer between rank {me} and rank {rank} of {size}")));
        }
        Ok(())
    }
}

impl fmt::Debug for Group {
    /// Without the gradients.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, mesh, .. } = self;
        f.debug_struct("Group").field("generation", generation).field("mesh", mesh).finish_non_exhaustive()
    }
}

fn check_note(note: &[u8]) -> Result<(), Error> {
    if note.len() > MAX_NOTE {
        return Err(Error::Misuse(format!("a note of {} bytes, over the {MAX_NOTE} allowed", note.len())));
    }
    Ok(())
}

fn check_parts(parts: usize) -> Result<(), Error> {
    if parts > MAX_PARTS {
        return Err(Error::Misuse(format!("a state of {parts} parts, over the {MAX_PARTS} allowed")));
    }
    Ok(())
}
