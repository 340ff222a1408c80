//! What a run does with its store, as short acts that a program of its own plays: `store-story`, which a test can kill.
//!
//! The acts go through the public interface of `whimbrel-store`, as coordinator and workers do. [`play`] plays one, and
//! tells what came of it: an act that *failed* says so and left nothing broken behind, which the next [`Act::TakeOver`]
//! finds out; an act that is *broken* saw a promise not kept.

use std::{error::Error, fmt::Write as _, io, ops::Range, str::FromStr, time::Duration};

use whimbrel_state::{
    Dtype, Hash, Layout, Manifest, StateBytes, TensorMut, TensorSpec, digest, manifest::FORMAT, tensor::Place,
};
use whimbrel_store::{
    CheckpointInfo, Committed, Limits, Mode, Office, Patience, Retention, RunDir, Store, collect, commit,
    quarantine, restore, save_slice, verify,
};

/// The run that the acts are about.
const RUN: &str = "r";

/// Packs so small that a state of a few hundred bytes has several.
const LIMITS: Limits = Limits { pack_bytes: 128, concurrency: 3, bandwidth: None };

/// One checkpoint more than one damaged upload can spoil.
const KEEP: Retention = Retention { last: 2, every: None, grace: Duration::ZERO, in_flight: Vec::new() };

/// Something that is done to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Creates the run, with the checkpoint of step 10.
    Prepare,
    /// A coordinator's life: takes office; saves and commits steps 20 and 30, and collects what is old.
    Live,
    /// Restores the newest checkpoint.
    Restore,
    /// Creates the run and saves a state that does not compress, as a program does with the limits and the patience
    /// that it has by default.
    SaveMuch {
        /// MiB of the state.
        mebibytes: usize,
    },
    /// Verifies and restores the newest checkpoint, against the digest that the log has of it.
    Verify,
    /// Another coordinator takes over: what was acknowledged is there, all that is there is whole, and the run goes on.
    TakeOver {
        /// The newest step whose commit was acknowledged.
        acknowledged: u64,
        /// Whether a store may have kept other bytes than it was sent: damage is then set aside, and not a broken
        /// promise as long as a whole checkpoint is left.
        damaged: bool,
    },
}

impl Act {
    /// The act that it follows.
    pub fn prologue(self) -> Self {
        match self {
            // Several blocks, in each of several packs.
            Self::Verify => Self::SaveMuch { mebibytes: 9 },
            _ => Self::Prepare,
        }
    }

    /// The act that shows whether its promises were kept, whatever came of it.
    pub fn epilogue(self, acknowledged: Option<u64>, damaged: bool) -> Self {
        match self {
            Self::Verify => Self::Verify,
            _ => Self::TakeOver { acknowledged: acknowledged.unwrap_or(10), damaged },
        }
    }
}

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was played to its end.
    Done,
    /// It was given up, for a reason that it tells.
    Failed(String),
    /// A promise is broken.
    Broken(String),
    /// The program ended in it.
    Died,
    /// The program was still at it when nothing should take so long any more.
    Hung,
}

/// A promise that is not kept, as an error, so that `?` ends the act.
#[derive(Debug)]
struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Broken {}

type Played = Result<(), Box<dyn Error + Send + Sync>>;

fn broken(told: impl Into<String>) -> Box<dyn Error + Send + Sync> {
    Box::new(Broken(told.into()))
}

/// Plays an act on the store at `uri`. `acknowledged` is told each step whose commit was reported as done.
pub async fn play(act: Act, uri: &str, acknowledged: impl FnMut(u64)) -> Ending {
    let played = async {
        // Patience enough for a busy machine, and so little that a test of a store that hangs takes a second.
        let patience = Patience {
            attempts: 4,
            first_wait: Duration::from_millis(2),
            answer: Duration::from_millis(700),
            slowest: 1 << 30,
        };
        let store = Store::open(uri)?;
        let patient = store.run(&RUN.parse()?);
        let run = store.with_patience(patience).run(&RUN.parse()?);
        match act {
            Act::SaveMuch { mebibytes } => save_much(&patient, mebibytes, acknowledged).await,
            Act::Verify => verify_newest(&run).await,
            Act::Prepare => prepare(&run).await,
            Act::Live => live(&run, acknowledged).await,
            Act::Restore => restore_newest(&run).await,
            Act::TakeOver { acknowledged, damaged } => take_over(&run, acknowledged, damaged).await,
        }
    };
    match played.await {
        Ok(()) => Ending::Done,
        Err(error) if error.is::<Broken>() => Ending::Broken(error.to_string()),
        Err(error) => Ending::Failed(chain(error.as_ref())),
    }
}

