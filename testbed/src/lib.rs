//! For tests: object-store servers that the tests install, start and stop themselves, and links that fail.
//!
//! | server | speaks | is |
//! | --- | --- | --- |
//! | [`Radosgw`] | S3 | Ceph's own gateway over a one-disk Ceph, from Debian's packages |
//! | [`Moto`] | S3 | moto's server, from PyPI: light, slow to read from, checks no credentials |
//! | [`Azurite`] | Azure Blob | Microsoft's emulator, from npm |
//! | [`GcsServer`] | GCS's XML API | **ours**, since no server to be had speaks it: it proves our client, not Google's service |
//! | [`LyingS3`] | S3 | ours: answers 200 to a create of what exists, as some servers do |
//!
//! All are a [`Server`]: it has the URI of a store, the environment that a program needs to open it, and it can be
//! killed and robbed of its data as a provider that is lost. Starting blocks until the server answers; dropping stops
//! it. A server whose tests die without dropping it stops by itself (see [`process`]).
//!
//! ```no_run
//! use whimbrel_testbed::{Radosgw, Server, available};
//!
//! // Prints `SKIPPED: …` and gives nothing where it cannot be installed, unless WHIMBREL_TESTBED=required.
//! let Some(server) = available(Radosgw::start()) else { return };
//! println!("{} with {:?}", server.store_uri("runs"), server.environment());
//! ```
//!
//! [`Python`] is no server but another program's eyes: the safetensors package that everybody else reads with.
//!
//! By hand, for a benchmark: `cargo run -p whimbrel-testbed -- radosgw`.
//!
//! [`proxy`] has proxies between a program and a store, one that fails at the operation it is told to and one that is far
//! away; [`netns`] a link of a bounded rate, into a network namespace of its own.

#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "for tests alone: what goes wrong is to fail the test, loudly"
)]
pub mod netns;
pub mod process;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "for tests alone: what goes wrong is to fail the test, loudly"
)]
pub mod proxy;
pub mod server;

mod azurite;
mod bucket;
mod gcs;
mod install;
mod listener;
mod lying_s3;
mod moto;
mod python;
mod radosgw;
mod signed;
mod xml_api;

pub use azurite::{Azurite, Sas};
pub use gcs::GcsServer;
pub use lying_s3::LyingS3;
pub use moto::Moto;
pub use python::Python;
pub use radosgw::{Radosgw, User};
pub use server::{Server, Unavailable, available, required};
pub use xml_api::Right;
