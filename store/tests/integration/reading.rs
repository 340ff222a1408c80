//! Response bodies that are cut, stall or have flipped bits: verified blocks are kept, the others are read again, from
//! another source if necessary.
use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
};

use crate::support::{Scene, State};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    local::LocalFileSystem, path::Path,
};
use tokio::time::Instant;
use whimbrel_state::{Dtype, Manifest, StateBytes, TensorSpec, manifest::FORMAT};
use whimbrel_store::{
    BadPack, Limits, RestoreError, RestoreReport, RetryPolicy, RunDir, SlowDown, Sources, StateReader, Store,
    read_state, restore, restore_some, save_slice, verify,
};

const BLOCK: u64 = 4 << 20;
/// Bytes in a frame of a body. Not a divisor of the block length.
const FRAME: usize = 300_000;
const LIMITS: Limits = Limits { pack_bytes: 64 << 20, concurrency: 4, bandwidth: None };

/// What happens to a read of a pack.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Fine,
    /// The body ends at this byte of the object, with an error.
    Cut(u64),
    /// The body ends at this byte of the object, as if that were all.
    Short(u64),
    /// Nothing arrives from this byte of the object on.
    Stall(u64),
    /// This byte of the object arrives with a flipped bit.
    Flip(u64),
    /// It is refused: 503.
    SlowDown,
    /// It is refused: the network is down.
    Gone,
}

/// A folder that answers in frames, as a cloud does, and makes reads of packs fail, one after another.
#[derive(Clone, Debug)]
struct Cloud {
    inner: LocalFileSystem,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    /// What happens to the reads after those in `fates`.
    rest: Fate,
    /// The ranges of packs that were requested; `None` is a whole pack.
    asked: Arc<Mutex<Vec<Option<Range<u64>>>>>,
}

impl Cloud {
    fn over(scene: &Scene, fates: impl IntoIterator<Item = Fate>) -> Self {
        let inner = LocalFileSystem::new_with_prefix(scene.folder()).unwrap();
        let fates = Arc::new(Mutex::new(fates.into_iter().collect()));
        Self { inner, fates, rest: Fate::Fine, asked: Arc::default() }
    }

    fn always(self, rest: Fate) -> Self {
        Self { rest, ..self }
    }

    fn run(&self) -> RunDir {
        Store::with_backend("test://cloud", Arc::new(self.clone())).run(&"r".parse().unwrap())
    }

    fn asked(&self) -> Vec<Option<Range<u64>>> {
        self.asked.lock().unwrap().clone()
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cloud({})", self.inner)
    }
}

fn refusal(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "Cloud", source: Box::new(source) }
}

fn broken() -> Error {
    refusal(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
}

#[async_trait]
impl ObjectStore for Cloud {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, body, options).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("packs are one put each")
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head || !at.as_ref().contains("packs/") {
            return self.inner.get_opts(at, options).await;
        }
        let fate = self.fates.lock().unwrap().pop_front().unwrap_or(self.rest);
        let asked = options.range.as_ref().map(|range| match range {
            GetRange::Bounded(range) => range.clone(),
            other => panic!("{other:?}"),
        });
        self.asked.lock().unwrap().push(asked);
        match fate {
            Fate::SlowDown => return Err(refusal(SlowDown { status: 503, retry_after: None })),
            Fate::Gone => return Err(broken()),
            _ => {}
        }
        let found = self.inner.get_opts(at, options).await?;
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let extensions = found.extensions.clone();
        let mut body = found.bytes().await?.to_vec();
        let position = |byte: u64| (range.contains(&byte)).then(|| (byte - range.start) as usize);
        if let Fate::Flip(byte) = fate
            && let Some(at) = position(byte)
        {
            body[at] ^= 16;
        }
        let (end, last) = match fate {
            Fate::Cut(byte) => (position(byte), stream::iter([Err(broken())]).boxed()),
            Fate::Short(byte) => (position(byte), stream::empty().boxed()),
            Fate::Stall(byte) => (position(byte), stream::pending().boxed()),
            _ => (None, stream::empty().boxed()),
        };
        let last = if end.is_some() { last } else { stream::empty().boxed() };
        body.truncate(end.unwrap_or(body.len()));
        let frames: Vec<_> = body.chunks(FRAME).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
        let payload = GetResultPayload::Stream(stream::iter(frames).chain(last).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("nothing is copied")
    }
}

/// A state of 18 MiB in one pack of five blocks: `adam`, 10 MiB, and `weights`, 8 MiB.
fn state() -> State {
    let tensors = [("adam", 10_usize << 18), ("weights", 8 << 18)];
    State::filled(tensors.map(|(name, size)| TensorSpec::f32(name, [size])).to_vec(), 5)
}