async fn prepare(run: &RunDir) -> Played {
    run.create("[run]\nname = \"r\"\n", Mode::Embedded).await?;
    let mut office = run.take_office("setup").await?;
    checkpoint(&mut office, 10).await?;
    Ok(())
}

async fn live(run: &RunDir, mut acknowledged: impl FnMut(u64)) -> Played {
    let mut office = run.take_office("first").await?;
    for step in [20, 30] {
        checkpoint(&mut office, step).await?;
        acknowledged(step);
    }
    collect(&mut office, &KEEP).await?;
    Ok(())
}

async fn restore_newest(run: &RunDir) -> Played {
    let history = run.history().await?;
    let checkpoints = history.checkpoints();
    let newest = checkpoints.last().ok_or_else(|| broken("no checkpoint is left"))?;
    restore_one(run, newest).await
}

async fn save_much(run: &RunDir, mebibytes: usize, mut acknowledged: impl FnMut(u64)) -> Played {
    run.create("[run]\nname = \"r\"\n", Mode::Embedded).await?;
    let mut office = run.take_office("patient").await?;
    let state = State::random(mebibytes << 20);
    checkpoint_of(&mut office, &state, 10, &Limits::default()).await?;
    acknowledged(10);
    Ok(())
}

async fn verify_newest(run: &RunDir) -> Played {
    let history = run.history().await?;
    let newest = history.checkpoints().pop().ok_or_else(|| broken("no checkpoint is left"))?;
    let manifest = run.manifest(&newest.manifest).await?;
    let verified = verify(run, &manifest, &Limits::default(), |_| {}).await?;
    match newest.state {
        Some(state) if state == verified.state => {}
        other => {
            return Err(broken(format!("the log says {other:?}, and the packs hold {:?}", verified.state)));
        }
    }
    let mut state = State { bytes: vec![0; manifest.layout.bytes()], layout: manifest.layout.clone() };
    restore(&run.clone().into(), &manifest, &mut StateBytes::new(state.tensors())?, &Limits::default())
        .await?;
    match state.digest(newest.step) == verified.state {
        true => Ok(()),
        false => Err(broken(format!("bad bytes were loaded of step {}", newest.step))),
    }
}

async fn take_over(run: &RunDir, acknowledged: u64, damaged: bool) -> Played {
    let mut office = run.take_office("second").await?;
    let newest = office.history().checkpoints().last().map(|checkpoint| checkpoint.step);
    if newest < Some(acknowledged) {
        return Err(broken(format!("step {acknowledged} was acknowledged, and the newest is {newest:?}")));
    }
    let mut whole = 0;
    for checkpoint in office.history().checkpoints().into_iter().rev() {
        match check(run, &checkpoint).await {
            Ok(()) => whole += 1,
            Err(error) if error.is::<Broken>() => return Err(error),
            Err(error) if damaged => {
                let suspects = run
                    .manifest(&checkpoint.manifest)
                    .await
                    .map(|manifest| manifest.packs)
                    .unwrap_or_default();
                quarantine(&mut office, &checkpoint.manifest, &error.to_string(), &suspects).await?;
            }
            Err(error) => {
                return Err(broken(format!(
                    "step {} is not whole: {}",
                    checkpoint.step,
                    chain(error.as_ref())
                )));
            }
        }
    }
    if whole == 0 {
        return Err(broken("no checkpoint is whole"));
    }
    let next = checkpoint(&mut office, newest.unwrap_or_default() + 10).await?;
    collect(&mut office, &KEEP).await?;
    let found = office.history().checkpoints().last().cloned();
    match found {
        Some(found) if found.manifest == next.manifest => check(run, &found).await,
        found => Err(broken(format!("step {} was committed, and the newest is {found:?}", next.step))),
    }
}

/// Reads a checkpoint in both ways, and compares it with what was saved.
async fn check(run: &RunDir, checkpoint: &CheckpointInfo) -> Played {
    let manifest = run.manifest(&checkpoint.manifest).await?;
    let verified = verify(run, &manifest, &LIMITS, |_| {}).await?;
    let expected = State::of(checkpoint.step).digest(checkpoint.step);
    if verified.state != expected {
        return Err(broken(format!("step {} was verified, and it is another state", checkpoint.step)));
    }
    restore_one(run, checkpoint).await
}

async fn restore_one(run: &RunDir, checkpoint: &CheckpointInfo) -> Played {
    let manifest = run.manifest(&checkpoint.manifest).await?;
    let mut state = State { bytes: vec![0; manifest.layout.bytes()], layout: manifest.layout.clone() };
    restore(&run.clone().into(), &manifest, &mut StateBytes::new(state.tensors())?, &LIMITS).await?;
    match state == State::of(checkpoint.step) {
        true => Ok(()),
        false => Err(broken(format!("bad bytes were loaded of step {}", checkpoint.step))),
    }
}

