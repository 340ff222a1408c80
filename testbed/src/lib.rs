//! For tests: object-store servers that the tests install, start and stop themselves; proxies that inject faults; slow
//! links.
//!
//! | server | API | what it is |
//! | --- | --- | --- |
//! | [`Radosgw`] | S3 | Ceph's gateway over a one-disk Ceph, from Debian's packages |
//! | [`Moto`] | S3 | moto's server, from PyPI: starts quickly, reads slowly, checks no credentials |
//! | [`Azurite`] | Azure Blob | Microsoft's emulator, from npm |
//! | [`GcsServer`] | GCS's XML API | **our own**, because no available server implements it: it tests our client, not Google's service |
//! | [`LyingS3`] | S3 | our own: answers 200 to a create of an existing object, as some servers do |
//!
//! Each is a [`Server`]: it has the URI of a store and the environment variables that a program needs to open it, and a
//! test can kill it and delete its data, as if the provider were lost. Starting blocks until the server answers.
//! Dropping stops it. A server whose test process dies without dropping it stops by itself (see [`process`]).
//!
//! ```no_run
//! use whimbrel_testbed::{Radosgw, Server, available};
//!
//! // If it cannot be installed, prints `SKIPPED: …` and returns None, or panics with WHIMBREL_TESTBED=required.
//! let Some(server) = available(Radosgw::start()) else { return };
//! println!("{} with {:?}", server.store_uri("runs"), server.environment());
//! ```
//!
//! To start a server by hand: `cargo run -p whimbrel-testbed -- radosgw`.
//!
//! - `servers/`: the servers;
//! - [`proxy`]: proxies between a program and a store, one that injects faults and one that adds delay;
//! - [`netns`]: a link of limited rate, into its own network namespace;
//! - [`process`]: processes that never outlive the test; `install`: installation from Debian, npm and PyPI;
//! - [`Python`]: the Python package safetensors, to read our files with; [`PyTorch`]: PyTorch, and this workspace's
//!   Python package.

#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "for tests only: a panic fails the test"
)]
pub mod netns;
pub mod process;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "for tests only: a panic fails the test"
)]
pub mod proxy;

mod install;
mod listener;
mod python;
mod pytorch;
mod servers;

pub use python::Python;
pub use pytorch::PyTorch;
pub use servers::{
    Azurite, BUCKET, GcsServer, LyingS3, Moto, Radosgw, Right, Sas, Server, Unavailable, User, available,
    required,
};
