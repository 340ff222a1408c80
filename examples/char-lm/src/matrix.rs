//! Matrices as views of slices, and their product. Only this file calls the `gemm` crate.

use std::ops::Range;

/// A matrix view of a slice of `f32`. Transposing it or selecting columns moves no data.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// The matrix of `rows` rows, stored one after another in `values`. `rows` is not zero.
pub fn matrix(values: &[f32], rows: usize) -> Matrix<'_> {
    let columns = values.len() / rows;
    Matrix { values, rows, columns, row_stride: columns, column_stride: 1 }
}

impl<'a> Matrix<'a> {
    /// The transpose.
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// A range of its columns.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(range.end <= self.columns, "columns {range:?} of {}", self.columns);
        let values = &self.values[range.start * self.column_stride..];
        Self { values, columns: range.len(), ..self }
    }

    /// The product with `right`, not computed yet.
    pub fn times(self, right: Matrix<'a>) -> Product<'a> {
        assert_eq!(self.columns, right.rows, "inner sizes of a product");
        Product { left: self, right, factor: 1.0 }
    }

    /// The number of slice elements from the first to the last element, both included.
    fn span(&self) -> usize {
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// A product that is not computed yet.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    left: Matrix<'a>,
    right: Matrix<'a>,
    factor: f32,
}

impl Product<'_> {
    /// The product times a number.
    pub fn scaled(self, factor: f32) -> Self {
        Self { factor, ..self }
    }
}

/// A mutable matrix view, the destination of a product. There may be gaps between its rows.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

/// The mutable matrix of `rows` rows, stored one after another in `values`.
pub fn matrix_mut(values: &mut [f32], rows: usize) -> MatrixMut<'_> {
    let columns = values.len() / rows;
    MatrixMut { values, rows, columns, row_stride: columns }
}

impl MatrixMut<'_> {
    /// A range of its columns.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(range.end <= self.columns, "columns {range:?} of {}", self.columns);
        Self { values: &mut self.values[range.start..], columns: range.len(), ..self }
    }

    /// Overwrites the matrix with a product.
    pub fn set(self, product: Product<'_>) {
        self.write(product, false);
    }

    /// Adds a product to the matrix.
    pub fn accumulate(self, product: Product<'_>) {
        self.write(product, true);
    }

    fn write(self, Product { left, right, factor }: Product<'_>, add: bool) {
        assert_eq!((self.rows, self.columns), (left.rows, right.columns), "shape of a product");
        assert!(left.span() <= left.values.len() && right.span() <= right.values.len());
        assert!((self.rows - 1) * self.row_stride + self.columns <= self.values.len());
        // SAFETY: each of the three matrices lies within its slice, as asserted above. The destination is borrowed
        // mutably, so it overlaps neither of the others.
        unsafe {
            gemm::gemm(
                left.rows,
                right.columns,
                left.columns,
                self.values.as_mut_ptr(),
                1,
                self.row_stride as isize,
                add,
                left.values.as_ptr(),
                left.column_stride as isize,
                left.row_stride as isize,
                right.values.as_ptr(),
                right.column_stride as isize,
                right.row_stride as isize,
                1.0,
                factor,
                false,
                false,
                false,
                // A worker drives one device, here one core. One thread also fixes the order of the sums.
                gemm::Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_and_strided_products_agree_with_the_definition() {
        // a is 2 × 3, b is 4 × 3. The product uses the last two columns of each.
        let a: Vec<f32> = (1..=6).map(|x| x as f32).collect();
        let b: Vec<f32> = (1..=12).map(|x| x as f32).collect();
        let mut c = vec![1.0; 2 * 6];
        let product = matrix(&a, 2).columns(1..3).times(matrix(&b, 4).columns(1..3).t());
        matrix_mut(&mut c, 2).columns(1..5).accumulate(product.scaled(10.0));
        let expected: Vec<f32> = [[2.0, 3.0], [5.0, 6.0]]
            .iter()
            .flat_map(|row| {
                let dots = b.chunks_exact(3).map(move |b| 1.0 + 10.0 * (row[0] * b[1] + row[1] * b[2]));
                [1.0].into_iter().chain(dots).chain([1.0]).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(c, expected);
    }
}