/// A state of several element types: the order within its pack differs from the order of the state.
fn mixed() -> State {
    let tensor =
        |name: &str, dtype, elements: usize| TensorSpec { name: name.into(), dtype, shape: vec![elements] };
    let tensors = vec![
        tensor("a", Dtype::U8, (5 << 20) + 3),
        tensor("b", Dtype::I64, 1 << 20),
        tensor("c", Dtype::F32, 1 << 19),
        tensor("d", Dtype::I64, 3),
        tensor("e", Dtype::BF16, 1 << 20),
    ];
    State::filled(tensors, 7)
}

async fn saved(state: &State) -> (Scene, Manifest) {
    let scene = Scene::new().await;
    let manifest = saved_in(&scene, state).await;
    (scene, manifest)
}

async fn saved_in(scene: &Scene, state: &State) -> Manifest {
    let all = 0..state.bytes.len();
    let staged = state.staged(all.clone());
    let packs = save_slice(&scene.run(), &state.layout, all, staged, &LIMITS).await.unwrap();
    let layout = state.layout.clone();
    Manifest {
        format: FORMAT,
        run: "r".into(),
        step: 5,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    }
}

async fn restored(
    sources: &Sources,
    manifest: &Manifest,
) -> std::result::Result<(State, RestoreReport), RestoreError> {
    let mut state = State::blank(&manifest.layout);
    let report = restore(sources, manifest, &mut StateBytes::new(state.tensors()).unwrap(), &LIMITS).await?;
    Ok((state, report))
}

fn from(block: u64, manifest: &Manifest) -> Option<Range<u64>> {
    Some(block * BLOCK..manifest.packs[0].length)
}