/// Saves the state of a step and commits it.
async fn checkpoint(office: &mut Office, step: u64) -> Result<Committed, Box<dyn Error + Send + Sync>> {
    checkpoint_of(office, &State::of(step), step, &LIMITS).await
}

/// Saves a state as two workers do, each its own slice, and commits it.
async fn checkpoint_of(
    office: &mut Office,
    state: &State,
    step: u64,
    limits: &Limits,
) -> Result<Committed, Box<dyn Error + Send + Sync>> {
    let mut packs = Vec::new();
    for worker in 0..2 {
        let slice = state.layout.slice(worker, 2);
        let staged = state.bytes[slice.clone()].to_vec().into();
        packs.extend(save_slice(office.run(), &state.layout, slice, staged, limits).await?);
    }
    let (run, layout) = (office.run().id().to_string(), state.layout.clone());
    let manifest = Manifest { format: FORMAT, run, step, generation: 1, samples: 1, layout, packs };
    Ok(commit(office, &manifest, Some(state.digest(step))).await?)
}

/// A state of a few tensors. Half of it is the same at every step, as frozen layers are.
#[derive(Clone, Debug, PartialEq)]
struct State {
    layout: Layout,
    bytes: Vec<u8>,
}

impl State {
    fn of(step: u64) -> Self {
        let tensor = |name: &str, dtype, shape: &[usize]| TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        };
        let tensors = vec![
            tensor("bias", Dtype::BF16, &[4, 9]),
            tensor("frozen", Dtype::F32, &[40]),
            tensor("trained", Dtype::F32, &[8, 5]),
        ];
        let mut state = Self { layout: Layout::new(tensors).unwrap(), bytes: Vec::new() };
        let is_frozen = |at: &usize| {
            let frozen = state.layout.tensors().iter().position(|spec| spec.name == "frozen");
            frozen.is_some_and(|index| state.layout.range_of(index).contains(at))
        };
        let byte =
            |at: usize| (at as u8).wrapping_mul(31).wrapping_add(if is_frozen(&at) { 0 } else { step as u8 });
        state.bytes = (0..state.layout.bytes()).map(byte).collect();
        state
    }

    /// One tensor of random bytes, the same every time.
    fn random(bytes: usize) -> Self {
        let layout = Layout::new(vec![TensorSpec::f32("weights", [bytes / 4])]).unwrap();
        let mut state = Self { bytes: vec![0; layout.bytes()], layout };
        fastrand::Rng::with_seed(7).fill(&mut state.bytes);
        state
    }

    fn tensors(&mut self) -> Vec<TensorMut<'_>> {
        let mut rest = self.bytes.as_mut_slice();
        let mut tensors = Vec::new();
        for (index, spec) in self.layout.tensors().iter().enumerate() {
            let (memory, later) = rest.split_at_mut(self.layout.range_of(index).len());
            tensors.push(TensorMut { spec: spec.clone(), place: Place::Host(memory) });
            rest = later;
        }
        tensors
    }

    fn digest(&self, step: u64) -> Hash {
        let Ok(hash) = digest::<std::convert::Infallible>(&self.layout, step, |index, sink| {
            sink(&self.bytes[self.range(index)]);
            Ok(())
        });
        hash
    }

    fn range(&self, index: usize) -> Range<usize> {
        self.layout.range_of(index)
    }
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(told, ": {error}").unwrap();
        cause = error.source();
    }
    told.replace('\n', " ")
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prepare => f.write_str("prepare"),
            Self::Live => f.write_str("live"),
            Self::Restore => f.write_str("restore"),
            Self::SaveMuch { mebibytes } => write!(f, "save-much {mebibytes}"),
            Self::Verify => f.write_str("verify"),
            Self::TakeOver { acknowledged, damaged } => write!(f, "take-over {acknowledged} {damaged}"),
        }
    }
}

impl FromStr for Act {
    type Err = io::Error;

    fn from_str(text: &str) -> Result<Self, io::Error> {
        let words: Vec<_> = text.split(' ').collect();
        let wrong = || io::Error::other(format!("{text:?} is no act"));
        Ok(match words[..] {
            ["prepare"] => Self::Prepare,
            ["live"] => Self::Live,
            ["restore"] => Self::Restore,
            ["save-much", mebibytes] => Self::SaveMuch { mebibytes: mebibytes.parse().map_err(|_| wrong())? },
            ["verify"] => Self::Verify,
            ["take-over", acknowledged, damaged] => Self::TakeOver {
                acknowledged: acknowledged.parse().map_err(|_| wrong())?,
                damaged: damaged.parse().map_err(|_| wrong())?,
            },
            _ => return Err(wrong()),
        })
    }
}
