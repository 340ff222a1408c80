//! Shared by the tests: a local store with injected faults, and runs with states.
pub(crate) mod checkpoints;

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    local::LocalFileSystem, path::Path,
};
use tempfile::TempDir;
use whimbrel_state::{
    Dtype, Hash, Layout, Manifest, StateBytes, TensorMut, TensorSpec, manifest::FORMAT, tensor::Memory,
};
use whimbrel_store::{
    Committed, HostedBy, Limits, RestoreError, RetryPolicy, RunDir, Store, Term, commit, restore, save_slice,
};

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request is not carried out, once: a 503.
    Unavailable,
    /// The request is carried out and its answer is lost, once.
    LoseAnswer,
    /// A create is told that the object exists, and it does not: S3's 409, once. Other requests go through.
    Phantom,
    /// The program dies before the request: nothing is carried out from here on.
    CrashBefore,
    /// The program dies after the request, before the answer.
    CrashAfter,
}

impl Fault {
    /// The transient faults, which must have no effect.
    pub(crate) const PASSING: [Self; 3] = [Self::Unavailable, Self::LoseAnswer, Self::Phantom];
    pub(crate) const ALL: [Self; 5] =
        [Self::Unavailable, Self::LoseAnswer, Self::Phantom, Self::CrashBefore, Self::CrashAfter];
    /// The crashes of a program.
    pub(crate) const CRASHES: [Self; 2] = [Self::CrashBefore, Self::CrashAfter];
}

/// A local folder that counts its requests and fails at one of them.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    inner: LocalFileSystem,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    seen: Vec<String>,
    fault: Option<(usize, Fault)>,
    blind: bool,
    overwrites: bool,
    meanwhile: Option<Meanwhile>,
}

/// Another actor's act right before a request is carried out.
struct Meanwhile {
    request: String,
    act: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "before {}", self.request)
    }
}

enum Response {
    Do,
    Fail,
    DoAndFail,
    Phantom,
}

impl Faulty {
    pub(crate) fn over(folder: &FilePath) -> Self {
        Self { inner: LocalFileSystem::new_with_prefix(folder).unwrap(), plan: Arc::default() }
    }

    /// Lets request number `at`, counted from 0, fail.
    pub(crate) fn fail_at(self, at: usize, fault: Fault) -> Self {
        self.plan.lock().unwrap().fault = Some((at, fault));
        self
    }

    /// Lets listings lag so far behind that they are empty.
    pub(crate) fn blind(self) -> Self {
        self.plan.lock().unwrap().blind = true;
        self
    }

    /// Lets a create overwrite an existing object.
    pub(crate) fn overwriting(self) -> Self {
        self.plan.lock().unwrap().overwrites = true;
        self
    }

    /// Performs an act once, right before the first request that starts with this text.
    pub(crate) fn before(self, request: &str, act: impl FnOnce() + Send + 'static) -> Self {
        let meanwhile = Meanwhile { request: request.into(), act: Box::new(act) };
        self.plan.lock().unwrap().meanwhile = Some(meanwhile);
        self
    }

    /// The requests so far, e.g. `put packs/…`.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.plan.lock().unwrap().seen.clone()
    }

    pub(crate) fn store(&self) -> Store {
        Store::with_backend("test://store", Arc::new(self.clone())).with_retry_policy(quick())
    }

    fn respond(&self, verb: &str, name: &Path, is_create: bool) -> Response {
        let mut plan = self.plan.lock().unwrap();
        let number = plan.seen.len();
        let request = format!("{verb} {name}");
        let due = |meanwhile: &mut Meanwhile| request.starts_with(&meanwhile.request);
        if let Some(meanwhile) = plan.meanwhile.take_if(due) {
            (meanwhile.act)();
        }
        plan.seen.push(request);
        match plan.fault {
            Some((at, Fault::Unavailable)) if at == number => Response::Fail,
            Some((at, Fault::LoseAnswer)) if at == number => Response::DoAndFail,
            Some((at, Fault::Phantom)) if at == number && is_create => Response::Phantom,
            Some((at, Fault::CrashBefore)) if at <= number => Response::Fail,
            Some((at, Fault::CrashAfter)) if at == number => Response::DoAndFail,
            Some((at, Fault::CrashAfter)) if at < number => Response::Fail,
            _ => Response::Do,
        }
    }
}

fn outage() -> Error {
    Error::Generic { store: "Faulty", source: "503 the test says so".into() }
}

