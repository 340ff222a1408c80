//! [`Server`], the trait of every test server, and what a test does if a server is not available.

use std::{io, net::SocketAddr, path::Path};

/// The bucket, or container, that every started server has.
pub const BUCKET: &str = "whimbrel";

/// An object-store server for a test.
pub trait Server: Send + std::fmt::Debug {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// The address at which it listens.
    fn address(&self) -> SocketAddr;

    /// The URI of the store under `prefix` in the server's bucket.
    fn store_uri(&self, prefix: &str) -> String;

    /// The environment variables with which a program reaches it at `address`, which may be the address of a proxy.
    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)>;

    /// The environment variables with which a program reaches it.
    fn environment(&self) -> Vec<(&'static str, String)> {
        self.environment_at(self.address())
    }

    /// The ids of its processes; none if it runs in this process.
    fn pids(&self) -> Vec<u32>;

    /// The folder with its data; `None` if the data is in this process's memory.
    fn data(&self) -> Option<&Path>;

    /// Stops it at once, by SIGKILL if it is a process, and keeps its data.
    fn kill(&mut self);

    /// Stops it at once and deletes its data, as if the provider were lost.
    fn lose(&mut self) -> io::Result<()> {
        self.kill();
        match self.data() {
            Some(folder) => std::fs::remove_dir_all(folder),
            None => Ok(()),
        }
    }
}

/// A server or tool that is not available on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{server} is not available here: {reason}")]
pub struct Unavailable {
    /// Its name.
    pub server: &'static str,
    /// Why it is not available.
    pub reason: String,
}

/// Whether a test must fail rather than skip if a server is not available: `WHIMBREL_TESTBED=required`, as CI sets it.
pub fn required() -> bool {
    std::env::var("WHIMBREL_TESTBED").is_ok_and(|word| word == "required")
}

/// Returns the server. If it is not available, prints `SKIPPED:` with the reason and returns `None`; the test then
/// returns.
///
/// # Panics
/// If the server is not available and `WHIMBREL_TESTBED=required`.
#[expect(clippy::print_stderr, reason = "a skipped test says so in its output")]
#[expect(clippy::panic, reason = "only tests call it, and the panic fails the test")]
pub fn available<S>(started: Result<S, Unavailable>) -> Option<S> {
    match started {
        Ok(server) => Some(server),
        Err(unavailable) if required() => {
            panic!("{unavailable}, and WHIMBREL_TESTBED=required")
        }
        Err(unavailable) => {
            eprintln!("SKIPPED: {unavailable}");
            None
        }
    }
}
