//! Every sample once, the same bits: all workers that hold the state after step *t* hold the same bits, and so do the
//! members of a generation.

use whimbrel_core::Formation;
use whimbrel_plan::Origin;

use crate::{
    worker::Pid,
    world::{Record, World},
};

/// A state: the steps applied, and bits that depend on each of them and on their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) step: u64,
    bits: u64,
}

impl State {
    /// The state after `step` steps, given the bits after each.
    pub(crate) fn after(step: u64, all: &[u64]) -> Option<Self> {
        let bits = *all.get(usize::try_from(step).ok()?)?;
        Some(Self { step, bits })
    }

    /// One step on.
    pub(crate) fn next(self) -> Self {
        let bits = (self.bits.rotate_left(7) ^ self.step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { step: self.step + 1, bits }
    }

    pub(crate) fn digest(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.bits.to_le_bytes());
        digest
    }
}

/// The bits after each step up to `steps`.
pub(crate) fn all(steps: u64) -> Vec<u64> {
    let first = State { step: 0, bits: 1 };
    std::iter::successors(Some(first), |state| (state.step < steps).then(|| state.next()))
        .map(|state| state.bits)
        .collect()
}

pub(crate) fn holds(world: &mut World, pid: Pid) {
    let Some(process) = world.processes.get(&pid) else { return };
    let Some(state) = process.state else { return };
    let right = |record: &Record| State::after(state.step, &record.bits) == Some(state);
    let kept = world.records.get(&process.run).is_some_and(right);
    let worker = process.worker;
    world.require(kept, || format!("{worker} holds other bits than those after step {}", state.step));
}

pub(crate) fn are_equal(world: &mut World, pids: &[Pid]) {
    let states: Vec<_> =
        pids.iter().filter_map(|pid| world.processes.get(pid)).map(|process| process.state).collect();
    let equal = states.windows(2).all(|pair| pair[0] == pair[1]);
    world.require(equal, || format!("members of one generation hold {states:?}"));
}

/// The members that are to send the state hold it.
pub(crate) fn sources_hold(world: &mut World, formation: &Formation, pids: &[Pid]) {
    let Origin::Members { step } = formation.origin else { return };
    let sources: Vec<_> = formation.members.iter().filter(|member| member.holds == Some(step)).collect();
    let truly = pids.iter().filter_map(|pid| world.processes.get(pid)).filter(|process| {
        sources.iter().any(|member| member.worker == process.worker)
            && process.state.is_some_and(|state| state.step == step)
    });
    let kept = truly.count() == sources.len() && !sources.is_empty();
    world.require(kept, || format!("a member that is to send the state does not hold it: {formation:?}"));
}
