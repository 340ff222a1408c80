//! Checkpoints as the folders of models that other programs read and write: safetensors files, one or several, with
//! the index that Hugging Face's libraries know.
//!
//! ```text
//!  packs ──▶ verified bytes ──▶ export ──▶ model.safetensors, or shards and model.safetensors.index.json; run.toml
//!  packs ◀── save ◀── slices ◀── import ◀── the same, from anywhere
//! ```
//!
//! Both ways pass the bytes on as they come: memory is bounded by the packs under way, not by the model.
//!
//! - [`selection`]: which tensors, and their names on the other side;
//! - [`header`]: the header of a safetensors file; [`model`]: a folder to be read as one state;
//! - [`mod@import`]: making it a checkpoint; [`shards`], [`mod@export`]: and the other way.

pub mod export;
pub mod file_layout;
pub mod header;
pub mod import;
pub mod model;
pub mod selection;

pub use export::{ExportError, export};
pub use file_layout::{ShardError, Shards};
pub use header::{Header, HeaderError};
pub use import::{ImportError, ImportOptions, Imported, import};
pub use model::{Model, ModelError};
pub use selection::{Selection, SelectionError};

/// The one file of a model that fits into one.
pub const SINGLE: &str = "model.safetensors";

/// The file that says which tensor is in which file of a model of several.
pub const INDEX: &str = "model.safetensors.index.json";

/// The run spec in a folder that a checkpoint was exported to.
pub const SPEC: &str = "run.toml";

/// The keys of what an export says of itself among the texts of each file.
pub mod key {
    /// The run's name.
    pub const RUN: &str = "whimbrel.run";
    /// Steps applied to the state.
    pub const STEP: &str = "whimbrel.step";
    /// Samples in the data set.
    pub const SAMPLES: &str = "whimbrel.samples";
    /// The run's seed.
    pub const SEED: &str = "whimbrel.seed";
}
