//! A server's process: starts it with a log, and stops it with everything that it started. The servers use it.
//!
//! # Why no process is left behind
//! Each process leads its own process group. In that group a small shell, the watcher, waits for the end of a pipe
//! whose other end only this program holds. However this program ends, even by SIGKILL, the pipe closes; the watcher
//! then deletes the server's folder and kills the group. This also covers a server in a `static`, which is never
//! dropped.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

/// Starts the watcher in the background, then replaces this shell with the server's program. The watcher kills the
/// server before it deletes the folder, so that the server writes nothing there meanwhile.
///
/// By then the group is orphaned. If one of its processes is stopped, for example by a test, the kernel sends SIGHUP to
/// the group, so the watcher ignores SIGHUP.
const WATCHED: &str = r#"
    exec 3<&0
    (trap '' HUP; read -r _ <&3; kill -KILL $$; rm -rf -- "$0"; kill -KILL 0) >/dev/null 2>&1 &
    exec 3<&- </dev/null
    exec "$@"
"#;

/// The time between two checks of a process.
const POLL: Duration = Duration::from_millis(50);

/// A running process with its log. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// The pipe that the watcher reads until it closes.
    _alive: Option<ChildStdin>,
}

impl Process {
    /// Starts `command` in `folder` and writes its output to `<name>.log` there. The folder must belong to the server
    /// alone: the watcher deletes it if this program ends without stopping the server.
    pub fn spawn(name: &str, command: &Command, folder: &Path) -> io::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let mut watched = Command::new("sh");
        watched.args(["-c", WATCHED]).arg(folder).arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => watched.env(variable, value),
                None => watched.env_remove(variable),
            };
        }
        watched.current_dir(folder).process_group(0).stdin(Stdio::piped());
        let mut child = watched.stdout(output.try_clone()?).stderr(output).spawn()?;
        let alive = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, log, _alive: alive })
    }

    /// The process id, which is also the id of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last 15 lines that it printed.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Fails with the last lines of output if the process has ended.
    pub fn check_running(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                Err(format!("{} ended with {status}; it printed:\n{}", self.name, self.log_tail()))
            }
            _ => Ok(()),
        }
    }

    /// Waits until `is_ready` returns true, for `deadline` at most. The error contains the last lines of output.
    pub fn wait_until(
        &mut self,
        deadline: Duration,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let start = Instant::now();
        while !is_ready() {
            self.check_running()?;
            if start.elapsed() > deadline {
                let (name, tail) = (&self.name, self.log_tail());
                return Err(format!("{name} does not answer after {deadline:?}; it printed:\n{tail}"));
            }
            pause();
        }
        Ok(())
    }

    /// Sends a signal to the process and every process that it started.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let group = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        Ok(kill_process_group(group.ok_or(io::ErrorKind::InvalidInput)?, signal)?)
    }

    /// Kills the process and every process that it started, and waits for its end.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        self.signal(Signal::KILL).ok();
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "another program sends no event when it is ready")]
fn pause() {
    std::thread::sleep(POLL);
}

/// Whether an HTTP server at `address` answers a request, with any status.
pub fn answers_http(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut start = [0_u8; 5];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/")
    };
    ask().unwrap_or(false)
}

/// Free ports of the loopback address, for a server that cannot choose its own. Another program may take one before the
/// server listens; the caller then tries again with others.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    // All listeners are held until all ports are known, so that no port is returned twice.
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// Runs a command to its end, for `deadline` at most, and returns its output. The error contains the last lines of it.
pub fn finished(command: &mut Command, deadline: Duration) -> Result<String, String> {
    let command_line = format!("{command:?}");
    let failed = |error: io::Error| format!("cannot run {command_line}: {error}");
    let mut output = tempfile::tempfile().map_err(failed)?;
    let writer = || output.try_clone().map_err(failed);
    let mut child =
        command.stdin(Stdio::null()).stdout(writer()?).stderr(writer()?).spawn().map_err(failed)?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if start.elapsed() > deadline => {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                return Err(format!("{command_line} took more than {deadline:?}"));
            }
            None => pause(),
        }
    };
    let mut printed = String::new();
    io::Seek::rewind(&mut output).map_err(failed)?;
    output.read_to_string(&mut printed).map_err(failed)?;
    match status.success() {
        true => Ok(printed),
        false => {
            let lines: Vec<&str> = printed.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            Err(format!("{command_line} ended with {status}: {tail}"))
        }
    }
}
