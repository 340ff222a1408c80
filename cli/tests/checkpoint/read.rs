//! `whimbrel checkpoint list`, `show` and `verify`.

use std::fs;

use serde_json::Value;
use whimbrel_state::Hash;
use whimbrel_store::quarantine;

use crate::stage::{Stage, State, block_on, checkpoint};

#[test]
fn a_run_is_found_by_path_by_uri_and_by_its_id_in_a_store() {
    let run = Stage::finished();
    let store = format!("file://{}/runs", run.folder.path().canonicalize().unwrap().display());
    let by_path = run.good(&["list", "runs/r-test"]);
    assert_eq!(by_path, run.good(&["list", &format!("{store}/r-test/")]));
    assert_eq!(by_path, run.good(&["list", "r-test", "--store", &store]));
    assert_eq!(by_path, run.good(&["list", "r-test", "--store", "runs"]));

    let lines: Vec<&str> = by_path.lines().collect();
    assert_eq!(lines[0], format!("{store}/r-test"));
    assert!(lines[1].starts_with("STEP  TIME"), "{by_path}");
    assert!(lines[2].starts_with("20    ") && lines[3].starts_with("40    "), "{by_path}");
    assert!(lines[2].ends_with("  recorded") && lines.len() == 4, "{by_path}");
}

#[test]
fn the_list_as_json_has_one_line_for_each_checkpoint() {
    let run = Stage::finished();
    let text = run.good(&["list", "runs/r-test", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [20, 40]);
    assert_eq!(lines[0]["state"], Value::Null);
    assert_eq!(lines[1]["state"], run.state.as_str());
    assert!(lines[1]["uri"].as_str().unwrap().ends_with("/runs/r-test@40"));
}

#[test]
fn show_prints_the_contents_of_a_checkpoint() {
    let run = Stage::finished();
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
fn verify_prints_the_digest_of_the_state() {
    let run = Stage::finished();
    let text = run.good(&["verify", "runs/r-test@40"]);
    assert!(text.contains(&format!("BLAKE3 {}, as the run recorded", run.state)), "{text}");
    assert!(!text.contains("@20"), "{text}");
    let json: Value = serde_json::from_str(&run.good(&["verify", "runs/r-test@40", "--json"])).unwrap();
    assert_eq!(json["state"], run.state.as_str());
}

#[test]
fn verify_without_a_step_reads_all_checkpoints() {
    let run = Stage::finished();
    let text = run.good(&["verify", "runs/r-test"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("@20: all of ") && lines[2].contains("@40: all of "), "{text}");
    assert!(lines[3].ends_with(&format!("BLAKE3 {}, as the run recorded", run.state)), "{text}");
    assert_eq!(lines[4..], ["2 checkpoints are good"]);
    let json = run.good(&["verify", "runs/r-test", "--json"]);
    let steps: Vec<Value> =
        json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].clone()).collect();
    assert_eq!(steps, [20, 40]);

    // The older of the two is damaged.
    let tensor = State::small(20).tensor("weight").to_vec();
    let holds = |bytes: &[u8]| bytes.windows(tensor.len()).any(|window| window == tensor);
    let pack = run.files("packs").into_iter().find(|path| holds(&fs::read(path).unwrap())).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&pack, bytes).unwrap();
    let (code, stdout, stderr) = run.checkpoint(&["verify", "runs/r-test"]);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(stdout.contains("@40: all of ") && !stdout.contains("@20"), "{stdout}");
    let hash = pack.file_stem().unwrap().to_str().unwrap();
    for part in ["1 of the 2 checkpoints of ", "the checkpoint of step 20 is damaged", hash, "r-test@40"] {
        assert!(stderr.contains(part), "{part:?} is not in\n{stderr}");
    }
    run.good(&["verify", "runs/r-test@40"]);
}

