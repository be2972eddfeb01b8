//! A tensor of an open file: its shape, format and bytes, borrowed from the mapping.

use std::fmt;
use std::ops::Range;

use crate::format::Format;
use crate::header::TensorRecord;

/// One tensor. A matrix of `rows x cols` weights, each row contiguous; dimensions beyond the second are
/// stacked rows.
///
/// The data is exactly `rows * row_bytes` long: that was checked when the file was opened.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    record: &'a TensorRecord,
    rows: usize,
    data: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// `file` is the file that the record was read from.
    pub(crate) fn new(record: &'a TensorRecord, file: &'a [u8]) -> Self {
        let rows = record.dims[1..].iter().product::<u64>() as usize;
        TensorView { record, rows, data: &file[record.data.clone()] }
    }

    /// Some of its rows, such as one of the matrices that are stacked in it.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn slice_rows(&self, rows: Range<usize>) -> TensorView<'a> {
        assert!(rows.end <= self.rows, "tensor {:?} has {} rows, not {rows:?}", self.name(), self.rows);
        let data = &self.data[rows.start * self.row_bytes()..rows.end * self.row_bytes()];
        TensorView { rows: rows.len(), data, ..*self }
    }

    /// The name, as in the file.
    pub fn name(&self) -> &'a str {
        &self.record.name
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.record.format
    }

    /// The stored bytes, row after row. They have the file's alignment at best, so read numbers from them as
    /// bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The dimensions in the file's order: `dims()[0]` is the length of a row. One to four of them, none
    /// zero. Those of the whole tensor, of whose rows this may be some.
    pub fn dims(&self) -> &'a [u64] {
        &self.record.dims
    }

    /// Number of rows: the product of all dimensions but the first; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of weights in a row, a multiple of the format's block length.
    pub fn cols(&self) -> usize {
        self.record.dims[0] as usize
    }

    /// Number of bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.cols() / self.format().block_len() * self.format().block_bytes()
    }

    /// The stored bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows(), "tensor {:?} has {} rows, not row {row}", self.name(), self.rows());
        &self.data[row * self.row_bytes()..][..self.row_bytes()]
    }

    /// All weights as `f32`, `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows() * self.cols()];
        self.format().dequantize(self.data, &mut out);
        out
    }

    /// One row as `f32`, `[cols]`.
    ///
    /// # Panics
    /// If there is no such row or `out` has another length.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        self.format().dequantize(self.row(row), out);
    }
}

/// The shape and format; the data is too long to print.
impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorView({:?} {} {:?})", self.name(), self.format(), self.dims())
    }
}
