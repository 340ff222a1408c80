//! The client's side of a connection to a coordinator. Agents, workers and the command line all connect through this
//! crate; the address format, the token header, the deadlines and the message limit are here and nowhere else.
//!
//! - [`Address`] is a parsed `HOST:PORT`.
//! - [`Access`] is what a program must know to call a coordinator: its address and its token.
//! - [`Access::connect`] opens a [`Connection`], from which each caller takes the gRPC client of its service.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use whimbrel_client::Access;
//! use whimbrel_proto::v1::ListRequest;
//!
//! let access = Access { address: "10.0.0.5:7070".parse()?, token: None };
//! let mut runs = access.connect().await?.runs();
//! println!("{} runs", runs.list(ListRequest {}).await?.into_inner().runs.len());
//! # Ok(())
//! # }
//! ```
//!
//! The wait for an answer is not bounded here: every rpc documents its own deadline, and its caller sets it.

mod address;
mod connection;

pub use address::{Address, InvalidAddress, PORT};
pub use connection::{Access, Authorized, Bearer, ConnectError, Connection};
