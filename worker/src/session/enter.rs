//! Becoming a member of a generation: the connections, and the state that it starts from.

use std::{sync::Arc, time::Duration};

use whimbrel_collective::{Error, Group, Limits};
use whimbrel_plan::{Generation, Origin};
use whimbrel_proto::{
    v1::{self, worker_message::Message},
    with_causes,
};
use whimbrel_state::{Hash, StateBytes};
use whimbrel_store::{RestoreError, Sources, restore};

use crate::{
    member::{Member, Phase, Todo},
    session::{Session, SessionError, State},
};

/// For every member to come. They are idle when a generation is formed, so this is about networks alone.
const JOIN: Duration = Duration::from_secs(30);

/// A checkpoint that could not be read.
struct Unreadable {
    /// It is damaged, rather than out of reach.
    damaged: bool,
    reason: String,
}

impl Session {
    /// Begins a generation. If that fails, the coordinator is told and there is no member.
    pub(crate) fn enter(
        &mut self,
        generation: Arc<Generation>,
        state: &mut dyn State,
    ) -> Result<Option<Member>, SessionError> {
        let number = generation.number;
        self.last_generation = number;
        self.link.set_progress(number, self.held.step());
        let misled = |why: &str| SessionError::Misled { generation: number, why: why.to_owned() };
        let rank = generation.rank_of(self.worker).ok_or_else(|| misled("this worker is no member of it"))?;
        let limits = Limits { connect: JOIN.min(self.terms.step_timeout), step: self.terms.step_timeout };
        let mut group = match self.endpoint.join(&generation, rank, limits) {
            Ok(group) => group,
            Err(error) => return self.report_break(number, &error).map(|()| None),
        };
        let step = generation.first_step();
        let is_last = step == self.terms.context.steps;
        let from_checkpoint = matches!(generation.origin, Origin::Checkpoint { .. });
        let todo = Todo { checkpoint: is_last && !from_checkpoint, evaluate: is_last, halt: false };
        let mut phase = Phase::Boundary(todo);
        match &generation.origin {
            Origin::Initial if self.held.is_initial() => self.hold(number, Some(0)),
            Origin::Initial => {
                self.hold(number, None);
                phase = Phase::Uninitialised(todo);
            }
            Origin::Members { step } => {
                let holds = self.held.step() == Some(*step);
                if let (true, Some(loss)) = (holds, self.loss) {
                    // Who was to report the step that led here may have died before it could.
                    self.report_step(number, *step, loss);
                }
                if holds != generation.sources().any(|source| source == rank) {
                    let held = self.held.step();
                    return Err(misled(&format!("it is wrong about this worker, which holds step {held:?}")));
                }
                if let Err(error) = self.transfer(&mut group, &generation, state)? {
                    drop(group);
                    return self.report_break(number, &error).map(|()| None);
                }
            }
            Origin::Checkpoint { step, manifest } => {
                if !self.restore(number, *step, manifest, state)? {
                    return Ok(None);
                }
            }
        }
        self.saver.prepare(&self.link, self.layout.slice(rank, group.size()).len());
        tracing::info!(generation = number, rank, step, "member of a generation");
        Ok(Some(Member { generation, rank, group, step, phase, asks_met: 0, save_postponed: false }))
    }

    /// Gives the state to members that lack it, or gets it from one that has it.
    fn transfer(
        &mut self,
        group: &mut Group,
        generation: &Generation,
        state: &mut dyn State,
    ) -> Result<Result<(), Error>, SessionError> {
        let (rank, transfers) = (group.rank(), generation.transfers());
        let to: Vec<usize> =
            transfers.iter().filter(|(source, _)| *source == rank).map(|(_, receiver)| *receiver).collect();
        let from = transfers.iter().find(|(_, receiver)| *receiver == rank).map(|(source, _)| *source);
        let mut bytes = self.bytes_of(state)?;
        let all = 0..self.layout.bytes();
        if let Some(from) = from {
            // Until all of it has come, it is no state.
            self.hold(generation.number, None);
            if let Err(error) = group.receive_state(from, &mut bytes.write_slices(all)) {
                return Ok(Err(error));
            }
            self.hold(generation.number, Some(generation.first_step()));
        } else if !to.is_empty() {
            let parts: Vec<&[u8]> = bytes.read(all).collect();
            return Ok(group.send_state(&to, &parts));
        }
        Ok(Ok(()))
    }

    /// Reads a checkpoint into the state; says whether the generation can begin.
    fn restore(
        &mut self,
        generation: u64,
        step: u64,
        manifest: &str,
        state: &mut dyn State,
    ) -> Result<bool, SessionError> {
        let mut bytes = self.bytes_of(state)?;
        self.hold(generation, None);
        let read = read(&self.sources, step, manifest, self.sampler.samples(), &mut bytes);
        match self.link.unless_called_off(generation, read) {
            Some(Ok(healed)) => {
                self.hold(generation, Some(step));
                if !healed.is_empty() {
                    let packs = healed.iter().map(|pack| pack.as_bytes().to_vec()).collect();
                    let manifest = manifest.to_owned();
                    self.link.outbox().send(Message::Healed(v1::Healed { generation, manifest, packs }));
                }
                Ok(true)
            }
            Some(Err(Unreadable { damaged, reason })) => {
                tracing::warn!(generation, manifest, damaged, reason, "a checkpoint could not be read");
                let manifest = manifest.to_owned();
                let failed = v1::RestoreFailed { generation, manifest, damaged, reason };
                self.link.outbox().send(Message::RestoreFailed(failed));
                Ok(false)
            }
            None => {
                let interrupted = Error::Interrupted { generation };
                self.report_break(generation, &interrupted).map(|()| false)
            }
        }
    }
}

/// Reads a checkpoint, and says which packs were put back into the run's directory on the way.
async fn read(
    sources: &Sources,
    step: u64,
    name: &str,
    samples: u64,
    state: &mut StateBytes<'_>,
) -> Result<Vec<Hash>, Unreadable> {
    let manifest = sources
        .manifest(name)
        .await
        .map_err(|error| Unreadable { damaged: error.is_damage(), reason: with_causes(&error) })?;
    if manifest.step != step {
        let reason = format!("{name} holds the state after step {}, not {step}", manifest.step);
        return Err(Unreadable { damaged: true, reason });
    }
    if manifest.samples != samples {
        let reason = format!(
            "the data set has {samples} samples here and had {} when it was saved: no step would be made of the same",
            manifest.samples
        );
        return Err(Unreadable { damaged: false, reason });
    }
    restore(sources, &manifest, state, &whimbrel_store::Limits::default())
        .await
        .map(|report| report.healed)
        .map_err(|error| {
            let damaged = matches!(error, RestoreError::Damaged { .. } | RestoreError::Manifest { .. });
            Unreadable { damaged, reason: with_causes(&error) }
        })
}
