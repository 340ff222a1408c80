//! What a training program links to be a Whimbrel worker.

mod trainer;

pub use trainer::{Context, Shard, Trainer, TrainerError};
pub use whimbrel_state::{Dtype, TensorMut, TensorSpec};
