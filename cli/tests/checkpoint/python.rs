//! Python's safetensors reads packs and exported files with the same bits, and its files are imported with the same bits.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use whimbrel_state::{Dtype, TensorSpec};
use whimbrel_store::{Limits, Sources, StateReader};
use whimbrel_testbed::{Python, available};

use crate::stage::{SPEC, Stage, State, block_on, files};

/// The contents of the files in a folder as Python reads them: by file, by tensor.
fn python(python: &Python, what: &str, folder: &Path) -> BTreeMap<String, Value> {
    let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checkpoint/others.py"));
    let said = python.run(&script, &[what.as_ref(), folder.as_ref()]).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn bytes(tensor: &Value) -> Vec<u8> {
    let digits = tensor[2].as_str().unwrap();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A tensor of each type, and one that is larger than a pack.
fn state() -> State {
    let small = Dtype::ALL.map(|dtype| TensorSpec { name: format!("{dtype:?}"), dtype, shape: vec![3, 5] });
    let more =
        [TensorSpec::f32("large", [60, 50]), TensorSpec::f32("one", []), TensorSpec::f32("none", [0, 2])];
    let byte = |index: usize| (index * 31 + index / 256) as u8;
    let mut state = State::filled(small.into_iter().chain(more).collect(), byte);
    // NumPy accepts only these truth values.
    let at = state.layout.tensors().iter().position(|tensor| tensor.dtype == Dtype::BOOL).unwrap();
    let range = state.layout.range_of(at);
    state.bytes[range].iter_mut().for_each(|byte| *byte &= 1);
    state
}

#[test]
fn python_reads_every_pack_and_every_exported_file_with_the_same_bits() {
    let Some(interpreter) = available(Python::with_safetensors()) else { return };
    let state = state();
    let stage = Stage::stopped(7, &state, 4096);

    let packs = python(&interpreter, "read", &stage.path("runs/r-test/packs"));
    assert!(packs.len() > 3 && packs.len() == files(&stage.path("runs/r-test/packs")).len());
    let mut seen: BTreeMap<String, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
    for tensors in packs.values().map(|pack| pack["tensors"].as_object().unwrap()) {
        for (name, tensor) in tensors {
            // The name of a part has the range of its elements.
            let (name, start) = match name.split_once('[') {
                Some((name, part)) => (name, part.split_once("..").unwrap().0.parse().unwrap()),
                None => (name.as_str(), 0),
            };
            seen.entry(name.to_owned()).or_default().push((start, bytes(tensor)));
        }
    }
    assert!(seen["large"].len() > 2);
    for tensor in state.layout.tensors().iter().filter(|tensor| tensor.checked_bytes() > Some(0)) {
        let mut parts = seen.remove(&tensor.name).unwrap();
        parts.sort();
        let whole: Vec<u8> = parts.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(whole, state.tensor(&tensor.name), "{}", tensor.name);
    }

    for (folder, size) in [("one", "1GB"), ("several", "5kB")] {
        stage.good(&["export", "runs/r-test", folder, "--shard-size", size]);
        let files = python(&interpreter, "read", &stage.path(folder));
        assert_eq!(files.len() > 1, folder == "several");
        let mut left = state.layout.tensors().len();
        for file in files.values() {
            assert_eq!(file["metadata"]["format"], "pt");
            assert_eq!(file["metadata"]["whimbrel.step"], "7");
            for (name, tensor) in file["tensors"].as_object().unwrap() {
                assert_eq!(bytes(tensor), state.tensor(name), "{name}");
                left -= 1;
            }
        }
        assert_eq!(left, 0);
    }
}

#[test]
fn files_that_python_wrote_are_imported_with_the_same_bits() {
    let Some(interpreter) = available(Python::with_safetensors()) else { return };
    let stage = Stage::finished();
    let folder = stage.path("theirs");
    fs::create_dir(&folder).unwrap();
    let written = python(&interpreter, "write", &folder);
    fs::write(stage.path("run.toml"), SPEC).unwrap();
    let args = ["--samples", "100", "--step", "5", "--spec", "run.toml", "--run", "r-new"];
    stage.good(&[&["import", "theirs", "runs"], &args[..]].concat());

    let run = stage.run("runs", "r-new");
    let (manifest, read) = block_on(async {
        let newest = run.run_log().await.unwrap().all_checkpoints().pop().unwrap();
        let manifest = run.manifest(&newest.manifest).await.unwrap();
        let end = manifest.layout.bytes() as u64;
        let mut reader = StateReader::new(&Sources::new(run), &manifest, 0..end, &Limits::default()).unwrap();
        let mut read = Vec::new();
        while let Some(bytes) = reader.next().await.unwrap() {
            read.extend(bytes);
        }
        (manifest, read)
    });
    assert_eq!((manifest.step, manifest.samples), (5, 100));
    let mut tensors = 0;
    for file in written.values() {
        for (name, tensor) in file["tensors"].as_object().unwrap() {
            let index = manifest.layout.tensors().iter().position(|spec| spec.name == *name).unwrap();
            let spec = &manifest.layout.tensors()[index];
            assert_eq!(format!("{:?}", spec.dtype), tensor[0].as_str().unwrap());
            assert_eq!(serde_json::json!(spec.shape), tensor[1]);
            assert_eq!(bytes(tensor), &read[manifest.layout.range_of(index)], "{name}");
            tensors += 1;
        }
    }
    assert_eq!(tensors, manifest.layout.tensors().len());
}
