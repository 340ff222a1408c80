//! `whimbrel checkpoint` on S3, Azure and GCS servers, and from one to another.

use std::process::{Command, Output};

use whimbrel_state::TensorSpec;
use whimbrel_testbed::{Azurite, GcsServer, Moto, Server, available};

use crate::stage::{Stage, State};

/// The stage, and the environment that reaches these servers.
struct Clouds<'a> {
    stage: &'a Stage,
    environment: Vec<(&'static str, String)>,
}

impl Clouds<'_> {
    fn run(&self, args: &[&str]) -> Output {
        let mut command: Command = self.stage.command(args);
        command.envs(self.environment.iter().cloned()).output().unwrap()
    }

    fn good(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(args);
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(status.code(), Some(0), "{args:?}: {stdout}{stderr}");
        stdout
    }
}

fn stage() -> Stage {
    let specs = (0..8).map(|index| TensorSpec::f32(format!("w{index}"), [10_000])).collect();
    Stage::stopped(7, &State::filled(specs, |index| (index * 131 + index / 7919) as u8), 50_000)
}

#[test]
fn a_run_moves_from_a_folder_to_s3_to_azure_and_every_command_works_there() {
    let (Some(s3), Some(azure)) = (available(Moto::start()), available(Azurite::start())) else { return };
    let stage = stage();
    let environment = s3.environment().into_iter().chain(azure.environment()).collect();
    let clouds = Clouds { stage: &stage, environment };
    let (east, west) = (s3.store_uri("runs"), azure.store_uri("deep/runs"));
    let (in_east, in_west) = (format!("{east}/r-test"), format!("{west}/r-test"));

    clouds.good(&["copy", "runs/r-test", &east]);
    let said = clouds.good(&["copy", &in_east, &in_west]);
    assert!(said.contains("copied the checkpoint after step 7: 7 packs"), "{said}");
    assert!(said.contains(&format!("whimbrel run run.toml --resume {in_west}")), "{said}");
    for place in [&in_east, &in_west] {
        let verified = clouds.good(&["verify", place]);
        assert!(verified.contains(&stage.state), "{verified}");
        assert!(clouds.good(&["show", &format!("{place}@7")]).contains("w7      F32"), "{place}");
        let same = clouds.good(&["diff", "runs/r-test", place]);
        assert!(same.contains("the same: 8 tensors"), "{same}");
    }
    let listed = clouds.good(&["list", "r-test", "--store", &west, "--against", &in_east]);
    assert!(
        listed.contains(&format!("a replica of {in_east}")) && listed.contains("up to date with"),
        "{listed}"
    );

    clouds.good(&["export", &in_west, "model", "--shard-size", "100kB"]);
    let imported = clouds.good(&["import", "model", &east, "--run", "r-new"]);
    assert!(imported.contains(&stage.state), "{imported}");
    let said = clouds.good(&["collect", &format!("{east}/r-new"), "--grace", "0s", "--dry-run"]);
    assert!(said.contains("would delete 0 checkpoints and 0 packs"), "{said}");
}

#[test]
fn a_run_moves_to_gcs_and_s3_options_stay_in_the_uri() {
    let (Some(s3), Some(gcs)) = (available(Moto::start()), available(GcsServer::start())) else { return };
    let stage = stage();
    let mut environment = s3.environment();
    // Only the URI names the server.
    environment.retain(|(variable, _)| !variable.contains("ENDPOINT") && !variable.contains("REGION"));
    environment.extend(gcs.environment());
    let clouds = Clouds { stage: &stage, environment };
    let options = format!("?endpoint=http://{}&region=us-east-1", s3.address());
    let store = format!("{}{options}", s3.store_uri("runs"));
    let run = format!("{}/r-test{options}", s3.store_uri("runs"));

    let said = clouds.good(&["copy", "runs/r-test", &store]);
    assert!(said.contains(&format!("--resume '{run}'")), "{said}");
    let shown = clouds.good(&["show", &format!("{}/r-test@7{options}", s3.store_uri("runs"))]);
    assert_eq!(shown.lines().next(), Some(format!("{}/r-test@7{options}", s3.store_uri("runs")).as_str()));
    clouds.good(&["verify", "r-test@7", "--store", &store]);
    // The destination as the URI of the run there.
    let there = format!("{}/r-test", gcs.store_uri("runs"));
    clouds.good(&["copy", &run, &there, "--newest"]);
    assert!(clouds.good(&["verify", &there]).contains(&stage.state));
    assert!(clouds.good(&["diff", &run, &there]).contains("the same: 8 tensors"));
}

#[test]
fn a_store_that_refuses_is_exit_code_2_with_a_hint() {
    let (Some(s3), Some(azure)) = (available(Moto::start()), available(Azurite::start())) else { return };
    let stage = stage();
    let mut environment: Vec<_> = s3.environment().into_iter().chain(azure.environment()).collect();
    for (variable, value) in &mut environment {
        if *variable == "AZURE_STORAGE_ACCOUNT_KEY" {
            *value = "bm90IHRoZSBrZXk=".to_owned();
        }
    }
    let clouds = Clouds { stage: &stage, environment };
    let in_azure = format!("{}/r-test", azure.store_uri("runs"));
    let misplaced = format!("{}/r-test?region=us-east-1@7", s3.store_uri("runs"));
    for (run, part) in [
        ("s3://no-such-bucket/runs/r-test", "there is no such bucket"),
        (&in_azure, "the credentials are missing or not accepted"),
        (&misplaced, "a step stands before the options"),
    ] {
        for command in ["list", "verify", "collect"] {
            let Output { status, stderr, .. } = clouds.run(&[command, run]);
            let stderr = String::from_utf8(stderr).unwrap();
            assert_eq!(status.code(), Some(2), "{command} {run}: {stderr}");
            assert!(stderr.contains(part), "{command} {run}: {stderr}");
        }
    }
}

#[test]
fn an_unreachable_store_is_exit_code_3() {
    let Some(mut s3) = available(Moto::start()) else { return };
    let stage = stage();
    let clouds = Clouds { stage: &stage, environment: s3.environment() };
    let run = format!("{}/r-test", s3.store_uri("runs"));
    clouds.good(&["copy", "runs/r-test", &s3.store_uri("runs")]);
    s3.kill();
    for args in [&["verify", &run][..], &["copy", "runs/r-test", &run], &["export", &run, "model"]] {
        let Output { status, stderr, .. } = clouds.run(args);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(3), "{args:?}: {stderr}");
        assert!(stderr.contains(&run), "{args:?}: {stderr}");
        assert!(stderr.contains("hint: nothing answers at this endpoint"), "{args:?}: {stderr}");
    }
}
