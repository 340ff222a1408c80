//! Measures save, restore and verify against raw puts and gets of the same bytes through the same object store client, in
//! turn in one process. The raw transfers are measured at several concurrencies; the best one counts.
//!
//! ```text
//! cargo bench -p whimbrel-store --bench throughput                        # 1 GiB in a temporary folder
//! cargo bench -p whimbrel-store --bench throughput -- radosgw             # against a server that it starts itself
//! cargo bench -p whimbrel-store --bench throughput -- azurite --mib 256
//! cargo bench -p whimbrel-store --bench throughput -- s3://bucket/prefix  # any store, credentials from the environment
//! cargo bench -p whimbrel-store --bench throughput -- radosgw --megabits 1000
//! ```
//!
//! `--megabits` puts a link of that rate between this program and the server, in a network namespace (which needs root):
//! as between machines, where the network is the limit. Without it both share this machine's processors, and the server
//! lacks the time that this program spends on hashing.
//!
//! `cpu` is this process's processor time; `peak` is its memory beyond the state, the staged copy and what it held before
//! (from `/proc`).

mod measured;
mod raw;

use std::{
    env,
    error::Error,
    io::{Write, stdout},
    time::Duration,
};

use bytes::Bytes;
use measured::{Measured, Table};
use raw::Raw;
use whimbrel_state::{Layout, Manifest, StateBytes, TensorMut, TensorSpec, manifest::FORMAT};
use whimbrel_store::{Environment, Limits, RunDir, Store, restore, save_slice, verify};
use whimbrel_testbed::{Azurite, Radosgw, Server, netns::SlowLink, proxy::DelayProxy};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What to measure, and where.
struct Arguments {
    store: Option<String>,
    bytes: usize,
    rounds: usize,
    /// The rate of a link between this program and the server.
    megabits: Option<u32>,
    /// The concurrencies that the raw measurements try.
    at_a_time: Vec<usize>,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut read =
            Self { store: None, bytes: 1 << 30, rounds: 3, megabits: None, at_a_time: vec![1, 2, 4, 8, 16] };
        let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<usize> {
                Ok(arguments.next().ok_or(format!("{argument} wants a number"))?.parse()?)
            };
            match argument.as_str() {
                "--mib" => read.bytes = number()? << 20,
                "--rounds" => read.rounds = number()?,
                "--megabits" => read.megabits = Some(u32::try_from(number()?)?),
                "--at-a-time" => read.at_a_time = vec![number()?],
                _ => read.store = Some(argument),
            }
        }
        Ok(read)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let folder = tempfile::tempdir()?;
    let mut environment: Vec<(String, String)> = env::vars().collect();
    let server: Option<Box<dyn Server>> = match arguments.store.as_deref() {
        Some("radosgw") => Some(Box::new(Radosgw::start()?)),
        Some("azurite") => Some(Box::new(Azurite::start()?)),
        _ => None,
    };
    if let Some(megabits) = arguments.megabits {
        let server = server.ok_or("--megabits is for a server that this starts: radosgw or azurite")?;
        return measure_far(&*server, megabits, &arguments);
    }
    let uri = match &server {
        Some(server) => {
            environment.extend(server.environment().into_iter().map(|(name, value)| (name.into(), value)));
            server.store_uri("bench")
        }
        None => arguments.store.clone().unwrap_or_else(|| folder.path().to_string_lossy().into_owned()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&uri, &environment, &arguments))
}

/// Runs this program again at the far end of a link.
fn measure_far(server: &dyn Server, megabits: u32, arguments: &Arguments) -> Result<()> {
    let link = SlowLink::start(megabits)?;
    let near = DelayProxy::start((link.here(), 0).into(), server.address(), Duration::ZERO);
    let mut far = link.command(&env::current_exe()?);
    far.envs(server.environment_at(near.address())).env("AWS_ALLOW_HTTP", "true");
    far.arg(server.store_uri("bench"));
    far.args(["--mib", &(arguments.bytes >> 20).to_string(), "--rounds", &arguments.rounds.to_string()]);
    if let [at_a_time] = arguments.at_a_time[..] {
        far.args(["--at-a-time", &at_a_time.to_string()]);
    }
    writeln!(stdout(), "over a link of {megabits} Mbit/s, {} MB/s:", megabits / 8)?;
    if far.status()?.success() { Ok(()) } else { Err("measuring over the link failed".into()) }
}

