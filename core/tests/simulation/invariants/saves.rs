//! Members begin each save once: a member stages its slice of a checkpoint a second time only if it was asked again, and a
//! generation takes no more checkpoints than are scheduled and requested.

use std::collections::BTreeMap;

use whimbrel_member::Request;

use crate::{worker::Pid, world::World};

/// What a worker was asked to save, and what it staged.
#[derive(Debug, Default)]
pub(crate) struct Saves {
    /// Requests for a checkpoint, by generation.
    asked: BTreeMap<u64, u32>,
    /// Slices staged, by generation and step.
    staged: BTreeMap<(u64, u64), u32>,
}

impl Saves {
    pub(crate) fn note_request(&mut self, request: &Request) {
        if let Request::Ask { generation, checkpoint: true, .. } = request {
            *self.asked.entry(*generation).or_default() += 1;
        }
    }

    pub(crate) fn note_staged(&mut self, generation: u64, step: u64) {
        *self.staged.entry((generation, step)).or_default() += 1;
    }

    /// How many slices it has staged.
    pub(crate) fn staged(&self) -> u32 {
        self.staged.values().sum()
    }
}

pub(crate) fn begins_once(world: &mut World, pid: Pid, generation: u64, step: u64) {
    if let Err(why) = check(world, pid, generation, step) {
        world.require(false, || why);
    }
}

fn check(world: &World, pid: Pid, generation: u64, step: u64) -> Result<(), String> {
    let Some(process) = world.processes.get(&pid) else { return Ok(()) };
    let saves = &process.saves;
    let staged = saves.staged.get(&(generation, step)).copied().unwrap_or(0);
    let asked = saves.asked.get(&generation).copied().unwrap_or(0);
    if staged > 1 + asked {
        let worker = process.worker;
        return Err(format!(
            "{worker} stages its slice of step {step} of generation {generation} {staged} times, asked {asked} times"
        ));
    }
    let Some(mesh) = process.mesh().and_then(|key| world.meshes.get(&key)) else { return Ok(()) };
    let taken = saves.staged.range((generation, 0)..=(generation, u64::MAX)).count() as u64;
    let schedule = world.schedule(&process.run);
    let is_last = |at: u64| at == step && process.state.is_some_and(|state| state.is_last);
    let is_due = |&at: &u64| schedule.saves_at(at) || is_last(at);
    let scheduled = (mesh.generation.first_step()..=step).filter(is_due).count() as u64;
    let requested = u64::from(mesh.asked);
    if taken > scheduled + requested {
        return Err(format!(
            "generation {generation} takes {taken} checkpoints up to step {step}: {scheduled} are scheduled, \
             {requested} requested"
        ));
    }
    Ok(())
}
