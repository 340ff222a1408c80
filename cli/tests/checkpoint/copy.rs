//! `whimbrel checkpoint copy`, and `list` on copies.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;
use whimbrel_state::TensorSpec;
use whimbrel_store::Record;

use crate::stage::{Stage, State, block_on, checkpoint, files};

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_copy_prints_its_plan_and_then_the_next_commands() {
    let stage = Stage::finished();
    let said = stage.good(&["copy", "runs/r-test", "elsewhere", "--dry-run"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].ends_with("/runs/r-test") && lines[1].ends_with("/elsewhere/r-test"), "{said}");
    assert_eq!(lines[2], "  checkpoints  2 checkpoints, after steps 20 to 40");
    assert!(lines[3].starts_with("  to move      2 packs, "), "{said}");
    assert_eq!(lines[4], "  price        egress is free");
    assert_eq!(lines.len(), 5);
    stage.failed(2, &["list", "elsewhere/r-test"]);

    let said = stage.good(&["copy", "runs/r-test", "elsewhere"]);
    assert!(said.contains("copied 2 checkpoints, after steps 20 to 40: 2 packs, "), "{said}");
    // A finished run is not resumed.
    assert!(said.contains("  whimbrel checkpoint verify file://") && !said.contains("--resume"), "{said}");
    let other = Stage::stopped(20, &State::small(20), 64 << 20);
    let said = other.good(&["copy", "runs/r-test", "elsewhere"]);
    assert!(said.contains("  whimbrel run run.toml --resume file://"), "{said}");
    let verified = stage.good(&["verify", "elsewhere/r-test"]);
    assert!(verified.contains(&stage.state), "{verified}");
    stage.good(&["diff", "runs/r-test@20", "elsewhere/r-test@20"]);

    // The destination as the URI of the run there; and a second copy.
    let said = stage.good(&["copy", "r-test", "elsewhere/r-test", "--store", "runs"]);
    assert!(
        said.contains("of which 2 are there") && said.contains("nothing to copy: it is all there"),
        "{said}"
    );
    let listed = stage.good(&["list", "elsewhere/r-test"]);
    assert!(listed.lines().nth(1).unwrap().starts_with("  a replica of file:///"), "{listed}");
    assert_eq!(listed.lines().count(), 5, "{listed}");
}

#[test]
fn the_plan_covers_manifests_and_output() {
    let stage = Stage::finished();
    block_on(stage.run("runs", "r-test").put_output(1, 0, "w1 hello\n".into())).unwrap();
    let said = stage.good(&["copy", "runs/r-test", "elsewhere", "--dry-run"]);
    assert!(said.contains("  to move      2 packs, 2 manifests, 1 output object, "), "{said}");
    let events = events(&stage.good(&["copy", "runs/r-test", "elsewhere", "--json"]));
    let moved: u64 = ["packs", "manifests", "output"]
        .iter()
        .flat_map(|folder| files(&stage.path("elsewhere/r-test").join(folder)))
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    let event = |kind: &str| events.iter().rfind(|event| event["event"] == kind).unwrap();
    for kind in ["plan", "copied"] {
        let event = event(kind);
        assert_eq!(
            (&event["packs"], &event["manifests"], &event["output"]),
            (&2.into(), &2.into(), &1.into())
        );
        assert_eq!(event["bytes"], moved, "{event}");
    }
    let progress = event("progress");
    assert_eq!((&progress["bytes"], &progress["total"]), (&moved.into(), &moved.into()));
    let said = stage.good(&["copy", "runs/r-test", "elsewhere"]);
    assert!(said.contains("  to move      0 packs, 0 B") && said.contains("it is all there"), "{said}");
}

#[test]
fn one_checkpoint_is_copied_and_the_rest_later() {
    let stage = Stage::finished();
    stage.good(&["copy", "runs/r-test@20", "elsewhere"]);
    assert!(stage.good(&["show", "elsewhere/r-test"]).lines().next().unwrap().ends_with("@20"));
    let against = ["--against", "runs/r-test"];
    let behind = stage.good(&[&["list", "elsewhere/r-test"], &against[..]].concat());
    let last = behind.lines().last().unwrap();
    assert!(
        last.starts_with("20 steps behind file:///") && last.contains("lacks 1 of its checkpoints"),
        "{behind}"
    );

    let events = events(&stage.good(&["copy", "runs/r-test", "elsewhere", "--newest", "--json"]));
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["plan", "checkpoint", "progress", "copied"]);
    let [plan, _, progress, copied] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&plan["checkpoints"], &plan["packs"]), (&serde_json::json!([40]), &1.into()));
    assert_eq!((&plan["bytes"], &plan["usd"]), (&copied["bytes"], &0.0.into()));
    assert_eq!((&progress["bytes"], &progress["total"]), (&plan["bytes"], &plan["bytes"]));
    assert_eq!(copied["checkpoints"], serde_json::json!([40]));

    let json = stage.good(&[&["list", "elsewhere/r-test", "--json"], &against[..]].concat());
    let lines = self::events(&json);
    assert!(lines[0]["replica_of"].as_str().unwrap().ends_with("/runs/r-test"), "{json}");
    assert_eq!(
        (&lines[2]["relation"], &lines[2]["steps"], &lines[2]["checkpoints"]),
        (&"same".into(), &0.into(), &0.into())
    );
    let itself = stage.good(&["list", "runs/r-test", "--against", "elsewhere/r-test"]);
    assert!(itself.lines().last().unwrap().starts_with("the run itself, of which file:///"), "{itself}");
}