/// A state as an optimizer has it: tensors of several sizes.
struct State {
    layout: Layout,
    values: Vec<Vec<f32>>,
    staged: Bytes,
}

impl State {
    fn new(bytes: usize) -> Result<Self> {
        let tensors = (0..12).map(|layer| TensorSpec::f32(format!("layer.{layer:02}"), [bytes / 48]));
        let layout = Layout::new(tensors.collect())?;
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 40) as f32
        };
        let mut values: Vec<Vec<f32>> = Vec::new();
        for tensor in layout.tensors() {
            values.push(std::iter::repeat_with(&mut next).take(tensor.shape[0]).collect());
        }
        let staged: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Self { layout, values, staged: staged.into() })
    }

    /// Other bytes than before, so that no pack exists yet.
    fn change(&mut self, round: usize) {
        let mut staged = self.staged.to_vec();
        staged.chunks_mut(1 << 20).for_each(|chunk| chunk[0] = chunk[0].wrapping_add(1 + round as u8));
        self.staged = staged.into();
        self.values.iter_mut().for_each(|tensor| tensor.fill(0.0));
    }

    fn memory(&mut self) -> Result<StateBytes<'_>> {
        let tensors = self.layout.tensors().iter().zip(&mut self.values);
        let tensors = tensors.map(|(spec, values)| TensorMut::f32(&spec.name, spec.shape.clone(), values));
        Ok(StateBytes::new(tensors.collect())?)
    }
}

async fn measure(uri: &str, environment: &[(String, String)], arguments: &Arguments) -> Result<()> {
    let limits = Limits::default();
    let mut state = State::new(arguments.bytes)?;
    let variables: Environment = environment.iter().cloned().collect();
    // Also sets up the TLS that the raw client uses.
    Store::open_in(uri, &variables)?;
    let raw = Raw::open(uri, environment)?;
    let mut out = stdout();
    let (mebibytes, pack) = (state.layout.bytes() >> 20, limits.pack_bytes >> 20);
    writeln!(out, "{mebibytes} MiB in packs of {pack} MiB, {} rounds, {uri}", arguments.rounds)?;

    let mut table = Table::new(state.layout.bytes());
    for round in 0..arguments.rounds {
        state.change(round);
        let folder = format!("raw-{round}");
        for &at_a_time in &arguments.at_a_time {
            let putting = raw.put(&folder, &state.staged, limits.pack_bytes, at_a_time);
            table.add("raw put", Some(at_a_time), Measured::of(putting).await?.1);
            let getting = raw.get(&folder, &state.staged, limits.pack_bytes, at_a_time);
            table.add("raw get", Some(at_a_time), Measured::of(getting).await?.1);
            raw.clear(&folder).await?;
        }

        // Opened again each time, so that a run does not start with the concurrency limit of the one before.
        let open = || {
            Ok::<_, Box<dyn Error>>(Store::open_in(uri, &variables)?.run(&format!("bench-{round}").parse()?))
        };
        let (manifest, saved) = Measured::of(save(&open()?, &state.layout, &state.staged, &limits)).await?;
        table.add("save", None, saved);
        let expected = state.staged.clone();
        let sources = open()?.into();
        let mut memory = state.memory()?;
        let restoring = async { Ok(restore(&sources, &manifest, &mut memory, &limits).await?) };
        table.add("restore", None, Measured::of(restoring).await?.1);
        if !memory.read(0..expected.len()).flatten().eq(expected.iter()) {
            return Err("the state came back with other bytes".into());
        }
        let run = open()?;
        let verifying = async { Ok(verify(&run, &manifest, &limits, |_| {}).await?) };
        table.add("verify", None, Measured::of(verifying).await?.1);
        raw.clear(&format!("bench-{round}")).await?;
    }
    table.print(&mut out)
}

async fn save(run: &RunDir, layout: &Layout, staged: &Bytes, limits: &Limits) -> Result<Manifest> {
    let packs = save_slice(run, layout, 0..layout.bytes(), staged.clone(), limits).await?;
    let layout = layout.clone();
    Ok(Manifest {
        format: FORMAT,
        run: "bench".into(),
        step: 1,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    })
}
