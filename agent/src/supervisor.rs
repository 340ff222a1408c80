//! Starts and ends the processes of a node, each in a process group of its own.

use std::{
    collections::BTreeMap,
    env, io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use futures::future::join;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use whimbrel_proto::v1::{self, agent_message::Message};

use crate::output::{Tail, read};

/// Deadline of a run's `setup`.
const SETUP: Duration = Duration::from_secs(3600);
/// Deadline of reading the rest of the output of a process that has ended: another process may still hold it open.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The processes of a node, by run and worker; `setup` has the worker number 0.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Reports to the coordinator.
    messages: mpsc::UnboundedSender<Message>,
    processes: BTreeMap<(String, u64), Handle>,
    tasks: JoinSet<(String, u64)>,
}

/// Ends a process.
#[derive(Debug)]
struct Handle {
    /// Sends SIGTERM.
    terminate: CancellationToken,
    /// Sends SIGKILL. Also cancelled when the process has ended.
    kill: CancellationToken,
}

impl Supervisor {
    pub(crate) fn new(messages: mpsc::UnboundedSender<Message>) -> Self {
        Self { messages, processes: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Runs a run's `setup` in a shell, and reports how it ended.
    pub(crate) fn prepare(&mut self, prepare: v1::Prepare, workdir: &Path) {
        let v1::Prepare { run, setup, environment } = prepare;
        let mut command = Command::new("sh");
        command.arg("-c").arg(&setup).envs(environment).current_dir(workdir);
        let (begun, run_id) = (Instant::now(), run.clone());
        self.spawn(run.clone(), 0, command, move |ended, tail| match ended {
            Ok(_) if begun.elapsed() >= SETUP => {
                let reason =
                    format!("`{setup}` did not end within {} minutes, and was killed", SETUP.as_secs() / 60);
                Message::PrepareFailed(v1::PrepareFailed { run, reason, tail })
            }
            Ok(status) if status.success() => {
                Message::Prepared(v1::Prepared { run, seconds: begun.elapsed().as_secs_f64() })
            }
            Ok(status) => {
                let reason = format!("`{setup}` ended with {status}");
                Message::PrepareFailed(v1::PrepareFailed { run, reason, tail })
            }
            Err(error) => {
                let reason = format!("`{setup}` could not be run in a shell: {error}");
                Message::PrepareFailed(v1::PrepareFailed { run, reason, tail })
            }
        });
        self.kill_after(run_id, 0, SETUP);
    }

    /// Starts a worker, and reports its start and how it ended.
    pub(crate) fn start(
        &mut self,
        start: v1::StartWorker,
        workdir: &Path,
        environment: BTreeMap<String, String>,
    ) {
        let v1::StartWorker { run, worker, command: argv, environment: spec_environment } = start;
        let Some((program, arguments)) = argv.split_first() else {
            let how = Some(v1::worker_exited::How::StartError("the run's command is empty".into()));
            let exited = v1::WorkerExited { run, worker, how, tail: Vec::new() };
            // The session that reads this outlives the supervisor.
            self.messages.send(Message::WorkerExited(exited)).ok();
            return;
        };
        // A path is relative to the working directory; a bare name is searched for in PATH.
        let path = if program.contains('/') { workdir.join(program) } else { program.into() };
        let mut command = Command::new(path);
        // The output of a Python program must not wait in a buffer that a SIGKILL takes with it.
        command.env("PYTHONUNBUFFERED", "1");
        command.args(arguments).envs(spec_environment).envs(environment).current_dir(workdir);
        let (program, id) = (program.clone(), run.clone());
        self.spawn(run, worker, command, move |ended, tail| {
            use v1::worker_exited::How;
            let how = match ended {
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => How::Code(code),
                    (None, Some(signal)) => How::Signal(signal),
                    (None, None) => How::StartError(format!("it ended in an unknown way: {status}")),
                },
                Err(error) => How::StartError(format!("{program:?}: {error}")),
            };
            Message::WorkerExited(v1::WorkerExited { run: id, worker, how: Some(how), tail })
        });
    }

    /// Spawns a process and the task that watches it. `report` makes the last message about it.
    fn spawn(
        &mut self,
        run: String,
        worker: u64,
        mut command: Command,
        report: impl FnOnce(io::Result<ExitStatus>, Vec<String>) -> Message + Send + 'static,
    ) {
        let (terminate, kill) = (CancellationToken::new(), CancellationToken::new());
        let handle = Handle { terminate: terminate.clone(), kill: kill.clone() };
        if let Some(before) = self.processes.insert((run.clone(), worker), handle) {
            // The `setup` of a run that was released and has come back.
            before.kill.cancel();
        }
        for (name, _) in env::vars_os() {
            // Where `cargo run` started this program, these variables describe this package. A `setup` that calls cargo would
            // rebuild everything that reads them.
            if ["CARGO_PKG_", "CARGO_MANIFEST_"]
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: a Ctrl-C at the terminal does not reach it, and all that it starts ends with it.
        command.process_group(0).kill_on_drop(true);
        let messages = self.messages.clone();
        self.tasks.spawn(async move {
            let tail = Tail::default();
            let ended = match command.spawn() {
                Ok(child) => {
                    if let Some(pid) = child.id().filter(|_| worker != 0) {
                        let started = v1::WorkerStarted { run: run.clone(), worker, pid };
                        messages.send(Message::WorkerStarted(started)).ok();
                    }
                    let on_lines = |lines| {
                        let output = v1::Output { run: run.clone(), worker, lines };
                        messages.send(Message::Output(output)).ok();
                    };
                    wait(child, &terminate, &kill, &tail, on_lines).await
                }
                Err(error) => Err(error),
            };
            // Ends the task of `kill_after`.
            kill.cancel();
            messages.send(report(ended, tail.lines())).ok();
            (run, worker)
        });
    }

    /// Ends a process: SIGTERM, and SIGKILL after `grace`. A grace of zero is SIGKILL at once.
    pub(crate) fn stop(&mut self, run: &str, worker: u64, grace: Duration) {
        let Some(handle) = self.processes.get(&(run.to_owned(), worker)) else { return };
        if grace.is_zero() {
            handle.kill.cancel();
            return;
        }
        handle.terminate.cancel();
        self.kill_after(run.to_owned(), worker, grace);
    }

    /// Kills a process that has not ended after `grace`.
    fn kill_after(&mut self, run: String, worker: u64, grace: Duration) {
        let id = (run, worker);
        let Some(kill) = self.processes.get(&id).map(|handle| handle.kill.clone()) else { return };
        self.tasks.spawn(async move {
            tokio::select! {
                () = kill.cancelled() => {}
                () = tokio::time::sleep(grace) => kill.cancel(),
            }
            id
        });
    }

    /// Whether there is no process.
    pub(crate) fn is_idle(&self) -> bool {
        self.processes.is_empty()
    }

    /// Forgets the next process that ends; pending while there is none.
    pub(crate) async fn reap(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(id)) => {
                if self.processes.get(&id).is_some_and(|handle| handle.kill.is_cancelled()) {
                    self.processes.remove(&id);
                }
            }
            Some(Err(error)) => tracing::error!(%error, "the task that watches a process failed"),
            None => std::future::pending().await,
        }
    }

