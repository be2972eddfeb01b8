//! Weights on the card, in the planes of their format.

use std::sync::Arc;

use gguf::{Format, TensorView};
use model::{Error, Result};
use pack::{Role, TILE_ROWS};

use crate::driver::{Context, Memory};
use crate::modules::FormatKernels;

/// Bytes of the file that are packed at a time.
const PIECE_BYTES: usize = 32 << 20;

/// Words of the planes' addresses in a kernel's parameters: quants, high bits, scales, scales of scales.
pub(crate) const PLANES: usize = 4;

/// A weight matrix.
pub struct CudaMatrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) planes: Planes,
    pub(crate) kernels: Arc<FormatKernels>,
}

/// The planes of one or more matrices of one shape, one after the other.
pub(crate) struct Planes {
    format: Format,
    cols: usize,
    memory: Vec<(Role, Memory)>,
    words: [u64; PLANES],
    bytes: u64,
}

impl Planes {
    /// Room for `matrices` of `rows x cols`. `what` names them in errors.
    pub fn new(
        context: &Arc<Context>,
        what: &str,
        format: Format,
        (rows, cols): (usize, usize),
        matrices: usize,
    ) -> Result<Self> {
        let (mut memory, mut words, mut bytes) = (Vec::new(), [0; PLANES], 0);
        for &plane in pack::planes_of(format) {
            let of_matrix = (plane.words_per_row_tile(cols) * rows.div_ceil(TILE_ROWS)) as u64;
            words[slot(plane.role)] = of_matrix;
            bytes += of_matrix * 4 * matrices as u64;
            memory.push((plane.role, Memory::new(context, what, of_matrix * 4 * matrices as u64)?));
        }
        Ok(Self { format, cols, memory, words, bytes })
    }

    /// Packs and writes a tensor whose rows begin at `first_row` of a matrix.
    pub fn write(&self, matrix: usize, first_row: usize, tensor: &TensorView<'_>) -> Result<()> {
        let row_bytes = tensor.data().len() / tensor.rows().max(1);
        let rows_per_piece = (PIECE_BYTES / row_bytes.max(1) / TILE_ROWS).max(1) * TILE_ROWS;
        let planes = pack::planes_of(self.format);
        for (piece, bytes) in tensor.data().chunks(rows_per_piece * row_bytes).enumerate() {
            let tile = (first_row + piece * rows_per_piece) / TILE_ROWS;
            let packed = pack::pack(self.format, bytes, self.cols);
            for ((plane, (role, memory)), (_, words)) in planes.iter().zip(&self.memory).zip(packed) {
                let start = matrix * self.words[slot(*role)] as usize;
                memory.write(4 * (start + tile * plane.words_per_row_tile(self.cols)), &words)?;
            }
        }
        Ok(())
    }

    /// The planes' addresses, null where the format has none.
    pub fn addresses(&self) -> [u64; PLANES] {
        let mut addresses = [0; PLANES];
        for (role, memory) in &self.memory {
            addresses[slot(*role)] = memory.address();
        }
        addresses
    }

    /// Words of one matrix, in each plane.
    pub fn words(&self) -> [u64; PLANES] {
        self.words
    }

    /// Bytes on the card.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn slot(role: Role) -> usize {
    match role {
        Role::Quants => 0,
        Role::High => 1,
        Role::Scales => 2,
        Role::Super => 3,
    }
}

impl CudaMatrix {
    /// Brings tensors of one format and as many columns to the card as one matrix. All but the last must have whole tiles of
    /// rows.
    pub(crate) fn load(
        context: &Arc<Context>,
        kernels: Arc<FormatKernels>,
        tensors: &[TensorView<'_>],
    ) -> Result<Self> {
        let (format, cols) = (tensors[0].format(), tensors[0].cols());
        let rows = tensors.iter().map(TensorView::rows).sum();
        let planes = Planes::new(context, tensors[0].name(), format, (rows, cols), 1)?;
        let mut first_row = 0;
        for tensor in tensors {
            planes.write(0, first_row, tensor)?;
            first_row += tensor.rows();
        }
        context.wait()?;
        Ok(Self { rows, cols, planes, kernels })
    }
}

/// A matrix for each expert.
pub(crate) struct ExpertMatrix {
    /// Of an expert.
    pub rows: usize,
    pub cols: usize,
    pub planes: Planes,
    pub kernels: Arc<FormatKernels>,
}

impl ExpertMatrix {
    /// Brings matrices of one format and shape to the card.
    ///
    /// # Errors
    /// When formats differ, or the card has no memory left.
    pub fn load(
        context: &Arc<Context>,
        kernels: Arc<FormatKernels>,
        experts: &[TensorView<'_>],
    ) -> Result<Self> {
        let first = &experts[0];
        let (format, rows, cols) = (first.format(), first.rows(), first.cols());
        if let Some(other) = experts.iter().find(|expert| expert.format() != format) {
            return Err(Error::InvalidValue {
                what: format!("format of {}", other.name()),
                expected: format!("{format}, that of {}", first.name()),
                found: other.format().to_string(),
            });
        }
        let planes = Planes::new(context, first.name(), format, (rows, cols), experts.len())?;
        for (expert, tensor) in experts.iter().enumerate() {
            planes.write(expert, 0, tensor)?;
        }
        context.wait()?;
        Ok(Self { rows, cols, planes, kernels })
    }
}
