//! `whimbrel checkpoint` against a run's directory as the store crate writes it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bytes::Bytes;
use serde_json::Value;
use whimbrel_state::{Layout, Manifest, TensorSpec, manifest};
use whimbrel_store::{Ended, Limits, Mode, Outcome, Record, Store, commit, save_slice};

const SPEC: &str = "name = \"r\"\ncommand = [\"true\"]\n[train]\nsteps = 40\nglobal_batch = 8\nshards = 4\n";

/// A finished run with checkpoints after steps 20 and 40.
struct Run {
    folder: tempfile::TempDir,
    /// BLAKE3 of the state after step 40.
    state: String,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let state = runtime.block_on(Self::write(&folder.path().join("runs")));
        Self { folder, state }
    }

    async fn write(store: &Path) -> String {
        let run = Store::open(store.to_str().unwrap()).unwrap().run(&"r-test".parse().unwrap());
        run.create(SPEC, Mode::Embedded).await.unwrap();
        let mut office = run.take_office("a test").await.unwrap();
        let layout =
            Layout::new(vec![TensorSpec::f32("weight", [8, 4]), TensorSpec::f32("bias", [8])]).unwrap();
        let mut state = None;
        for step in [20, 40_u64] {
            let bytes: Vec<u8> = (0..layout.bytes()).map(|index| (index as u64 * 7 + step) as u8).collect();
            let digest = whimbrel_state::digest(&layout, step, |index, sink| {
                sink(&bytes[layout.range_of(index)]);
                Ok::<_, std::convert::Infallible>(())
            });
            state = Some(digest.unwrap());
            let (range, limits) = (0..layout.bytes(), Limits::default());
            let packs = save_slice(&run, &layout, range, Bytes::from(bytes), &limits).await.unwrap();
            let manifest = Manifest {
                format: manifest::FORMAT,
                run: "r-test".into(),
                step,
                generation: 1,
                samples: 1,
                layout: layout.clone(),
                packs,
            };
            commit(&mut office, &manifest, None).await.unwrap();
        }
        let ended = Ended {
            outcome: Outcome::Finished,
            step: 40,
            loss: Some(0.5),
            val_loss: None,
            state,
            reason: None,
        };
        office.append(Record::Ended(ended)).await.unwrap();
        state.unwrap().to_string()
    }

    /// Runs `whimbrel checkpoint …`: exit code, stdout, stderr.
    fn checkpoint(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.current_dir(self.folder.path()).env_clear().env("HOME", self.folder.path());
        let Output { status, stdout, stderr } = command.arg("checkpoint").args(args).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn good(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.checkpoint(args);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}: {stdout}");
        stdout
    }

    fn files(&self, under: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join("runs/r-test").join(under)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }
}

#[test]
fn a_run_is_found_by_path_by_uri_and_by_its_id_in_a_store() {
    let run = Run::new();
    let store = format!("file://{}/runs", run.folder.path().canonicalize().unwrap().display());
    let by_path = run.good(&["list", "runs/r-test"]);
    assert_eq!(by_path, run.good(&["list", &format!("{store}/r-test/")]));
    assert_eq!(by_path, run.good(&["list", "r-test", "--store", &store]));
    assert_eq!(by_path, run.good(&["list", "r-test", "--store", "runs"]));

    let lines: Vec<&str> = by_path.lines().collect();
    assert_eq!(lines[0], format!("{store}/r-test"));
    assert!(lines[1].starts_with("STEP  TIME"), "{by_path}");
    assert!(lines[2].starts_with("20    ") && lines[3].starts_with("40    "), "{by_path}");
    assert!(lines[2].ends_with("  good") && lines.len() == 4, "{by_path}");
}

#[test]
fn the_list_as_json_has_a_line_a_checkpoint() {
    let run = Run::new();
    let text = run.good(&["list", "runs/r-test", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [20, 40]);
    assert_eq!(lines[0]["state"], Value::Null);
    assert_eq!(lines[1]["state"], run.state.as_str());
    assert!(lines[1]["uri"].as_str().unwrap().ends_with("/runs/r-test@40"));
}

#[test]
fn what_a_checkpoint_holds() {
    let run = Run::new();
    let newest = run.good(&["show", "runs/r-test"]);
    assert!(newest.lines().next().unwrap().ends_with("/runs/r-test@40"), "{newest}");
    for part in ["160 B in 2 tensors", "weight  F32   [8, 4]", "bias    F32   [8]", &run.state] {
        assert!(newest.contains(part), "{part:?} is not in\n{newest}");
    }
    let older: Value = serde_json::from_str(&run.good(&["show", "runs/r-test@20", "--json"])).unwrap();
    assert_eq!((&older["step"], &older["state_bytes"]), (&20.into(), &160.into()));
    assert_eq!(older["tensors"].as_array().unwrap().len(), 2);
}

#[test]
fn verifying_prints_the_digest_of_the_state() {
    let run = Run::new();
    let text = run.good(&["verify", "runs/r-test"]);
    assert!(text.contains(&format!("BLAKE3 {}, as the run recorded", run.state)), "{text}");
    let json: Value = serde_json::from_str(&run.good(&["verify", "runs/r-test@40", "--json"])).unwrap();
    assert_eq!(json["state"], run.state.as_str());
}

#[test]
fn a_flipped_bit_is_exit_code_4() {
    let run = Run::new();
    for pack in run.files("packs") {
        let mut bytes = fs::read(&pack).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let (code, stdout, stderr) = run.checkpoint(&["verify", "runs/r-test@20"]);
    assert_eq!((code, stdout.as_str()), (Some(4), ""));
    assert!(stderr.contains("is damaged: its bytes hash to") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn a_damaged_log_is_exit_code_4() {
    let run = Run::new();
    let mut log = run.files("log");
    log.sort();
    fs::write(&log[2], "{}").unwrap();
    let (code, _, stderr) = run.checkpoint(&["list", "runs/r-test"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("00000000000000000002.json"), "{stderr}");
}

#[test]
fn what_is_not_there_is_exit_code_2() {
    let run = Run::new();
    for (args, part) in [
        (&["list", "r-test"][..], "no store is named"),
        (&["list", "runs/r-nobody"], "there is no run at"),
        (&["list", "nowhere/r-test"], "nowhere"),
        (&["list", "runs/r-test@20"], "leave the @ out"),
        (&["show", "runs/r-test@30"], "no checkpoint after step 30"),
        (&["verify", "runs/r-test@newest"], "is not a step"),
    ] {
        let (code, stdout, stderr) = run.checkpoint(args);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{args:?}: {stderr}");
    }
    assert!(!run.folder.path().join("nowhere").exists());
}
