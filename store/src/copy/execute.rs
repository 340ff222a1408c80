//! Executing a copy plan: packs move while checkpoints whose packs have arrived are committed.

use futures::{TryStreamExt, future::try_join};
use tokio::sync::mpsc;
use whimbrel_state::Pack;

use crate::{
    checkpoint::{BadPack, CommitError, append_checkpoint},
    copy::{
        ahead::newer,
        error::CopyError,
        memory_budget::MemoryBudget,
        plan::{CopyPlan, CopyWork, PlannedCheckpoint},
        report::{Copied, CopyProgress, SkipReason, SkippedCheckpoint},
        run_outcome,
        transfer::{Route, TransferOutcome},
    },
    log::{RunDir, RunLog, Term, output},
    object::{Limits, StoreError},
};

/// How often packs that are missing at a commit are moved and the commit is tried again.
const COMMIT_RETRIES: u32 = 2;

impl CopyPlan {
    /// Executes the plan under a new term of the destination. `who` names the copying program for people.
    ///
    /// Up to [`Limits::concurrency`] packs are read while as many are put. At most half a GiB of packs, or one larger
    /// pack, is in memory. If there is nothing to do, nothing is written.
    pub async fn execute(
        self,
        who: &str,
        limits: &Limits,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Copied, CopyError> {
        let Self { work, source_log: planned_log, destination_log } = self;
        // The source may have a new term since the plan was made. The copy must be taken under its latest.
        let source_log = work.source.run_log().await?;
        let source_went_on = !newer(&source_log, &planned_log).is_empty();
        if let Some(destination_log) = destination_log
            && work.is_done(&source_log, &destination_log).await?
        {
            let mut copied = Copied { skipped: work.skipped, source_went_on, ..Copied::default() };
            copied.forget_collected(&work.source).await?;
            return Ok(copied);
        }
        let mut term = work.destination.become_replica_of(&work.source, &source_log, who).await?;
        // A run that was stopped or has ended since the plan was made has a last checkpoint that this copy lacks. The
        // next copy brings both.
        let outcome_of = (!source_went_on).then_some(&source_log);
        // Boxed to keep the futures of callers small.
        let copied = Box::pin(work.execute_under(&mut term, outcome_of, limits, progress)).await?;
        Ok(Copied { source_went_on, ..copied })
    }
}

impl CopyWork {
    /// Whether the destination has everything.
    async fn is_done(&self, source_log: &RunLog, destination_log: &RunLog) -> Result<bool, StoreError> {
        Ok(self.checkpoints.iter().all(PlannedCheckpoint::is_done)
            && destination_log.identity() == source_log.identity()
            && run_outcome::missing(source_log, destination_log).is_none()
            && output::missing(&self.source, &self.destination).await?.is_empty())
    }

