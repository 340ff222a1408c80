//! An import that is killed or interrupted at each of its writes in turn; and two copies at the same time.

use std::{
    io::Read,
    process::{Child, Output, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use whimbrel_testbed::{
    GcsServer, Server, available,
    proxy::{FaultProxy, Operation, Part, Then, Verb},
};

use crate::stage::Stage;

/// A model's folder, and a store behind a proxy.
struct Scene {
    stage: Stage,
    server: GcsServer,
    proxy: FaultProxy,
}

/// A request that is held until the program that sent it has ended.
struct Held {
    reached: Receiver<()>,
    release: Sender<()>,
}

/// A write of the import itself, not of the store's probe.
fn is_write(operation: &Operation) -> bool {
    operation.verb == Verb::Put && operation.part() != Part::Other
}

impl Scene {
    fn set() -> Option<Self> {
        let server = available(GcsServer::start())?;
        let stage = Stage::finished();
        stage.good(&["export", "runs/r-test", "model"]);
        let proxy = FaultProxy::start(server.address(), "whimbrel");
        Some(Self { stage, server, proxy })
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.stage.command(args);
        command.envs(self.server.environment_at(self.proxy.address()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Exit code, stdout and stderr.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.start(args).wait_with_output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// Holds the write that comes after `before` others.
    fn hold(&self, before: usize) -> Held {
        self.proxy.begin("whimbrel");
        let ((reach, reached), (release, released)) = (channel(), channel());
        let writes = AtomicUsize::new(0);
        let wanted = move |operation: &Operation, _: &_| {
            is_write(operation) && writes.fetch_add(1, Ordering::Relaxed) == before
        };
        self.proxy.before(wanted, move |_| {
            reach.send(()).unwrap();
            released.recv().unwrap();
            Then::Cut
        });
        Held { reached, release }
    }
}

impl Held {
    /// Sends the program a signal when it waits for its write. Returns its exit code and stderr.
    fn end(self, mut child: Child, signal: Signal) -> (Option<i32>, String) {
        self.reached.recv_timeout(Duration::from_secs(60)).expect("the import comes to this write");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let code = child.wait().unwrap().code();
        self.release.send(()).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }
}

/// The id that an import printed at its start.
fn id(said: &str) -> String {
    said.strip_prefix("importing as run ").unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn an_import_killed_at_any_of_its_writes_continues_with_the_id_that_it_printed() {
    let Some(scene) = Scene::set() else { return };
    let (code, _, said) = scene.run(&["import", "model", &scene.server.store_uri("whole")]);
    assert_eq!(code, Some(0), "{said}");
    let seen = scene.proxy.seen().into_iter().filter(|seen| is_write(&seen.operation));
    let parts: Vec<Part> = seen.map(|seen| seen.operation.part()).collect();
    assert_eq!(parts, [Part::Packs, Part::Log, Part::Log, Part::Manifests, Part::Log, Part::Log]);

    let mut told = Vec::new();
    for write in 0..parts.len() {
        let store = scene.server.store_uri(&format!("cut-{write}"));
        let held = scene.hold(write);
        let (code, said) = held.end(scene.start(&["import", "model", &store]), Signal::KILL);
        assert_eq!(code, None, "it was killed: {said}");
        let run = id(&said);

        let again = ["import", "model", &store, "--run", &run];
        let (code, _, said) = scene.run(&again);
        told.push(match code {
            Some(0) => "goes on",
            Some(2) if said.contains("--take-over") => {
                let (code, _, said) = scene.run(&[&again[..], &["--take-over"]].concat());
                assert_eq!(code, Some(0), "write {write}: {said}");
                "with --take-over"
            }
            Some(2) if said.contains("there is a run at") => "is there",
            _ => panic!("write {write}: {code:?}, {said}"),
        });
        let (code, verified, said) = scene.run(&["verify", &format!("{store}/{run}")]);
        assert_eq!(code, Some(0), "write {write}: {said}");
        assert!(verified.contains(&scene.stage.state), "write {write}: {verified}");
    }
    let held = "with --take-over";
    assert_eq!(told, ["goes on", "goes on", "goes on", held, held, "is there"]);
}

#[test]
fn an_interrupted_import_is_exit_code_75_and_leaves_no_run() {
    let Some(scene) = Scene::set() else { return };
    let store = scene.server.store_uri("runs");
    let held = scene.hold(0);
    let (code, said) = held.end(scene.start(&["import", "model", &store]), Signal::INT);
    let run = id(&said);
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("interrupted: no checkpoint was made"), "{said}");
    assert!(said.contains(&format!("the same command with --run {run} continues it")), "{said}");
    let (code, _, said) = scene.run(&["list", &format!("{store}/{run}")]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no run at"), "{said}");
}

#[test]
fn of_two_copies_at_the_same_time_one_stops_with_a_hint() {
    let Some(scene) = Scene::set() else { return };
    let store = scene.server.store_uri("twice");
    let copy = ["copy", "runs/r-test", &store];
    // The log's first entry and the term are written; this write is a pack.
    let held = scene.hold(2);
    let first = scene.start(&copy);
    held.reached.recv_timeout(Duration::from_secs(60)).expect("the copy comes to this write");
    let (code, said, error) = scene.run(&copy);
    assert_eq!(code, Some(0), "{said}{error}");
    held.release.send(()).unwrap();
    let first = first.wait_with_output().unwrap();
    let error = String::from_utf8(first.stderr).unwrap();
    assert_eq!(first.status.code(), Some(75), "{error}");
    assert!(error.contains("fenced: whimbrel checkpoint copy, process "), "{error}");
    assert!(error.contains("the same command"), "{error}");
    let (code, said, error) = scene.run(&copy);
    assert!(code == Some(0) && said.contains("nothing to copy: it is all there"), "{said}{error}");
}