/// Retries without waiting.
pub(crate) fn quick() -> RetryPolicy {
    RetryPolicy {
        attempts: 3,
        first_wait: Duration::from_micros(10),
        answer: Duration::from_secs(20),
        slowest: 1 << 20,
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, body: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let is_create = options.mode == PutMode::Create;
        let response = self.respond("put", at, is_create);
        if self.plan.lock().unwrap().overwrites {
            options.mode = PutMode::Overwrite;
        }
        match response {
            Response::Do => self.inner.put_opts(at, body, options).await,
            Response::Fail => Err(outage()),
            Response::DoAndFail => self.inner.put_opts(at, body, options).await.and(Err(outage())),
            Response::Phantom => Err(Error::AlreadyExists { path: at.to_string(), source: "409".into() }),
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("packs are one put each")
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let verb = if options.head { "head" } else { "get" };
        match self.respond(verb, at, false) {
            Response::Do | Response::Phantom => self.inner.get_opts(at, options).await,
            Response::Fail | Response::DoAndFail => Err(outage()),
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |at: Result<Path>| {
            let store = store.clone();
            async move {
                let at = at?;
                match store.respond("delete", &at, false) {
                    Response::Do | Response::Phantom => store.inner.delete(&at).await.map(|()| at),
                    Response::Fail => Err(outage()),
                    Response::DoAndFail => store.inner.delete(&at).await.and(Err(outage())),
                }
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.respond("list", prefix.unwrap_or(&Path::default()), false) {
            _ if self.plan.lock().unwrap().blind => stream::empty().boxed(),
            Response::Do | Response::Phantom => self.inner.list(prefix),
            Response::Fail | Response::DoAndFail => stream::iter([Err(outage())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.respond("list", prefix.unwrap_or(&Path::default()), false) {
            Response::Do | Response::Phantom => self.inner.list_with_delimiter(prefix).await,
            Response::Fail | Response::DoAndFail => Err(outage()),
        }
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("nothing is copied")
    }
}

/// A state of a test.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) layout: Layout,
    pub(crate) bytes: Vec<u8>,
}

impl State {
    /// A state of a few tensors of several element types, filled so that every `seed` gives other bytes.
    pub(crate) fn small(seed: u8) -> Self {
        let tensor = |name: &str, dtype, shape: &[usize]| TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        };
        Self::filled(
            vec![
                tensor("flags", Dtype::U8, &[7]),
                tensor("embedding", Dtype::F32, &[8, 5]),
                tensor("steps", Dtype::I64, &[3]),
                tensor("weights", Dtype::BF16, &[4, 9]),
                tensor("nothing", Dtype::F32, &[0, 4]),
            ],
            seed,
        )
    }

    pub(crate) fn filled(tensors: Vec<TensorSpec>, seed: u8) -> Self {
        let layout = Layout::new(tensors).unwrap();
        let bytes = (0..layout.bytes()).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        Self { layout, bytes }
    }

    /// The same tensors, all zero.
    pub(crate) fn blank(layout: &Layout) -> Self {
        Self { layout: layout.clone(), bytes: vec![0; layout.bytes()] }
    }

    pub(crate) fn tensors(&mut self) -> Vec<TensorMut<'_>> {
        let mut rest = self.bytes.as_mut_slice();
        let mut tensors = Vec::new();
        for (index, spec) in self.layout.tensors().iter().enumerate() {
            let (memory, later) = rest.split_at_mut(self.layout.range_of(index).len());
            tensors.push(TensorMut { spec: spec.clone(), memory: Memory::Host(memory) });
            rest = later;
        }
        tensors
    }

    pub(crate) fn staged(&self, range: Range<usize>) -> Bytes {
        Bytes::copy_from_slice(&self.bytes[range])
    }

    pub(crate) fn digest(&self, step: u64) -> Hash {
        let digest = whimbrel_state::digest(&self.layout, step, |index, sink| {
            sink(&self.bytes[self.layout.range_of(index)]);
            Ok::<_, std::convert::Infallible>(())
        });
        digest.unwrap()
    }
}

/// Packs small enough that a small state has several.
pub(crate) const SMALL_PACKS: Limits = Limits { pack_bytes: 64, concurrency: 3, bandwidth: None };

/// Saves a state as `workers` workers do, each its own slice.
pub(crate) async fn save(
    run: &RunDir,
    state: &State,
    step: u64,
    workers: usize,
) -> std::result::Result<Manifest, whimbrel_store::SaveError> {
    let mut packs = Vec::new();
    for worker in 0..workers {
        let slice = state.layout.slice(worker, workers);
        let staged = state.staged(slice.clone());
        packs.extend(save_slice(run, &state.layout, slice, staged, &SMALL_PACKS).await?);
    }
    let layout = state.layout.clone();
    Ok(Manifest {
        format: FORMAT,
        run: run.id().to_string(),
        step,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    })
}

/// Saves and commits.
pub(crate) async fn checkpoint(term: &mut Term, state: &State, step: u64) -> Committed {
    let manifest = save(term.run(), state, step, 2).await.unwrap();
    commit(term, &manifest, Some(state.digest(step))).await.unwrap()
}

/// Restores a checkpoint by its manifest's name.
pub(crate) async fn restored(run: &RunDir, name: &str) -> std::result::Result<State, RestoreError> {
    let manifest = run.manifest(name).await.unwrap();
    let mut state = State::blank(&manifest.layout);
    restore(&run.clone().into(), &manifest, &mut StateBytes::new(state.tensors()).unwrap(), &SMALL_PACKS)
        .await?;
    Ok(state)
}

/// A new run in a new folder.
pub(crate) struct Scene {
    folder: TempDir,
}

impl Scene {
    /// A folder without a run.
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn new() -> Self {
        let scene = Self::empty();
        scene.run().create("[run]\nname = \"r\"\n", HostedBy::Embedded).await.unwrap();
        scene
    }

    pub(crate) fn folder(&self) -> &FilePath {
        self.folder.path()
    }

    /// The run, over a store without faults.
    pub(crate) fn run(&self) -> RunDir {
        self.run_over(&Faulty::over(self.folder()))
    }

    pub(crate) fn run_over(&self, store: &Faulty) -> RunDir {
        store.store().run(&"r".parse().unwrap())
    }

    /// The files under a folder of the run, by path relative to the run.
    pub(crate) fn files(&self, under: &str) -> HashMap<String, PathBuf> {
        let run = self.folder().join("r");
        let mut found = HashMap::new();
        let mut folders = vec![run.join(under)];
        while let Some(folder) = folders.pop() {
            for file in std::fs::read_dir(folder).into_iter().flatten() {
                let path = file.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&run).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, path);
                }
            }
        }
        found
    }
}
