//! Entering a generation: the connections to its members, and the state that it starts from.

use std::time::Duration;

use whimbrel_collective::{Error, Limits};
use whimbrel_member::Event;
use whimbrel_plan::Generation;
use whimbrel_proto::{
    v1::{self, worker_message::Message},
    with_causes,
};
use whimbrel_state::{Fingerprint, Hash, StateBytes, fingerprint};
use whimbrel_store::{RestoreError, Sources, restore};

use crate::session::{Session, SessionError, State, no_group};

/// For every member to connect. Members are idle when a generation is formed, so this is about networks alone.
const JOIN: Duration = Duration::from_secs(30);

/// A checkpoint that could not be read.
struct Unreadable {
    /// It is damaged, rather than out of reach.
    damaged: bool,
    reason: String,
}

impl Session {
    /// Connects with the other members of a generation.
    pub(super) fn join(&mut self, generation: &Generation, rank: usize) -> Result<(), SessionError> {
        let step_timeout = self.settings.step_timeout;
        let limits = Limits { connect: JOIN.min(step_timeout), step: step_timeout };
        match self.endpoint.join(generation, rank, limits) {
            Ok(group) => {
                tracing::info!(
                    generation = generation.number,
                    rank,
                    step = generation.first_step(),
                    "joined a generation"
                );
                self.group = Some(group);
                self.handle(Event::Joined);
                Ok(())
            }
            Err(error) => self.broken(&error),
        }
    }

    /// Sends the state to members that lack it.
    pub(super) fn send_state(&mut self, to: &[usize], state: &mut dyn State) -> Result<(), SessionError> {
        let bytes = self.bytes_of(state)?;
        let parts: Vec<&[u8]> = bytes.read(0..self.layout.bytes()).collect();
        let sent = self.group.as_mut().ok_or_else(no_group).and_then(|group| group.send_state(to, &parts));
        self.transferred(sent, state.is_last())
    }

    /// Receives the state from a member that holds it.
    pub(super) fn receive_state(&mut self, from: usize, state: &mut dyn State) -> Result<(), SessionError> {
        let mut bytes = self.bytes_of(state)?;
        let mut parts = bytes.write_slices(0..self.layout.bytes());
        let group = self.group.as_mut().ok_or_else(no_group);
        let received = group.and_then(|group| group.receive_state(from, &mut parts));
        if received.is_ok() {
            self.written(state)?;
        }
        self.transferred(received, state.is_last())
    }

    fn transferred(&mut self, result: Result<(), Error>, is_last: bool) -> Result<(), SessionError> {
        match result {
            Ok(()) => {
                self.handle(Event::StateReady { is_last });
                Ok(())
            }
            Err(error) => self.broken(&error),
        }
    }

    /// Tells the program that its state was written.
    fn written(&mut self, state: &mut dyn State) -> Result<(), SessionError> {
        state.written().map_err(|error| self.closed(SessionError::Written(error)))
    }

    /// Reads a checkpoint into the state.
    pub(super) fn restore(
        &mut self,
        step: u64,
        manifest: &str,
        state: &mut dyn State,
    ) -> Result<(), SessionError> {
        let generation = self.worker.last_generation();
        let mut bytes = self.bytes_of(state)?;
        let data = (self.sampler.samples(), &self.fingerprint);
        let read = read(&self.sources, step, manifest, data, &mut bytes);
        match self.control.unless_called_off(generation, read) {
            Some(Ok(healed)) => {
                self.written(state)?;
                if !healed.is_empty() {
                    let packs = healed.iter().map(|pack| pack.as_bytes().to_vec()).collect();
                    let manifest = manifest.to_owned();
                    self.control.outbox().send(Message::Healed(v1::Healed { generation, manifest, packs }));
                }
                self.handle(Event::StateReady { is_last: state.is_last() });
            }
            Some(Err(Unreadable { damaged, reason })) => {
                self.handle(Event::RestoreFailed { damaged, reason });
            }
            None => return self.broken(&Error::Interrupted { generation }),
        }
        Ok(())
    }
}

/// Reads a checkpoint of a run with this data set. Returns the packs that were written back into the run's directory.
async fn read(
    sources: &Sources,
    step: u64,
    name: &str,
    (samples, fingerprint): (u64, &Fingerprint),
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
            "the data set has {samples} samples here and had {} when it was saved: the steps would have other samples",
            manifest.samples
        );
        return Err(Unreadable { damaged: false, reason });
    }
    if let Some(difference) = fingerprint::difference(&manifest.fingerprint, fingerprint) {
        let reason = format!(
            "the data set differs from that with which it was saved in {difference}: the steps would have other samples; \
             give this node the data that the run began with, or write join(…, fingerprint=…) where samples are not the \
             same each time"
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