#[test]
fn verify_reads_a_shared_pack_once_and_skips_quarantined_checkpoints() {
    let stage = Stage::finished();
    block_on(async {
        let mut term = stage.run("runs", "r-test").start_term("a test").await.unwrap();
        // The same tensors after another step: the same pack.
        checkpoint(&mut term, 50, &State::small(40), 64 << 20).await;
        let oldest = term.run_log().checkpoints()[0].manifest.clone();
        quarantine(&mut term, &oldest, "a test", &[]).await.unwrap();
    });
    let text = stage.good(&["verify", "runs/r-test"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("@40: all of ") && lines[1].contains("@50: all of "), "{text}");
    assert!(lines[2].contains("BLAKE3 "), "the digest of the newest: {text}");
    assert_eq!(lines[3..], ["2 checkpoints are good; 1 is quarantined and was not read"]);
    let listed = stage.good(&["list", "runs/r-test"]);
    assert!(listed.contains("  damaged: a test") && listed.ends_with("  recorded\n"), "{listed}");
}

#[test]
fn a_flipped_bit_is_exit_code_4() {
    let run = Stage::finished();
    for pack in run.files("packs") {
        let mut bytes = fs::read(&pack).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let (code, stdout, stderr) = run.checkpoint(&["verify", "runs/r-test@20"]);
    assert_eq!((code, stdout.as_str()), (Some(4), ""));
    assert!(stderr.contains("is damaged: bytes 0 to") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn a_damaged_log_is_exit_code_4() {
    let run = Stage::finished();
    let mut log = run.files("log");
    log.sort();
    fs::write(&log[2], "{}").unwrap();
    let (code, _, stderr) = run.checkpoint(&["list", "runs/r-test"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("00000000000000000002.json"), "{stderr}");
}

#[test]
fn a_missing_run_or_checkpoint_is_exit_code_2() {
    let run = Stage::finished();
    for (args, part) in [
        (&["list", "r-test"][..], "no store is named"),
        (&["list", "runs/r-nobody"], "there is no run at"),
        (&["show", "runs/r-nobody"], "/runs are r-test"),
        (&["list", "runs"], "/runs are r-test"),
        (&["list", "runs/r-test", "--against", "runs/r-test"], "is the same directory"),
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

#[test]
fn a_run_is_found_from_within_its_directory_and_compared_only_with_copies_of_itself() {
    let stage = Stage::finished();
    let listed = stage.good(&["list", "runs/r-test"]);
    for (inside, name) in [("runs/r-test", "."), ("runs/r-test", "./."), ("runs/r-test/log", "..")] {
        let within = |args: &[&str]| {
            let output = stage.command(args).current_dir(stage.path(inside)).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(within(&["list", name]), listed, "{name} in {inside}");
        let shown = within(&["show", &format!("{name}@20")]);
        assert!(shown.lines().next().unwrap().ends_with("/runs/r-test@20"), "{name} in {inside}: {shown}");
    }
    block_on(async { stage.create("r-other").await });
    let error = stage.failed(2, &["list", "runs/r-test", "--against", "runs/r-other"]);
    assert!(error.contains("is another run than file:///"), "{error}");
}

#[test]
fn lost_output_is_an_error() {
    let stage = Stage::finished();
    let equal = ["diff", "runs/r-test", "runs/r-test"];
    let other = ["diff", "runs/r-test@20", "runs/r-test"];
    for (code, args) in [(2, &["list", "runs/r-test"][..]), (2, &equal), (1, &other)] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let told = stage.command(args).stdout(full).output().unwrap();
        let error = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(code), "{error}");
        assert!(error.contains("could not be written completely") && error.contains("No space"), "{error}");
    }
}

#[test]
fn a_log_of_a_later_version_is_exit_code_2_and_not_reported_as_damaged() {
    let stage = Stage::finished();
    let newest = stage.files("log").into_iter().max().unwrap();
    let frame = fs::read_to_string(&newest).unwrap();
    let (entry, _) = frame.strip_prefix("{\"entry\":").unwrap().rsplit_once(",\"blake3\":").unwrap();
    let later = entry.replacen("\"format\":", "\"format\":9", 1);
    let hash = Hash::of(later.as_bytes());
    fs::write(&newest, format!("{{\"entry\":{later},\"blake3\":\"{hash}\"}}\n")).unwrap();
    let error = stage.failed(2, &["list", "runs/r-test"]);
    assert!(error.contains("use a newer whimbrel") && !error.contains("restore"), "{error}");
}
