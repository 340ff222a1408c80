//! Child processes that never outlive their test, and signals to processes.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, test_kill_process},
};

/// A child process. Its standard output is read line by line; its standard error is kept. Dropping it kills the
/// process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// A process id, as the type that signals take.
pub fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// Sends a signal to the process with this id, which may have ended already.
pub fn signal(id: u32, signal: Signal) {
    kill_process(pid(id), signal).ok();
}

/// Kills the process with this id, which need not be a child, and waits until it has ended.
pub fn kill(id: u32, within: Duration) {
    let Ok(process) = pidfd_open(pid(id), PidfdFlags::empty()) else { return };
    pidfd_send_signal(&process, Signal::KILL).ok();
    let within = Timespec::try_from(within).unwrap();
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&within)).unwrap();
    assert_eq!(ended, 1, "process {id} outlives SIGKILL");
}

/// Whether there is a process with this id.
pub fn lives(id: u32) -> bool {
    test_kill_process(pid(id)).is_ok()
}

impl Process {
    /// Starts a command with an empty standard input.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Starts a command that reads the lines that [`say`](Self::say) writes.
    pub fn start_with_input(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = channel();
        let errors = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&errors);
        let stderr_reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // An error means that the test reads no more.
                sender.send(line).ok();
            }
            drop(sender);
            stderr_reader.join().unwrap();
        });
        let input = child.stdin.take();
        Self { child, input, lines, errors, reader: Some(reader) }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input. The process may have ended already.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the process was started with an input");
        writeln!(input, "{line}").ok();
    }

    /// The next line of its standard output; `None` at the end. Panics if the deadline passes.
    pub fn line(&self, deadline: Instant) -> Option<String> {
        match self.line_or_late(deadline) {
            Ok(line) => line,
            Err(Late) => panic!("no line of output in time; standard error:\n{}", self.errors()),
        }
    }

    /// Like [`line`](Self::line), but returns [`Late`] if the deadline passes.
    pub fn line_or_late(&self, deadline: Instant) -> Result<Option<String>, Late> {
        let wait = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(wait) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Late),
        }
    }

    /// Its standard error until now.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.id()), signal).ok();
    }

    /// Waits until the process has ended and all its output is read.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        // Standard output closes when the process ends.
        while self.line(deadline).is_some() {}
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
