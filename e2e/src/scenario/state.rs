//! The states that the scenarios save, each a function of its step, so that a restored state can be compared.

use std::ops::Range;

use whimbrel_state::{Dtype, Hash, Layout, TensorMut, TensorSpec, digest, tensor::Memory};

/// A state of a few tensors. Half of it is the same at every step, like frozen layers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) layout: Layout,
    pub(super) bytes: Vec<u8>,
}

impl State {
    /// The state of a step.
    pub(super) fn of(step: u64) -> Self {
        let tensor = |name: &str, dtype, shape: &[usize]| TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        };
        let tensors = vec![
            tensor("bias", Dtype::BF16, &[4, 9]),
            tensor("frozen", Dtype::F32, &[40]),
            tensor("trained", Dtype::F32, &[8, 5]),
        ];
        let mut state = Self { layout: Layout::new(tensors).unwrap(), bytes: Vec::new() };
        let is_frozen = |at: &usize| {
            let frozen = state.layout.tensors().iter().position(|spec| spec.name == "frozen");
            frozen.is_some_and(|index| state.layout.range_of(index).contains(at))
        };
        let byte =
            |at: usize| (at as u8).wrapping_mul(31).wrapping_add(if is_frozen(&at) { 0 } else { step as u8 });
        state.bytes = (0..state.layout.bytes()).map(byte).collect();
        state
    }

    /// A state with this layout and zero bytes.
    pub(super) fn blank(layout: &Layout) -> Self {
        Self { layout: layout.clone(), bytes: vec![0; layout.bytes()] }
    }

    /// One tensor of random bytes; the same bytes for the same size.
    pub(super) fn random(bytes: usize) -> Self {
        let layout = Layout::new(vec![TensorSpec::f32("weights", [bytes / 4])]).unwrap();
        let mut state = Self { bytes: vec![0; layout.bytes()], layout };
        fastrand::Rng::with_seed(7).fill(&mut state.bytes);
        state
    }

    pub(super) fn tensors(&mut self) -> Vec<TensorMut<'_>> {
        let mut rest = self.bytes.as_mut_slice();
        let mut tensors = Vec::new();
        for (index, spec) in self.layout.tensors().iter().enumerate() {
            let (memory, later) = rest.split_at_mut(self.layout.range_of(index).len());
            tensors.push(TensorMut { spec: spec.clone(), memory: Memory::Host(memory) });
            rest = later;
        }
        tensors
    }

    pub(super) fn digest(&self, step: u64) -> Hash {
        let Ok(hash) = digest::<std::convert::Infallible>(&self.layout, step, |index, sink| {
            sink(&self.bytes[self.range(index)]);
            Ok(())
        });
        hash
    }

    fn range(&self, index: usize) -> Range<usize> {
        self.layout.range_of(index)
    }
}
