//! The world: the stores, the actors, and what they do.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use object_store::{ObjectStore, PutMode, PutPayload, memory::InMemory, path::Path};
use whimbrel_state::{Hash, Layout, Manifest, TensorSpec, manifest::FORMAT};
use whimbrel_store::{
    AppendError, CheckpointSelection, CollectError, Collector, CommitError, CopyError, HostedBy, KeepEvery,
    Limits, Record, ReplicaLogError, ReplicateError, Replicator, Retention, Stopped, Term, commit, plan_copy,
    recover_from, save_slice,
};

use super::{
    Tally,
    fake_store::FakeStore,
    invariants::Observations,
    random::{pick, roll},
};

const STORES: usize = 3;
/// How deep actions interrupt actions.
const DEPTH: u32 = 3;
/// One of so many requests is interrupted; one of so many entries is lost in transit.
const INTERRUPTED: u64 = 24;
const LOST: u64 = 16;

const LIMITS: Limits = Limits { pack_bytes: 64, concurrency: 2, bandwidth: None };

/// A coordinator that leads, or led, the run in one of the stores.
struct Coordinator {
    name: String,
    store: usize,
    term: Term,
    collector: Collector,
    replicators: HashMap<usize, Replicator>,
    /// A checkpoint whose packs are saved, and its digest.
    saved: Option<(Manifest, Hash)>,
}

/// A log entry that is still in transit.
struct Late {
    writer: String,
    store: usize,
    at: Path,
    body: PutPayload,
}

pub(crate) struct World {
    seed: u64,
    traced: bool,
    stores: Vec<Arc<InMemory>>,
    me: Weak<World>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Coordinators that are idle at the moment.
    coordinators: Vec<Coordinator>,
    late: Vec<Late>,
    asked: HashMap<String, u64>,
    names: u64,
    depth: u32,
    calm: bool,
    tally: Tally,
    observations: Observations,
}