#[test]
fn a_run_that_went_on_at_the_destination_is_not_overwritten() {
    let stage = Stage::stopped(20, &State::small(20), 64 << 20);
    stage.good(&["copy", "runs/r-test", "elsewhere"]);
    block_on(async {
        let mut term = stage.run("elsewhere", "r-test").start_term("somebody elsewhere").await.unwrap();
        term.append(Record::Resumed { step: 20 }).await.unwrap();
        checkpoint(&mut term, 30, &State::small(30), 64 << 20).await;
    });
    let error = stage.failed(2, &["copy", "runs/r-test", "elsewhere"]);
    assert!(error.contains("went on at file:///") && error.contains("somebody elsewhere"), "{error}");
    let ahead = stage.good(&["list", "elsewhere/r-test", "--against", "runs/r-test"]);
    assert!(ahead.lines().last().unwrap().ends_with("the run went on here"), "{ahead}");
    // The other direction works: the run moves back.
    stage.good(&["copy", "elsewhere/r-test", "runs"]);
    assert!(stage.good(&["show", "runs/r-test"]).lines().next().unwrap().ends_with("@30"));
}

#[test]
fn a_damaged_checkpoint_is_left_out_and_the_others_are_copied() {
    let stage = Stage::finished();
    let state = State::small(40);
    // The pack of step 40 holds its last tensor.
    let tensor = state.tensor("weight").to_vec();
    let holds = |bytes: &[u8]| bytes.windows(tensor.len()).any(|window| window == tensor);
    let pack = stage.files("packs").into_iter().find(|path| holds(&fs::read(path).unwrap())).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&pack, bytes).unwrap();
    let (code, stdout, stderr) = stage.checkpoint(&["copy", "runs/r-test", "elsewhere"]);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(stdout.contains("copied the checkpoint after step 20: 1 pack, "), "{stdout}");
    assert!(stdout.contains("left out: the checkpoint after step 40: pack "), "{stdout}");
    assert!(stage.good(&["verify", "elsewhere/r-test"]).contains("@20: all of"));
}

#[test]
fn the_next_copy_replaces_what_a_copy_lost() {
    let stage = Stage::finished();
    stage.good(&["copy", "runs/r-test", "elsewhere"]);
    for under in ["manifests", "packs"] {
        for lost in files(&stage.path("elsewhere/r-test").join(under)) {
            fs::remove_file(lost).unwrap();
        }
        let behind = stage.good(&["list", "elsewhere/r-test", "--against", "runs/r-test"]);
        assert!(!behind.contains("up to date"), "{behind}");
        let said = stage.good(&["copy", "runs/r-test", "elsewhere"]);
        assert!(!said.contains("it is all there"), "{said}");
        for step in [20, 40] {
            stage.good(&["verify", &format!("elsewhere/r-test@{step}")]);
        }
        assert!(stage.good(&["copy", "runs/r-test", "elsewhere"]).contains("it is all there"));
        // No checkpoint is listed twice.
        assert_eq!(stage.good(&["list", "elsewhere/r-test"]).lines().count(), 5);
    }
}

#[test]
fn a_checkpoint_of_a_later_version_is_left_out_and_not_reported_as_damaged() {
    let stage = Stage::stopped(3, &State::small(3), 64);
    stage.commit_later_format(7);
    let (code, stdout, stderr) = stage.checkpoint(&["copy", "runs/r-test", "elsewhere"]);
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    assert!(stdout.contains("copied the checkpoint after step 3: "), "{stdout}");
    assert!(
        stdout.contains("left out: the checkpoint after step 7: ") && stdout.contains("use a newer whimbrel"),
        "{stdout}"
    );
    assert!(!stdout.contains("damaged"), "{stdout}");
    // It has all that can be read, and is not up to date.
    let listed = stage.good(&["list", "elsewhere/r-test", "--against", "runs/r-test"]);
    let last = listed.lines().last().unwrap();
    assert!(
        last.starts_with("4 steps behind ")
            && last.contains("0 of its checkpoints and 1 that cannot be read"),
        "{listed}"
    );
    let (code, stdout, stderr) = stage.checkpoint(&["collect", "runs/r-test", "--keep", "1", "--take-over"]);
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    assert!(stdout.contains("unreadable  the manifest ") && stdout.contains("use a newer"), "{stdout}");
}

