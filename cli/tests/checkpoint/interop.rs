//! `whimbrel checkpoint export` and `import`.

use std::fs;

use serde_json::Value;
use whimbrel_spec::RunSpec;
use whimbrel_state::TensorSpec;

use crate::stage::{SPEC, Stage, State, block_on, files};

#[test]
fn an_exported_checkpoint_is_imported_with_the_same_state() {
    let stage = Stage::finished();
    let said = stage.good(&["export", "runs/r-test@40", "model"]);
    assert!(said.contains("r-test@40: 2 tensors, 160 B"), "{said}");
    assert!(said.contains("model/model.safetensors") && said.contains("model/run.toml"), "{said}");
    assert_eq!(fs::read_to_string(stage.path("model/run.toml")).unwrap(), SPEC);

    let said = stage.good(&["import", "model", "elsewhere", "--run", "r-new"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].ends_with("/elsewhere/r-new@40: 2 tensors, 160 B"), "{said}");
    assert_eq!(lines[1], format!("  state       BLAKE3 {}", stage.state));
    assert!(lines[3].starts_with("  whimbrel run model/run.toml --resume file:///"), "{said}");
    let verified = stage.good(&["verify", "elsewhere/r-new"]);
    assert!(verified.contains(&format!("{}, as the run recorded", stage.state)), "{verified}");
    stage.good(&["diff", "runs/r-test", "elsewhere/r-new"]);
    let listed = stage.good(&["list", "elsewhere/r-new", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed["step"], &listed["state"]), (&40.into(), &stage.state.as_str().into()));
}

