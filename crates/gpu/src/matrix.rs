//! Weight matrices on the device.

use std::sync::Arc;

use gguf::TensorView;
use model::{Error, Result};
use pack::TILE_ROWS;

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::product::ProductKernels;
use crate::recorder::Recorder;

/// Most bytes of weights that are on their way to the device at a time.
const STAGED_BYTES: usize = 128 << 20;

/// A weight matrix, in the planes of its format.
pub struct GpuMatrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Runs of whole tiles that the device can bind, in the order of their rows.
    pub(crate) slices: Vec<Slice>,
    pub(crate) kernels: Arc<ProductKernels>,
    pub(crate) bytes: u64,
}

/// Some rows of a matrix.
pub(crate) struct Slice {
    pub first_row: usize,
    pub rows: usize,
    /// In the order of the format's planes.
    pub planes: Vec<DeviceBuffer>,
}

impl GpuMatrix {
    /// Brings tensors of one format and as many columns to the device as one matrix. All but the last must have whole
    /// tiles of rows.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub(crate) fn load(
        gpu: &Gpu,
        recorder: &Arc<Recorder>,
        kernels: Arc<ProductKernels>,
        tensors: &[TensorView<'_>],
    ) -> Result<Self> {
        let (format, cols) = (tensors[0].format(), tensors[0].cols());
        let rows: usize = tensors.iter().map(TensorView::rows).sum();
        let limit = gpu.capabilities().max_binding_bytes as usize;
        let widest = pack::planes_of(format).iter().map(|plane| plane.words_per_row_tile(cols) * 4).max();
        let row_tile_bytes = widest.expect("a format has planes");
        let tiles = rows.div_ceil(TILE_ROWS);
        let tiles_per_slice = (limit / row_tile_bytes).min(tiles);
        if tiles_per_slice == 0 {
            return Err(Error::InvalidValue {
                what: format!("tensor {}: columns", tensors[0].name()),
                expected: format!("rows of 16 to fit the device's largest binding of {limit} bytes"),
                found: cols.to_string(),
            });
        }
        let mut bytes = 0;
        let mut slices = Vec::new();
        for first_tile in (0..tiles).step_by(tiles_per_slice) {
            let count = tiles_per_slice.min(tiles - first_tile);
            let planes = pack::planes_of(format)
                .iter()
                .map(|plane| {
                    let len = (plane.words_per_row_tile(cols) * 4 * count) as u64;
                    bytes += len;
                    DeviceBuffer::new(gpu, recorder, tensors[0].name(), len)
                })
                .collect::<Result<Vec<_>>>()?;
            let first_row = first_tile * TILE_ROWS;
            slices.push(Slice { first_row, rows: (count * TILE_ROWS).min(rows - first_row), planes });
        }
        let matrix = Self { rows, cols, slices, kernels, bytes };
        matrix.upload(gpu, tensors)?;
        Ok(matrix)
    }

    /// Packs and writes the tensors a piece at a time, waiting for a piece to arrive before too many are under way.
    fn upload(&self, gpu: &Gpu, tensors: &[TensorView<'_>]) -> Result<()> {
        let format = self.kernels.format;
        let row_bytes = self.bytes as usize / self.rows.div_ceil(TILE_ROWS);
        let tiles_per_piece = (STAGED_BYTES / 4 / row_bytes.max(1)).max(1);
        let mut staged = 0;
        for slice in &self.slices {
            let mut first_row = slice.first_row;
            let end = slice.first_row + slice.rows;
            while first_row < end {
                let (tensor, row) = tensor_of_row(tensors, first_row);
                let count = (tiles_per_piece * TILE_ROWS).min(end - first_row).min(tensor.rows() - row);
                let bytes = tensor.data().len() / tensor.rows();
                let data = &tensor.data()[row * bytes..][..count * bytes];
                let tile = (first_row - slice.first_row) / TILE_ROWS;
                let packed = pack::pack(format, data, self.cols);
                for ((plane, buffer), (_, words)) in
                    pack::planes_of(format).iter().zip(&slice.planes).zip(packed)
                {
                    let offset = (plane.words_per_row_tile(self.cols) * 4 * tile) as u64;
                    gpu.queue.write_buffer(&buffer.raw, offset, bytemuck::cast_slice(&words));
                    staged += words.len() * 4;
                }
                if staged >= STAGED_BYTES {
                    gpu.queue.submit([]);
                    gpu.wait()?;
                    staged = 0;
                }
                first_row += count;
            }
        }
        gpu.queue.submit([]);
        gpu.check()
    }
}

/// The tensor that holds a row of the stack, and the row's number in it.
fn tensor_of_row<'a, 'b>(tensors: &'a [TensorView<'b>], mut row: usize) -> (&'a TensorView<'b>, usize) {
    for tensor in tensors {
        if row < tensor.rows() {
            return (tensor, row);
        }
        row -= tensor.rows();
    }
    unreachable!("a row beyond the stack")
}
