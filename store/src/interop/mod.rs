//! Checkpoints as model folders that other programs read and write: one or several safetensors files, with the index
//! that Hugging Face's libraries use.
//!
//! ```text
//!  packs ──▶ verified bytes ──▶ export ──▶ model.safetensors, or several files and the index; run.toml
//!  packs ◀── save ◀── slices ◀── import ◀── the same, written by any program
//! ```
//!
//! Both directions stream: memory is bounded by the packs in flight, not by the model.
//!
//! - Out: [`Selection`] chooses and renames tensors, [`FileLayout`] assigns them to files, `export` writes the
//!   files. `whimbrel checkpoint export` calls these in this order.
//! - In: [`Model`] opens a folder as one state, `import` saves it as a checkpoint. `whimbrel checkpoint import`
//!   calls these.
//! - Both: [`Header`] is the header of one safetensors file, `names` are the file names and metadata keys.

mod export;
mod file_layout;
mod header;
mod import;
mod model;
mod names;
mod selection;

pub use export::{ExportError, export};
pub use file_layout::{FileLayout, FileLayoutError};
pub use header::{Header, HeaderError, StoredTensor};
pub use import::{ImportError, ImportOptions, Imported, import};
pub use model::{Model, ModelError};
pub use names::{INDEX, SINGLE, SPEC, key};
pub use selection::{Selection, SelectionError};
