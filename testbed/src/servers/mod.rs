//! Object-store servers for tests: one file for each, and their parts.
//!
//! | file | holds |
//! | --- | --- |
//! | `server.rs` | [`Server`], the trait of all; [`available`], which skips a test without one |
//! | `radosgw/`, `moto.rs`, `azurite.rs` | servers of others, as processes; `single_process.rs` starts the last two |
//! | `gcs.rs`, `lying_s3.rs` | our servers, as threads of the test's process |
//! | `xml_api.rs`, `bucket.rs` | the API and the memory of our servers |
//! | `s3.rs`, `signed.rs` | the environment of an S3 client; signed requests that create buckets and policies |

mod azurite;
mod bucket;
mod gcs;
mod lying_s3;
mod moto;
mod radosgw;
mod s3;
mod server;
mod signed;
mod single_process;
mod xml_api;

pub use azurite::{Azurite, Sas};
pub use gcs::GcsServer;
pub use lying_s3::LyingS3;
pub use moto::Moto;
pub use radosgw::{Radosgw, User};
pub use server::{BUCKET, Server, Unavailable, available, required};
pub use xml_api::Right;
