//! What the driver keeps of a run that this coordinator hosts, beside the core: one [`HostedRun`] a run and term.

mod connections;
mod slices;
mod step_timer;
mod trained;
mod watchers;
mod welcome;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use whimbrel_core::{Formation, RunEvent};
use whimbrel_plan::{Generation, RunId, WorkerId};
use whimbrel_proto::v1;
use whimbrel_spec::RunSpec;
use whimbrel_state::{Manifest, manifest::FORMAT};
use whimbrel_store::{RunDir, Sources};

use self::{
    connections::Connections,
    slices::Slices,
    step_timer::StepTimer,
    trained::{DescribeError, Trained},
    watchers::Watchers,
};
use super::reopening::Reopening;
use crate::{
    events::{self, HostedFacts, StepTiming},
    record::{output_writer::OutputWriter, recorder::Request, replica_status::ReplicaStatus},
};

/// A run that this coordinator hosts, for one term.
#[derive(Debug)]
pub(crate) struct HostedRun {
    pub(crate) spec: RunSpec,
    pub(crate) epoch: u64,
    /// Where workers read checkpoints: the run's directory and its replicas.
    sources: Sources,
    opened: Instant,
    pub(crate) connections: Connections,
    pub(crate) output: OutputWriter,
    pub(crate) watchers: Watchers,
    pub(crate) slices: Slices,
    pub(crate) step_timer: StepTimer,
    trained: Option<Trained>,
    /// The step of the newest checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// The way to the recorder, which ends when this is dropped.
    recorder: Option<mpsc::UnboundedSender<Request>>,
    replicas: Vec<watch::Receiver<ReplicaStatus>>,
    /// The run's end is recorded, and the recorder waits for the replicas.
    pub(crate) is_finishing_replicas: bool,
    /// What a client last requested: to stop or cancel. Requested again if the run is opened again.
    pub(crate) requested: Option<RunEvent>,
    /// How many terms in a row a panic has ended, the last ones of this run.
    pub(crate) failures: u32,
    /// Set after a panic has ended the term.
    pub(crate) reopening: Option<Reopening>,
}

impl HostedRun {
    pub(crate) fn new(
        spec: RunSpec,
        sources: Sources,
        epoch: u64,
        checkpoint: Option<u64>,
        output: OutputWriter,
        recorder: mpsc::UnboundedSender<Request>,
        replicas: Vec<watch::Receiver<ReplicaStatus>>,
    ) -> Self {
        Self {
            connections: Connections::new(sources.primary().id().clone()),
            spec,
            epoch,
            sources,
            opened: Instant::now(),
            output,
            watchers: Watchers::new(),
            slices: Slices::default(),
            step_timer: StepTimer::default(),
            trained: None,
            checkpoint,
            recorder: Some(recorder),
            replicas,
            is_finishing_replicas: false,
            requested: None,
            failures: 0,
            reopening: None,
        }
    }

    /// Takes over from the term of the same run that a panic has ended: its watchers stay connected.
    pub(crate) fn continue_from(&mut self, previous: Self) {
        self.watchers = previous.watchers;
        self.requested = previous.requested;
        self.failures = previous.failures;
    }

    pub(crate) fn id(&self) -> &RunId {
        self.dir().id()
    }

    /// The run's directory.
    pub(crate) fn dir(&self) -> &RunDir {
        self.sources.primary()
    }

    /// What a status or event needs to know of the run beside the core's view.
    pub(crate) fn facts(&self) -> HostedFacts<'_> {
        HostedFacts {
            spec: &self.spec,
            dir: self.dir(),
            checkpoint: self.checkpoint,
            replicas: self.replicas.iter().map(|status| status.borrow().clone()).collect(),
            is_finishing_replicas: self.is_finishing_replicas,
            reopening: self.reopening.as_ref().map(|reopening| reopening.detail.as_str()),
            age: self.age(),
        }
    }

    /// Since the term started.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Sends an event to watchers and to the coordinator's log.
    pub(crate) fn announce(&mut self, event: v1::run_event::Event) {
        events::log_event(self.id(), &event);
        self.watchers.send(event);
    }

    /// The run's end is recorded, and the recorder waits for the replicas, if there are any.
    pub(crate) fn finishing_replicas(&mut self) {
        if !self.replicas.is_empty() {
            self.is_finishing_replicas = true;
            self.announce(events::finishing_replicas());
        }
    }

    /// Ends the hosting: watchers' streams end, and so does the term.
    pub(crate) fn close(&mut self) {
        self.end_term();
        self.watchers.close();
    }

    /// Ends the term: the recorder ends once it has carried out its requests. Watchers stay connected.
    pub(crate) fn end_term(&mut self) {
        self.output.flush();
        self.recorder = None;
    }

    /// Sends a request to the recorder. Without effect once the recorder has ended.
    pub(crate) fn request(&self, request: Request) {
        if let Some(recorder) = &self.recorder
            && recorder.send(request).is_err()
        {
            tracing::debug!(run = %self.id(), "the recorder has ended; a request is dropped");
        }
    }

    /// Takes a worker's description of its data set, state and device. Refuses a worker that trains something else
    /// than the others; warns watchers of one on another kind of device.
    pub(crate) fn describe(&mut self, worker: WorkerId, ready: &v1::Ready) -> Result<(), DescribeError> {
        let described = Trained::try_from(ready)?;
        match &mut self.trained {
            None => self.trained = Some(described),
            Some(trained) => {
                if let Some(text) = trained.accept(worker, described)? {
                    self.announce(events::warning(text));
                }
            }
        }
        Ok(())
    }

    /// Completes a generation that the core formed: adds the epoch, and a key that only its members get.
    pub(crate) fn generation(&mut self, formation: Formation) -> Result<Generation, getrandom::Error> {
        let Formation { number, origin, members } = formation;
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        self.slices.begin_generation(number, members.iter().map(|member| member.worker).collect());
        self.step_timer.begin_generation();
        let (run, epoch, shards) = (self.id().clone(), self.epoch, self.spec.train.shards);
        Ok(Generation { run, epoch, number, shards, origin, members, key })
    }

    /// The request to commit a checkpoint all of whose slices are saved; fails if they do not make a valid manifest.
    pub(crate) fn commit_request(&mut self, generation: u64, step: u64) -> Result<Request, String> {
        let saved = self.slices.take(generation, step)?;
        let trained = self.trained.as_ref().ok_or("no worker has described what it trains")?;
        let (samples, layout) = (trained.samples, trained.layout.clone());
        let fingerprint = trained.fingerprint.clone();
        let run = self.id().to_string();
        let manifest = Manifest {
            format: FORMAT,
            run,
            step,
            generation,
            samples,
            fingerprint,
            layout,
            packs: saved.packs,
        };
        manifest.check().map_err(|error| error.to_string())?;
        Ok(Request::Commit { manifest: Box::new(manifest), begun: saved.begun, stall: saved.stall })
    }

    /// The timing of the step that the core announces now.
    pub(crate) fn step_timing(&mut self) -> StepTiming {
        let samples = u64::from(self.spec.train.global_batch);
        let tokens = self.trained.as_ref().and_then(|trained| trained.tokens_per_sample);
        let (seconds, compute_seconds, reduce_seconds) = self.step_timer.step();
        let tokens = tokens.map(|tokens| tokens * samples);
        StepTiming { seconds, compute_seconds, reduce_seconds, samples, tokens }
    }
}
