//! A link of 50 Mbit/s to a store that is 80 ms away: a save takes its time, and nothing takes that for a failure.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what goes wrong in a test is to fail it, and what is skipped is to be said"
)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use whimbrel_e2e::{
    player::Player,
    servers::s3,
    story::{Act, Ending},
};
use whimbrel_testbed::{
    netns::{SlowLink, linked},
    proxy::DelayProxy,
};

const MEGABITS: u32 = 50;
const EACH_WAY: Duration = Duration::from_millis(80);
const MEBIBYTES: usize = 256;

#[test]
fn a_save_of_256_mib_ends_without_a_time_out() {
    let Some(link) = linked(SlowLink::start(MEGABITS)) else { return };
    let Some(server) = s3() else { return };
    let far = DelayProxy::start((link.here(), 0).into(), server.address(), EACH_WAY);
    let program = Path::new(env!("CARGO_BIN_EXE_store-story"));
    let mut command = link.command(program);
    command.envs(server.environment_at(far.address()));
    // The namespace is as private as loopback.
    command.env("AWS_ALLOW_HTTP", "true").env("GOOGLE_ALLOW_HTTP", "true");
    // What the link needs is 43 s.
    let mut player = Player::start_by(command).with_patience(Duration::from_secs(400));
    let store = server.store_uri("slow");
    let started = Instant::now();
    let played = player.play(Act::SaveMuch { mebibytes: MEBIBYTES }, &store);
    let took = started.elapsed();
    assert_eq!(played.ending, Ending::Done, "{}", player.process().errors());

    let megabits = (MEBIBYTES << 20) as f64 * 8.0 / 1e6 / took.as_secs_f64();
    eprintln!(
        "{MEBIBYTES} MiB to {} over {MEGABITS} Mbit/s, {EACH_WAY:?} each way: {took:.1?}, {megabits:.1} Mbit/s",
        server.name()
    );
    assert!(megabits < f64::from(MEGABITS), "it did not go over the link");
    let verified = Player::start(program, &server.environment()).play(Act::Verify, &store);
    assert_eq!(verified.ending, Ending::Done);
}
