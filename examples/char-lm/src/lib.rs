//! A character-level GPT that trains under Whimbrel: the example to start a trainer of your own from.
//!
//! ```text
//!   text ──► tokens ──► model ──► loss          trainer: all of it as a `whimbrel_worker::Trainer`
//!                         ▲  │
//!              parameters ┘  └► gradient ──►(summed over all workers)──► adamw ──► parameters
//! ```
//!
//! Start with [`trainer`], which is all that Whimbrel sees. The rest is a language model as small as one can be and
//! still write English:
//!
//! - [`settings`]: what the run spec may set;
//! - [`text`]: the data, and the vocabulary it is written in;
//! - [`parameters`]: where each tensor lies in the one flat buffer;
//! - [`model`] and [`attention`]: forward and backward, by hand;
//! - [`matrix`] and [`math`]: the arithmetic they are made of;
//! - [`adamw`]: the optimizer;
//! - [`sample`]: text from what was learned;
//! - [`bare`]: the same training without Whimbrel, to compare with;
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
