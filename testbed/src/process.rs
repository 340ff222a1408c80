//! A server's process: started with a log, watched, and stopped with everything it started.
//!
//! # Why no process is left behind
//! Each is the leader of a process group of its own, and in that group waits a small shell for the end of a pipe whose
//! other end only this program holds. Whatever ends this program, be it SIGKILL, the pipe ends with it, and the shell
//! deletes the server's folder and kills the group. A server in a `static`, which is never dropped, goes that way too.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// Runs the program that follows in place of this shell, after leaving behind one that waits for the pipe's end. The
/// server dies before its folder goes, so that it puts nothing there meanwhile.
///
/// The group is an orphan by then, and if something in it is stopped (by a test, say) the kernel hangs it up: the one that
/// waits has to survive that.
const WATCHED: &str = r#"
    exec 3<&0
    (trap '' HUP; read -r _ <&3; kill -KILL $$; rm -rf -- "$0"; kill -KILL 0) >/dev/null 2>&1 &
    exec 3<&- </dev/null
    exec "$@"
"#;

/// How often a server that is starting is asked.
const POLL: Duration = Duration::from_millis(50);

/// A running process with its log. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// The pipe whose end is the watch's signal.
    _alive: Option<ChildStdin>,
}

impl Process {
    /// Starts `command` in `folder`, where its output goes to `<name>.log`. The folder is the server's alone: it is
    /// deleted if this program ends without stopping the server.
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

    /// The process's id, which is that of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines that it printed.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Waits until `is_ready`, for `deadline` at most; the failure says what the process printed last.
    pub fn wait_until(
        &mut self,
        deadline: Duration,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let start = Instant::now();
        while !is_ready() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended with {status}; it printed:\n{}", self.name, self.log_tail()));
            }
            if start.elapsed() > deadline {
                let (name, tail) = (&self.name, self.log_tail());
                return Err(format!("{name} does not answer after {deadline:?}; it printed:\n{tail}"));
            }
            pause();
        }
        Ok(())
    }

    /// Sends a signal to the process and all that it started.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let group = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        Ok(kill_process_group(group.ok_or(io::ErrorKind::InvalidInput)?, signal)?)
    }

    /// Kills it with all that it started, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may be gone already, which is what is wanted.
        self.signal(Signal::KILL).ok();
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "another program's readiness is no event that comes to us")]
fn pause() {
    std::thread::sleep(POLL);
}

/// Whether an HTTP server answers there, whatever it answers.
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

/// Ports of the loopback address that nobody listened on a moment ago. Another program may be quicker: who needs them
/// for a server that cannot choose its own starts again with others then.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    // All are held until all are known, so that none comes twice.
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// A server that is one process, over a folder of its own.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
}

impl Running {
    /// Starts what `command` makes of a port and a folder, waits until it answers, and has `set_up` make its bucket.
    /// Somebody may take the port in between: it is tried twice.
    pub(crate) fn start(
        name: &str,
        command: impl Fn(u16, &Path) -> Command,
        set_up: impl Fn(SocketAddr) -> Result<(), String>,
    ) -> Result<Self, String> {
        let launch = || {
            let failed = |error: io::Error| error.to_string();
            let folder = TempDir::with_prefix(format!("whimbrel-{name}-")).map_err(failed)?;
            let [port] = free_ports().map_err(failed)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let command = command(port, folder.path());
            let mut process = Process::spawn(name, &command, folder.path()).map_err(failed)?;
            process.wait_until(Duration::from_secs(60), || answers_http(address))?;
            set_up(address)?;
            Ok(Self { process, address, folder })
        };
        launch().or_else(|_: String| launch())
    }
}

/// Runs a command to its end, within `deadline`, and returns what it printed; the failure says what that was.
pub fn finished(command: &mut Command, deadline: Duration) -> Result<String, String> {
    let told = format!("{command:?}");
    let failed = |error: io::Error| format!("cannot run {told}: {error}");
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
                return Err(format!("{told} took more than {deadline:?}"));
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
            Err(format!("{told} ended with {status}: {tail}"))
        }
    }
}
