//! Every sample once, the same bits: all workers that hold the state after step *t* hold the same bits, and so do the
//! members of a generation.

use whimbrel_member::{Held, Phase};
use whimbrel_plan::{Generation, Origin};

use crate::{
    worker::Pid,
    world::{Record, World},
};

/// A state: the steps applied, and bits that depend on each of them and on their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) step: u64,
    bits: u64,
    /// The run ends with it, because a program wanted that.
    pub(crate) is_last: bool,
}

impl State {
    /// The state before the first step.
    pub(crate) const INITIAL: Self = Self { step: 0, bits: 1, is_last: false };

    /// The state after `step` steps, given the bits after each.
    pub(crate) fn after(step: u64, all: &[u64]) -> Option<Self> {
        let bits = *all.get(usize::try_from(step).ok()?)?;
        Some(Self { step, bits, is_last: false })
    }

    /// One step on.
    pub(crate) fn next(self) -> Self {
        let bits = (self.bits.rotate_left(7) ^ self.step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { step: self.step + 1, bits, is_last: false }
    }

    /// The same bits, and whether the run ends with them.
    pub(crate) fn with_end(self, is_last: bool) -> Self {
        Self { is_last, ..self }
    }

    pub(crate) fn digest(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.bits.to_le_bytes());
        digest
    }
}

/// The bits after each step up to `steps`.
pub(crate) fn all(steps: u64) -> Vec<u64> {
    std::iter::successors(Some(State::INITIAL), |state| (state.step < steps).then(|| state.next()))
        .map(|state| state.bits)
        .collect()
}

pub(crate) fn holds(world: &mut World, pid: Pid) {
    let Some(process) = world.processes.get(&pid) else { return };
    let Some(state) = process.state else { return };
    let right = |record: &Record| State::after(state.step, &record.bits) == Some(state.with_end(false));
    let kept = world.records.get(&process.run).is_some_and(right);
    let worker = process.worker;
    world.require(kept, || format!("{worker} holds other bits than those after step {}", state.step));
}

/// A worker knows which state its program holds, except between a sum's arrival and its application.
pub(crate) fn is_held(world: &mut World, pid: Pid) {
    let Some(process) = world.processes.get(&pid) else { return };
    if matches!(process.member.phase(), Some(Phase::Applying(_) | Phase::Initialising)) {
        return;
    }
    let (worker, held, state) = (process.worker, process.member.held(), process.state);
    let right = match held {
        Held::Step(step) => state.is_some_and(|state| state.step == step),
        Held::Pristine => state == Some(State::INITIAL),
        Held::Nothing => true,
    };
    world.require(right, || format!("{worker} takes its state for {held:?}, and it is {state:?}"));
}

pub(crate) fn are_equal(world: &mut World, pids: &[Pid]) {
    let states: Vec<_> =
        pids.iter().filter_map(|pid| world.processes.get(pid)).map(|process| process.state).collect();
    let equal = states.windows(2).all(|pair| pair[0] == pair[1]);
    world.require(equal, || format!("members of one generation hold {states:?}"));
}

/// The members that are to send the state hold it.
pub(crate) fn sources_hold(world: &mut World, generation: &Generation, pids: &[Pid]) {
    let Origin::Members { step } = generation.origin else { return };
    let sources: Vec<_> = generation.members.iter().filter(|member| member.holds == Some(step)).collect();
    let truly = pids.iter().filter_map(|pid| world.processes.get(pid)).filter(|process| {
        sources.iter().any(|member| member.worker == process.worker)
            && process.state.is_some_and(|state| state.step == step)
    });
    let kept = truly.count() == sources.len() && !sources.is_empty();
    world.require(kept, || format!("a member that is to send the state does not hold it: {generation:?}"));
}
