//! How two checkpoints differ, in whatever stores they are and however they are packed. `whimbrel checkpoint diff`
//! calls this.
//!
//! Tensors are compared by name. [`DiffPlan::new`] compares the manifests: `unequal_parts` finds the bytes that the
//! hashes of packs and blocks do not prove equal. [`DiffPlan::execute`] reads these bytes of both checkpoints,
//! verified, and `compare` compares them element by element, in bounded memory. `values` says how far elements are
//! apart.

mod compare;
mod plan;
mod unequal_parts;
mod values;

pub use plan::{DiffError, DiffPlan, Difference};
pub use values::ValueDifference;
