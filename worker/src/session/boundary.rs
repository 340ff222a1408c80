//! A step boundary: staging a slice of a checkpoint, and the end of the run.

use std::{convert::Infallible, ops::Range};

use whimbrel_member::Event;
use whimbrel_state::digest;

use crate::{
    saver::Slice,
    session::{Session, SessionError, State},
};

impl Session {
    /// Prepares the memory for the next save, behind the step that begins now.
    pub(super) fn prepare_save(&mut self) {
        if let Some(group) = &self.group {
            let slice = self.layout.slice(group.rank(), group.size());
            self.saver.prepare(self.control.handle(), slice.len());
        }
    }

    /// Stages this worker's slice of a checkpoint. The upload runs behind the next steps.
    pub(super) fn stage(
        &mut self,
        generation: u64,
        step: u64,
        range: Range<usize>,
        state: &mut dyn State,
    ) -> Result<(), SessionError> {
        let bytes = self.bytes_of(state)?;
        self.saver.stage(&self.control, Slice { generation, step, range }, &bytes);
        Ok(())
    }

    /// Hashes the final state: every step of the run is applied.
    pub(super) fn hash(&mut self, step: u64, state: &mut dyn State) -> Result<(), SessionError> {
        let bytes = self.bytes_of(state)?;
        let Ok(digest) = digest::<Infallible>(&self.layout, step, |index, sink| {
            sink(bytes.tensor(index));
            Ok(())
        });
        tracing::info!(step, state = %digest, "every step is applied");
        self.handle(Event::Hashed { state: *digest.as_bytes() });
        Ok(())
    }
}
