//! Who does what.

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
    AppendError, CheckpointSelection, CollectError, CommitError, CopyError, KeepEvery, Limits, Mode, Record,
    ReplicaLogError, ReplicateError, Replicator, Retention, Stopped, Term, collect, commit, plan_copy,
    recover_from, save_slice,
};

use crate::{
    Tally,
    dice::{pick, roll},
    place::Place,
    watch::Watch,
};

const PLACES: usize = 3;
/// Deeds within deeds.
const DEPTH: u32 = 3;
/// Of so many requests, one is interrupted; of so many entries, one gets lost on its way.
const INTERRUPTED: u64 = 24;
const LOST: u64 = 16;

const LIMITS: Limits = Limits { pack_bytes: 64, concurrency: 2, bandwidth: None };

fn retention() -> Retention {
    // Nothing is spared for its youth: only the log stands between a save and a sweep.
    Retention { last: 2, every: Some(KeepEvery::Steps(50)), grace: Duration::ZERO, in_flight: Vec::new() }
}

/// A coordinator that holds, or held, the run in one of the places.
struct Coordinator {
    name: String,
    place: usize,
    term: Term,
    replicators: HashMap<usize, Replicator>,
    /// A checkpoint whose packs are saved, and its digest.
    saved: Option<(Manifest, Hash)>,
}

/// An entry of a log that is still on its way.
struct Late {
    writer: String,
    place: usize,
    at: Path,
    body: PutPayload,
}

pub(crate) struct World {
    seed: u64,
    traced: bool,
    places: Vec<Arc<InMemory>>,
    me: Weak<World>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Those that do nothing right now.
    coordinators: Vec<Coordinator>,
    late: Vec<Late>,
    asked: HashMap<String, u64>,
    names: u64,
    depth: u32,
    calm: bool,
    tally: Tally,
    watch: Watch,
}