#[test]
fn a_large_model_is_several_files_and_an_index() {
    let stage = Stage::finished();
    let args = ["export", "runs/r-test", "model", "--shard-size", "100 B", "--json"];
    let said: Value = serde_json::from_str(&stage.good(&args)).unwrap();
    let files: Vec<&str> =
        said["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    assert_eq!(
        files,
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json"
        ]
    );
    let index = fs::read(stage.path("model/model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], 160);
    assert_eq!(index["weight_map"]["bias"], files[0]);
    assert_eq!(index["weight_map"]["weight"], files[1]);
    let said = stage.good(&["import", "model", "elsewhere", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["state"], stage.state.as_str());
    assert!(said["run"].as_str().unwrap().starts_with("r-"), "{said}");
}

#[test]
fn a_model_of_another_program_needs_flags_for_what_it_lacks() {
    let stage = Stage::finished();
    stage.good(&["export", "runs/r-test", "model", "--only", "w*", "--rename", "w=model.w"]);
    // As another program writes it.
    let file = fs::read(stage.path("model/model.safetensors")).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    assert_eq!(header["__metadata__"]["format"], "pt");
    assert_eq!(header["__metadata__"]["whimbrel.run"], "r-test");
    header.as_object_mut().unwrap().remove("__metadata__");
    let header = header.to_string();
    let foreign = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &file[8 + length..]].concat();
    fs::create_dir(stage.path("foreign")).unwrap();
    fs::write(stage.path("foreign/weights.safetensors"), foreign).unwrap();

    let error = stage.failed(2, &["import", "foreign", "elsewhere"]);
    assert!(error.contains("does not say how many samples") && error.contains("--samples N"), "{error}");
    let error = stage.failed(2, &["import", "foreign", "elsewhere", "--samples", "9"]);
    assert!(error.contains("needs a run spec") && error.contains("--spec run.toml"), "{error}");
    let args =
        ["import", "foreign", "elsewhere", "--samples", "9", "--spec", "model/run.toml", "--run", "r-n"];
    stage.good(&args);
    let shown = stage.good(&["show", "elsewhere/r-n@0"]);
    assert!(shown.contains("model.weight  F32   [8, 4]") && !shown.contains("bias"), "{shown}");
}

/// The spec in the log of a run that was imported.
fn stored_spec(stage: &Stage, store: &str, run: &str) -> RunSpec {
    let run_log = block_on(async { stage.run(store, run).run_log().await }).unwrap();
    RunSpec::parse("the stored spec", run_log.spec(), &[]).unwrap()
}

#[test]
fn an_imported_run_records_its_own_store_and_the_replicas_of_its_spec() {
    let stage = Stage::finished();
    stage.good(&["export", "runs/r-test", "model"]);
    let stores = "[checkpoint]\nstore = \"gs://gone/runs\"\nreplicas = [\"west\", \"elsewhere\"]\n";
    fs::write(stage.path("model/run.toml"), format!("{SPEC}{stores}")).unwrap();

    let said = stage.good(&["import", "model", "elsewhere", "--run", "r-new"]);
    let west = stage.run("west", "r-new");
    assert!(said.contains(&format!("  replica     {}, when the run continues", west.uri())), "{said}");
    let spec = stored_spec(&stage, "elsewhere", "r-new");
    let in_store = |run: &str| stage.run(run, "r-new").store_uri();
    assert_eq!(spec.checkpoint.store, Some(in_store("elsewhere")));
    // This store was a replica of the exported run.
    assert_eq!(spec.checkpoint.replicas, [in_store("west")]);

    // A file is not a store.
    fs::write(stage.path("blocked"), "").unwrap();
    fs::write(stage.path("run.toml"), format!("{SPEC}{stores}").replace("west", "blocked")).unwrap();
    let args = ["import", "model", "north", "--spec", "run.toml", "--run", "r-new"];
    let error = stage.failed(2, &args);
    assert!(error.contains("the replica blocked cannot be opened"), "{error}");
    assert!(
        error.contains("are those of run.toml") && error.contains("--set 'checkpoint.replicas=[]'"),
        "{error}"
    );
    assert_eq!(files(&stage.path("north")), [] as [std::path::PathBuf; 0]);
    stage.good(&[&args[..], &["--set", "checkpoint.replicas=[]"]].concat());
    assert_eq!(stored_spec(&stage, "north", "r-new").checkpoint.replicas, [] as [String; 0]);
}

#[test]
fn a_failed_import_says_how_to_continue() {
    let stage = Stage::finished();
    stage.good(&["export", "runs/r-test", "model"]);
    let (code, _, said) = stage.checkpoint(&["import", "model", "elsewhere"]);
    let id = said.strip_prefix("importing as run ").unwrap().split(';').next().unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("--run {id} continues it")), "{said}");
    stage.good(&["verify", &format!("elsewhere/{id}")]);

    // A file in the place of the packs folder: the run is not created.
    let args = ["import", "model", "elsewhere", "--run", "r-new"];
    let blocked = |name: &str| stage.path("elsewhere/r-new").join(name);
    fs::create_dir_all(stage.path("elsewhere/r-new")).unwrap();
    fs::write(blocked("packs"), "").unwrap();
    let error = stage.failed(2, &args);
    assert!(
        error.contains("--run r-new continues it") && error.contains("/elsewhere/r-new; to give up, delete"),
        "{error}"
    );
    assert!(stage.failed(2, &["list", "elsewhere/r-new"]).contains("there is no run"));
    fs::remove_file(blocked("packs")).unwrap();

    // A file in the place of the manifests folder: the run is created, without its checkpoint.
    fs::write(blocked("manifests"), "").unwrap();
    let error = stage.failed(2, &args);
    assert!(error.contains("--run r-new continues it") && error.contains("--take-over"), "{error}");
    fs::remove_file(blocked("manifests")).unwrap();
    let error = stage.failed(2, &args);
    assert!(error.contains("is not stopped") && error.contains("or give --take-over"), "{error}");
    stage.good(&[&args[..], &["--take-over"]].concat());
    assert!(stage.good(&["verify", "elsewhere/r-new"]).contains(&stage.state));
    let error = stage.failed(2, &args);
    assert!(error.contains("there is a run at"), "{error}");
}