#[test]
fn a_copy_without_checkpoints_prints_no_next_commands() {
    let stage = Stage::stopped(3, &State::small(3), 64);
    let manifest = stage.files("manifests").pop().unwrap();
    fs::write(manifest, "{}").unwrap();
    let (code, stdout, stderr) = stage.checkpoint(&["copy", "runs/r-test", "elsewhere"]);
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(stdout.contains("nothing was copied") && !stdout.contains("it is all there"), "{stdout}");
    assert!(stdout.contains("left out: the checkpoint after step 3: the manifest "), "{stdout}");
    assert!(!stdout.contains("next:"), "{stdout}");
}

#[test]
fn bad_input_is_exit_code_2_and_writes_nothing() {
    let stage = Stage::finished();
    block_on(async { stage.create("r-other").await });
    fs::write(stage.path("whimbrel.toml"), "[egress]\nnobody = 1.0\n").unwrap();
    let error = stage.failed(2, &["copy", "runs/r-test", "elsewhere"]);
    assert!(error.contains("\"nobody\" is neither a provider") && error.contains("[egress]"), "{error}");
    fs::remove_file(stage.path("whimbrel.toml")).unwrap();
    for (args, part) in [
        (&["runs/r-test@20", "elsewhere", "--newest"][..], "leave one of them out"),
        (&["runs/r-test@30", "elsewhere"], "no checkpoint of step 30"),
        (&["runs/r-test", "runs/r-other"], "a copy keeps its run's name"),
        (&["runs/r-test", "runs"], "nothing is copied to it"),
        (&["runs/r-test", "elsewhere", "--bandwidth", "fast"], "is not a bandwidth"),
        (&["runs/r-test", "elsewhere", "--concurrency", "0"], "--concurrency"),
    ] {
        let error = stage.failed(2, &[&["copy"], args].concat());
        assert!(error.contains(part), "{args:?}: {error}");
    }
    assert!(!stage.path("elsewhere/r-test").exists());
}

#[test]
fn the_settings_set_the_prices() {
    let stage = Stage::finished();
    fs::write(stage.path("whimbrel.toml"), "[egress]\nlocal = 2000000.0\n").unwrap();
    // The question about the price is asked on a terminal only, and this is none.
    let said = stage.good(&["copy", "runs/r-test", "elsewhere"]);
    assert!(said.contains("($2000000 per GB)") && said.contains("copied 2 checkpoints"), "{said}");
}

#[test]
fn an_interrupted_copy_continues() {
    let specs = (0..60).map(|index| TensorSpec::f32(format!("w{index:02}"), [50_000])).collect();
    let state = State::filled(specs, |index| (index * 131 + index / 7919) as u8);
    let stage = Stage::stopped(7, &state, 200_000);
    let packs = stage.files("packs").len();
    assert_eq!(packs, 60);

    // Slow enough to be interrupted in the middle.
    let args = ["copy", "runs/r-test", "elsewhere", "--bandwidth", "2 MB/s", "--concurrency", "2", "--json"];
    let mut command = stage.command(&args);
    let mut copy = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(copy.stdout.take().unwrap()).lines();
    let progress =
        lines.by_ref().map(Result::unwrap).find(|line| line.contains("\"event\":\"progress\"")).unwrap();
    let progress: Value = serde_json::from_str(&progress).unwrap();
    assert!(progress["bytes"].as_u64() < progress["total"].as_u64(), "{progress}");
    let pid = rustix::process::Pid::from_child(&copy);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(copy.wait().unwrap().code(), Some(75));

    let arrived = files(&stage.path("elsewhere/r-test/packs")).len();
    assert!(arrived > 0 && arrived < packs, "{arrived} of {packs}");
    let again = stage.good(&["copy", "runs/r-test", "elsewhere", "--json"]);
    let plan = &events(&again)[0];
    let (there, left) = (plan["packs_there"].as_u64().unwrap(), plan["packs"].as_u64().unwrap());
    assert_eq!(there + left, packs as u64);
    assert!(there as usize + 2 >= arrived, "{there} of {arrived} that had arrived are moved again");
    stage.good(&["diff", "runs/r-test", "elsewhere/r-test"]);
}
