//! The error of opening a store or a run.

use std::{io, path::PathBuf};

use whimbrel_plan::InvalidRunId;

/// A store, or a run in it, that cannot be opened. The `uri` in it is without anything that may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The scheme is not that of a store.
    #[error(
        "{uri:?} is not a store: {hint}; stores are s3://bucket/prefix, az://container/prefix, gs://bucket/prefix, file:///folder or a path"
    )]
    Scheme {
        /// The text given.
        uri: String,
        /// What may have been meant.
        hint: String,
    },
    /// The URI is malformed.
    #[error("{uri:?} is not a store: {why}")]
    Malformed {
        /// The text given.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// The folder does not exist and cannot be created, or cannot be entered.
    #[error("cannot use the folder {} as a store; name one that this user can read and write", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The cloud's client cannot be set up.
    #[error("cannot set up the client for {uri}; it takes its credentials from {looked_in}")]
    Client {
        /// The store.
        uri: String,
        /// Where the client looks for credentials.
        looked_in: &'static str,
        /// The client's error.
        source: object_store::Error,
    },
    /// The shared files of AWS's tools give no credentials.
    #[error("cannot get credentials for {uri}: {why}")]
    Credentials {
        /// The store.
        uri: String,
        /// What is missing, and what to do.
        why: String,
    },
    /// The connection to the store would cross a network without encryption.
    #[error(
        "{uri} would be reached at {endpoint} in clear text, credentials and data alike; give an https:// endpoint, or allow it with {variable}=true in the environment"
    )]
    ClearText {
        /// The store.
        uri: String,
        /// Its endpoint.
        endpoint: String,
        /// The variable that allows it.
        variable: &'static str,
    },
    /// The last segment is not a run's name.
    #[error("{uri:?} does not end in the name of a run")]
    Run {
        /// The text given.
        uri: String,
        /// Why it cannot be a name.
        source: InvalidRunId,
    },
    /// The text after the `@` is not a step.
    #[error("{step:?} in {uri:?} is not a step: write <store>/<run>@<number>, or leave the @ out")]
    Step {
        /// The text given.
        uri: String,
        /// The text after the `@`.
        step: String,
    },
}
