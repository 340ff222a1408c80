//! Carrying out a copy.

use std::mem::replace;

use futures::{TryStreamExt, future::try_join};
use tokio::sync::mpsc;
use whimbrel_state::Pack;

use crate::{
    checkpoint::{
        block_reader::BadPack,
        commit::{CommitError, publish},
        save::Limits,
    },
    copy::{
        Copied, CopyError, CopyPlan, CopyProgress, LeftOut, Planned, Unusable,
        memory_budget::Room,
        newer, run_outcome,
        transfer::{Route, Transfer},
    },
    log::{output, run_dir::RunDir, term::Term},
    object::folder::StoreError,
};

/// How often packs that were there, and are not when a checkpoint is to be committed, are moved after all.
const SECOND_LOOKS: u32 = 2;

impl CopyPlan {
    /// Carries it out. `who` says who copies, in words for people.
    ///
    /// Up to [`Limits::concurrency`] packs come in while as many go out, and no more than half a GiB of them, or a single
    /// one, are in memory. Where there is nothing to do, nothing is written.
    pub async fn carry_out(
        mut self,
        who: &str,
        limits: &Limits,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Copied, CopyError> {
        // The log may have grown since the plan was made: which term the source is under must be its last word.
        let planned_by = replace(&mut self.source_log, self.source.run_log().await?);
        self.source_went_on = !newer(&self.source_log, &planned_by).is_empty();
        if self.is_done().await? {
            let (left_out, source_went_on) = (self.left_out, self.source_went_on);
            let mut copied = Copied { left_out, source_went_on, ..Copied::default() };
            copied.forget_what_was_collected(&self.source).await?;
            return Ok(copied);
        }
        let mut term = self.destination.become_replica_of(&self.source, &self.source_log, who).await?;
        // Boxed, as a copy is awaited within much else.
        Box::pin(self.carry_out_as(&mut term, limits, progress)).await
    }

    /// Whether the destination has all that is to be copied.
    async fn is_done(&self) -> Result<bool, StoreError> {
        let Some(run_log) = &self.destination_log else { return Ok(false) };
        Ok(self.checkpoints.iter().all(Planned::is_done)
            && run_log.identity() == self.source_log.identity()
            && run_outcome::missing(&self.source_log, run_log).is_none()
            && output::missing(&self.source, &self.destination).await?.is_empty())
    }

    /// Carries it out under a term of the destination that was taken before.
    pub(crate) async fn carry_out_as(
        self,
        term: &mut Term,
        limits: &Limits,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Copied, CopyError> {
        let moves = self.moves();
        let route = Route {
            source: self.source.folder().clone(),
            destination: self.destination.folder().clone(),
            limits: *limits,
            room: Room::new(),
        };
        let mut arriving = Arriving {
            waiting: self.checkpoints.iter().map(|planned| planned.missing.len()).collect(),
            bad: self.checkpoints.iter().map(|_| None).collect(),
            copied: Copied {
                left_out: self.left_out,
                source_went_on: self.source_went_on,
                ..Copied::default()
            },
            planned: self.checkpoints,
            destination: self.destination.clone(),
            source: self.source.clone(),
            route: route.clone(),
        };
        arriving.commit_those_that_wait_for_nothing(term, progress).await?;

        // Commits and moves go on beside each other: the one sends what arrived, the other takes it. The way between them
        // never fills up, or no move would begin for the length of a commit; what goes over it is a few words a pack.
        let (send, mut arrived) = mpsc::unbounded_channel();
        let moving = async move {
            let mut moves = route.transfers(moves);
            while let Some(moved) = moves.try_next().await? {
                // It is closed only if the commits failed, which ends both.
                send.send(moved).ok();
            }
            Ok::<_, CopyError>(())
        };
        let committing = async {
            while let Some((pack, waiting, became)) = arrived.recv().await {
                arriving.take(term, &pack, &waiting, became, progress).await?;
            }
            Ok(())
        };
        try_join(moving, committing).await?;

        let mut copied = arriving.copied;
        copied.output = output::copy(&self.source, &self.destination).await?;
        // A run that was stopped has a last checkpoint, which the next copy brings: this one is not to say so without.
        if !self.source_went_on
            && let Some(word) = run_outcome::missing(&self.source_log, term.run_log())
        {
            term.append(word).await?;
        }
        copied.forget_what_was_collected(&self.source).await?;
        Ok(copied)
    }
}

impl Planned {
    fn is_done(&self) -> bool {
        self.committed && self.missing.is_empty()
    }
}

/// Checkpoints whose packs arrive.
struct Arriving {
    source: RunDir,
    destination: RunDir,
    route: Route,
    planned: Vec<Planned>,
    /// For each, how many packs it waits for.
    waiting: Vec<usize>,
    /// For each, the pack that cannot be copied, if there is one.
    bad: Vec<Option<BadPack>>,
    copied: Copied,
}

impl Arriving {
    async fn commit_those_that_wait_for_nothing(
        &mut self,
        term: &mut Term,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<(), CopyError> {
        for index in 0..self.planned.len() {
            if self.waiting[index] == 0 && !self.planned[index].committed {
                self.commit(term, index, progress).await?;
            }
        }
        Ok(())
    }

    /// Takes note of a pack, and commits the checkpoints that waited for nothing else.
    async fn take(
        &mut self,
        term: &mut Term,
        pack: &Pack,
        waiting: &[usize],
        became: Transfer,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<(), CopyError> {
        let bytes = pack.length;
        match became {
            Transfer::Moved => {
                self.copied.moved.add(bytes);
                progress(CopyProgress::Moved { bytes });
            }
            Transfer::Found => progress(CopyProgress::Found { bytes }),
            Transfer::Bad(bad) => {
                tracing::error!(run = self.source.uri(), %bad, "a checkpoint cannot be copied");
                self.copied.bad.add(bytes);
                progress(CopyProgress::Bad { pack: pack.hash, bytes });
                for &index in waiting {
                    self.bad[index] = Some(bad.clone());
                }
            }
        }
        for &index in waiting {
            self.waiting[index] -= 1;
            if self.waiting[index] > 0 {
                continue;
            }
            match self.bad[index].take() {
                Some(bad) => self.leave_out(index, bad),
                None => self.commit(term, index, progress).await?,
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, index: usize, bad: BadPack) {
        let Planned { checkpoint, manifest, .. } = &self.planned[index];
        self.copied.spared.extend(manifest.packs.iter().map(|pack| pack.hash));
        let (step, manifest, why) = (checkpoint.step, checkpoint.manifest.clone(), Unusable::Pack(bad));
        self.copied.left_out.push(LeftOut { step, manifest, why });
    }

    /// Commits a checkpoint. A listing said that its packs are there, or they were put: should some of them not be there
    /// all the same, since listings lag, and since what was there may have been collected, they move now.
    async fn commit(
        &mut self,
        term: &mut Term,
        index: usize,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<(), CopyError> {
        let Planned { checkpoint, manifest, body, .. } = &self.planned[index];
        let (name, body) = (checkpoint.manifest.clone(), body.clone());
        let (step, state, origin) = (checkpoint.step, checkpoint.state, checkpoint.origin);
        let manifest = manifest.clone();
        let mut looks = 0;
        loop {
            match publish(term, &manifest, &name, body.clone(), state, Some(origin)).await {
                Ok(_) => break,
                Err(CommitError::Lacks { packs, .. }) if looks < SECOND_LOOKS => {
                    looks += 1;
                    let lacking = manifest.packs.iter().filter(|pack| packs.contains(&pack.hash)).cloned();
                    if let Some(bad) = self.move_after_all(lacking.collect(), progress).await? {
                        self.leave_out(index, bad);
                        return Ok(());
                    }
                }
                Err(CommitError::Append(error)) => return Err(error.into()),
                Err(CommitError::Store(error)) => return Err(error.into()),
                Err(source @ (CommitError::Lacks { .. } | CommitError::Invalid { .. })) => {
                    let destination = self.destination.uri().to_owned();
                    return Err(CopyError::NotWhole { step, destination, source });
                }
            }
        }
        self.copied.committed.push(step);
        progress(CopyProgress::Committed { step });
        Ok(())
    }

    /// Moves packs; the first that cannot be moved ends it.
    async fn move_after_all(
        &mut self,
        packs: Vec<Pack>,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Option<BadPack>, StoreError> {
        let mut moves = self.route.clone().transfers(packs.into_iter().map(|pack| (pack, ())).collect());
        while let Some((pack, (), became)) = moves.try_next().await? {
            let bytes = pack.length;
            match became {
                Transfer::Moved => {
                    self.copied.moved.add(bytes);
                    progress(CopyProgress::Moved { bytes });
                }
                Transfer::Found => progress(CopyProgress::Found { bytes }),
                Transfer::Bad(bad) => return Ok(Some(bad)),
            }
        }
        Ok(None)
    }
}

impl Copied {
    /// A checkpoint whose packs were not there, because it was collected while it was copied, is none that was left out.
    async fn forget_what_was_collected(&mut self, source: &RunDir) -> Result<(), CopyError> {
        if !self.left_out.is_empty() {
            let there = source.run_log().await?.all_checkpoints();
            self.left_out.retain(|out| there.iter().any(|checkpoint| checkpoint.manifest == out.manifest));
        }
        Ok(())
    }
}
