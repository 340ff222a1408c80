//! How far the values of two tensors of one type and shape are apart, element by element.

use half::{bf16, f16};
use whimbrel_state::Dtype;

/// How far the values of two tensors are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ValueDifference {
    /// Elements whose bits differ.
    pub elements: u64,
    /// The largest absolute difference of two finite elements.
    pub largest: f64,
    /// Elements that differ and of which at least one is infinite or not a number: they have no numeric difference.
    pub not_finite: u64,
}

impl ValueDifference {
    /// Adds the difference of another part of the same tensors.
    pub(super) fn add(&mut self, other: Self) {
        self.elements += other.elements;
        self.largest = self.largest.max(other.largest);
        self.not_finite += other.not_finite;
    }

    /// Counts the elements in `a` and `b`, which hold the same number of whole elements.
    pub(super) fn count(&mut self, dtype: Dtype, a: &[u8], b: &[u8]) {
        // Most bytes are equal, and comparing memory is faster than comparing elements.
        if a == b {
            return;
        }
        match dtype {
            Dtype::F64 => self.each(a, b, |a, b| f64::from_le_bytes(a) - f64::from_le_bytes(b)),
            Dtype::F32 => self.floats(a, b, |x| f32::from_le_bytes(x).into()),
            Dtype::F16 => self.floats(a, b, |x| f16::from_le_bytes(x).into()),
            Dtype::BF16 => self.floats(a, b, |x| bf16::from_le_bytes(x).into()),
            Dtype::F8_E5M2 => self.floats(a, b, |[x]| f16::from_bits(u16::from(x) << 8).into()),
            Dtype::F8_E4M3 => self.floats(a, b, |[x]| e4m3(x)),
            Dtype::I64 => self.integers(a, b, |x| i64::from_le_bytes(x).into()),
            Dtype::I32 => self.integers(a, b, |x| i32::from_le_bytes(x).into()),
            Dtype::I16 => self.integers(a, b, |x| i16::from_le_bytes(x).into()),
            Dtype::I8 => self.integers(a, b, |x| i8::from_le_bytes(x).into()),
            Dtype::U64 => self.integers(a, b, |x| u64::from_le_bytes(x).into()),
            Dtype::U32 => self.integers(a, b, |x| u32::from_le_bytes(x).into()),
            Dtype::U16 => self.integers(a, b, |x| u16::from_le_bytes(x).into()),
            Dtype::U8 | Dtype::BOOL => self.integers(a, b, |[x]| x.into()),
            // A type that was added to the state crate and not here has no numeric difference.
            _ => self.not_finite += a.iter().zip(b).filter(|(a, b)| a != b).count() as u64,
        }
    }

    fn floats<const N: usize>(&mut self, a: &[u8], b: &[u8], value: impl Fn([u8; N]) -> f64) {
        self.each(a, b, |a, b| value(a) - value(b));
    }

    fn integers<const N: usize>(&mut self, a: &[u8], b: &[u8], value: impl Fn([u8; N]) -> i128) {
        self.each(a, b, |a, b| (value(a) - value(b)) as f64);
    }

    fn each<const N: usize>(&mut self, a: &[u8], b: &[u8], distance: impl Fn([u8; N], [u8; N]) -> f64) {
        let (a, b) = (a.as_chunks::<N>().0, b.as_chunks::<N>().0);
        for (a, b) in a.iter().zip(b).filter(|(a, b)| a != b) {
            self.elements += 1;
            match distance(*a, *b).abs() {
                distance if distance.is_finite() => self.largest = self.largest.max(distance),
                _ => self.not_finite += 1,
            }
        }
    }
}

/// The value of an 8-bit float of 4 exponent and 3 mantissa bits and bias 7. It has no infinity; the two patterns with
/// all exponent and mantissa bits set are NaN.
fn e4m3(bits: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 0xf), f64::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (0xf, 7) => f64::NAN,
        (0, _) => mantissa / 8.0 * 2_f64.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2_f64.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference<const N: usize>(dtype: Dtype, a: &[[u8; N]], b: &[[u8; N]]) -> ValueDifference {
        let mut difference = ValueDifference::default();
        difference.count(dtype, a.as_flattened(), b.as_flattened());
        difference
    }

    #[test]
    fn elements_are_counted_by_bits_and_measured_by_value() {
        let bytes = |values: [f32; 4]| values.map(f32::to_le_bytes);
        let found = difference(Dtype::F32, &bytes([1.0, 0.0, 2.0, 5.0]), &bytes([1.0, -0.0, -1.5, f32::NAN]));
        assert_eq!(found, ValueDifference { elements: 3, largest: 3.5, not_finite: 1 });
        let found = difference(Dtype::I64, &[i64::MIN.to_le_bytes()], &[i64::MAX.to_le_bytes()]);
        assert_eq!(found, ValueDifference { elements: 1, largest: 2_f64.powi(64), not_finite: 0 });
        assert_eq!(
            difference(Dtype::U8, &[[3], [4]], &[[3], [1]]),
            ValueDifference { elements: 1, largest: 3.0, not_finite: 0 }
        );
    }

    #[test]
    fn one_and_two_differ_by_one_in_every_type() {
        for dtype in Dtype::ALL {
            let [one, two]: [Vec<u8>; 2] = match dtype {
                Dtype::F64 => [1_f64, 2.0].map(|x| x.to_le_bytes().to_vec()),
                Dtype::F32 => [1_f32, 2.0].map(|x| x.to_le_bytes().to_vec()),
                Dtype::F16 => [1.0, 2.0].map(|x| f16::from_f32(x).to_le_bytes().to_vec()),
                Dtype::BF16 => [1.0, 2.0].map(|x| bf16::from_f32(x).to_le_bytes().to_vec()),
                Dtype::F8_E4M3 => [vec![0x38], vec![0x40]],
                Dtype::F8_E5M2 => [vec![0x3c], vec![0x40]],
                _ => [1_u64, 2].map(|x| x.to_le_bytes()[..dtype.size()].to_vec()),
            };
            let mut found = ValueDifference::default();
            found.count(dtype, &one, &two);
            assert_eq!(found, ValueDifference { elements: 1, largest: 1.0, not_finite: 0 }, "{dtype:?}");
        }
        assert_eq!([e4m3(0x7e), e4m3(0x01), e4m3(0xc0)], [448.0, 2_f64.powi(-9), -2.0]);
        assert!(e4m3(0xff).is_nan());
    }
}
