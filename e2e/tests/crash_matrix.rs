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
use whimbrel_testbed::{Azurite, GcsServer, Moto, Radosgw, Server, available};

const ACTS: [Act; 6] = [Act::Live, Act::Restore, Act::Verify, Act::Copy, Act::Replicate, TAKE_OVER];
const TAKE_OVER: Act = Act::TakeOver { acknowledged: 10, damaged: false };

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_store-story"))
}

/// All cases in the wide matrix, a sample otherwise.
fn sampled<'a>(matrix: Matrix<'a>, cases: usize) -> Matrix<'a> {
    if env::var("WHIMBREL_MATRIX").is_ok_and(|width| width == "wide") {
        return matrix;
    }
    let seed = env::var("WHIMBREL_MATRIX_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("{cases} of {} cases, drawn by WHIMBREL_MATRIX_SEED={seed}", matrix.cases().len());
    matrix.sample(cases, seed)
}

fn on(server: &dyn Server) {
    sampled(Matrix::of_faults(server, program(), &ACTS), 60).run();
    sampled(Matrix::of_kills(server, program(), &ACTS), 20).run();
}

#[test]
fn every_fault_at_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    sampled(Matrix::of_faults(&server, program(), &ACTS), 800).run();
}

#[test]
fn killed_before_and_after_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    Matrix::of_kills(&server, program(), &ACTS).run();
}

#[test]
fn the_copy_command_killed_before_and_after_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    let copy = |store: &str| {
        let mut command = Command::new(programs::whimbrel());
        command.args(["checkpoint", "copy", &format!("{store}/r"), &format!("{store}/copy"), "--yes"]);
        command
    };
    Matrix::of_kills_of(copy, Act::Copy, &server, program()).run();
}

#[test]
fn on_s3_radosgw() {
    if let Some(server) = available(Radosgw::start()) {
        on(&server);
    }
}

#[test]
fn on_s3_moto() {
    if let Some(server) = available(Moto::start()) {
        on(&server);
    }
}

#[test]
fn on_azure_azurite() {
    if let Some(server) = available(Azurite::start()) {
        on(&server);
    }
}
