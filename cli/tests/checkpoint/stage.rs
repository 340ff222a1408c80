//! Runs in a folder, and the command.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bytes::Bytes;
use whimbrel_state::{Hash, Layout, Manifest, TensorSpec, manifest};
use whimbrel_store::{
    Ended, HostedBy, Limits, Outcome, Record, RunDir, Stopped, Store, Term, commit, save_slice,
};

/// The spec of every run here.
pub(crate) const SPEC: &str =
    "name = \"r\"\ncommand = [\"true\"]\n[train]\nsteps = 40\nglobal_batch = 8\nshards = 4\n";

/// A folder with a store `runs` in it, and a run `r-test` in that.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    /// BLAKE3 of the state of the last checkpoint.
    pub(crate) state: String,
}

/// A state: what its tensors are, and their bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) layout: Layout,
    pub(crate) bytes: Vec<u8>,
}

impl State {
    /// Two small tensors, filled by the step.
    pub(crate) fn small(step: u64) -> Self {
        let specs = vec![TensorSpec::f32("weight", [8, 4]), TensorSpec::f32("bias", [8])];
        Self::filled(specs, |index| (index as u64 * 7 + step) as u8)
    }

    pub(crate) fn filled(specs: Vec<TensorSpec>, byte: impl Fn(usize) -> u8) -> Self {
        let layout = Layout::new(specs).unwrap();
        let bytes = (0..layout.bytes()).map(byte).collect();
        Self { layout, bytes }
    }

    pub(crate) fn tensor(&self, name: &str) -> &[u8] {
        let index = self.layout.tensors().iter().position(|tensor| tensor.name == name).unwrap();
        &self.bytes[self.layout.range_of(index)]
    }

    pub(crate) fn digest(&self, step: u64) -> Hash {
        let digest = whimbrel_state::digest(&self.layout, step, |index, sink| {
            sink(&self.bytes[self.layout.range_of(index)]);
            Ok::<_, Infallible>(())
        });
        digest.unwrap()
    }
}

/// Saves and commits.
pub(crate) async fn checkpoint(term: &mut Term, step: u64, state: &State, pack_bytes: usize) {
    let run = term.run().clone();
    let limits = Limits { pack_bytes, ..Limits::default() };
    let (range, bytes) = (0..state.bytes.len(), Bytes::from(state.bytes.clone()));
    let packs = save_slice(&run, &state.layout, range, bytes, &limits).await.unwrap();
    let (id, layout) = (run.id().to_string(), state.layout.clone());
    let format = manifest::FORMAT;
    let manifest = Manifest {
        format,
        run: id,
        step,
        generation: 1,
        samples: 1,
        fingerprint: Default::default(),
        layout,
        packs,
    };
    commit(term, &manifest, None).await.unwrap();
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

impl Stage {
    /// A run of two checkpoints, after steps 20 and 40, that has finished.
    pub(crate) fn finished() -> Self {
        let stage =
            Self { folder: tempfile::tempdir().unwrap(), state: State::small(40).digest(40).to_string() };
        block_on(async {
            let mut term = stage.create("r-test").await;
            for step in [20, 40] {
                checkpoint(&mut term, step, &State::small(step), 64 << 20).await;
            }
            let (outcome, state) = (Outcome::Finished, Some(State::small(40).digest(40)));
            let ended = Ended { outcome, step: 40, loss: Some(0.5), val_loss: None, state, reason: None };
            term.append(Record::Ended(ended)).await.unwrap();
        });
        stage
    }

    /// A run stopped after one checkpoint, of this state, in packs of so many bytes.
    pub(crate) fn stopped(step: u64, state: &State, pack_bytes: usize) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap(), state: state.digest(step).to_string() };
        block_on(async {
            let mut term = stage.create("r-test").await;
            checkpoint(&mut term, step, state, pack_bytes).await;
            term.append(Record::Stopped(Stopped { step, reason: "stopped".into() })).await.unwrap();
        });
        stage
    }

    /// Commits a checkpoint as a later Whimbrel would: of a format that this one does not read.
    pub(crate) fn commit_later_format(&self, step: u64) {
        let run = self.run("runs", "r-test");
        let body = format!("{{\"format\":{}}}", manifest::FORMAT + 1);
        let manifest = format!("manifests/{step:012}-{}.json", Hash::of(body.as_bytes()));
        fs::write(self.path("runs/r-test").join(&manifest), body).unwrap();
        block_on(async {
            let mut term = run.start_term("a later version").await.unwrap();
            let record = Record::Checkpoint {
                step,
                manifest,
                bytes: 1,
                state: Some(State::small(step).digest(step)),
                origin: None,
            };
            term.append(record).await.unwrap();
        });
    }

    /// A new run in the store, and its term.
    pub(crate) async fn create(&self, id: &str) -> Term {
        let run = self.run("runs", id);
        run.create(SPEC, HostedBy::Embedded).await.unwrap();
        run.start_term("a test").await.unwrap()
    }

    /// A run in one of the stores here.
    pub(crate) fn run(&self, store: &str, id: &str) -> RunDir {
        let path = self.path(store);
        Store::open(path.to_str().unwrap()).unwrap().run(&id.parse().unwrap())
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `whimbrel checkpoint …` in the folder, with nothing else in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.current_dir(self.folder.path()).env_clear().env("HOME", self.folder.path());
        command.arg("checkpoint").args(args);
        command
    }

    /// Runs it: exit code, stdout, stderr.
    pub(crate) fn checkpoint(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// Runs it, and expects it to succeed without a word on stderr.
    pub(crate) fn good(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.checkpoint(args);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}: {stdout}");
        stdout
    }

    /// Runs it, and expects it to fail with this code and nothing on stdout.
    pub(crate) fn failed(&self, code: i32, args: &[&str]) -> String {
        let (found, stdout, stderr) = self.checkpoint(args);
        assert_eq!((found, stdout.as_str()), (Some(code), ""), "{args:?}: {stderr}");
        stderr
    }

    /// The files of the run under a folder of it.
    pub(crate) fn files(&self, under: &str) -> Vec<PathBuf> {
        files(&self.path("runs/r-test").join(under))
    }
}

/// All files under a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}