type Action<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl World {
    pub(crate) async fn new(seed: u64, traced: bool) -> Arc<Self> {
        let stores = (0..STORES).map(|_| Arc::new(InMemory::new())).collect();
        let world = Arc::new_cyclic(|me: &Weak<Self>| Self {
            seed,
            traced,
            stores,
            me: me.clone(),
            inner: Mutex::default(),
        });
        world.observed_store(0).run().create("", HostedBy::Embedded).await.unwrap();
        world.start_term(0).await;
        world
    }

    fn retention(&self) -> Retention {
        // Without a grace only the log protects a save from a collection. With one, collections look at everything once and
        // then rely on what they know.
        let grace = if self.seed.is_multiple_of(2) { Duration::ZERO } else { Duration::from_secs(3600) };
        Retention { last: 2, every: Some(KeepEvery::Steps(50)), grace, in_flight: Vec::new() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap())
    }

    fn saw(&self, what: &str) {
        self.with(|inner| *inner.tally.entry(what.to_owned()).or_default() += 1);
    }

    fn trace(&self, said: impl FnOnce() -> String) {
        if self.traced {
            let depth = self.with(|inner| inner.depth) as usize;
            eprintln!("{}{}", "  ".repeat(depth), said());
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.with(|inner| inner.tally.clone())
    }

    pub(crate) fn observe<T>(&self, act: impl FnOnce(&mut Observations) -> T) -> T {
        self.with(|inner| act(&mut inner.observations))
    }

    /// A store as an observer sees it: without interruptions.
    pub(crate) fn observed_store(&self, number: usize) -> FakeStore {
        FakeStore { objects: Arc::clone(&self.stores[number]), number, actor: None }
    }

    pub(crate) fn all_stores(&self) -> impl Iterator<Item = FakeStore> + '_ {
        (0..STORES).map(|number| self.observed_store(number))
    }

    fn store(&self, number: usize, actor: &str) -> FakeStore {
        FakeStore { actor: Some((actor.to_owned(), self.me.clone())), ..self.observed_store(number) }
    }

    fn name(&self, what: &str) -> String {
        self.with(|inner| {
            inner.names += 1;
            format!("{what} {}", inner.names)
        })
    }

    /// A random number for the first, second, … time that `actor` asks this question.
    fn roll(&self, actor: &str, question: &str) -> u64 {
        let times = self.with(|inner| {
            let times = inner.asked.entry(format!("{actor} {question}")).or_default();
            *times += 1;
            *times
        });
        roll(self.seed, (actor, question, times))
    }

    /// Possibly performs another action before a request.
    pub(crate) fn interrupt(&self, actor: &str, request: &str) -> Action<'_> {
        let number = self.roll(actor, request);
        let goes = self.with(|inner| {
            let goes = !inner.calm && inner.depth < DEPTH && number.is_multiple_of(INTERRUPTED);
            inner.depth += u32::from(goes);
            goes
        });
        let request = request.to_owned();
        Box::pin(async move {
            // A lost entry may land right before another is written.
            if request.starts_with("put") && request.contains("/log/") && number.is_multiple_of(2) {
                self.land(number / 2).await;
            }
            if goes {
                self.trace(|| format!("before {request}:"));
                self.action(number / INTERRUPTED).await;
                self.with(|inner| inner.depth -= 1);
            }
        })
    }

    /// Whether an entry is lost in transit. If so, it is kept to land later.
    pub(crate) fn loses(&self, actor: &str, store: usize, at: &Path, body: &PutPayload) -> bool {
        let lost = self.roll(actor, &format!("loses {at}")).is_multiple_of(LOST);
        self.with(|inner| {
            let lost = lost && !inner.calm;
            if lost {
                let writer = actor.to_owned();
                inner.late.push(Late { writer, store, at: at.clone(), body: body.clone() });
            }
            lost
        })
    }

    /// Performs one action.
    pub(crate) fn action(&self, number: u64) -> Action<'_> {
        let number = roll(self.seed, ("action", number, self.with(|inner| inner.names)));
        self.with(|inner| inner.names += 1);
        let (what, more) = (number % 26, number / 26);
        Box::pin(async move {
            match what {
                0..=7 => self.as_coordinator(more, Act::Commit).await,
                24..=25 => self.as_coordinator(more, Act::Save).await,
                8..=11 => self.as_coordinator(more, Act::Replicate).await,
                12..=14 => self.as_coordinator(more, Act::Collect).await,
                15 => self.as_coordinator(more, Act::Stop).await,
                16 => self.as_coordinator(more, Act::Die).await,
                17..=18 => self.start_term(more as usize % STORES).await,
                19..=21 => self.copy(more).await,
                _ => self.land(more).await,
            }
        })
    }

    /// Resumes the run in a store, whichever coordinator leads it there or elsewhere.
    async fn start_term(&self, store: usize) {
        let name = self.name("coordinator");
        let run = self.store(store, &name).run();
        let is_replica =
            self.observed_store(store).run().run_log().await.is_ok_and(|log| log.replica_of().is_some());
        if let Ok(term) = run.start_term(&name).await {
            self.trace(|| format!("{name} starts a term at {store} with epoch {}", term.epoch()));
            if is_replica {
                self.saw("resumed at a replica");
            }
            let mut coordinator = Coordinator {
                name,
                store,
                term,
                collector: Collector::default(),
                replicators: HashMap::new(),
                saved: None,
            };
            self.recover_from(&mut coordinator).await;
            self.with(|inner| inner.coordinators.push(coordinator));
        }
    }

    /// Recovers newer checkpoints from the other stores, as far as they are of the same lineage.
    async fn recover_from(&self, coordinator: &mut Coordinator) {
        for from in (0..STORES).filter(|&from| from != coordinator.store) {
            let copy = self.store(from, &coordinator.name).run();
            match recover_from(&mut coordinator.term, &copy, &LIMITS, &mut |_| {}).await {
                Ok(brought) => {
                    assert!(brought.skipped.is_empty(), "{:?}", brought.skipped);
                    if !brought.committed.is_empty() {
                        self.saw("recovered");
                    }
                }
                Err(error) => self.trace(|| format!("{}: {error}", coordinator.name)),
            }
        }
    }

    async fn as_coordinator(&self, number: u64, act: Act) {
        let chosen = self.with(|inner| {
            let count = inner.coordinators.len() as u64;
            (count > 0).then(|| inner.coordinators.swap_remove((number % count) as usize))
        });
        let Some(mut coordinator) = chosen else { return };
        let name = coordinator.name.clone();
        self.trace(|| format!("{name}: {act:?}"));
        let number = number / 8;
        let goes_on = match act {
            Act::Save => self.save(&mut coordinator, number).await,
            Act::Commit => self.commit(&mut coordinator, number).await,
            Act::Replicate => self.replicate(&mut coordinator, number).await,
            Act::Collect => self.collect(&mut coordinator).await,
            Act::Stop => {
                let step = newest(&coordinator.term);
                let record = Record::Stopped(Stopped { step, reason: "asked to".into() });
                let appended = coordinator.term.append(record).await;
                let entry = appended.as_ref().copied().ok();
                self.acknowledged(&coordinator, entry);
                !matches!(appended, Err(AppendError::Fenced { .. }))
            }
            Act::Die => false,
        };
        self.trace(|| format!("{name}: {act:?} done, goes on: {goes_on}"));
        // A fenced coordinator mostly stops. One that goes on is like one that was paused.
        if goes_on || number.is_multiple_of(5) {
            self.with(|inner| inner.coordinators.push(coordinator));
        }
    }

    fn acknowledged(&self, coordinator: &Coordinator, entry: Option<u64>) {
        if let Some(entry) = entry {
            self.observe(|seen| seen.acknowledged(coordinator.store, entry, &coordinator.name));
        }
    }

    /// Saves a state, to be committed later.
    async fn save(&self, coordinator: &mut Coordinator, number: u64) -> bool {
        let step = newest(&coordinator.term) + 10;
        // The second tensor is frozen, and the first has few values: many packs exist already, and may be deleted soon.
        let layout = Layout::new(vec![TensorSpec::f32("a", [16]), TensorSpec::f32("frozen", [16])]).unwrap();
        let staged = [[(number % 5) as u8; 64], [9; 64]].concat();
        let digest = whimbrel_state::digest(&layout, step, |index, sink| {
            sink(&staged[layout.range_of(index)]);
            Ok::<_, std::convert::Infallible>(())
        });
        let run = coordinator.term.run().clone();
        let packs = save_slice(&run, &layout, 0..staged.len(), staged.into(), &LIMITS).await.unwrap();
        let run = run.id().to_string();
        let manifest = Manifest {
            format: FORMAT,
            run,
            step,
            generation: 1,
            samples: 1,
            fingerprint: Default::default(),
            layout,
            packs,
        };
        coordinator.saved = Some((manifest, digest.unwrap()));
        true
    }

    async fn commit(&self, coordinator: &mut Coordinator, number: u64) -> bool {
        if coordinator.saved.is_none() {
            self.save(coordinator, number).await;
        }
        while let Some((manifest, digest)) = coordinator.saved.take() {
            match commit(&mut coordinator.term, &manifest, Some(digest)).await {
                Ok(committed) => {
                    self.saw("committed");
                    self.acknowledged(coordinator, Some(committed.entry));
                }
                Err(CommitError::Append(AppendError::Fenced { .. })) => {
                    self.saw("commit: fenced");
                    return false;
                }
                Err(CommitError::Lacks { .. }) => {
                    self.saw("commit: lacks packs");
                    self.save(coordinator, number).await;
                }
                // The entry may still be in transit. Sometimes a collection comes next.
                Err(_) if number.is_multiple_of(2) => return self.collect(coordinator).await,
                Err(_) => {}
            }
        }
        true
    }

    async fn replicate(&self, coordinator: &mut Coordinator, number: u64) -> bool {
        let others: Vec<usize> = (0..STORES).filter(|&store| store != coordinator.store).collect();
        let Some(&to) = pick(number, &others) else { return true };
        let (name, from) = (coordinator.name.clone(), coordinator.term.run().clone());
        let make = || {
            let replica = self.store(to, &name).run();
            Replicator::new(&from, &replica, &name, self.retention(), LIMITS)
        };
        let replicator = coordinator.replicators.entry(to).or_insert_with(make);
        let run_log = coordinator.term.run_log();
        match replicator.replicate(run_log, &mut |_| {}).await {
            Ok(lag) => {
                assert!(lag.skipped.is_empty(), "{:?}", lag.skipped);
                self.saw("replicated");
                true
            }
            Err(ReplicateError::Superseded { .. }) => {
                self.saw("replicate: superseded");
                true
            }
            Err(ReplicateError::WentOn { .. }) => {
                let there = self.observed_store(to).run().run_log().await.unwrap();
                let relation = whimbrel_store::relation(run_log, &there);
                use whimbrel_store::Relation::{Ahead, Diverged};
                assert!(matches!(relation, Ahead | Diverged), "{name} at {to}: {relation:?}");
                self.saw("replicate: the run went on");
                false
            }
            Err(_) => true,
        }
    }

    async fn collect(&self, coordinator: &mut Coordinator) -> bool {
        match coordinator.collector.collect(&mut coordinator.term, &self.retention()).await {
            Ok(collected) => {
                assert!(collected.unreadable.is_empty());
                if collected.packs > 0 {
                    self.saw("collected");
                }
                true
            }
            Err(CollectError::Append(AppendError::Fenced { .. })) => false,
            Err(_) => true,
        }
    }

    async fn copy(&self, number: u64) {
        let name = self.name("copy");
        let (from, to) = (number as usize % STORES, number as usize / STORES % STORES);
        let which = *pick(number / 9, &[CheckpointSelection::All, CheckpointSelection::Newest]).unwrap();
        self.trace(|| format!("{name} from {from} to {to}: {which:?}"));
        let (source, destination) = (self.store(from, &name).run(), self.store(to, &name).run());
        let copied = async {
            let plan = plan_copy(&source, &destination, which).await?;
            plan.execute(&name, &LIMITS, &mut |_| {}).await
        };
        match copied.await {
            Ok(copied) => {
                // The source may have deleted what was being copied, but never damages it.
                assert!(copied.skipped.is_empty(), "{:?}", copied.skipped);
                self.saw("copied");
            }
            Err(CopyError::Replica(ReplicaLogError::WentOn { .. })) => self.saw("copy: the run went on"),
            Err(CopyError::Replica(ReplicaLogError::Diverged { .. })) => self.saw("copy: diverged"),
            Err(CopyError::Replica(ReplicaLogError::Itself { .. })) => self.saw("copy: itself"),
            Err(error) => self.trace(|| format!("{name}: {error}")),
        }
    }

    /// Lets a lost entry land.
    async fn land(&self, number: u64) {
        let late = self.with(|inner| {
            let count = inner.late.len() as u64;
            (count > 0).then(|| inner.late.swap_remove((number % count) as usize))
        });
        if let Some(Late { writer, store, at, body }) = late
            && self.stores[store].put_opts(&at, body, PutMode::Create.into()).await.is_ok()
        {
            self.trace(|| format!("{at} by {writer} lands at {store}"));
            self.saw("landed late");
            self.observe(|seen| seen.written(store, &at, &writer));
        }
    }

    /// Without interruptions the run goes on where it is newest, and a new replica gets all of it.
    pub(crate) async fn heal_and_go_on(&self) {
        self.with(|inner| {
            inner.calm = true;
            inner.late.clear();
        });
        let mut newest = None;
        for store in 0..STORES {
            if let Ok(run_log) = self.observed_store(store).run().run_log().await {
                newest = newest.max(Some((run_log.epoch(), store)));
            }
        }
        let (_, store) = newest.unwrap();
        let term = self.observed_store(store).run().start_term("the last").await.unwrap();
        let name = "the last".to_owned();
        let mut coordinator = Coordinator {
            name,
            store,
            term,
            collector: Collector::default(),
            replicators: HashMap::new(),
            saved: None,
        };
        let before = newest_step(&coordinator.term);
        assert!(self.commit(&mut coordinator, 3).await);
        assert!(newest_step(&coordinator.term) > before);
        let fresh = FakeStore { objects: Arc::new(InMemory::new()), number: STORES, actor: None };
        let mut replicator =
            Replicator::new(coordinator.term.run(), &fresh.run(), "the last", self.retention(), LIMITS);
        let lag = replicator.replicate(coordinator.term.run_log(), &mut |_| {}).await.unwrap();
        assert_eq!((lag.newest, lag.missing.objects), (lag.newest_of_run, 0));
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Save,
    Commit,
    Replicate,
    Collect,
    Stop,
    Die,
}

fn newest(term: &Term) -> u64 {
    newest_step(term).unwrap_or(0)
}

fn newest_step(term: &Term) -> Option<u64> {
    term.run_log().checkpoints().last().map(|checkpoint| checkpoint.step)
}
