//! The digest of a state. Equal digests mean equal bits.

use crate::{hash::Hash, layout::Layout};

/// The BLAKE3 of a state after `step` steps.
///
/// The hash covers a first line `whimbrel state v1 step=<step>`, then for each tensor in canonical order a line with its
/// name, dtype and shape in JSON, followed by its bytes. It depends neither on which worker held the state nor on how it was
/// sliced or stored. `bytes_of` passes the bytes of tensor `index` to the sink, in any number of parts.
pub fn digest<E>(
    layout: &Layout,
    step: u64,
    mut bytes_of: impl FnMut(usize, &mut dyn FnMut(&[u8])) -> Result<(), E>,
) -> Result<Hash, E> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("whimbrel state v1 step={step}\n").as_bytes());
    for (index, tensor) in layout.tensors().iter().enumerate() {
        hasher.update(format!("[{:?},\"{:?}\",{:?}]\n", tensor.name, tensor.dtype, tensor.shape).as_bytes());
        bytes_of(index, &mut |bytes| {
            hasher.update(bytes);
        })?;
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::tensor::TensorSpec;

    fn digest_of(names: [&str; 2], step: u64, values: [&[u8]; 2]) -> Hash {
        let layout = Layout::new(names.map(|name| TensorSpec::f32(name, [1])).to_vec()).unwrap();
        let Ok(hash) = digest::<Infallible>(&layout, step, |index, sink| {
            values[index].chunks(3).for_each(sink);
            Ok(())
        });
        hash
    }

    #[test]
    fn bits_names_and_the_step_change_the_digest_and_chunks_do_not() {
        let base = digest_of(["a", "b"], 4, [&[0; 4], &[1; 4]]);
        assert_eq!(base, digest_of(["b", "a"], 4, [&[0; 4], &[1; 4]]));
        assert_ne!(base, digest_of(["a", "c"], 4, [&[0; 4], &[1; 4]]));
        assert_ne!(base, digest_of(["a", "b"], 5, [&[0; 4], &[1; 4]]));
        assert_ne!(base, digest_of(["a", "b"], 4, [&[0; 4], &[1, 1, 1, 0]]));
    }
}
