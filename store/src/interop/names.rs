//! The names that a model's folder is made of.

/// The file of a model that is one file.
pub const SINGLE: &str = "model.safetensors";

/// The index of a model of several files: it says which tensor is in which file.
pub const INDEX: &str = "model.safetensors.index.json";

/// The run spec in a folder to which a checkpoint was exported.
pub const SPEC: &str = "run.toml";

/// The keys under which an export describes itself in the metadata of each file.
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
