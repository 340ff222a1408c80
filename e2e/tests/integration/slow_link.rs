//! A save over a link of 50 Mbit/s to a store that is 80 ms away is slow, and no time-out treats that as a failure.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use whimbrel_e2e::{
    scenario::{Outcome, Scenario},
    scenario_runner::ScenarioRunner,
    servers::s3,
};
use whimbrel_testbed::{
    netns::{SlowLink, linked},
    proxy::DelayProxy,
};

const MEGABITS: u32 = 50;
const EACH_WAY: Duration = Duration::from_millis(80);
const MEBIBYTES: usize = 256;

#[test]
fn a_save_of_256_mib_completes_without_a_time_out() {
    let Some(link) = linked(SlowLink::start(MEGABITS)) else { return };
    let Some(server) = s3() else { return };
    let far = DelayProxy::start((link.here(), 0).into(), server.address(), EACH_WAY);
    let program = Path::new(env!("CARGO_BIN_EXE_scenario-runner"));
    let mut command = link.command(program);
    command.envs(server.environment_at(far.address()));
    // The namespace is private, so plain HTTP is allowed.
    command.env("AWS_ALLOW_HTTP", "true").env("GOOGLE_ALLOW_HTTP", "true");
    // The link needs 43 s.
    let mut runner = ScenarioRunner::start_by(command).with_deadline(Duration::from_secs(400));
    let store = server.store_uri("slow");
    let started = Instant::now();
    let report = runner.run(Scenario::SaveMuch { mebibytes: MEBIBYTES }, &store);
    let took = started.elapsed();
    assert_eq!(report.outcome, Outcome::Completed, "{}", runner.process().errors());

    let megabits = (MEBIBYTES << 20) as f64 * 8.0 / 1e6 / took.as_secs_f64();
    eprintln!(
        "{MEBIBYTES} MiB to {} over {MEGABITS} Mbit/s, {EACH_WAY:?} each way: {took:.1?}, {megabits:.1} Mbit/s",
        server.name()
    );
    assert!(megabits < f64::from(MEGABITS), "the save did not use the link");
    let verified = ScenarioRunner::start(program, &server.environment()).run(Scenario::Verify, &store);
    assert_eq!(verified.outcome, Outcome::Completed);
}
