//! What the driver keeps of a run beside the core.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast, mpsc, watch};
use tonic::Status;
use whimbrel_core::Formation;
use whimbrel_plan::{Generation, RunId, WorkerId};
use whimbrel_proto::{
    border::WireError,
    v1::{
        self,
        run_event::Event::{Exit, Warning},
    },
};
use whimbrel_spec::{CheckpointEvery, Every, Mode, OnNonfinite, RunSpec};
use whimbrel_state::{Layout, LayoutError, Manifest, Pack, TensorSpec, manifest::FORMAT};
use whimbrel_store::{RunDir, Sources};

use crate::{driver::input::WorkerLink, events, record::{output_writer::OutputWriter, recorder::Task, replica_status::Standing}};

/// Events that may wait for a watcher that reads slowly.
const WATCH_BACKLOG: usize = 16_384;

/// Events kept for the first watcher: as `Watch` in the protocol says.
const UNTOLD: usize = 64;

/// Keeps an event for the first watcher. A warning may be said only once, while that a worker exited is one of many: where
/// there is no room, the oldest exit goes, and no warning for an exit.
fn keep(untold: &mut Vec<v1::RunEvent>, event: v1::RunEvent) {
    let is_exit = |event: &v1::RunEvent| matches!(event.event, Some(Exit(_)));
    if untold.len() >= UNTOLD {
        match untold.iter().position(is_exit) {
            Some(oldest) => untold.remove(oldest),
            None if is_exit(&event) => return,
            None => untold.remove(0),
        };
    }
    untold.push(event);
}

/// So many generations back, slices are still of use.
const REMEMBERED: u64 = 8;

/// What the driver keeps of a run beside the core: its links, the slices of checkpoints on their way, its watchers.
#[derive(Debug)]
pub(crate) struct HostedRun {
    pub(crate) spec: RunSpec,
    pub(crate) dir: RunDir,
    pub(crate) epoch: u64,
    pub(crate) opened: Instant,
    pub(crate) links: BTreeMap<WorkerId, WorkerLink>,
    pub(crate) output: OutputWriter,
    /// Gone once the run has ended here: watchers' streams end with it.
    events: Option<broadcast::Sender<v1::RunEvent>>,
    /// The way to the recorder; dropping it ends that.
    recorder: Option<mpsc::UnboundedSender<Task>>,
    /// The samples of the data set, and the state that the run trains, as its first worker described them.
    trained: Option<(u64, Layout)>,
    /// The numerics class of the first worker that was ready: equal bits are promised within it.
    numerics: Option<String>,
    tokens_per_sample: Option<u64>,
    /// Slices by the generation that staged them and the steps applied.
    slices: BTreeMap<(u64, u64), Slices>,
    /// Members in rank order by generation, as far back as slices can still come.
    members: BTreeMap<u64, Vec<WorkerId>>,
    /// What rank 0 said of the step that the core is hearing of.
    pub(crate) step: Option<v1::StepApplied>,
    last_step: Option<Instant>,
    /// The step of the newest checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// The run's directory and its replicas, for workers to read from.
    sources: Sources,
    /// How the replicas stand.
    standings: Vec<watch::Receiver<Standing>>,
    /// The end is written, and the replicas are waited for.
    pub(crate) parting: bool,
    /// Exits and warnings from before anybody watched, for the first who does; `None` from then on.
    untold: Option<Vec<v1::RunEvent>>,
}

/// The slices of a checkpoint that have come.
#[derive(Debug)]
struct Slices {
    packs: BTreeMap<WorkerId, Vec<Pack>>,
    begun: Instant,
    blocked_seconds: f64,
}

impl HostedRun {
    pub(crate) fn new(
        spec: RunSpec,
        sources: Sources,
        epoch: u64,
        output: OutputWriter,
        recorder: mpsc::UnboundedSender<Task>,
        checkpoint: Option<u64>,
    ) -> Self {
        Self {
            spec,
            dir: sources.primary().clone(),
            sources,
            standings: Vec::new(),
            parting: false,
            untold: Some(Vec::new()),
            epoch,
            opened: Instant::now(),
            links: BTreeMap::new(),
            output,
            events: Some(broadcast::channel(WATCH_BACKLOG).0),
            recorder: Some(recorder),
            trained: None,
            numerics: None,
            tokens_per_sample: None,
            slices: BTreeMap::new(),
            members: BTreeMap::new(),
            step: None,
            last_step: None,
            checkpoint,
        }
    }

    /// Takes note of the replicas, and of what the opening of the run found that is to be said aloud.
    pub(crate) fn with_replicas(self, standings: Vec<watch::Receiver<Standing>>, found: Vec<String>) -> Self {
        let warning = |text| v1::RunEvent { event: Some(events::warning(text)) };
        Self { standings, untold: Some(found.into_iter().map(warning).collect()), ..self }
    }

