//! Reading packs: no byte leaves here that does not hash to its pack's name.

use std::ops::Range;

use bytes::Bytes;
use whimbrel_state::{Hash, Pack};

use crate::{
    folder::{Fetched, Folder, StoreError},
    pack,
};

/// A pack that the store does not have as it was put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPack {
    /// There is no such object.
    #[error("pack {pack} is not in the store")]
    Missing {
        /// The pack.
        pack: Hash,
    },
    /// Its bytes are not those that were put, as two reads found.
    #[error("pack {pack} is damaged: bytes {} to {} of it are not those that were put", bytes.start, bytes.end)]
    Damaged {
        /// The pack, whose name is the hash its bytes should have.
        pack: Hash,
        /// The first part found to be bad.
        bytes: Range<u64>,
    },
    /// Its length is not that of what was put.
    #[error("pack {pack} is damaged: it is {found} bytes long and should be {expected}")]
    WrongLength {
        /// The pack.
        pack: Hash,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes in the store.
        found: u64,
    },
}

impl BadPack {
    /// Which pack.
    pub fn pack(&self) -> Hash {
        let (Self::Missing { pack } | Self::Damaged { pack, .. } | Self::WrongLength { pack, .. }) = self;
        *pack
    }
}

/// Reads a pack, and hashes it off the async threads.
///
/// Reads carry no checksum of their own, so bytes that do not match are read once more: what the network did passes,
/// what the store did stays.
pub(crate) async fn fetch(folder: &Folder, pack: &Pack) -> Result<Result<Bytes, BadPack>, StoreError> {
    let name = pack::name(&pack.hash);
    let mut again = true;
    loop {
        let bad = match folder.get_whole(&name, pack.length).await? {
            Fetched::Missing => return Ok(Err(BadPack::Missing { pack: pack.hash })),
            Fetched::WrongLength(found) => {
                BadPack::WrongLength { pack: pack.hash, expected: pack.length, found }
            }
            Fetched::Whole(bytes) => {
                let hashed = tokio::task::spawn_blocking(move || (Hash::of(&bytes), bytes)).await;
                let cut_off = |source| StoreError::CutOff { object: folder.uri_of(&name), source };
                let (found, bytes) = hashed.map_err(cut_off)?;
                let length = bytes.len() as u64;
                if length != pack.length {
                    BadPack::WrongLength { pack: pack.hash, expected: pack.length, found: length }
                } else if found == pack.hash {
                    return Ok(Ok(bytes));
                } else {
                    BadPack::Damaged { pack: pack.hash, bytes: 0..pack.length }
                }
            }
        };
        if !std::mem::take(&mut again) {
            return Ok(Err(bad));
        }
        tracing::warn!(object = folder.uri_of(&name), %bad, "reading it again");
    }
}
