//! What all servers have in common.

use std::{io, net::SocketAddr, path::Path};

/// The bucket, or container, that every server has when it has started.
pub const BUCKET: &str = "whimbrel";

/// An object-store server that runs for a test.
pub trait Server: Send + std::fmt::Debug {
    /// What it is, in a word.
    fn name(&self) -> &'static str;

    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// The URI of the store under `prefix` in the server's bucket.
    fn store_uri(&self, prefix: &str) -> String;

    /// The environment variables with which a program reaches it at `address`, which may be a proxy's.
    fn environment_at(&self, address: SocketAddr) -> Vec<(&'static str, String)>;

    /// The environment variables with which a program reaches it.
    fn environment(&self) -> Vec<(&'static str, String)> {
        self.environment_at(self.address())
    }

    /// The processes it consists of; none if it runs in this one.
    fn pids(&self) -> Vec<u32>;

    /// Where its data is; nothing if that is in this process's memory.
    fn data(&self) -> Option<&Path>;

    /// Stops it at once, by SIGKILL where it is a process, and leaves its data.
    fn kill(&mut self);

    /// Stops it at once and deletes its data: a provider that is lost.
    fn lose(&mut self) -> io::Result<()> {
        self.kill();
        match self.data() {
            Some(folder) => std::fs::remove_dir_all(folder),
            None => Ok(()),
        }
    }
}

/// A server that cannot be had on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{server} cannot be had here: {reason}")]
pub struct Unavailable {
    /// Which.
    pub server: &'static str,
    /// What stands in the way.
    pub reason: String,
}

/// Whether nothing that can be installed may be missing: `WHIMBREL_TESTBED=required`, as CI has it.
pub fn required() -> bool {
    std::env::var("WHIMBREL_TESTBED").is_ok_and(|word| word == "required")
}

/// The server, or nothing, saying so, where it cannot be had: the test then returns.
///
/// # Panics
/// With `WHIMBREL_TESTBED=required` in the environment, as CI has it, a server that cannot be had is a failure.
#[expect(clippy::print_stderr, reason = "a test that did not test says so where tests are read")]
#[expect(clippy::panic, reason = "only tests call it, and it is their failure")]
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
