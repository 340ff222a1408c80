//! Stores: their URIs, their clients, and what their errors mean.
//!
//! | URI | store |
//! | --- | --- |
//! | `s3://bucket/prefix?endpoint=…&region=…&profile=…` | S3 and compatible servers; the options after the `?` may be left out |
//! | `az://container/prefix` | Azure Blob Storage; the account comes from the environment |
//! | `https://account.blob.core.windows.net/container/prefix` | the same with its account |
//! | `abfss://container@account.dfs.core.windows.net/prefix` | the same, as Hadoop writes it |
//! | `gs://bucket/prefix` | Google Cloud Storage |
//! | `file:///folder`, or a path | a local folder |
//!
//! A URI holds no secret. Credentials come from the [`Environment`] and from where each cloud's own tools keep them.
//!
//! Start with [`Store`]. A new provider is a file like `gcs.rs` (its URI and its client), a variant of
//! [`Location`](providers::Location), and its words in `advice.rs`.
//!
//! | file | is |
//! | --- | --- |
//! | `store` | an opened store |
//! | `providers` | which provider a URI belongs to |
//! | `s3/`, `azure`, `gcs`, `folder` | one provider each: its URI and its client |
//! | `uri_parts` | parsing that the providers share |
//! | `connection`, `credentials`, `environment` | client settings that the providers share |
//! | `probe`, `need` | checks whether a store meets the needs of a run |
//! | `refusal`, `advice` | what a cloud's refusal means, and what to do about it |
//! | `egress` | what copying out of a store costs |

mod advice;
mod azure;
mod connection;
mod credentials;
mod egress;
mod environment;
mod error;
mod folder;
mod gcs;
mod need;
mod probe;
mod providers;
mod refusal;
mod s3;
mod store;
mod uri_parts;

pub use egress::{Price, PriceError, Prices, egress_price};
pub use environment::Environment;
pub use error::OpenError;
pub use need::Need;
pub use probe::ProbeError;
pub(crate) use providers::Location;
pub use refusal::Refusal;
pub(crate) use store::IfMissing;
pub use store::Store;
pub(crate) use uri_parts::redacted;
