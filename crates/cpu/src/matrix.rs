//! Weight matrices on the CPU: tiles of 16 rows, repacked at load by all threads.

use gguf::{Format, TensorView};
use model::{Error, Result};

use crate::activations::Activations;
use crate::aligned::AlignedBytes;
use crate::disjoint::Disjoint;
use crate::kernels::{Kernels, TileKernel, unpack_row};
use crate::pack::pack_tile;
use crate::pool::ThreadPool;
use crate::tile::{BLOCK, TILE_ROWS, TileFormat, with_tile_format};

/// Weight matrices `[rows, cols]`, one, or one for each expert; rows padded with zeros to whole tiles.
pub struct CpuMatrix {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) tile_bytes: usize,
    pub(crate) kernel: TileKernel,
    tiles: AlignedBytes,
}

impl CpuMatrix {
    pub(crate) fn load(
        pool: &ThreadPool,
        kernels: &Kernels,
        activations: Activations,
        tensor: TensorView<'_>,
    ) -> Result<Self> {
        Self::load_experts(pool, kernels, activations, &[tensor])
    }

    /// Matrices of the same format and shape, one behind the other.
    pub(crate) fn load_experts(
        pool: &ThreadPool,
        kernels: &Kernels,
        activations: Activations,
        experts: &[TensorView<'_>],
    ) -> Result<Self> {
        let tensor = &experts[0];
        let (format, rows, cols) = (tensor.format(), tensor.rows(), tensor.cols());
        for other in experts {
            assert_eq!((other.rows(), other.cols()), (rows, cols), "experts have the same shapes");
            require_format(other, tensor)?;
        }
        let (tile_bytes, num_tiles) = (tile_bytes(format, cols), rows.div_ceil(TILE_ROWS));
        let len = experts.len() * num_tiles * tile_bytes;
        let mut tiles = AlignedBytes::zeroed(len).ok_or_else(|| Error::OutOfMemory {
            what: format!("weights of {}", tensor.name()),
            needed: len as u64,
        })?;
        let out = Disjoint::new(tiles.as_mut_slice());
        pool.run(experts.len() * num_tiles, |tile_idx| {
            let (tensor, first) = (&experts[tile_idx / num_tiles], tile_idx % num_tiles * TILE_ROWS);
            let count = TILE_ROWS.min(rows - first);
            let mut source: [&[u8]; TILE_ROWS] = [&[]; TILE_ROWS];
            for (i, row) in source[..count].iter_mut().enumerate() {
                *row = tensor.row(first + i);
            }
            // SAFETY: each task takes the range of its own tile, and a job runs each task once.
            let tile = unsafe { out.slice(tile_idx * tile_bytes, tile_bytes) };
            with_tile_format!(format, F => pack_tile::<F>(format, &source[..count], tile),
                _ => pack_float_tile(&source[..count], format.block_bytes(), tile));
        });
        Ok(Self { format, rows, cols, tile_bytes, kernel: kernels.tile_kernel(format, activations), tiles })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tiles.as_slice().len()
    }

    /// Tiles of one matrix.
    pub(crate) fn num_tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    pub(crate) fn tile(&self, tile_idx: usize) -> &[u8] {
        &self.tiles.as_slice()[tile_idx * self.tile_bytes..][..self.tile_bytes]
    }

    /// The most columns, at least one block, that are whole blocks and no more than `cols`.
    pub(crate) fn piece_cols(&self, cols: usize) -> usize {
        let block = self.format.block_len();
        (cols / block * block).clamp(block, self.cols.max(block))
    }

    /// At most `cols` columns of a tile from column `first` on; both whole blocks.
    pub(crate) fn piece(&self, tile_idx: usize, first: usize, cols: usize) -> &[u8] {
        let block = self.format.block_len();
        let block_bytes = self.tile_bytes / (self.cols / block);
        let end = self.cols.min(first + cols);
        &self.tile(tile_idx)[first / block * block_bytes..end / block * block_bytes]
    }

    /// Dequantises one row; `out: [cols]`. Bit for bit what the file's own dequantisation gives.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let (tile, lane) = (self.tile(row / TILE_ROWS), row % TILE_ROWS);
        with_tile_format!(self.format, F => unpack_row::<F>(tile, lane, out), _ => {
            let bytes = self.format.block_bytes();
            for (column, out) in tile.chunks_exact(TILE_ROWS * bytes).zip(out) {
                self.format.dequantize(&column[lane * bytes..][..bytes], std::slice::from_mut(out));
            }
        });
    }
}

/// An error that names both, if experts differ in format: one kernel serves them all.
fn require_format(expert: &TensorView<'_>, first: &TensorView<'_>) -> Result<()> {
    if expert.format() == first.format() {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: format!("format of {}", expert.name()),
        expected: format!("{}, that of {}", first.format(), first.name()),
        found: expert.format().to_string(),
    })
}

fn tile_bytes(format: Format, cols: usize) -> usize {
    with_tile_format!(format, F => cols / (BLOCK * F::RECORDS) * F::BYTES,
        _ => cols * TILE_ROWS * format.block_bytes())
}

/// Float weights of `bytes` bytes each: `[column][16 rows]`.
fn pack_float_tile(rows: &[&[u8]], bytes: usize, tile: &mut [u8]) {
    for (row, source) in rows.iter().enumerate() {
        for (column, weight) in tile.chunks_exact_mut(TILE_ROWS * bytes).zip(source.chunks_exact(bytes)) {
            column[row * bytes..][..bytes].copy_from_slice(weight);
        }
    }
}
