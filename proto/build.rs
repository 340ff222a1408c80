//! Compiles the `.proto` files with a compiler written in Rust, so that no `protoc` need be installed.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 5] = [
    "whimbrel/v1/agents.proto",
    "whimbrel/v1/checkpoint.proto",
    "whimbrel/v1/generation.proto",
    "whimbrel/v1/runs.proto",
    "whimbrel/v1/workers.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    // With its comments: what the reflection service serves is the whole document.
    let descriptors =
        PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
