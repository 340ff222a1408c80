//! Every fault, and a SIGKILL, at every operation on the store of a save, a commit, a collection, a restore, a copy, a
//! replication and a take-over. After each: no bad byte is loaded, the last good checkpoint is there, and the next
//! attempt succeeds.
//!
//! Which operations there are is found out by playing. The kills are tried at each; of the faults, and on the servers
//! that take longer, as many as CI has time for, at each operation in turn. `WHIMBREL_MATRIX=wide` tries them all, and
//! `WHIMBREL_MATRIX_SEED` draws others.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it drew"
)]

use std::{env, path::Path, process::Command};

use whimbrel_e2e::{matrix::Matrix, programs, story::Act};
use whimbrel_testbed::{Azurite, GcsServer, Moto, Radosgw, Server, Unavailable, available};

const ACTS: [Act; 6] = [Act::Live, Act::Restore, Act::Verify, Act::Copy, Act::Replicate, TAKE_OVER];
const TAKE_OVER: Act = Act::TakeOver { acknowledged: 10, damaged: false };

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_store-story"))
}

/// All cases in the wide matrix, a sample otherwise.
fn sampled(matrix: Matrix, cases: usize) -> Matrix {
    if env::var("WHIMBREL_MATRIX").is_ok_and(|width| width == "wide") {
        return matrix;
    }
    let seed = env::var("WHIMBREL_MATRIX_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("{cases} of {} cases, drawn by WHIMBREL_MATRIX_SEED={seed}", matrix.cases().len());
    matrix.sample(cases, seed)
}

fn on<S: Server>(start: fn() -> Result<S, Unavailable>) {
    let Some(server) = available(start()) else { return };
    let another = || start().unwrap();
    sampled(Matrix::of_faults(&server, program(), &ACTS), 60).run(&server, another);
    sampled(Matrix::of_kills(&server, program(), &ACTS), 20).run(&server, another);
}

fn another_gcs() -> GcsServer {
    GcsServer::start().unwrap()
}

#[test]
fn every_fault_at_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    sampled(Matrix::of_faults(&server, program(), &ACTS), 800).run(&server, another_gcs);
}

#[test]
fn killed_before_and_after_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    Matrix::of_kills(&server, program(), &ACTS).run(&server, another_gcs);
}

#[test]
fn the_copy_command_killed_before_and_after_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    let copy = |store: &str| {
        let mut command = Command::new(programs::whimbrel());
        command.args(["checkpoint", "copy", &format!("{store}/r"), &format!("{store}/copy"), "--yes"]);
        command
    };
    Matrix::of_kills_of(copy, Act::Copy, &server, program()).run(&server, another_gcs);
}

#[test]
fn on_s3_radosgw() {
    on(Radosgw::start);
}

#[test]
fn on_s3_moto() {
    on(Moto::start);
}

#[test]
fn on_azure_azurite() {
    on(Azurite::start);
}