#[test]
fn a_checkpoint_is_added_to_a_stopped_run_and_not_to_an_ended_one() {
    let stage = Stage::finished();
    stage.good(&["export", "runs/r-test", "model"]);
    let error = stage.failed(2, &["import", "model", "runs/r-test"]);
    assert!(error.contains("has ended"), "{error}");

    let stopped = Stage::stopped(3, &State::small(3), 64);
    let model = stage.path("model");
    let model = model.to_str().unwrap();
    let error = stopped.failed(2, &["import", model, "runs/r-test", "--run", "r-x"]);
    assert!(error.contains("leave --run out"), "{error}");
    stopped.good(&["import", model, "r-test", "--store", "runs"]);
    let listed = stopped.good(&["list", "runs/r-test"]);
    let steps: Vec<&str> = listed.lines().skip(2).map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(steps, ["3", "40"]);
}

#[test]
fn a_model_from_which_no_run_could_continue_is_refused() {
    let stage = Stage::stopped(3, &State::small(3), 64);
    stage.good(&["export", "runs/r-test", "model"]);
    stage.good(&["export", "runs/r-test", "half", "--only", "weight"]);
    let before = (stage.files("log"), stage.files("packs"));
    for (args, part) in [
        (
            &["model", "runs/r-test", "--step", "41"][..],
            "ends after step 40, and this is its state after step 41",
        ),
        (&["model", "elsewhere", "--step", "41"], "--set train.steps=N"),
        (&["half", "runs/r-test"], "has other tensors than half"),
        (&["model", "elsewhere", "--samples", "0"], "1 or more"),
        (&["s3://lab/model", "elsewhere"], "not a URI"),
    ] {
        let error = stage.failed(2, &[&["import"], args].concat());
        assert!(error.contains(part), "{args:?}: {error}");
    }
    assert_eq!((stage.files("log"), stage.files("packs")), before);
    assert!(!stage.path("elsewhere").exists());
    for uri in ["s3://lab/model", "file:///tmp/model"] {
        let error = stage.failed(2, &["export", "runs/r-test", uri]);
        assert!(error.contains("not a URI"), "{error}");
    }
    stage.good(&[
        "import",
        "half",
        "elsewhere",
        "--run",
        "r-half",
        "--step",
        "41",
        "--set",
        "train.steps=41",
    ]);
    // A single file has no spec beside it.
    let said = stage.good(&["import", "model/model.safetensors", "runs/r-test"]);
    assert!(said.contains("  whimbrel run run.toml --resume "), "{said}");
}

#[test]
fn a_folder_that_is_not_empty_is_not_changed() {
    let stage = Stage::finished();
    fs::create_dir(stage.path("model")).unwrap();
    fs::write(stage.path("model/notes"), "mine").unwrap();
    let error = stage.failed(2, &["export", "runs/r-test", "model"]);
    assert!(error.contains("is not empty") && error.contains("--force"), "{error}");
    stage.good(&["export", "runs/r-test", "model", "--force"]);
    assert_eq!(fs::read_to_string(stage.path("model/notes")).unwrap(), "mine");
    assert!(stage.path("model/model.safetensors").is_file());
    for (args, part) in [
        (&["--only", "nothing*"][..], "none of the 2 tensors is chosen"),
        (&["--rename", "weight=bias"], "two tensors would be named \"bias\""),
        (&["--only", "a["], "is not a pattern"),
        (&["--shard-size", "big"], "is not a size"),
        (&["--rename", "weight"], "FROM=TO"),
    ] {
        let args = [&["export", "runs/r-test", "other"], args].concat();
        let error = stage.failed(2, &args);
        assert!(error.contains(part), "{args:?}: {error}");
        assert!(!stage.path("other").exists());
    }
}

#[test]
fn exporting_a_damaged_checkpoint_is_exit_code_4_and_leaves_nothing() {
    let state = State::filled(vec![TensorSpec::f32("w", [5000])], |index| index as u8);
    let stage = Stage::stopped(3, &state, 4000);
    let pack = stage.files("packs").pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&pack, bytes).unwrap();
    stage.failed(4, &["export", "runs/r-test", "model"]);
    let left: Vec<_> =
        fs::read_dir(stage.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["runs"]);
}
