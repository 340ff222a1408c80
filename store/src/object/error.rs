//! The error of every request to a store: what was tried, on which object, and what the store answered.

use std::time::Duration;

use object_store::Error;

/// A request that a store did not grant, after all attempts.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store refused the request.
    #[error("cannot {verb} {object}")]
    Refused {
        /// What was tried, e.g. `read`.
        verb: &'static str,
        /// The object's URI.
        object: String,
        /// The store's answer.
        source: Error,
    },
    /// The store did not answer.
    #[error(
        "cannot {verb} {object}: no answer within {deadline:?}, the deadline for it, in any of {attempts} attempts"
    )]
    Silent {
        /// What was tried.
        verb: &'static str,
        /// The object's URI.
        object: String,
        /// How long each attempt was given.
        deadline: Duration,
        /// How many were made.
        attempts: u32,
    },
    /// The object is longer than any object of its kind can be. It was not read.
    #[error(
        "{object} is {length} bytes long, and nothing of its kind has more than {most}: it was overwritten"
    )]
    TooLong {
        /// The object's URI.
        object: String,
        /// Its length in bytes.
        length: u64,
        /// The most bytes that an object of its kind may have.
        most: u64,
    },
    /// The operating system gave no random numbers.
    #[error("cannot draw the random name of a write")]
    Random(#[source] getrandom::Error),
    /// The task of the request did not complete: the runtime is shutting down, or the task panicked, which is a defect.
    #[error("the work on {object} was cut off")]
    CutOff {
        /// The object's URI.
        object: String,
        /// How it ended.
        source: tokio::task::JoinError,
    },
}
