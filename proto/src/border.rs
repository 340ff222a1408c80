//! Conversions between messages and the domain types that several programs share. An invalid message is refused with the
//! field's name.

use std::time::Duration;

use whimbrel_plan::{Generation, InvalidGeneration, Member, Origin, RunId, WorkerId};
use whimbrel_state::{Dtype, Hash, Pack, Piece, TensorSpec};

use crate::v1;

/// A message is invalid. Becomes the gRPC code INVALID_ARGUMENT.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A required field is missing.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field has an invalid value.
    #[error("field {0} is {1}")]
    Invalid(&'static str, String),
    /// Each field is valid, but they contradict each other.
    #[error(transparent)]
    Generation(#[from] InvalidGeneration),
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Parses the `run` field of a message.
pub fn run_id(text: &str) -> Result<RunId, WireError> {
    text.parse().map_err(|error| WireError::Invalid("run", format!("{error}")))
}

/// Reads a BLAKE3 hash from 32 bytes. `field` names the field in the error.
pub fn hash(field: &'static str, bytes: &[u8]) -> Result<Hash, WireError> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| WireError::Invalid(field, format!("{} bytes, not 32", bytes.len())))?;
    Ok(blake3::Hash::from_bytes(bytes).into())
}

/// Reads a duration in seconds. An invalid number counts as zero.
pub fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

impl From<&Generation> for v1::Generation {
    fn from(generation: &Generation) -> Self {
        use v1::generation::Origin as Wire;
        let origin = match &generation.origin {
            Origin::Initial => Wire::Initial(v1::InitialState {}),
            Origin::Checkpoint { step, manifest } => {
                Wire::Stored(v1::StoredState { step: *step, manifest: manifest.clone() })
            }
            Origin::Members { step } => Wire::Held(v1::HeldState { step: *step }),
        };
        let member = |member: &Member| v1::Member {
            worker: member.worker.0,
            address: member.address.to_string(),
            share: member.share,
            holds: member.holds,
        };
        Self {
            run: generation.run.to_string(),
            epoch: generation.epoch,
            number: generation.number,
            shards: generation.shards,
            members: generation.members.iter().map(member).collect(),
            origin: Some(origin),
            key: generation.key.to_vec(),
        }
    }
}

impl TryFrom<v1::Generation> for Generation {
    type Error = WireError;

    fn try_from(wire: v1::Generation) -> Result<Self, WireError> {
        use v1::generation::Origin as Wire;
        let origin = match wire.origin.ok_or(WireError::Missing("generation.origin"))? {
            Wire::Initial(v1::InitialState {}) => Origin::Initial,
            Wire::Stored(v1::StoredState { step, manifest }) => Origin::Checkpoint { step, manifest },
            Wire::Held(v1::HeldState { step }) => Origin::Members { step },
        };
        let members = wire.members.into_iter().map(Member::try_from).collect::<Result<_, _>>()?;
        let key = wire.key.try_into().map_err(|key: Vec<u8>| {
            WireError::Invalid("generation.key", format!("{} bytes, not 32", key.len()))
        })?;
        let (run, epoch, number, shards) = (run_id(&wire.run)?, wire.epoch, wire.number, wire.shards);
        let generation = Self { run, epoch, number, shards, origin, members, key };
        generation.check()?;
        Ok(generation)
    }
}

impl TryFrom<v1::Member> for Member {
    type Error = WireError;

    fn try_from(wire: v1::Member) -> Result<Self, WireError> {
        let address = wire
            .address
            .parse()
            .map_err(|_| WireError::Invalid("member.address", format!("{:?}, not IP:PORT", wire.address)))?;
        Ok(Self { worker: WorkerId(wire.worker), address, share: wire.share, holds: wire.holds })
    }
}

impl From<&Pack> for v1::Pack {
    fn from(pack: &Pack) -> Self {
        let piece =
            |piece: &Piece| v1::Piece { offset: piece.offset, start: piece.start, length: piece.length };
        Self {
            hash: pack.hash.as_bytes().to_vec(),
            length: pack.length,
            pieces: pack.pieces.iter().map(piece).collect(),
            blocks: pack.blocks.iter().map(|block| block.as_bytes().to_vec()).collect(),
        }
    }
}

impl TryFrom<v1::Pack> for Pack {
    type Error = WireError;

    fn try_from(wire: v1::Pack) -> Result<Self, WireError> {
        let piece = |wire: v1::Piece| Piece { offset: wire.offset, start: wire.start, length: wire.length };
        Ok(Self {
            hash: hash("pack.hash", &wire.hash)?,
            length: wire.length,
            pieces: wire.pieces.into_iter().map(piece).collect(),
            blocks: wire.blocks.iter().map(|block| hash("pack.blocks", block)).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&TensorSpec> for v1::Tensor {
    fn from(tensor: &TensorSpec) -> Self {
        let dtype = match tensor.dtype {
            Dtype::F32 => v1::Dtype::F32,
            Dtype::F64 => v1::Dtype::F64,
            Dtype::F16 => v1::Dtype::F16,
            Dtype::BF16 => v1::Dtype::Bf16,
            Dtype::I64 => v1::Dtype::I64,
            Dtype::I32 => v1::Dtype::I32,
            Dtype::U8 => v1::Dtype::U8,
            Dtype::BOOL => v1::Dtype::Bool,
            Dtype::I8 => v1::Dtype::I8,
            Dtype::F8_E4M3 => v1::Dtype::F8E4m3,
            Dtype::F8_E5M2 => v1::Dtype::F8E5m2,
            Dtype::I16 => v1::Dtype::I16,
            Dtype::U16 => v1::Dtype::U16,
            Dtype::U32 => v1::Dtype::U32,
            Dtype::U64 => v1::Dtype::U64,
            // A dtype that the state crate adds needs a number in the protocol first.
            _ => v1::Dtype::Unspecified,
        };
        let shape = tensor.shape.iter().map(|&size| size as u64).collect();
        Self { name: tensor.name.clone(), dtype: dtype.into(), shape }
    }
}

impl TryFrom<v1::Tensor> for TensorSpec {
    type Error = WireError;

    fn try_from(wire: v1::Tensor) -> Result<Self, WireError> {
        let dtype = match wire.dtype() {
            v1::Dtype::F32 => Dtype::F32,
            v1::Dtype::F64 => Dtype::F64,
            v1::Dtype::F16 => Dtype::F16,
            v1::Dtype::Bf16 => Dtype::BF16,
            v1::Dtype::I64 => Dtype::I64,
            v1::Dtype::I32 => Dtype::I32,
            v1::Dtype::U8 => Dtype::U8,
            v1::Dtype::Bool => Dtype::BOOL,
            v1::Dtype::I8 => Dtype::I8,
            v1::Dtype::F8E4m3 => Dtype::F8_E4M3,
            v1::Dtype::F8E5m2 => Dtype::F8_E5M2,
            v1::Dtype::I16 => Dtype::I16,
            v1::Dtype::U16 => Dtype::U16,
            v1::Dtype::U32 => Dtype::U32,
            v1::Dtype::U64 => Dtype::U64,
            v1::Dtype::Unspecified => {
                return Err(WireError::Invalid("tensor.dtype", format!("{} (unknown)", wire.dtype)));
            }
        };
        let size = |size: u64| {
            usize::try_from(size)
                .map_err(|_| WireError::Invalid("tensor.shape", format!("{size} (too large)")))
        };
        let shape = wire.shape.into_iter().map(size).collect::<Result<_, _>>()?;
        Ok(Self { name: wire.name, dtype, shape })
    }
}