    /// How the replicas stand.
    pub(crate) fn replicas(&self) -> Vec<v1::ReplicaStatus> {
        self.standings.iter().map(|standing| standing.borrow().status(self.checkpoint)).collect()
    }

    /// Tells watchers.
    pub(crate) fn tell(&mut self, event: v1::run_event::Event) {
        let lasting = matches!(event, Exit(_) | Warning(_));
        let event = v1::RunEvent { event: Some(event) };
        if let Some(untold) = self.untold.as_mut().filter(|_| lasting) {
            keep(untold, event.clone());
        }
        if let Some(events) = &self.events {
            // Nobody may be watching.
            events.send(event).ok();
        }
    }

    /// What went wrong before anybody watched, and what happens from now on: nothing if the run has ended here.
    pub(crate) fn watch(&mut self) -> (Vec<v1::RunEvent>, broadcast::Receiver<v1::RunEvent>) {
        let events = match &self.events {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        };
        (self.untold.take().unwrap_or_default(), events)
    }

    /// Lets go of the run: watchers' streams end, and the recorder once it has done what it was told.
    pub(crate) fn close(&mut self) {
        self.output.flush();
        self.events = None;
        self.recorder = None;
    }

    pub(crate) fn order(&self, task: Task) {
        if let Some(recorder) = &self.recorder
            && recorder.send(task).is_err()
        {
            tracing::debug!(run = %self.dir.id(), "the recorder has ended; nothing is written any more");
        }
    }

    /// Sends a command to a worker. One that does not take its commands is not waited for: its silence, or the end of
    /// its attendance, tells the core.
    pub(crate) fn send(&mut self, worker: WorkerId, command: v1::worker_command::Command) {
        let Some(link) = self.links.get(&worker) else { return };
        if link.try_send(v1::WorkerCommand { command: Some(command) }).is_err() {
            tracing::warn!(run = %self.dir.id(), %worker, "it does not take its commands; its connection is dropped");
            self.links.remove(&worker);
        }
    }

    /// What a worker must know before it builds its trainer.
    pub(crate) fn welcome(&self) -> Result<v1::Welcome, Status> {
        let train = &self.spec.train;
        let settings = serde_json::to_string(&train.settings)
            .map_err(|error| Status::internal(format!("[train.settings] cannot be passed on: {error}")))?;
        Ok(v1::Welcome {
            epoch: self.epoch,
            uri: self.dir.uri().to_owned(),
            seed: train.seed,
            steps: train.steps,
            global_batch: train.global_batch,
            shards: train.shards,
            settings,
            evaluate_every: self.spec.evaluate.every,
            checkpoint_every: match self.spec.checkpoint.every {
                CheckpointEvery::Fixed(Every::Steps(steps)) => Some(steps),
                CheckpointEvery::Fixed(Every::Time(_)) | CheckpointEvery::Auto => None,
            },
            reduction: match self.spec.reduction.mode {
                Mode::Exact => v1::Reduction::Exact,
                Mode::F32 => v1::Reduction::F32,
            }
            .into(),
            on_nonfinite: match self.spec.reduction.on_nonfinite {
                OnNonfinite::Stop => v1::OnNonfinite::Stop,
                OnNonfinite::Skip => v1::OnNonfinite::Skip,
            }
            .into(),
            step_timeout_ms: millis(self.spec.workers.step_timeout),
            replicas: self.sources.all().skip(1).map(|replica| replica.uri().to_owned()).collect(),
            bandwidth: self.spec.checkpoint.bandwidth.map(|bandwidth| bandwidth.bytes_per_second().get()),
        })
    }

    /// Takes note of what a worker that is ready trains, and on what. All must train the same; one on another kind of
    /// device is told of to watchers.
    pub(crate) fn describe(&mut self, worker: WorkerId, ready: &v1::Ready) -> Result<(), DescribeError> {
        let tensors: Vec<TensorSpec> =
            ready.layout.iter().cloned().map(TensorSpec::try_from).collect::<Result<_, _>>()?;
        let layout = Layout::new(tensors)?;
        self.tokens_per_sample = ready.tokens_per_sample;
        match &self.trained {
            Some((samples, _)) if *samples != ready.samples => {
                return Err(DescribeError::Samples { there: *samples, here: ready.samples });
            }
            Some((_, known)) => known.same_as(&layout)?,
            None => self.trained = Some((ready.samples, layout)),
        }
        let known = self.numerics.get_or_insert_with(|| ready.numerics.clone());
        if *known != ready.numerics {
            let text = format!(
                "worker {worker} is of numerics class {:?} and the run of {known:?}: its sums may differ in the last \
                 bits, and the run's final state with them",
                ready.numerics
            );
            tracing::warn!(run = %self.dir.id(), "{text}");
            self.tell(events::warning(text));
        }
        Ok(())
    }

