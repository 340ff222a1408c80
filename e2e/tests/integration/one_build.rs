//! Whimbrel and the example share the builds of all crates that both use.
//!
//! A run's `setup` builds the example after Whimbrel. If the two ask for different features of a crate, cargo builds it and
//! every crate that depends on it twice, which takes minutes of a new user's first run.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
};

use whimbrel_e2e::programs::workspace;

/// The crates that a package is built from, each with the sets of features that it is built with.
fn crates(package: &str) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["--edges", "normal,build", "--prefix", "none", "--format", "{p}|{f}", "--offline"];
    let output = Command::new(cargo)
        .args(["tree", "--package", package])
        .args(arguments)
        .current_dir(workspace())
        .output()
        .expect("cargo cannot be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut crates: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let Some((name, features)) = line.split_once('|') else { continue };
        crates.entry(name.to_owned()).or_default().insert(features.replace(" (*)", ""));
    }
    crates
}

#[test]
fn whimbrel_and_the_example_ask_for_the_same_features_of_what_they_share() {
    let (whimbrel, example) = (crates("whimbrel"), crates("char-lm"));
    assert!(whimbrel.len() > 100, "cargo tree shows {} crates only", whimbrel.len());
    let differ: Vec<String> = whimbrel
        .iter()
        .filter_map(|(name, features)| {
            let theirs = example.get(name)?;
            (theirs != features).then(|| format!("{name}: whimbrel {features:?}, char-lm {theirs:?}"))
        })
        .collect();
    assert!(differ.is_empty(), "these crates are built twice:\n{}", differ.join("\n"));
}
