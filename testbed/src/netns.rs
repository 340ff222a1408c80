//! A link of few megabits, or of many: a network namespace behind a pair of virtual interfaces whose rate is bounded.
//!
//! It takes root and iproute2's `ip` and `tc`; the rate is bounded by the kernel's token bucket (`tbf`), in both
//! directions. Far away is another thing: for that there is [`DelayProxy`](crate::proxy::DelayProxy).

use std::{
    net::Ipv4Addr,
    process::{Command, Output, id},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    install::from_debian,
    server::{Unavailable, available},
};

/// Why there is no slow link on this machine.
#[derive(Debug, thiserror::Error)]
pub enum NoLink {
    /// iproute2 cannot be had.
    #[error(transparent)]
    Tools(#[from] Unavailable),
    /// The machine lets nobody, or not this user, make one. No installation changes that.
    #[error("no network namespace with a slow link can be made here: {0}")]
    Forbidden(String),
}

/// The link, or nothing, saying so, where there is none: the test then returns.
///
/// # Panics
/// With `WHIMBREL_TESTBED=required` in the environment, if iproute2 cannot be had. A machine that does not permit
/// namespaces is no failure.
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

/// A network namespace at the other end of a slow link. It goes when it is dropped.
#[derive(Debug)]
pub struct SlowLink {
    name: String,
    interface: String,
    here: Ipv4Addr,
}

/// Links made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

impl SlowLink {
    /// Makes a link of `megabits` per second each way.
    pub fn start(megabits: u32) -> Result<Self, NoLink> {
        if !rustix::process::geteuid().is_root() {
            return Err(NoLink::Forbidden("it takes root".into()));
        }
        from_debian(&["ip", "tc"], &["iproute2"])
            .map_err(|reason| Unavailable { server: "iproute2", reason })?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        // An interface's name has 15 characters at most.
        let name = format!("wb{:x}n{number:x}", id());
        let (near, far) = (format!("{name}h"), format!("{name}t"));
        // Four addresses of a /30 for each link, in a range that is private to this machine.
        let subnet =
            u32::from(Ipv4Addr::new(10, 213, 0, 0)) + ((id().wrapping_mul(16) + number) % 0x4000) * 4;
        let (here, there) = (Ipv4Addr::from(subnet + 1), Ipv4Addr::from(subnet + 2));
        run("ip", &["netns", "add", &name])?;
        // From here on what was made goes if something fails.
        let link = Self { name: name.clone(), interface: near.clone(), here };
        run("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far])?;
        run("ip", &["link", "set", &far, "netns", &name])?;
        run("ip", &["addr", "add", &format!("{here}/30"), "dev", &near])?;
        run("ip", &["link", "set", &near, "up"])?;
        run("ip", &["-n", &name, "addr", "add", &format!("{there}/30"), "dev", &far])?;
        run("ip", &["-n", &name, "link", "set", &far, "up"])?;
        run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        let rate = format!("{megabits}mbit");
        // At least what the link passes within the kernel's longest tick, or its rate is not reached. The queue of 400 ms
        // is a home router's.
        let burst = (u64::from(megabits) * 1_000_000 / 8 / 100).max(64 << 10).to_string();
        let bucket = ["root", "tbf", "rate", &rate, "burst", &burst, "latency", "400ms"];
        run("tc", &[&["qdisc", "add", "dev", &near][..], &bucket].concat())?;
        run("tc", &[&["-n", &name, "qdisc", "add", "dev", &far][..], &bucket].concat())?;
        Ok(link)
    }

    /// This machine's address, as programs at the other end know it.
    pub fn here(&self) -> Ipv4Addr {
        self.here
    }

    /// A program that is to run at the other end.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        // Deleting one of a pair deletes both; where it was not made there is nothing to delete.
        run("ip", &["link", "del", &self.interface]).ok();
        run("ip", &["netns", "del", &self.name]).ok();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<Output, NoLink> {
    let told = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| NoLink::Forbidden(format!("{}: {error}", told())))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            Err(NoLink::Forbidden(format!("{}: {}", told(), String::from_utf8_lossy(&output.stderr).trim())))
        }
    }
}
