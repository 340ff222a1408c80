//! What a run trains: the data set, state and numerics class that its workers describe.

use whimbrel_plan::WorkerId;
use whimbrel_proto::{border::WireError, v1};
use whimbrel_state::{Fingerprint, Layout, LayoutError, TensorSpec, fingerprint};

/// A worker's description of its data set, state and device. That of the first worker holds for the run.
#[derive(Debug)]
pub(crate) struct Trained {
    /// Samples in the data set.
    pub(crate) samples: u64,
    /// What tells the data set apart from another one.
    pub(crate) fingerprint: Fingerprint,
    /// The state.
    pub(crate) layout: Layout,
    /// Equal bits are promised among workers of one numerics class.
    numerics: String,
    /// If the trainer counts in tokens.
    pub(crate) tokens_per_sample: Option<u64>,
}

/// A worker's description is invalid, or differs from that of the run's first worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescribeError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(
        "its data set has {here} samples and that of the other workers {there}: their steps would have different samples"
    )]
    Samples { there: u64, here: u64 },
    #[error(
        "its data set differs from that of the other workers in {difference}: their steps would have different samples; \
         give every node the same data, or write join(…, fingerprint=…) where samples are not the same each time"
    )]
    Fingerprint { difference: String },
    #[error("its trainer's state is invalid or is not that of the other workers: {0}")]
    Layout(#[from] LayoutError),
}

impl TryFrom<&v1::Ready> for Trained {
    type Error = DescribeError;

    fn try_from(ready: &v1::Ready) -> Result<Self, DescribeError> {
        let tensors: Vec<TensorSpec> =
            ready.layout.iter().cloned().map(TensorSpec::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            samples: ready.samples,
            fingerprint: ready.fingerprint.clone().into_iter().collect(),
            layout: Layout::new(tensors)?,
            numerics: ready.numerics.clone(),
            tokens_per_sample: ready.tokens_per_sample,
        })
    }
}

impl Trained {
    /// Checks that one more worker trains the same. Returns a warning if it is of another numerics class.
    pub(crate) fn accept(&mut self, worker: WorkerId, other: Self) -> Result<Option<String>, DescribeError> {
        self.tokens_per_sample = other.tokens_per_sample;
        if self.samples != other.samples {
            return Err(DescribeError::Samples { there: self.samples, here: other.samples });
        }
        if let Some(difference) = fingerprint::difference(&self.fingerprint, &other.fingerprint) {
            return Err(DescribeError::Fingerprint { difference });
        }
        self.layout.same_as(&other.layout)?;
        Ok((self.numerics != other.numerics).then(|| {
            format!(
                "worker {worker} is of numerics class {:?} and the run of {:?}: its sums may differ in the last bits, and \
                 the run's final state with them",
                other.numerics, self.numerics
            )
        }))
    }
}
