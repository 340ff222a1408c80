//! The requests that a run needs a store to grant.

/// A request that a run needs a store to grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To create objects.
    Create,
    /// Not to create an object that exists.
    CreateAgain,
    /// To read objects.
    Read,
    /// To list objects.
    List,
    /// To delete objects.
    Delete,
    /// To tell that an object does not exist.
    LookUp,
}

impl Need {
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Create => "create objects",
            Self::CreateAgain => "try to create an object that exists",
            Self::Read => "read objects",
            Self::List => "list objects",
            Self::Delete => "delete objects",
            Self::LookUp => "look objects up",
        }
    }
}