type Deed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl World {
    pub(crate) async fn new(seed: u64, traced: bool) -> Arc<Self> {
        let places = (0..PLACES).map(|_| Arc::new(InMemory::new())).collect();
        let world = Arc::new_cyclic(|me: &Weak<Self>| Self {
            seed,
            traced,
            places,
            me: me.clone(),
            inner: Mutex::default(),
        });
        world.watched(0).run().create("", Mode::Embedded).await.unwrap();
        world.start_term(0).await;
        world
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

    pub(crate) fn watch<T>(&self, act: impl FnOnce(&mut Watch) -> T) -> T {
        self.with(|inner| act(&mut inner.watch))
    }

    /// A place as one sees it whom nothing interrupts.
    pub(crate) fn watched(&self, number: usize) -> Place {
        Place { objects: Arc::clone(&self.places[number]), number, actor: None }
    }

    pub(crate) fn all_watched(&self) -> impl Iterator<Item = Place> + '_ {
        (0..PLACES).map(|number| self.watched(number))
    }

    fn place(&self, number: usize, actor: &str) -> Place {
        Place { actor: Some((actor.to_owned(), self.me.clone())), ..self.watched(number) }
    }

    fn name(&self, what: &str) -> String {
        self.with(|inner| {
            inner.names += 1;
            format!("{what} {}", inner.names)
        })
    }

    /// A number that no other question gets, for what `actor` asks for the first, second, … time.
    fn roll(&self, actor: &str, question: &str) -> u64 {
        let times = self.with(|inner| {
            let times = inner.asked.entry(format!("{actor} {question}")).or_default();
            *times += 1;
            *times
        });
        roll(self.seed, (actor, question, times))
    }

    /// Perhaps does something else before a request.
    pub(crate) fn interrupt(&self, actor: &str, request: &str) -> Deed<'_> {
        let number = self.roll(actor, request);
        let goes = self.with(|inner| {
            let goes = !inner.calm && inner.depth < DEPTH && number.is_multiple_of(INTERRUPTED);
            inner.depth += u32::from(goes);
            goes
        });
        let request = request.to_owned();
        Box::pin(async move {
            // An entry that is about to be written is what one that was lost may come before.
            if request.starts_with("put") && request.contains("/log/") && number.is_multiple_of(2) {
                self.land(number / 2).await;
            }
            if goes {
                self.trace(|| format!("before {request}:"));
                self.deed(number / INTERRUPTED).await;
                self.with(|inner| inner.depth -= 1);
            }
        })
    }

    /// Whether an entry is lost on its way; then it is kept to land later.
    pub(crate) fn loses(&self, actor: &str, place: usize, at: &Path, body: &PutPayload) -> bool {
        let lost = self.roll(actor, &format!("loses {at}")).is_multiple_of(LOST);
        self.with(|inner| {
            let lost = lost && !inner.calm;
            if lost {
                let writer = actor.to_owned();
                inner.late.push(Late { writer, place, at: at.clone(), body: body.clone() });
            }
            lost
        })
    }

    /// Something that somebody does.
    pub(crate) fn deed(&self, number: u64) -> Deed<'_> {
        let number = roll(self.seed, ("deed", number, self.with(|inner| inner.names)));
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
                17..=18 => self.start_term(more as usize % PLACES).await,
                19..=21 => self.copy(more).await,
                _ => self.land(more).await,
            }
        })
    }

    /// Resumes the run in a place, whoever holds it there or elsewhere.
    async fn start_term(&self, place: usize) {
        let name = self.name("coordinator");
        let run = self.place(place, &name).run();
        let mirrored = self.watched(place).run().run_log().await.is_ok_and(|log| log.replica_of().is_some());
        if let Ok(term) = run.start_term(&name).await {
            self.trace(|| format!("{name} starts a term at {place} with epoch {}", term.epoch()));
            if mirrored {
                self.saw("resumed at a replica");
            }
            let mut coordinator = Coordinator { name, place, term, replicators: HashMap::new(), saved: None };
            self.recover_from(&mut coordinator).await;
            self.with(|inner| inner.coordinators.push(coordinator));
        }
    }

    /// Fetches what the other places have newer, as far as it is of the same lineage.
    async fn recover_from(&self, coordinator: &mut Coordinator) {
        for from in (0..PLACES).filter(|&from| from != coordinator.place) {
            let copy = self.place(from, &coordinator.name).run();
            match recover_from(&mut coordinator.term, &copy, &LIMITS, &mut |_| {}).await {
                Ok(brought) => {
                    assert!(brought.skipped.is_empty(), "{:?}", brought.skipped);
                    if !brought.committed.is_empty() {
                        self.saw("brought back");
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
        // One that learned that it is fenced stops, mostly; one that does not is as good as one that was paused.
        if goes_on || number.is_multiple_of(5) {
            self.with(|inner| inner.coordinators.push(coordinator));
        }
    }

    fn acknowledged(&self, coordinator: &Coordinator, entry: Option<u64>) {
        if let Some(entry) = entry {
            self.watch(|watch| watch.acknowledged(coordinator.place, entry, &coordinator.name));
        }
    }

    /// Saves a state, to be committed whenever.
    async fn save(&self, coordinator: &mut Coordinator, number: u64) -> bool {
        let step = newest(&coordinator.term) + 10;
        // The second tensor is frozen, the first one of a few: many packs are there already, and may be about to go.
        let layout = Layout::new(vec![TensorSpec::f32("a", [16]), TensorSpec::f32("frozen", [16])]).unwrap();
        let staged = [[(number % 5) as u8; 64], [9; 64]].concat();
        let digest = whimbrel_state::digest(&layout, step, |index, sink| {
            sink(&staged[layout.range_of(index)]);
            Ok::<_, std::convert::Infallible>(())
        });
        let run = coordinator.term.run().clone();
        let packs = save_slice(&run, &layout, 0..staged.len(), staged.into(), &LIMITS).await.unwrap();
        let run = run.id().to_string();
        let manifest = Manifest { format: FORMAT, run, step, generation: 1, samples: 1, layout, packs };
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
                    self.saw("commit: packs were gone");
                    self.save(coordinator, number).await;
                }
                // What comes next is a collection at times, with the entry still on its way.
                Err(_) if number.is_multiple_of(2) => return self.collect(coordinator).await,
                Err(_) => {}
            }
        }
        true
    }

    async fn replicate(&self, coordinator: &mut Coordinator, number: u64) -> bool {
        let others: Vec<usize> = (0..PLACES).filter(|&place| place != coordinator.place).collect();
        let Some(&to) = pick(number, &others) else { return true };
        let (name, from) = (coordinator.name.clone(), coordinator.term.run().clone());
        let make = || {
            let replica = self.place(to, &name).run();
            Replicator::new(&from, &replica, &name, retention(), LIMITS)
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
                self.saw("replicate: relieved");
                true
            }
            Err(ReplicateError::WentOn { .. }) => {
                let there = self.watched(to).run().run_log().await.unwrap();
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
        match collect(&mut coordinator.term, &retention()).await {
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
        let (from, to) = (number as usize % PLACES, number as usize / PLACES % PLACES);
        let which = *pick(number / 9, &[CheckpointSelection::All, CheckpointSelection::Newest]).unwrap();
        self.trace(|| format!("{name} from {from} to {to}: {which:?}"));
        let (source, destination) = (self.place(from, &name).run(), self.place(to, &name).run());
        let copied = async {
            let plan = plan_copy(&source, &destination, which).await?;
            plan.execute(&name, &LIMITS, &mut |_| {}).await
        };
        match copied.await {
            Ok(copied) => {
                // The source may have gone on to lose what was being copied, but never to damage it.
                assert!(copied.skipped.is_empty(), "{:?}", copied.skipped);
                self.saw("copied");
            }
            Err(CopyError::Replica(ReplicaLogError::WentOn { .. })) => self.saw("copy: the run went on"),
            Err(CopyError::Replica(ReplicaLogError::Diverged { .. })) => self.saw("copy: diverged"),
            Err(CopyError::Replica(ReplicaLogError::Itself { .. })) => self.saw("copy: itself"),
            Err(error) => self.trace(|| format!("{name}: {error}")),
        }
    }

    /// What was lost on its way arrives.
    async fn land(&self, number: u64) {
        let late = self.with(|inner| {
            let count = inner.late.len() as u64;
            (count > 0).then(|| inner.late.swap_remove((number % count) as usize))
        });
        if let Some(Late { writer, place, at, body }) = late
            && self.places[place].put_opts(&at, body, PutMode::Create.into()).await.is_ok()
        {
            self.trace(|| format!("{at} by {writer} lands at {place}"));
            self.saw("landed late");
            self.watch(|watch| watch.written(place, &at, &writer));
        }
    }

    /// Nothing gets in between any more: the run goes on where it is newest, and a new copy has it all.
    pub(crate) async fn heal_and_go_on(&self) {
        self.with(|inner| {
            inner.calm = true;
            inner.late.clear();
        });
        let mut newest = None;
        for place in 0..PLACES {
            if let Ok(run_log) = self.watched(place).run().run_log().await {
                newest = newest.max(Some((run_log.epoch(), place)));
            }
        }
        let (_, place) = newest.unwrap();
        let term = self.watched(place).run().start_term("the last").await.unwrap();
        let name = "the last".to_owned();
        let mut coordinator = Coordinator { name, place, term, replicators: HashMap::new(), saved: None };
        let before = newest_step(&coordinator.term);
        assert!(self.commit(&mut coordinator, 3).await);
        assert!(newest_step(&coordinator.term) > before);
        let fresh = Place { objects: Arc::new(InMemory::new()), number: PLACES, actor: None };
        let mut replicator =
            Replicator::new(coordinator.term.run(), &fresh.run(), "the last", retention(), LIMITS);
        let lag = replicator.replicate(coordinator.term.run_log(), &mut |_| {}).await.unwrap();
        assert_eq!((lag.newest, lag.missing.packs), (lag.newest_of_run, 0));
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
