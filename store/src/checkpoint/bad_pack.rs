//! What can be wrong with a pack in a store.

use std::ops::Range;

use whimbrel_state::Hash;

use crate::object::StoreError;

/// A pack that is missing or damaged in a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPack {
    /// There is no such object.
    #[error("pack {pack} is not in the store")]
    Missing {
        /// The pack.
        pack: Hash,
    },
    /// Two reads returned other bytes than were put.
    #[error("pack {pack} is damaged: bytes {} to {} of it are not those that were put", bytes.start, bytes.end)]
    Damaged {
        /// The pack. Its name is the hash that its bytes should have.
        pack: Hash,
        /// The first damaged block, in bytes of the pack.
        bytes: Range<u64>,
    },
    /// The object has another length than was put.
    #[error("pack {pack} is damaged: it is {found} bytes long and should be {expected}")]
    WrongLength {
        /// The pack.
        pack: Hash,
        /// Its length by the manifest, in bytes.
        expected: u64,
        /// Its length in the store, in bytes.
        found: u64,
    },
}

impl BadPack {
    /// The pack.
    pub fn pack(&self) -> Hash {
        let (Self::Missing { pack } | Self::Damaged { pack, .. } | Self::WrongLength { pack, .. }) = self;
        *pack
    }
}

/// Why a pack, or a part of it, was not read.
#[derive(Debug)]
pub(crate) enum ReadPackError {
    /// The pack is missing or damaged.
    Bad(BadPack),
    /// A request failed. The pack may be good.
    Store(StoreError),
}

impl From<StoreError> for ReadPackError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
