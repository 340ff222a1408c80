//! Whimbrel and the example share the builds of all crates that both use.
//!
//! A run's `setup` builds the example after Whimbrel is built. Cargo builds a shared crate again where the two ask for
//! different features of it, and with it every crate above it: minutes of a newcomer's first run.

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
        .expect("cargo can be run");
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