    /// Does the work under a term of the destination that the caller holds. Whether the run was stopped, was resumed or
    /// has ended is copied from the log `outcome_of`.
    pub(super) async fn execute_under(
        self,
        term: &mut Term,
        outcome_of: Option<&RunLog>,
        limits: &Limits,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Copied, CopyError> {
        let moves = self.moves();
        let route = Route {
            source: self.source.folder().clone(),
            destination: self.destination.folder().clone(),
            limits: *limits,
            memory: MemoryBudget::new(),
        };
        let copied = Copied { skipped: self.skipped, ..Copied::default() };
        let mut commits = Commits {
            waiting: self.checkpoints.iter().map(|planned| planned.missing.len()).collect(),
            bad: self.checkpoints.iter().map(|_| None).collect(),
            copied,
            planned: self.checkpoints,
            destination: self.destination.clone(),
            source: self.source.clone(),
            route: route.clone(),
        };
        commits.commit_complete(term, progress).await?;

        // Moves and commits run concurrently. The channel is unbounded, so moves start while a commit takes its time. A
        // message is a few words per pack.
        let (send, mut arrived) = mpsc::unbounded_channel();
        let moving = async move {
            let mut moves = route.transfers(moves);
            while let Some(moved) = moves.try_next().await? {
                // The receiver is gone only if a commit failed, which ends both.
                send.send(moved).ok();
            }
            Ok::<_, CopyError>(())
        };
        let committing = async {
            while let Some((pack, waiting, outcome)) = arrived.recv().await {
                commits.pack_done(term, &pack, &waiting, outcome, progress).await?;
            }
            Ok(())
        };
        try_join(moving, committing).await?;

        let mut copied = commits.copied;
        output::copy(&self.source, &self.destination, |bytes| {
            copied.moved.output.add(bytes);
            progress(CopyProgress::Output { bytes });
        })
        .await?;
        if let Some(record) =
            outcome_of.and_then(|source_log| run_outcome::missing(source_log, term.run_log()))
        {
            term.append(record).await?;
        }
        copied.forget_collected(&self.source).await?;
        Ok(copied)
    }
}

/// The commits of the planned checkpoints, each of which waits for its packs.
struct Commits {
    source: RunDir,
    destination: RunDir,
    route: Route,
    planned: Vec<PlannedCheckpoint>,
    /// For each checkpoint, the number of packs that it waits for.
    waiting: Vec<usize>,
    /// For each checkpoint, a pack of it that cannot be copied.
    bad: Vec<Option<BadPack>>,
    copied: Copied,
}

impl Commits {
    /// Commits the checkpoints that wait for no pack.
    async fn commit_complete(
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

    /// Records the outcome of a pack, and commits or skips the checkpoints that waited for it alone.
    async fn pack_done(
        &mut self,
        term: &mut Term,
        pack: &Pack,
        waiting: &[usize],
        outcome: TransferOutcome,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<(), CopyError> {
        if let Some(bad) = self.count(pack, outcome, progress) {
            tracing::error!(run = self.source.uri(), %bad, "a checkpoint cannot be copied");
            self.copied.bad.add(pack.length);
            progress(CopyProgress::Bad { pack: pack.hash, bytes: pack.length });
            for &index in waiting {
                self.bad[index] = Some(bad.clone());
            }
        }
        for &index in waiting {
            self.waiting[index] -= 1;
            if self.waiting[index] > 0 {
                continue;
            }
            match self.bad[index].take() {
                Some(bad) => self.skip(index, bad),
                None => self.commit(term, index, progress).await?,
            }
        }
        Ok(())
    }

    /// Counts a pack that is in the destination now. Returns what is wrong with it if it is not.
    fn count(
        &mut self,
        pack: &Pack,
        outcome: TransferOutcome,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Option<BadPack> {
        let bytes = pack.length;
        match outcome {
            TransferOutcome::Moved => {
                self.copied.moved.packs.add(bytes);
                progress(CopyProgress::Moved { bytes });
                None
            }
            TransferOutcome::Found => {
                progress(CopyProgress::Found { bytes });
                None
            }
            TransferOutcome::Bad(bad) => Some(bad),
        }
    }

    fn skip(&mut self, index: usize, bad: BadPack) {
        let PlannedCheckpoint { checkpoint, manifest, .. } = &self.planned[index];
        self.copied.packs_of_skipped.extend(manifest.packs.iter().map(|pack| pack.hash));
        let (step, manifest) = (checkpoint.step, checkpoint.manifest.clone());
        self.copied.skipped.push(SkippedCheckpoint { step, manifest, why: SkipReason::Pack(bad) });
    }

    /// Commits a checkpoint. Its packs were listed in the destination or were put. Some may be missing all the same,
    /// since listings lag and a collection may have deleted listed packs. Those move now.
    async fn commit(
        &mut self,
        term: &mut Term,
        index: usize,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<(), CopyError> {
        let PlannedCheckpoint { checkpoint, manifest, manifest_bytes, .. } = &self.planned[index];
        let (name, bytes) = (checkpoint.manifest.clone(), manifest_bytes.clone());
        let (step, state, origin) = (checkpoint.step, checkpoint.state, checkpoint.origin);
        let manifest = manifest.clone();
        let mut retries = 0;
        loop {
            match append_checkpoint(term, &manifest, &name, bytes.clone(), state, Some(origin)).await {
                Ok(_) => break,
                Err(CommitError::Lacks { packs, .. }) if retries < COMMIT_RETRIES => {
                    retries += 1;
                    let lacking = manifest.packs.iter().filter(|pack| packs.contains(&pack.hash)).cloned();
                    if let Some(bad) = self.move_lacking(lacking.collect(), progress).await? {
                        self.skip(index, bad);
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
        let bytes = bytes.len() as u64;
        self.copied.moved.manifests.add(bytes);
        progress(CopyProgress::Committed { step, bytes });
        Ok(())
    }

    /// Moves packs that are lacking at a commit. Ends at the first that cannot be moved, and returns it.
    async fn move_lacking(
        &mut self,
        packs: Vec<Pack>,
        progress: &mut (impl FnMut(CopyProgress) + Send),
    ) -> Result<Option<BadPack>, StoreError> {
        let mut moves = self.route.clone().transfers(packs.into_iter().map(|pack| (pack, ())).collect());
        while let Some((pack, (), outcome)) = moves.try_next().await? {
            if let Some(bad) = self.count(&pack, outcome, progress) {
                return Ok(Some(bad));
            }
        }
        Ok(None)
    }
}

impl Copied {
    /// Removes from the skipped checkpoints those that were collected in the source during the copy.
    async fn forget_collected(&mut self, source: &RunDir) -> Result<(), CopyError> {
        if !self.skipped.is_empty() {
            let source_log = source.run_log().await?;
            self.skipped.retain(|out| source_log.checkpoint(&out.manifest).is_some());
        }
        Ok(())
    }
}
