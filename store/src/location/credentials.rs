//! Where a client gets its credentials: the error of a refused request names this source.

/// The source of a client's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CredentialSource {
    /// These variables.
    Environment(&'static str),
    /// A profile of AWS's shared files.
    Profile(String),
    /// The metadata service of the machine, since no other source was found.
    Machine,
    /// None needed, or not known.
    Unknown,
}
