//! The flat gradient, by the names of its tensors.

use whimbrel_state::{Dtype, TensorSpec};

/// Elements looked at together: enough for vector instructions, few enough to find the one at fault quickly.
const BLOCK: usize = 4096;

/// The tensors that the flat gradient holds one after another.
#[derive(Clone, Debug)]
pub(crate) struct Gradients {
    tensors: Vec<TensorSpec>,
    /// `ends[i]` is the element after the last one of tensor `i`.
    ends: Vec<usize>,
}

/// A gradient that cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GradientsError {
    /// Gradients are summed as `f32`.
    #[error("the gradient of {name:?} is {dtype:?}; gradients are summed as F32")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },
    /// The number of elements overflows.
    #[error("the gradient of {name:?} is too large to address")]
    TooLarge {
        /// The tensor.
        name: String,
    },
}

/// An element that is infinite or not a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nonfinite {
    /// The tensor it is in.
    pub(crate) tensor: String,
    /// Its index within the tensor, in row-major order.
    pub(crate) element: usize,
    pub(crate) value: f32,
}

impl Gradients {
    /// Lays out the tensors in the order given.
    pub(crate) fn new(tensors: Vec<TensorSpec>) -> Result<Self, GradientsError> {
        let mut ends = Vec::with_capacity(tensors.len());
        let mut end = 0_usize;
        for tensor in &tensors {
            let name = || tensor.name.clone();
            if tensor.dtype != Dtype::F32 {
                return Err(GradientsError::Dtype { name: name(), dtype: tensor.dtype });
            }
            let elements = tensor.checked_elements().and_then(|elements| end.checked_add(elements));
            end = elements.ok_or_else(|| GradientsError::TooLarge { name: name() })?;
            ends.push(end);
        }
        Ok(Self { tensors, ends })
    }

    /// Elements of the flat gradient.
    pub(crate) fn elements(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The first element of `sum` that is infinite or not a number.
    pub(crate) fn first_nonfinite(&self, sum: &[f32]) -> Option<Nonfinite> {
        let all_finite = |block: &[f32]| block.iter().fold(true, |finite, value| finite & value.is_finite());
        let block = sum.chunks(BLOCK).position(|block| !all_finite(block))?;
        let within = sum.iter().skip(block * BLOCK).position(|value| !value.is_finite())?;
        let index = block * BLOCK + within;
        let found = self.ends.partition_point(|&end| end <= index);
        let start = found.checked_sub(1).map_or(0, |before| self.ends[before]);
        let tensor = self.tensors.get(found)?.name.clone();
        Some(Nonfinite { tensor, element: index - start, value: sum[index] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_that_is_not_finite_is_named_by_its_tensor() {
        let tensors =
            vec![TensorSpec::f32("a", [3]), TensorSpec::f32("empty", [0]), TensorSpec::f32("b", [2, 5000])];
        let gradients = Gradients::new(tensors).unwrap();
        assert_eq!(gradients.elements(), 10_003);
        let mut sum = vec![1.0; 10_003];
        assert_eq!(gradients.first_nonfinite(&sum), None);
        for (place, tensor, element) in [(10_002, "b", 9_999), (4_096, "b", 4_093), (3, "b", 0), (2, "a", 2)]
        {
            sum[place] = f32::NEG_INFINITY;
            let expected = Nonfinite { tensor: tensor.into(), element, value: f32::NEG_INFINITY };
            assert_eq!(gradients.first_nonfinite(&sum), Some(expected));
        }
    }

    #[test]
    fn gradients_that_cannot_be_summed_are_refused() {
        let integers = TensorSpec { name: "n".into(), dtype: Dtype::I64, shape: vec![1] };
        assert!(matches!(Gradients::new(vec![integers]), Err(GradientsError::Dtype { .. })));
        let huge = vec![TensorSpec::f32("a", [usize::MAX]), TensorSpec::f32("b", [1])];
        assert_eq!(Gradients::new(huge).unwrap_err(), GradientsError::TooLarge { name: "b".into() });
    }
}
