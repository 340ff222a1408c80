//! A generation: one membership, with everything that a worker must know to go from step to step without an RPC.

use std::{net::SocketAddr, ops::Range};

use crate::id::{RunId, WorkerId};

/// The workers of a run in rank order, and where they start. It never changes; a new one, with a higher number,
/// replaces it.
#[derive(Clone, PartialEq, Eq)]
pub struct Generation {
    /// The run.
    pub run: RunId,
    /// The epoch of the coordinator that decided it.
    pub epoch: u64,
    /// Its number within the epoch, from 1.
    pub number: u64,
    /// The number of shards of every step.
    pub shards: u32,
    /// Where its first step's state comes from.
    pub origin: Origin,
    /// The members in rank order; at least one, and their shares add up to `shards`.
    pub members: Vec<Member>,
    /// The secret that admits a connection to this generation's data plane.
    pub key: [u8; 32],
}

/// A worker in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The worker.
    pub worker: WorkerId,
    /// Where its peers reach it.
    pub address: SocketAddr,
    /// How many of each step's shards it computes.
    pub share: u32,
    /// The steps applied to the state that it already holds, if it holds one.
    pub holds: Option<u64>,
}

/// The source of the state that a generation starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every member makes the initial state from the run's seed; step 0 comes next.
    Initial,
    /// Every member reads a checkpoint.
    Checkpoint {
        /// Steps applied to the state.
        step: u64,
        /// The manifest's name within the run's directory.
        manifest: String,
    },
    /// Members that hold the state after `step` steps send it to the others.
    Members {
        /// Steps applied to the state.
        step: u64,
    },
}

/// A generation that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("generation {number} of run {run} contradicts itself: {why}")]
pub struct InvalidGeneration {
    /// The run.
    pub run: RunId,
    /// The generation's number.
    pub number: u64,
    /// What is wrong.
    pub why: String,
}

impl Generation {
    /// Checks that the shares add up, and that some member holds the state if it is to come from members.
    pub fn check(&self) -> Result<(), InvalidGeneration> {
        let invalid =
            |why: String| Err(InvalidGeneration { run: self.run.clone(), number: self.number, why });
        if self.members.is_empty() {
            return invalid("it has no members".into());
        }
        let shares: u64 = self.members.iter().map(|member| u64::from(member.share)).sum();
        if shares != u64::from(self.shards) {
            return invalid(format!("shares add up to {shares} of {} shards", self.shards));
        }
        if matches!(self.origin, Origin::Members { .. }) && self.sources().next().is_none() {
            return invalid(format!("no member holds the state after step {}", self.first_step()));
        }
        Ok(())
    }

    /// The steps applied to the state that it starts from, which is also the number of the first step that it computes.
    pub fn first_step(&self) -> u64 {
        match self.origin {
            Origin::Initial => 0,
            Origin::Checkpoint { step, .. } | Origin::Members { step } => step,
        }
    }

    /// The shards that the member of rank `rank` computes in step `step`.
    ///
    /// A function of (generation, step) alone. Today the assignment is the same for every step of a generation; callers pass
    /// the step so that it could rotate.
    pub fn assignment(&self, rank: usize, _step: u64) -> Range<u32> {
        let before: u32 = self.members[..rank].iter().map(|member| member.share).sum();
        before..before + self.members[rank].share
    }

    /// The shards that each member computes in step `step`, in rank order: [`assignment`](Self::assignment) of every
    /// rank, in linear time.
    pub fn assignments(&self, _step: u64) -> impl Iterator<Item = Range<u32>> + '_ {
        self.members.iter().scan(0, |before, member| {
            let start = *before;
            *before += member.share;
            Some(start..*before)
        })
    }

    /// The rank of a worker, if it is a member.
    pub fn rank_of(&self, worker: WorkerId) -> Option<usize> {
        self.members.iter().position(|member| member.worker == worker)
    }

    /// The ranks that hold the state the generation starts from, when it comes from members.
    pub fn sources(&self) -> impl Iterator<Item = usize> + '_ {
        let step = match self.origin {
            Origin::Members { step } => Some(step),
            Origin::Initial | Origin::Checkpoint { .. } => None,
        };
        let holds = move |member: &Member| step.is_some() && member.holds == step;
        self.members.iter().enumerate().filter(move |(_, member)| holds(member)).map(|(rank, _)| rank)
    }

    /// The transfers of the state before the first step, as (source, receiver) ranks: each member that lacks the state gets
    /// it from one that has it. The sources take turns.
    pub fn transfers(&self) -> Vec<(usize, usize)> {
        let sources: Vec<usize> = self.sources().collect();
        if sources.is_empty() {
            return Vec::new();
        }
        let lacking = (0..self.members.len()).filter(|rank| !sources.contains(rank));
        lacking.enumerate().map(|(turn, rank)| (sources[turn % sources.len()], rank)).collect()
    }
}

impl std::fmt::Debug for Generation {
    /// Everything but the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("run", &self.run)
            .field("epoch", &self.epoch)
            .field("number", &self.number)
            .field("shards", &self.shards)
            .field("origin", &self.origin)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::equal_shares;

    fn generation(holds: &[Option<u64>], origin: Origin) -> Generation {
        let members = equal_shares(16, holds.len()).into_iter().zip(holds).enumerate();
        let members = members
            .map(|(rank, (share, &holds))| Member {
                worker: WorkerId(rank as u64 + 1),
                address: ([127, 0, 0, 1], 1000).into(),
                share,
                holds,
            })
            .collect();
        Generation {
            run: "r".parse().unwrap(),
            epoch: 1,
            number: 3,
            shards: 16,
            origin,
            members,
            key: [7; 32],
        }
    }

    #[test]
    fn assignments_cover_the_shards_in_rank_order() {
        let generation = generation(&[None; 5], Origin::Initial);
        let shards: Vec<u32> = (0..5).flat_map(|rank| generation.assignment(rank, 9)).collect();
        assert!(shards.into_iter().eq(0..16));
        let one_by_one = (0..5).map(|rank| generation.assignment(rank, 9));
        assert!(generation.assignments(9).eq(one_by_one));
    }

    #[test]
    fn members_without_the_state_get_it_from_members_that_hold_it() {
        let holds = [Some(8), None, Some(9), Some(9), None];
        let generation = generation(&holds, Origin::Members { step: 9 });
        assert_eq!(generation.check(), Ok(()));
        assert_eq!(generation.transfers(), [(2, 0), (3, 1), (2, 4)]);
    }

    #[test]
    fn contradictions_are_refused_and_keys_are_not_shown() {
        let without_source = generation(&[Some(8), None], Origin::Members { step: 9 });
        assert!(without_source.check().unwrap_err().why.contains("no member holds"));
        let mut short = generation(&[None, None], Origin::Initial);
        short.members[0].share = 3;
        assert!(short.check().unwrap_err().why.contains("11 of 16"));
        assert!(!format!("{short:?}").contains("key"));
    }
}
