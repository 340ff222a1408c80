//! Checks that the generated code in `src/generated` matches the `.proto` files.
//!
//! The code is in the repository so that a build of Whimbrel needs no protobuf compiler. This test compiles the `.proto` files
//! with a compiler written in Rust and compares. After a change of a `.proto` file, write the new code with
//! `WHIMBREL_GENERATE=1 cargo test -p whimbrel-proto --test generated`.

#![allow(clippy::unwrap_used, reason = "an error in a test must fail it")]

use std::{env, fs, path::Path};

use tempfile::tempdir;

const FILES: [&str; 5] = [
    "whimbrel/v1/agents.proto",
    "whimbrel/v1/checkpoint.proto",
    "whimbrel/v1/generation.proto",
    "whimbrel/v1/runs.proto",
    "whimbrel/v1/workers.proto",
];

/// The generated files: the Rust code, and the compiled `.proto` files for the reflection service.
const GENERATED: [&str; 2] = ["whimbrel.v1.rs", "descriptors.bin"];

#[test]
fn the_generated_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempdir().unwrap();
    generate(root, fresh.path());
    let kept = root.join("src/generated");
    for name in GENERATED {
        let fresh = fs::read(fresh.path().join(name)).unwrap();
        if env::var_os("WHIMBREL_GENERATE").is_some() {
            fs::create_dir_all(&kept).unwrap();
            fs::write(kept.join(name), fresh).unwrap();
        } else {
            let kept = fs::read(kept.join(name)).unwrap_or_default();
            assert!(
                kept == fresh,
                "src/generated/{name} does not match the .proto files; run \
                 `WHIMBREL_GENERATE=1 cargo test -p whimbrel-proto --test generated` and commit the result"
            );
        }
    }
}

fn generate(root: &Path, out: &Path) {
    let mut compiler = protox::Compiler::new([root]).unwrap();
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES.map(|file| root.join(file))).unwrap();
    // With its comments: the reflection service serves the whole document.
    fs::write(out.join(GENERATED[1]), compiler.encode_file_descriptor_set()).unwrap();
    tonic_prost_build::configure()
        // The transport's `connect` method would clash with the rpc `Connect`.
        .build_transport(false)
        .out_dir(out)
        .compile_fds(compiler.file_descriptor_set())
        .unwrap();
}
