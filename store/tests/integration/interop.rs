//! Checkpoints exported to model folders and imported back: the same bits, nothing left half done, and no running run
//! disturbed.
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use crate::support::{SMALL_PACKS, Scene, State, checkpoint, restored};
use proptest::prelude::*;
use safetensors::SafeTensors;
use whimbrel_state::{Dtype, Layout, TensorSpec};
use whimbrel_store::{
    AppendError, Ended, HostedBy, Limits, Outcome, Record, RunDir, Sources, Stopped, Store,
    interop::{
        ExportError, FileLayout, ImportError, ImportOptions, Imported, Model, Selection, export, import,
    },
};

/// Layouts of up to eight tensors of any type, including scalars and empty ones.
fn layout() -> impl Strategy<Value = Layout> {
    let name =
        prop_oneof!["[a-z]{1,6}(\\.[a-z0-9]{1,3})?", Just("w[0..4]".to_owned()), "[\"\\\\é \\n/]{1,4}"];
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    let tensor = (dtype, prop::collection::vec(0_usize..6, 0..4));
    prop::collection::btree_map(name, tensor, 1..8).prop_map(|tensors: BTreeMap<_, _>| {
        let tensors = tensors.into_iter().map(|(name, (dtype, shape))| TensorSpec { name, dtype, shape });
        Layout::new(tensors.collect()).unwrap()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Exports the newest checkpoint of a run.
async fn export_newest(
    run: &RunDir,
    selection: &Selection,
    file_bytes: u64,
    folder: &Path,
    force: bool,
) -> Result<FileLayout, ExportError> {
    let newest = run.run_log().await.unwrap().all_checkpoints().pop().unwrap();
    let manifest = run.manifest(&newest.manifest).await.unwrap();
    let files = FileLayout::new(&manifest.layout, selection, file_bytes, BTreeMap::new()).unwrap();
    let sources = Sources::new(run.clone());
    let mut written = 0;
    let mut progress = |bytes| written += bytes;
    export((&sources, &manifest), &files, "name = \"r\"\n", folder, force, &SMALL_PACKS, &mut progress)
        .await?;
    assert!(written >= files.bytes(), "{written} of {}", files.bytes());
    Ok(files)
}

fn options(spec: Option<&str>) -> ImportOptions {
    let spec = spec.map(ToOwned::to_owned);
    ImportOptions { step: 7, samples: 1, spec, start_term: false, who: "a test".into() }
}

async fn import_into(run: &RunDir, folder: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    let model = Arc::new(Model::open(folder, &Selection::default())?);
    import(run, model, options, &SMALL_PACKS, &mut |_| {}).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_state_is_exported_and_imported_bit_for_bit(layout in layout(), seed: u8, file_bytes in 0_u64..200) {
        runtime().block_on(export_and_import(State::filled(layout.into(), seed), file_bytes));
    }
}

async fn export_and_import(state: State, file_bytes: u64) {
    let scene = Scene::new().await;
    let mut term = scene.run().start_term("a test").await.unwrap();
    checkpoint(&mut term, &state, 7).await;
    let folder = tempfile::tempdir().unwrap();
    let exported = folder.path().join("a/model");
    let files =
        export_newest(&scene.run(), &Selection::default(), file_bytes, &exported, false).await.unwrap();

    let mut seen = 0;
    for name in files.names().filter(|name| name.ends_with(".safetensors")) {
        let bytes = fs::read(exported.join(name)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in file.tensors() {
            let tensors = state.layout.tensors();
            let index = tensors.iter().position(|tensor| tensor.name == name).unwrap();
            assert_eq!(view.data(), &state.bytes[state.layout.range_of(index)], "{name}");
            assert_eq!(view.shape(), tensors[index].shape);
            assert_eq!(format!("{:?}", view.dtype()), format!("{:?}", tensors[index].dtype));
            seen += 1;
        }
    }
    assert_eq!(seen, state.layout.tensors().len());

    let store = Store::open(folder.path().join("store").to_str().unwrap()).unwrap();
    let run = store.run(&"r-back".parse().unwrap());
    let imported = import_into(&run, &exported, &options(Some("name = \"r\"\n"))).await.unwrap();
    assert_eq!(imported.state, state.digest(7));
    assert_eq!(restored(&run, &imported.committed.manifest).await.unwrap(), state);
    let run_log = run.run_log().await.unwrap();
    assert_eq!(run_log.stopped().unwrap().step, 7);
    assert_eq!(run_log.checkpoints().len(), 1);
}

/// A run with one checkpoint after step 7.
async fn scene() -> (Scene, State) {
    let scene = Scene::new().await;
    let state = State::small(3);
    let mut term = scene.run().start_term("a test").await.unwrap();
    checkpoint(&mut term, &state, 7).await;
    (scene, state)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_export_replaces_a_model_only_with_force_and_leaves_other_files() {
    let (scene, _) = scene().await;
    let run = scene.run();
    let all = Selection::default();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("model");
    export_newest(&run, &all, 1 << 20, &at, false).await.unwrap();
    assert_eq!(names(&at), ["model.safetensors", "run.toml"]);
    assert_eq!(names(folder.path()), ["model"]);

    let error = export_newest(&run, &all, 40, &at, false).await.unwrap_err();
    assert!(
        matches!(error, ExportError::NotEmpty { .. }) && error.to_string().contains("--force"),
        "{error}"
    );
    let others = ["model-old.safetensors", "model-1-of-.safetensors", "model-1-of-2-ema.safetensors"];
    for name in others.into_iter().chain(["model-00007-of-00009.safetensors"]) {
        fs::write(at.join(name), "").unwrap();
    }
    fs::write(at.join("tokenizer.json"), "{}").unwrap();
    let files = export_newest(&run, &all, 40, &at, true).await.unwrap();
    let mut expected: Vec<_> = files.names().map(ToOwned::to_owned).collect();
    assert!(expected.len() > 3, "{expected:?}");
    expected.extend(["run.toml".into(), "tokenizer.json".into()]);
    expected.extend(others.map(ToOwned::to_owned));
    expected.sort();
    assert_eq!(names(&at), expected, "the files of another model are deleted, and no others");
    for name in others {
        fs::remove_file(at.join(name)).unwrap();
    }
    export_newest(&run, &all, 1 << 20, &at, true).await.unwrap();
    assert_eq!(names(&at), ["model.safetensors", "run.toml", "tokenizer.json"]);

    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    export_newest(&run, &all, 1 << 20, &empty, false).await.unwrap();
    assert_eq!(names(&empty), ["model.safetensors", "run.toml"]);
}

#[tokio::test]
async fn an_export_of_a_damaged_checkpoint_leaves_nothing_behind() {
    let (scene, _) = scene().await;
    let pack = scene.files("packs").into_values().next().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&pack, bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for at in [folder.path().join("new"), folder.path().to_owned()] {
        let error = export_newest(&scene.run(), &Selection::default(), 40, &at, false).await.unwrap_err();
        assert!(matches!(error, ExportError::Read(_)), "{error}");
        assert_eq!(names(folder.path()), [""; 0]);
    }
}

#[tokio::test]
async fn only_chosen_tensors_are_exported_under_their_new_names() {
    let (scene, state) = scene().await;
    let pairs = vec![("w".to_owned(), "model.w".to_owned())];
    let selection = Selection::new(&["*s".into()], &["flags".into()], pairs).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = export_newest(&scene.run(), &selection, 1 << 20, folder.path(), false).await.unwrap();
    assert_eq!(files.tensors(), 2);
    let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 2);
    for (there, here) in [("steps", "steps"), ("model.weights", "weights")] {
        let index = state.layout.tensors().iter().position(|tensor| tensor.name == here).unwrap();
        assert_eq!(file.tensor(there).unwrap().data(), &state.bytes[state.layout.range_of(index)]);
    }
    let twice = Selection::new(&[], &[], vec![("flags".into(), "steps".into())]).unwrap();
    let error = FileLayout::new(&state.layout, &twice, 1, BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("two tensors would be named \"steps\""), "{error}");
    let none = Selection::new(&["x*".into()], &[], Vec::new()).unwrap();
    let error = FileLayout::new(&state.layout, &none, 1, BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("none of the 5 tensors is chosen"), "{error}");
}

#[tokio::test]
async fn an_import_into_an_existing_run_needs_a_stopped_one() {
    let (scene, state) = scene().await;
    let run = scene.run();
    let folder = tempfile::tempdir().unwrap();
    export_newest(&run, &Selection::default(), 40, folder.path(), false).await.unwrap();

    let error = import_into(&run, folder.path(), &options(None)).await.unwrap_err();
    assert!(matches!(error, ImportError::NotStopped { .. }), "{error}");
    assert_eq!(run.run_log().await.unwrap().epoch(), 1, "no coordinator was fenced");

    let mut term = run.start_term("a test").await.unwrap();
    term.append(Record::Stopped(Stopped { step: 7, reason: "a test".into() })).await.unwrap();
    let at_nine = ImportOptions { step: 9, ..options(None) };
    let imported = import_into(&run, folder.path(), &at_nine).await.unwrap();
    let run_log = run.run_log().await.unwrap();
    assert_eq!(run_log.checkpoints().last().unwrap().manifest, imported.committed.manifest);
    assert_eq!((run_log.checkpoints().len(), run_log.stopped().unwrap().step), (2, 7));
    assert_eq!(imported.state, state.digest(9));

    let mut term = run.start_term("a test").await.unwrap();
    let ended =
        Ended { outcome: Outcome::Finished, step: 9, loss: None, val_loss: None, state: None, reason: None };
    term.append(Record::Ended(ended)).await.unwrap();
    let error = import_into(&run, folder.path(), &at_nine).await.unwrap_err();
    assert!(matches!(error, ImportError::Ended { .. }), "{error}");
    // No run is created under the name of an existing one.
    let error = import_into(&run, folder.path(), &options(Some("x"))).await.unwrap_err();
    assert!(matches!(error, ImportError::Create(_)), "{error}");
}

#[tokio::test]
async fn an_import_with_start_term_fences_the_coordinator() {
    let (scene, _) = scene().await;
    let run = scene.run();
    let folder = tempfile::tempdir().unwrap();
    export_newest(&run, &Selection::default(), 40, folder.path(), false).await.unwrap();
    let mut fenced = run.start_term("a live coordinator").await.unwrap();
    let options = ImportOptions { start_term: true, ..options(None) };
    import_into(&run, folder.path(), &options).await.unwrap();
    assert!(run.run_log().await.unwrap().stopped().is_some());
    let error = fenced.append(Record::Resumed { step: 0 }).await.unwrap_err();
    assert!(matches!(&error, AppendError::Fenced { coordinator, .. } if coordinator == "a test"), "{error}");
}

#[tokio::test]
async fn an_import_that_died_before_its_checkpoint_can_be_repeated() {
    let (scene, _) = scene().await;
    let folder = tempfile::tempdir().unwrap();
    let exported = folder.path().join("model");
    export_newest(&scene.run(), &Selection::default(), 1 << 20, &exported, false).await.unwrap();
    let store = Store::open(folder.path().join("store").to_str().unwrap()).unwrap();
    let spec = options(Some("name = \"r\"\n"));

    // The first import died after it had created the run.
    let run = store.run(&"r-new".parse().unwrap());
    run.create("name = \"r\"\n", HostedBy::Embedded).await.unwrap();
    let other = options(Some("name = \"other\"\n"));
    let error = import_into(&run, &exported, &other).await.unwrap_err();
    assert!(matches!(error, ImportError::Create(_)), "another run's spec: {error}");
    import_into(&run, &exported, &spec).await.unwrap();
    assert_eq!(run.run_log().await.unwrap().all_checkpoints().len(), 1);
    let error = import_into(&run, &exported, &spec).await.unwrap_err();
    assert!(
        matches!(error, ImportError::Create(_)),
        "a run with a checkpoint is not an unfinished import: {error}"
    );

    // The first import died after it had started a term: the run looks as if a coordinator were about to train it.
    let run = store.run(&"r-taken".parse().unwrap());
    run.create("name = \"r\"\n", HostedBy::Embedded).await.unwrap();
    run.start_term("an import that died").await.unwrap();
    let error = import_into(&run, &exported, &spec).await.unwrap_err();
    assert!(matches!(error, ImportError::NotStopped { .. }), "{error}");
    let taking = ImportOptions { start_term: true, ..spec };
    import_into(&run, &exported, &taking).await.unwrap();
    assert!(run.run_log().await.unwrap().stopped().is_some());
}

#[tokio::test]
async fn an_import_of_a_truncated_file_creates_no_run() {
    let (scene, _) = scene().await;
    let folder = tempfile::tempdir().unwrap();
    let exported = folder.path().join("model");
    export_newest(&scene.run(), &Selection::default(), 1 << 20, &exported, false).await.unwrap();
    let model = Arc::new(Model::open(&exported, &Selection::default()).unwrap());
    let file = fs::File::options().write(true).open(exported.join("model.safetensors")).unwrap();
    file.set_len(file.metadata().unwrap().len() - 20).unwrap();

    let store = Store::open(folder.path().join("store").to_str().unwrap()).unwrap();
    let run = store.run(&"r-new".parse().unwrap());
    let limits = Limits { pack_bytes: 64, ..SMALL_PACKS };
    let spec = options(Some("name = \"r\"\n"));
    let error = import(&run, model, &spec, &limits, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, ImportError::Model(_)), "{error}");
    assert!(store.runs().await.unwrap().is_empty());
}