#[tokio::test(start_paused = true)]
async fn a_cut_body_is_continued_after_the_last_complete_block() {
    let (scene, manifest) = saved(&state()).await;
    let cuts = [
        Fate::Cut(2 * BLOCK + 77),
        Fate::Short(2 * BLOCK + 78),
        Fate::Cut(3 * BLOCK - 1),
        Fate::Cut(4 * BLOCK),
    ];
    let cloud = Cloud::over(&scene, cuts);
    let (read, report) = restored(&cloud.run().into(), &manifest).await.unwrap();
    assert!(read == state());
    assert_eq!((report.packs, report.bytes), (1, manifest.packs[0].length));
    let expected = [None, from(2, &manifest), from(2, &manifest), from(2, &manifest), from(4, &manifest)];
    assert_eq!(cloud.asked(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_is_given_up_at_its_deadline_and_continued() {
    let (scene, manifest) = saved(&state()).await;
    let cloud = Cloud::over(&scene, [Fate::Stall(BLOCK + 5), Fate::Stall(3 * BLOCK + 1)]);
    let began = Instant::now();
    let (read, _) = restored(&cloud.run().into(), &manifest).await.unwrap();
    assert!(read == state());
    assert_eq!(cloud.asked(), [None, from(1, &manifest), from(3, &manifest)]);
    let retry_policy = RetryPolicy::default();
    let most = 2.0 * (retry_policy.answer.as_secs_f64() + (BLOCK / retry_policy.slowest) as f64 + 1.0);
    assert!(began.elapsed().as_secs_f64() < most, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_always_stalls_is_an_error_that_names_the_pack() {
    let (scene, manifest) = saved(&state()).await;
    let cloud = Cloud::over(&scene, []).always(Fate::Stall(BLOCK + 5));
    let error = restored(&cloud.run().into(), &manifest).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, RestoreError::Store(_)), "{message}");
    assert!(
        message.contains(&manifest.packs[0].hash.to_string()) && message.contains("no answer within"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_block_with_a_flipped_bit_is_read_again() {
    let (scene, manifest) = saved(&state()).await;
    let cloud = Cloud::over(&scene, [Fate::Flip(BLOCK + 5)]);
    let (read, _) = restored(&cloud.run().into(), &manifest).await.unwrap();
    assert!(read == state());
    assert_eq!(cloud.asked()[..2], [None, Some(BLOCK..2 * BLOCK)]);

    let cloud = Cloud::over(&scene, []).always(Fate::Flip(BLOCK + 5));
    let error = restored(&cloud.run().into(), &manifest).await.unwrap_err();
    let RestoreError::Damaged { source: BadPack::Damaged { pack, bytes }, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((pack, bytes), (manifest.packs[0].hash, BLOCK..2 * BLOCK));
}

#[tokio::test(start_paused = true)]
async fn reads_are_retried_when_the_store_asks_to_slow_down() {
    let (scene, manifest) = saved(&state()).await;
    let cloud = Cloud::over(&scene, [Fate::SlowDown; 12]);
    let (read, _) = restored(&cloud.run().into(), &manifest).await.unwrap();
    assert!(read == state());
}

#[tokio::test(start_paused = true)]
async fn restore_some_reads_only_the_blocks_of_its_tensors() {
    let (scene, manifest) = saved(&state()).await;
    let cloud = Cloud::over(&scene, []);
    let mut blank = State::blank(&manifest.layout);
    let mut tensors = blank.tensors();
    tensors.retain(|tensor| tensor.spec.name == "weights");
    let report = restore_some(&cloud.run().into(), &manifest, tensors, &LIMITS).await.unwrap();
    let weights = manifest.layout.range_of(1);
    assert!(blank.bytes[weights.clone()] == state().bytes[weights]);
    assert_eq!(cloud.asked(), [from(2, &manifest)], "10 MiB come before it: two blocks and a half");
    assert_eq!(report.bytes, manifest.packs[0].length - 2 * BLOCK);
}

#[tokio::test(start_paused = true)]
async fn from_a_damaged_block_on_a_pack_is_read_from_the_replica() {
    let (scene, manifest) = saved(&state()).await;
    let (copy, _) = saved(&state()).await;
    let here = Cloud::over(&scene, []).always(Fate::Flip(3 * BLOCK + 9));
    let there = Cloud::over(&copy, []);
    let sources = Sources::new(here.run()).with_replica(there.run());
    let (read, report) = restored(&sources, &manifest).await.unwrap();
    assert!(read == state());
    assert_eq!(report.healed, [manifest.packs[0].hash]);
    assert_eq!(
        there.asked(),
        [from(3, &manifest), None],
        "from the damaged block on, then the whole pack to put it back"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_primary_is_asked_for_one_pack_only_and_not_healed() {
    let (scene, mut manifest) = saved(&state()).await;
    manifest.packs = {
        let halves = Limits { pack_bytes: 6 << 20, ..LIMITS };
        let (all, staged) = (0..state().bytes.len(), Bytes::from(state().bytes));
        save_slice(&scene.run(), &state().layout, all, staged, &halves).await.unwrap()
    };
    let here = Cloud::over(&scene, []).always(Fate::Gone);
    let there = Cloud::over(&scene, []);
    let sources = Sources::new(here.run()).with_replica(there.run());
    let mut reader =
        StateReader::new(&sources, &manifest, 0..u64::MAX, &Limits { concurrency: 1, ..LIMITS }).unwrap();
    let mut read = Vec::new();
    while let Some(bytes) = reader.next().await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert!(read == state().bytes);
    assert_eq!(reader.report().healed, []);
    assert_eq!(here.asked().len(), RetryPolicy::default().attempts as usize, "not once for each pack");
}

#[tokio::test(start_paused = true)]
async fn a_pack_of_mixed_types_is_read_in_the_states_order() {
    let (scene, manifest) = saved(&mixed()).await;
    let cloud = Cloud::over(&scene, []);
    let state = mixed();
    let end = state.bytes.len() as u64;
    for range in [0..end, 5..end - 3, 6 << 20..(6 << 20) + 1, 9..9, end..end + 5] {
        let mut read = Vec::new();
        let sink = |bytes: &[u8]| read.extend_from_slice(bytes);
        read_state(&cloud.run().into(), &manifest, range.clone(), &LIMITS, sink).await.unwrap();
        let expected = &state.bytes[range.start as usize..range.end.min(end) as usize];
        assert!(read == expected, "{range:?}: {} bytes", read.len());
    }
    let verified = verify(&cloud.run(), &manifest, &LIMITS, |_| {}).await.unwrap();
    assert_eq!(verified.state, state.digest(5));
    assert_eq!(verified.bytes, manifest.stored_bytes());
    assert!(restored(&cloud.run().into(), &manifest).await.unwrap().0 == state);
}

#[tokio::test(start_paused = true)]
async fn two_readers_of_one_store_do_not_deadlock() {
    let (scene, manifest) = saved(&state()).await;
    let cloud = Cloud::over(&scene, []);
    let (sources, few) = (cloud.run().into(), Limits { concurrency: 1, ..LIMITS });
    let mut first = StateReader::new(&sources, &manifest, 0..u64::MAX, &few).unwrap();
    let mut second = StateReader::new(&sources, &manifest, 0..u64::MAX, &few).unwrap();
    let mut read = 0;
    while let Some(bytes) = first.next().await.unwrap() {
        assert!(second.next().await.unwrap() == Some(bytes.clone()), "at byte {read}");
        read += bytes.len();
    }
    assert_eq!(read, state().bytes.len());
    assert!(second.next().await.unwrap().is_none());
}
