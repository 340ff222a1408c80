//! Every fault, and a SIGKILL, at every store operation of a save, a commit, a collection, a restore, a copy, a
//! replication and a takeover. After each: no damaged byte is loaded, the last good checkpoint is there, and the next
//! attempt succeeds.
//!
//! On our GCS server a kill is tried at every operation, and a sample of the faults. The other servers are slower: a
//! sample of both is tried there. `WHIMBREL_MATRIX=wide` tries every case, and `WHIMBREL_MATRIX_SEED` draws another
//! sample.
use std::{env, path::Path, process::Command};

use whimbrel_e2e::{matrix::Matrix, programs, scenario::Scenario};
use whimbrel_testbed::{Azurite, GcsServer, Moto, Radosgw, Server, Unavailable, available};

const SCENARIOS: [Scenario; 6] =
    [Scenario::Live, Scenario::Restore, Scenario::Verify, Scenario::Copy, Scenario::Replicate, TAKE_OVER];
const TAKE_OVER: Scenario = Scenario::TakeOver { acknowledged: 10, damaged: false };

fn runner() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_scenario-runner"))
}

/// All cases of the wide matrix, otherwise a sample.
fn sampled(matrix: Matrix, cases: usize) -> Matrix {
    if env::var("WHIMBREL_MATRIX").is_ok_and(|width| width == "wide") {
        return matrix;
    }
    let seed = env::var("WHIMBREL_MATRIX_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("{cases} of {} cases, drawn with WHIMBREL_MATRIX_SEED={seed}", matrix.cases().len());
    matrix.sample(cases, seed)
}

fn on<S: Server>(start: fn() -> Result<S, Unavailable>) {
    let Some(server) = available(start()) else { return };
    let another = || start().unwrap();
    sampled(Matrix::of_faults(&server, runner(), &SCENARIOS), 60).run(&server, another);
    sampled(Matrix::of_kills(&server, runner(), &SCENARIOS), 20).run(&server, another);
}

fn another_gcs() -> GcsServer {
    GcsServer::start().unwrap()
}

#[test]
fn every_fault_at_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    sampled(Matrix::of_faults(&server, runner(), &SCENARIOS), 800).run(&server, another_gcs);
}

#[test]
fn a_kill_before_and_after_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    Matrix::of_kills(&server, runner(), &SCENARIOS).run(&server, another_gcs);
}

#[test]
fn a_kill_of_the_copy_command_before_and_after_every_operation() {
    let Some(server) = available(GcsServer::start()) else { return };
    let copy = |store: &str| {
        let mut command = Command::new(programs::whimbrel());
        command.args(["checkpoint", "copy", &format!("{store}/r"), &format!("{store}/copy"), "--yes"]);
        command
    };
    Matrix::of_command_kills(&server, runner(), copy, Scenario::Copy).run(&server, another_gcs);
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
