//! The one trait a training program in Rust implements.

use std::{error::Error, fmt};

use serde::de::DeserializeOwned;
use whimbrel_state::{TensorMut, TensorSpec};

/// The error of a trainer. The coordinator replaces the worker and the run goes on, up to the run's `max_failures`. A
/// trainer that knows that the failure would come back wraps it with [`fatal`].
pub type TrainerError = Box<dyn Error + Send + Sync>;

/// Marks an error as one that would come back on any worker, such as a data set that does not fit the model. The
/// coordinator fails the run with it at once, and starts no other worker.
///
/// ```
/// # use whimbrel_worker::{TrainerError, fatal};
/// fn check(vocabulary: usize, embeddings: usize) -> Result<(), TrainerError> {
///     if vocabulary > embeddings {
///         return Err(fatal(format!("the data set has {vocabulary} tokens, the model {embeddings}")));
///     }
///     Ok(())
/// }
/// # assert_eq!(check(3, 2).unwrap_err().to_string(), "the data set has 3 tokens, the model 2");
/// ```
pub fn fatal(error: impl Into<TrainerError>) -> TrainerError {
    Box::new(Fatal(error.into()))
}

/// Whether `error`, or an error that it was caused by, is marked as [`fatal`].
pub(crate) fn is_fatal(error: &(dyn Error + 'static)) -> bool {
    error.is::<Fatal>() || error.source().is_some_and(is_fatal)
}

/// The mark of [`fatal`]: it reads as the error that it wraps.
#[derive(Debug)]
struct Fatal(TrainerError);

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Fatal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// What a program knows of its run when it builds its trainer.
#[derive(Clone, Debug)]
pub struct Context {
    /// The run's seed. The initial state must be a function of it and of the settings alone: every worker makes its own
    /// initial state, and all must be equal.
    pub seed: u64,
    /// Samples per step.
    pub global_batch: u32,
    /// Shards per step; each holds `global_batch / shards` samples.
    pub shards: u32,
    /// Steps of the whole run.
    pub steps: u64,
    /// Threads with which each worker computes. The bits can depend on it.
    pub threads: u32,
    /// The run spec's `[train.settings]`, as JSON.
    pub settings: serde_json::Value,
}

impl Context {
    /// The run spec's `[train.settings]` as the program's own type. The error names the key that does not fit.
    pub fn settings<S: DeserializeOwned>(&self) -> Result<S, TrainerError> {
        serde_json::from_value(self.settings.clone())
            .map_err(|error| format!("[train.settings]: {error}").into())
    }
}

/// A shard of a step: a fixed run of samples, the unit of work.
#[derive(Clone, Copy, Debug)]
pub struct Shard<'a> {
    /// The step, counted from 0.
    pub step: u64,
    /// The shard's number within the step.
    pub index: u32,
    /// Its samples, each an index into the data set, below [`Trainer::samples`].
    pub samples: &'a [u64],
}

/// A model being trained: its state, and the arithmetic of a shard and of an update.
///
/// The library calls [`shard`](Self::shard) for each shard that falls to this worker, sums the gradients over all
/// workers and hands the sum to [`apply`](Self::apply), the same bits on every worker. The promise of equal bits rests
/// on the trainer being deterministic: the same state and the same shard give the same gradient, on any worker,
/// whatever was computed before.
pub trait Trainer {
    /// The number of samples in the data set; not zero.
    fn samples(&self) -> u64;

    /// The tensors that the flat gradient buffer holds one after another, all of them `f32`. The names appear in
    /// errors (which tensor has the NaN); usually they are those of the parameters.
    fn gradients(&self) -> Vec<TensorSpec>;

    /// Everything that training needs to continue exactly where it was: parameters, optimizer moments, generator seeds.
    /// The library keeps the step. Same names, dtypes and shapes at every call.
    fn state(&mut self) -> Vec<TensorMut<'_>>;

    /// Forward and backward of one shard.
    ///
    /// Returns the shard's part of the step's mean loss: the sum of its samples' losses divided by
    /// [`Context::global_batch`]. Writes that part's gradient to `gradient`, every element of it: on entry it holds
    /// values of other shards.
    fn shard(&mut self, shard: &Shard<'_>, gradient: &mut [f32]) -> Result<f64, TrainerError>;

    /// Applies the update of step `step`, counted from 0, given the gradient of the step's mean loss.
    fn apply(&mut self, step: u64, gradient: &[f32]) -> Result<(), TrainerError>;

    /// Evaluates part `part` of `parts` of the validation data, and returns the part's contribution to the mean
    /// validation loss; the parts are added up. `None`, the default, where there is nothing to evaluate.
    fn evaluate(&mut self, part: u32, parts: u32) -> Result<Option<f64>, TrainerError> {
        let _ = (part, parts);
        Ok(None)
    }

    /// Tokens in a sample, where the program counts in tokens: then the run's speed is also reported in tokens per
    /// second. `None` is the default.
    fn tokens_per_sample(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use whimbrel_proto::with_causes;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the trainer failed")]
    struct Failed(#[source] TrainerError);

    #[test]
    fn a_fatal_error_is_found_among_the_causes_and_reads_as_what_it_wraps() {
        let cause = || Failed(io::Error::other("disk full").into());
        let plain = Failed(cause().into());
        let marked = Failed(fatal(cause()));
        assert_eq!((is_fatal(&plain), is_fatal(&marked)), (false, true));
        assert_eq!(with_causes(&marked), with_causes(&plain));
    }
}