    /// Ends all processes and waits for their end.
    pub(crate) async fn end_all(&mut self, grace: Duration) {
        for (run, worker) in self.processes.keys().cloned().collect::<Vec<_>>() {
            self.stop(&run, worker, grace);
        }
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the task that watches a process failed");
            }
        }
        self.processes.clear();
    }
}

/// Waits for the end of a process, reads its output meanwhile, and sends it the signals that are asked for.
async fn wait(
    mut child: Child,
    terminate: &CancellationToken,
    kill: &CancellationToken,
    tail: &Tail,
    on_lines: impl Fn(Vec<String>),
) -> io::Result<ExitStatus> {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let signal = |signal| {
        if let Some(group) = group {
            // It may have just ended.
            kill_process_group(group, signal).ok();
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read_both = join(
        async {
            if let Some(stream) = stdout {
                read(stream, tail.clone(), &on_lines).await
            }
        },
        async {
            if let Some(stream) = stderr {
                read(stream, tail.clone(), &on_lines).await
            }
        },
    );
    tokio::pin!(read_both);
    let (mut reading, mut terminated, mut killed) = (true, false, false);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut read_both, if reading => reading = false,
            () = terminate.cancelled(), if !terminated => {
                terminated = true;
                signal(Signal::TERM);
            }
            () = kill.cancelled(), if !killed => {
                killed = true;
                signal(Signal::KILL);
            }
        }
    };
    // Ends the processes that it started and left.
    signal(Signal::KILL);
    if reading && timeout(LAST_LINES, read_both).await.is_err() {
        tracing::debug!("the output of a process stayed open after its end");
    }
    status
}
