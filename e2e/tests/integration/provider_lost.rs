//! A provider is lost: the run's store with all its data, the coordinator and every worker. The run resumes from its
//! replica at another provider, with another number of workers, and ends with the same bits.

use std::process::Command;

use whimbrel_e2e::{
    process::Process,
    programs,
    run::{Run, undisturbed},
    servers::s3,
    spec::Spec,
};
use whimbrel_testbed::{Azurite, Server, available};

/// Enough that the run does not end before the provider is lost, even on a busy machine.
const STEPS: u64 = 400;

#[test]
fn s3_is_lost_and_the_run_resumes_from_azure() {
    let (Some(mut east), Some(west)) = (s3(), available(Azurite::start())) else { return };
    let replica = west.store_uri("runs");
    let spec = Spec { checkpoint: format!("replicas = [{replica:?}]"), ..Spec::small(STEPS) };
    let expected = undisturbed(&Spec::small(STEPS), &["--workers", "1"]).state();
    let folder = tempfile::tempdir().unwrap();

    let mut command = Command::new(programs::whimbrel());
    command.current_dir(folder.path()).arg("run").arg(spec.write(folder.path()));
    command.args(["--json", "--workers", "4", "--store", &east.store_uri("runs")]);
    command.envs(east.environment()).envs(west.environment());
    let mut run = Run::start_by(command);
    let name = run.until("the run", |event| event["run"].is_string())["run"].as_str().unwrap().to_owned();
    let replicated = run.until("a replicated checkpoint", |event| {
        event["event"] == "replicated" && event["checkpoint"].as_u64() >= Some(20)
    });
    let replicated = replicated["checkpoint"].as_u64().unwrap();
    let mut steps = run.events.iter().filter(|event| event["event"] == "step");
    let done = steps.next_back().unwrap()["step"].as_u64().unwrap();

    // The store and all processes are lost at once.
    east.lose().unwrap();
    run.kill_all();

    let mut command = Command::new(programs::whimbrel());
    command.current_dir(folder.path()).args(["run", "run.toml", "--resume", &format!("{replica}/{name}")]);
    command.args(["--json", "--workers", "2"]).envs(east.environment()).envs(west.environment());
    let outcome = Run::start_by(command).finish();
    assert_eq!(outcome.state(), expected);
    let first = outcome.steps()[0];
    assert!(
        first > replicated,
        "resumed with step {first}, but the checkpoint of step {replicated} was replicated"
    );
    eprintln!("lost at step {done} or later, resumed with step {first}");

    // The second provider has the run now, and its checkpoint is whole.
    let mut verify = Command::new(programs::whimbrel());
    verify.args(["checkpoint", "verify", &format!("{replica}/{name}")]).envs(west.environment());
    let mut verify = Process::start(verify);
    assert_eq!(verify.wait(whimbrel_e2e::run::DEADLINE).code(), Some(0), "{}", verify.errors());
}