    /// Makes a generation of what the core formed: with the epoch, and a key that only its members get.
    pub(crate) fn generation(&mut self, formation: Formation) -> Result<Generation, getrandom::Error> {
        let Formation { number, origin, members } = formation;
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        self.members.insert(number, members.iter().map(|member| member.worker).collect());
        // Slices of generations long gone may still come after their checkpoint was given up.
        self.members.retain(|&generation, _| generation + REMEMBERED >= number);
        self.slices.retain(|&(generation, _), _| generation + REMEMBERED >= number);
        self.last_step = None;
        let (run, epoch, shards) = (self.dir.id().clone(), self.epoch, self.spec.train.shards);
        Ok(Generation { run, epoch, number, shards, origin, members, key })
    }

    /// Keeps a slice until all of its checkpoint's have come.
    pub(crate) fn keep_slice(&mut self, worker: WorkerId, saved: v1::SliceSaved) -> Result<(), WireError> {
        let packs = saved.packs.into_iter().map(Pack::try_from).collect::<Result<_, _>>()?;
        let staged = Instant::now().checked_sub(seconds(saved.seconds)).unwrap_or_else(Instant::now);
        let slices = self.slices.entry((saved.generation, saved.step)).or_insert_with(|| Slices {
            packs: BTreeMap::new(),
            begun: staged,
            blocked_seconds: 0.0,
        });
        slices.begun = slices.begun.min(staged);
        slices.blocked_seconds = slices.blocked_seconds.max(saved.blocked_seconds);
        slices.packs.insert(worker, packs);
        Ok(())
    }

    pub(crate) fn discard(&mut self, generation: u64, step: u64) {
        self.slices.remove(&(generation, step));
    }

    /// The commit of a checkpoint all of whose slices have come.
    pub(crate) fn commit(&mut self, generation: u64, step: u64) -> Result<Task, String> {
        let mut slices = self.slices.remove(&(generation, step)).ok_or("no slice of it is known")?;
        let members = self.members.get(&generation).ok_or("its generation is not known")?;
        let (samples, layout) = self.trained.clone().ok_or("no worker has described what it trains")?;
        let packs =
            members.iter().flat_map(|worker| slices.packs.remove(worker).unwrap_or_default()).collect();
        let run = self.dir.id().to_string();
        let manifest = Box::new(Manifest { format: FORMAT, run, step, generation, samples, layout, packs });
        manifest.check().map_err(|error| error.to_string())?;
        Ok(Task::Commit { manifest, begun: slices.begun, blocked_seconds: slices.blocked_seconds })
    }

    /// A step as watchers want to hear of it.
    pub(crate) fn step_event(
        &mut self,
        step: u64,
        generation: u64,
        workers: u32,
        loss: f64,
    ) -> v1::StepEvent {
        let now = Instant::now();
        let said = self.step.take();
        let (compute_seconds, reduce_seconds) =
            said.as_ref().map_or((0.0, 0.0), |said| (said.compute_seconds, said.reduce_seconds));
        // The first step of a generation has none before it to be measured from.
        let since_last = self.last_step.map(|last| now.duration_since(last).as_secs_f64());
        self.last_step = Some(now);
        let samples = u64::from(self.spec.train.global_batch);
        v1::StepEvent {
            step,
            loss,
            generation,
            workers,
            seconds: since_last.unwrap_or(compute_seconds + reduce_seconds),
            compute_seconds,
            reduce_seconds,
            samples,
            tokens: self.tokens_per_sample.map(|tokens| tokens * samples),
        }
    }

    /// The URI of the newest checkpoint, or nothing.
    pub(crate) fn checkpoint_uri(&self) -> String {
        self.checkpoint.map(|step| self.dir.checkpoint_uri(step)).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> &RunId {
        self.dir.id()
    }
}

/// What a worker says of its state makes no sense, or differs from what others said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescribeError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(
        "its data set has {here} samples and that of the other workers {there}: no step would be made of the same"
    )]
    Samples { there: u64, here: u64 },
    #[error("its trainer's state is not that of the other workers, or makes no sense: {0}")]
    Layout(#[from] LayoutError),
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A length of time that came over the wire; nonsense counts as none.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_nobody_watched_the_newest_is_kept_and_warnings_before_exits() {
        let warning = |number: usize| v1::RunEvent { event: Some(events::warning(number.to_string())) };
        let exit = |pid: u32| v1::RunEvent {
            event: Some(Exit(v1::WorkerExitedEvent { pid, ..v1::WorkerExitedEvent::default() })),
        };
        let mut untold = vec![warning(0)];
        for pid in 1..=100 {
            keep(&mut untold, exit(pid));
        }
        assert_eq!((untold.len(), &untold[0], &untold[1]), (UNTOLD, &warning(0), &exit(38)));
        for number in 1..=100 {
            keep(&mut untold, warning(number));
        }
        keep(&mut untold, exit(101));
        assert_eq!(
            (untold.len(), untold.first(), untold.last()),
            (UNTOLD, Some(&warning(37)), Some(&warning(100)))
        );
    }
}
