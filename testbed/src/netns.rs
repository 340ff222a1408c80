//! A slow link: a network namespace behind a pair of virtual interfaces with a limited rate.
//!
//! It needs root and iproute2's `ip` and `tc`. The kernel's token bucket (`tbf`) limits the rate in both directions. It
//! adds no delay; [`DelayProxy`](crate::proxy::DelayProxy) does.

use std::{
    net::Ipv4Addr,
    process::{Command, Output, id},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    install::from_debian,
    servers::{Unavailable, available},
};

/// Why this machine cannot make a slow link.
#[derive(Debug, thiserror::Error)]
pub enum NoLink {
    /// iproute2 is not available.
    #[error(transparent)]
    Tools(#[from] Unavailable),
    /// The machine does not permit it to this user. No installation changes that.
    #[error("this machine does not permit a network namespace with a slow link: {0}")]
    Forbidden(String),
}

/// Returns the link. If there is none, prints `SKIPPED:` with the reason and returns `None`; the test then returns.
///
/// # Panics
/// If iproute2 is not available and `WHIMBREL_TESTBED=required`. A machine that does not permit namespaces is no
/// failure.
pub fn linked(started: Result<SlowLink, NoLink>) -> Option<SlowLink> {
    match started {
        Ok(link) => Some(link),
        Err(NoLink::Tools(unavailable)) => available(Err(unavailable)),
        Err(forbidden @ NoLink::Forbidden(_)) => {
            eprintln!("SKIPPED: {forbidden}");
            None
        }
    }
}

/// A network namespace at the far end of a slow link. Dropping it deletes both.
#[derive(Debug)]
pub struct SlowLink {
    name: String,
    interface: String,
    here: Ipv4Addr,
}

/// The number of links that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

impl SlowLink {
    /// Makes a link of `megabits` per second in each direction.
    pub fn start(megabits: u32) -> Result<Self, NoLink> {
        if !rustix::process::geteuid().is_root() {
            return Err(NoLink::Forbidden("it needs root".into()));
        }
        from_debian(&["ip", "tc"], &["iproute2"])
            .map_err(|reason| Unavailable { server: "iproute2", reason })?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        // The name of an interface has at most 15 characters.
        let name = format!("wb{:x}n{number:x}", id());
        let (near, far) = (format!("{name}h"), format!("{name}t"));
        // Each link has the four addresses of a /30 network in a private range.
        let subnet =
            u32::from(Ipv4Addr::new(10, 213, 0, 0)) + ((id().wrapping_mul(16) + number) % 0x4000) * 4;
        let (here, there) = (Ipv4Addr::from(subnet + 1), Ipv4Addr::from(subnet + 2));
        run("ip", &["netns", "add", &name])?;
        // From here on, a failure drops the link, which deletes what was made.
        let link = Self { name: name.clone(), interface: near.clone(), here };
        run("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far])?;
        run("ip", &["link", "set", &far, "netns", &name])?;
        run("ip", &["addr", "add", &format!("{here}/30"), "dev", &near])?;
        run("ip", &["link", "set", &near, "up"])?;
        run("ip", &["-n", &name, "addr", "add", &format!("{there}/30"), "dev", &far])?;
        run("ip", &["-n", &name, "link", "set", &far, "up"])?;
        run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        let rate = format!("{megabits}mbit");
        // The burst must hold what the link passes within the kernel's longest tick, or the link does not reach its
        // rate. The queue of 400 ms is that of a home router.
        let burst = (u64::from(megabits) * 1_000_000 / 8 / 100).max(64 << 10).to_string();
        let bucket = ["root", "tbf", "rate", &rate, "burst", &burst, "latency", "400ms"];
        run("tc", &[&["qdisc", "add", "dev", &near][..], &bucket].concat())?;
        run("tc", &[&["-n", &name, "qdisc", "add", "dev", &far][..], &bucket].concat())?;
        Ok(link)
    }

    /// This machine's address as seen from the far end.
    pub fn here(&self) -> Ipv4Addr {
        self.here
    }

    /// A command that runs a program at the far end.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        // Deleting one interface of a pair deletes both. An error means that it was not made.
        run("ip", &["link", "del", &self.interface]).ok();
        run("ip", &["netns", "del", &self.name]).ok();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<Output, NoLink> {
    let command_line = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| NoLink::Forbidden(format!("{}: {error}", command_line())))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(NoLink::Forbidden(format!(
            "{}: {}",
            command_line(),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
