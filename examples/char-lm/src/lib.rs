//! A character-level GPT that trains under Whimbrel: an example to start your own trainer from.
//!
//! ```text
//!   text ──► tokens ──► model ──► loss          trainer: all of this as a `whimbrel_worker::Trainer`
//!                         ▲  │
//!              parameters ┘  └► gradient ──►(summed over all workers)──► adamw ──► parameters
//! ```
//!
//! Start with [`trainer`], the only part that Whimbrel calls. The rest is a small language model, just large enough to
//! write English:
//!
//! - [`settings`]: the keys of `[train.settings]`;
//! - [`text`]: the data and its vocabulary;
//! - [`parameters`]: the position of each tensor in one flat buffer;
//! - [`model`] and [`attention`]: forward and backward pass, written by hand;
//! - [`matrix`] and [`math`]: matrix products and the other arithmetic;
//! - [`adamw`]: the optimizer;
//! - [`sample`]: generates text from a trained model;
//! - [`bare`]: the same training without Whimbrel, for comparison;
//! - [`random`]: a seeded generator.

pub mod adamw;
pub mod attention;
pub mod bare;
pub mod math;
pub mod matrix;
pub mod model;
pub mod parameters;
pub mod random;
pub mod sample;
pub mod settings;
pub mod text;
pub mod trainer;

pub use settings::Settings;
pub use trainer::CharLm;
