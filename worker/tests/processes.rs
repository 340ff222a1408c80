//! Whole worker processes: this program starts itself again, as a program that calls `train`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is a test: what goes wrong in it must be loud"
)]

mod coordinator;

use std::{
    env,
    io::Read,
    process::{Child, Command, ExitCode, Stdio},
};

use coordinator::{
    Coordinator,
    linear::{Incident, Linear, quiet},
};
use whimbrel_plan::Origin;
use whimbrel_proto::v1::halted::Cause;
use whimbrel_worker::{ADVERTISE, COORDINATOR, RUN, TOKEN, WORKER};

/// Set in worker processes to what is to happen to them.
const PLOT: &str = "PLOT";
const STEPS: u64 = 30;

fn main() -> ExitCode {
    if let Ok(plot) = env::var(PLOT) {
        return whimbrel_worker::train(|context| Linear::new(context, incident(&plot)?));
    }
    let scenes: [(&str, fn()); 6] = [
        ("started_by_hand_a_worker_says_how_to_start_it", started_by_hand_a_worker_says_how_to_start_it),
        ("a_run_of_processes_ends_with_the_same_bits", a_run_of_processes_ends_with_the_same_bits),
        ("a_replica_out_of_reach_is_said_once", a_replica_out_of_reach_is_said_once),
        ("a_killed_process_is_suspected_by_its_peers", a_killed_process_is_suspected_by_its_peers),
        ("a_panic_and_an_error_reach_the_coordinator", a_panic_and_an_error_reach_the_coordinator),
        ("a_fatal_error_of_the_trainer_says_so", a_fatal_error_of_the_trainer_says_so),
    ];
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (name, scene) in scenes.iter().filter(|(name, _)| name.contains(&filter)) {
        scene();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// What is to happen in a worker process.
fn incident(plot: &str) -> Result<Incident, whimbrel_worker::TrainerError> {
    Ok(match plot {
        "quiet" => quiet(),
        "killed" => Box::new(|step, _, _| {
            if step == 5 {
                // As the kernel does when memory runs out: no destructor runs, and nothing is reported.
                let killed = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
                return Err(format!("kill did not work: {killed:?}").into());
            }
            Ok(())
        }),
        "panics" => Box::new(|step, _, _| if step == 5 { panic!("index out of range") } else { Ok(()) }),
        "fails" => return Err("no text to train on".into()),
        "fails for good" => return Err(whimbrel_worker::fatal("the text is empty")),
        "fails for good in a step" => Box::new(|step, _, _| match step {
            5 => Err(whimbrel_worker::fatal("a sample has no label")),
            _ => Ok(()),
        }),
        other => return Err(format!("no such plot: {other}").into()),
    })
}

fn program() -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    for variable in [COORDINATOR, RUN, WORKER, TOKEN, ADVERTISE] {
        command.env_remove(variable);
    }
    command.env(PLOT, "quiet").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(coordinator: &Coordinator, worker: u64, plot: &str) -> Child {
    let environment = coordinator.environment(worker);
    program()
        .env(COORDINATOR, environment.coordinator.as_str())
        .env(RUN, environment.run.as_str())
        .env(WORKER, worker.to_string())
        .env(TOKEN, coordinator::TOKEN)
        .env(ADVERTISE, environment.advertise.to_string())
        .env(PLOT, plot)
        .spawn()
        .unwrap()
}

/// The exit code, if it ended by itself, and what it said.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

fn started_by_hand_a_worker_says_how_to_start_it() {
    let (code, said) = end(program().spawn().unwrap());
    assert_eq!(code, Some(2));
    assert!(said.starts_with("error: this program is a Whimbrel worker"), "{said}");
    assert!(said.contains("`whimbrel run SPEC`"), "{said}");
}

fn a_run_of_processes_ends_with_the_same_bits() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let children = [1, 2].map(|id| start(&coordinator, id, "quiet"));
    coordinator.ready(&[1, 2]);
    coordinator.form(&[(1, None), (2, None)], Origin::Initial);
    for id in [1, 2] {
        assert_eq!(coordinator.completed(id).state, Linear::alone(STEPS).as_bytes());
        coordinator.leave(id);
    }
    for child in children {
        assert_eq!(end(child), (Some(0), String::new()));
    }
}

fn a_replica_out_of_reach_is_said_once() {
    let mut coordinator =
        Coordinator::new(STEPS, |welcome| welcome.replicas = vec!["file:///nowhere/linear-x1".into()]);
    let child = start(&coordinator, 1, "quiet");
    coordinator.ready(&[1]);
    coordinator.form(&[(1, None)], Origin::Initial);
    coordinator.completed(1);
    coordinator.leave(1);
    let (code, said) = end(child);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("a replica cannot be opened from here").count(), 1, "{said}");
    assert!(said.contains("file:///nowhere/linear-x1") && said.contains("cannot use the folder"), "{said}");
}

fn a_killed_process_is_suspected_by_its_peers() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let survivors = [1, 3].map(|id| start(&coordinator, id, "quiet"));
    let victim = start(&coordinator, 2, "killed");
    coordinator.ready(&[1, 2, 3]);
    coordinator.form(&[(1, None), (2, None), (3, None)], Origin::Initial);
    assert_eq!(end(victim).0, None, "it was killed");
    for id in [1, 3] {
        let halted = coordinator.halted(id);
        assert_eq!(halted.step, Some(5));
        let Some(Cause::Broken(broken)) = halted.cause else { panic!("{halted:?}") };
        assert_eq!(broken.suspect, Some(2), "{}", broken.reason);
    }
    coordinator.form(&[(1, Some(5)), (3, Some(5))], Origin::Members { step: 5 });
    for id in [1, 3] {
        assert_eq!(coordinator.completed(id).state, Linear::alone(STEPS).as_bytes());
        coordinator.leave(id);
    }
    survivors.into_iter().for_each(|child| assert_eq!(end(child).0, Some(0)));
}

fn a_panic_and_an_error_reach_the_coordinator() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let (panics, fails) = (start(&coordinator, 1, "panics"), start(&coordinator, 2, "fails"));
    let failed = coordinator.failed(2);
    assert_eq!(failed.reason, "the trainer failed to build: no text to train on");
    assert!(!failed.fatal);
    assert_eq!(end(fails), (Some(1), format!("error: {}\n", failed.reason)));
    coordinator.ready(&[1]);
    coordinator.form(&[(1, None)], Origin::Initial);
    let failed = coordinator.failed(1);
    assert_eq!(failed.reason, "the trainer panicked: index out of range");
    assert!(!failed.fatal);
    let (code, said) = end(panics);
    assert_eq!(code, Some(1));
    assert!(said.ends_with("error: the trainer panicked: index out of range\n"), "{said}");
}

fn a_fatal_error_of_the_trainer_says_so() {
    let mut coordinator = Coordinator::new(STEPS, |_| {});
    let builds = start(&coordinator, 1, "fails for good");
    let steps = start(&coordinator, 2, "fails for good in a step");
    let failed = coordinator.failed(1);
    assert_eq!(failed.reason, "the trainer failed to build: the text is empty");
    assert!(failed.fatal);
    coordinator.ready(&[2]);
    coordinator.form(&[(2, None)], Origin::Initial);
    let failed = coordinator.failed(2);
    assert_eq!(failed.reason, "the trainer failed in shard 0 of step 5: a sample has no label");
    assert!(failed.fatal);
    assert_eq!((end(builds).0, end(steps).0), (Some(1), Some(1)));
}
