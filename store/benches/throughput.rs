//! Save and restore against writing and reading the same bytes raw, through the same object store client at the same
//! concurrency and, for the folder, the same fsync.
//!
//! ```text
//! cargo bench -p whimbrel-store                    # 1 GiB in a temporary folder
//! cargo bench -p whimbrel-store -- 256 /dev/shm    # MiB, and the folder to make it in
//! ```

use std::{
    error::Error,
    fs,
    io::{Write, stdout},
    path::Path,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, path::Path as Name,
};
use whimbrel_state::{Layout, Manifest, StateBytes, TensorMut, TensorSpec, manifest::FORMAT};
use whimbrel_store::{Limits, RunDir, Store, restore, save_slice, verify};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Each measurement is taken so often, and the best is shown: what is measured is the program, not its neighbours.
const TIMES: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mebibytes: usize = arguments.first().map_or(Ok(1024), |text| text.parse())?;
    let parent = arguments.get(1).map_or_else(std::env::temp_dir, Into::into);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(mebibytes << 20, &parent))
}

async fn measure(size: usize, parent: &Path) -> Result<()> {
    let limits = Limits::default();
    // Parameters and two moments, of several sizes: a state as an optimizer has it.
    let tensors = (0..12).map(|layer| TensorSpec::f32(format!("layer.{layer:02}"), [size / 48]));
    let layout = Layout::new(tensors.collect())?;
    let mut values: Vec<Vec<f32>> = Vec::new();
    let mut random = 1_u64;
    for tensor in layout.tensors() {
        let next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 40) as f32
        };
        values.push(std::iter::repeat_with(next).take(tensor.shape[0]).collect());
    }
    let staged: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let staged = Bytes::from(staged);
    let mut out = stdout();
    writeln!(
        out,
        "{} MiB in packs of {} MiB, {} at a time, in {}",
        layout.bytes() >> 20,
        limits.pack_bytes >> 20,
        limits.concurrency,
        parent.display()
    )?;
    writeln!(out, "{:<12}{:>10}{:>12}{:>10}", "", "GB/s", "CPU s/GiB", "of raw")?;

    let mut best: [Option<Measured>; 5] = [None; 5];
    for _ in 0..TIMES {
        let raw = tempfile::tempdir_in(parent)?;
        let objects = Arc::new(LocalFileSystem::new_with_prefix(raw.path())?.with_fsync(true));
        keep_best(&mut best[0], timed(raw_write(objects.clone(), &staged, &limits)).await?.1);
        keep_best(&mut best[1], timed(raw_read(objects, &staged, &limits)).await?.1);
        raw.close()?;

        let folder = tempfile::tempdir_in(parent)?;
        let run = Store::open(&folder.path().to_string_lossy())?.run(&"bench".parse()?);
        let (manifest, saved) = timed(save(&run, &layout, &staged, &limits)).await?;
        keep_best(&mut best[2], saved);
        values.iter_mut().for_each(|tensor| tensor.fill(0.0));
        let tensors = layout.tensors().iter().zip(&mut values);
        let tensors = tensors.map(|(spec, values)| TensorMut::f32(&spec.name, spec.shape.clone(), values));
        let mut state = StateBytes::new(tensors.collect())?;
        let restoring = async { Ok(restore(&run.clone().into(), &manifest, &mut state, &limits).await?) };
        keep_best(&mut best[3], timed(restoring).await?.1);
        let verifying = async { Ok(verify(&run, &manifest, &limits, |_| {}).await?) };
        keep_best(&mut best[4], timed(verifying).await?.1);
        if !state.read(0..staged.len()).flatten().eq(staged.iter()) {
            return Err("the state came back with other bytes".into());
        }
        folder.close()?;
    }

    let rows = [("raw write", 0), ("raw read", 1), ("save", 0), ("restore", 1), ("verify", 1)];
    for ((name, raw), measured) in rows.into_iter().zip(best) {
        let (Some(measured), Some(raw)) = (measured, best[raw]) else { continue };
        let rate = size as f64 / measured.wall / 1e9;
        let cpu = measured.cpu / (size as f64 / f64::from(1 << 30));
        writeln!(out, "{name:<12}{rate:>10.2}{cpu:>12.2}{:>9.0}%", 100.0 * raw.wall / measured.wall)?;
    }
    Ok(())
}

/// Seconds of wall clock and of all processors.
#[derive(Clone, Copy)]
struct Measured {
    wall: f64,
    cpu: f64,
}

fn keep_best(best: &mut Option<Measured>, measured: Measured) {
    if best.is_none_or(|best| measured.wall < best.wall) {
        *best = Some(measured);
    }
}

async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(T, Measured)> {
    let (start, before) = (Instant::now(), cpu_seconds()?);
    let done = work.await?;
    Ok((done, Measured { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds()? - before }))
}

/// User and system time of this process, from `/proc` (fields 14 and 15, in hundredths of a second).
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(") ").ok_or("/proc/self/stat has no name")?.1;
    let ticks = after_name.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<std::result::Result<f64, _>>()? / 100.0)
}

async fn raw_write(objects: Arc<LocalFileSystem>, staged: &Bytes, limits: &Limits) -> Result<()> {
    let chunks = staged.chunks(limits.pack_bytes).map(|chunk| staged.slice_ref(chunk)).enumerate();
    stream::iter(chunks)
        .map(|(index, chunk)| {
            let objects = objects.clone();
            async move {
                let options = PutOptions::from(PutMode::Create);
                objects.put_opts(&Name::from(index.to_string()), chunk.into(), options).await.map(|_| ())
            }
        })
        .buffer_unordered(limits.concurrency)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// Reads into memory that is thrown away: what a restore does besides is to hash it and to copy it where it belongs.
async fn raw_read(objects: Arc<LocalFileSystem>, staged: &Bytes, limits: &Limits) -> Result<()> {
    let read = stream::iter(0..staged.len().div_ceil(limits.pack_bytes))
        .map(|index| {
            let objects = objects.clone();
            async move { objects.get(&Name::from(index.to_string())).await?.bytes().await }
        })
        .buffer_unordered(limits.concurrency)
        .try_fold(0, async |sum, chunk| Ok(sum + chunk.len()))
        .await?;
    if read == staged.len() { Ok(()) } else { Err("raw bytes are missing".into()) }
}

async fn save(run: &RunDir, layout: &Layout, staged: &Bytes, limits: &Limits) -> Result<Manifest> {
    let packs = save_slice(run, layout, 0..layout.bytes(), staged.clone(), limits).await?;
    Ok(Manifest {
        format: FORMAT,
        run: "bench".into(),
        step: 1,
        generation: 1,
        samples: 1,
        layout: layout.clone(),
        packs,
    })
}
