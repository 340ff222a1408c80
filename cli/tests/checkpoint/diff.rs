//! `whimbrel checkpoint diff`.

use serde_json::Value;

use crate::stage::{Stage, State, block_on, checkpoint};

#[test]
fn equal_checkpoints_are_exit_code_0_and_different_ones_1() {
    let stage = Stage::finished();
    let same = stage.good(&["diff", "runs/r-test@20", "runs/r-test@20"]);
    assert!(same.contains("the same: 2 tensors, bit for bit; 0 B compared"), "{same}");

    let (code, stdout, stderr) = stage.checkpoint(&["diff", "runs/r-test@20", "r-test", "--store", "runs"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].ends_with("/runs/r-test@20") && lines[1].ends_with("/runs/r-test@40"), "{stdout}");
    assert!(lines[3].starts_with("bias    8 of 8 elements differ, by "), "{stdout}");
    assert!(lines[4].starts_with("weight  32 of 32 elements differ"), "{stdout}");
    assert!(lines[5].starts_with("2 tensors differ, 0 are the same; 160 B compared"), "{stdout}");
    stage.failed(2, &["diff", "runs/r-test@20", "runs/r-test@21"]);
}

#[test]
fn checkpoints_of_different_runs_are_compared_by_the_names_of_tensors() {
    let stage = Stage::finished();
    block_on(async {
        let mut term = stage.create("r-other").await;
        // One element of the second tensor differs, and the packs are cut differently.
        let mut state = State::small(40);
        *state.bytes.last_mut().unwrap() ^= 0x80;
        checkpoint(&mut term, 40, &state, 64).await;
    });
    let (code, stdout, _) = stage.checkpoint(&["diff", "runs/r-test", "runs/r-other", "--json"]);
    assert_eq!(code, Some(1));
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&told["same"], &told["equal"]), (&false.into(), &1.into()));
    let changed = told["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0]["tensor"]["name"], "weight");
    assert_eq!((&changed[0]["elements"], &changed[0]["of"]), (&1.into(), &32.into()));
}
