//! Matrix products: how the work is cut so that weights are read once and activations stay near.
//!
//! A task takes a run of tiles, small enough for the second-level cache, and all tokens. It serves sixteen tokens at a
//! time; their sums for the whole run are kept while the columns pass in pieces for which the tokens' activations stay in the
//! first-level cache. How a product is cut never shows: an output's terms are added in the order of its columns, by
//! one thread.

use std::ops::Range;

use crate::activations::{ActBlock, group_start};
use crate::disjoint::Disjoint;
use crate::kernels::{Kernels, Piece, TileKernel, TileOut, Tokens};
use crate::matrix::CpuMatrix;
use crate::pool::ThreadPool;
use crate::tile::{BLOCK, MAX_TOKENS, TILE_ROWS};

/// Bytes of weights that a task keeps in the second-level cache while its tokens pass.
const TASK_BYTES: usize = 256 << 10;
/// Most tiles of a task: their sums for a group of tokens take 16 KiB.
const MAX_RUN: usize = 16;
/// Bytes of activations that stay in the first-level cache while a run's tiles pass. A column takes about two bytes a
/// token: one quantised, one for the scales and sums of its block.
const ACTIVATION_BYTES: usize = 16 << 10;

/// Tiles of a task: few enough for the cache and for every thread to find work, many enough to be worth a draw.
fn tiles_per_task(matrix: &CpuMatrix, threads: usize) -> usize {
    let by_cache = TASK_BYTES / matrix.tile_bytes.max(1);
    let by_balance = matrix.num_tiles() / (4 * threads);
    by_cache.min(by_balance).clamp(1, MAX_RUN)
}

/// The tokens of a product, `[rows, cols]`.
pub(crate) struct Input<'a> {
    pub rows: usize,
    pub cols: usize,
    pub values: &'a [f32],
    /// The same quantised, for parts that take it so, in the layout of [`crate::activations`].
    pub quantized: &'a [ActBlock],
}

/// `out[t] = parts * x[t] + bias`; `out` is `[rows, rows of all parts]`.
pub(crate) fn multiply(
    pool: &ThreadPool,
    kernels: &Kernels,
    parts: &[CpuMatrix],
    bias: Option<&[f32]>,
    input: &Input<'_>,
    out: &mut [f32],
) {
    for part in parts {
        assert_eq!(part.cols, input.cols, "matmul: inner dimension");
    }
    let out_cols = parts.iter().map(|part| part.rows).sum::<usize>();
    let out = &mut out[..input.rows * out_cols];
    let product = Product { kernels, input, bias, out_cols, out: Disjoint::new(out) };
    // The parts' tasks in one job, so that threads meet once.
    let threads = pool.num_threads();
    let num_tasks = |part: &CpuMatrix| part.num_tiles().div_ceil(tiles_per_task(part, threads));
    pool.run(parts.iter().map(num_tasks).sum(), |mut task| {
        let mut first_col = 0;
        for part in parts {
            if task < num_tasks(part) {
                let run = tiles_per_task(part, threads);
                let tiles = task * run..part.num_tiles().min((task + 1) * run);
                return product.multiply_tiles(part, tiles, first_col);
            }
            task -= num_tasks(part);
            first_col += part.rows;
        }
    });
}

/// A product under way: what every task of it shares.
struct Product<'a> {
    kernels: &'a Kernels,
    input: &'a Input<'a>,
    bias: Option<&'a [f32]>,
    out_cols: usize,
    out: Disjoint<'a, f32>,
}

impl Product<'_> {
    /// Multiplies a run of tiles with all tokens, a group of tokens at a time: their sums for the whole run are kept, and
    /// the columns pass in pieces for which the group's activations stay in the first-level cache. The run itself is
    /// small enough for the second-level cache, where the next group finds it.
    fn multiply_tiles(&self, part: &CpuMatrix, tiles: Range<usize>, first_col: usize) {
        for first in (0..self.input.rows).step_by(MAX_TOKENS) {
            let count = MAX_TOKENS.min(self.input.rows - first);
            let mut sums = [TileOut::default(); MAX_RUN];
            let piece = part.piece_cols(ACTIVATION_BYTES / (2 * count));
            for first_k in (0..part.cols).step_by(piece) {
                for (tile_idx, sums) in tiles.clone().zip(&mut sums) {
                    let (next_tile, next_k) = if tile_idx + 1 < tiles.end {
                        (tile_idx + 1, first_k)
                    } else if first_k + piece < part.cols {
                        (tiles.start, first_k + piece)
                    } else if first + count < self.input.rows || tiles.end == part.num_tiles() {
                        (tiles.start, 0)
                    } else {
                        // The thread's next run, as a rule.
                        (tiles.end, 0)
                    };
                    let weights = Piece {
                        bytes: part.piece(tile_idx, first_k, piece),
                        next: part.piece(next_tile, next_k, piece),
                    };
                    self.multiply_piece(part, &weights, (first, count), first_k, sums);
                }
            }
            for (tile_idx, sums) in tiles.clone().zip(&sums) {
                let row = tile_idx * TILE_ROWS;
                for (t, sums) in sums[..count].iter().enumerate() {
                    self.store(first + t, first_col + row, sums, TILE_ROWS.min(part.rows - row));
                }
            }
        }
    }

    fn multiply_piece(
        &self,
        part: &CpuMatrix,
        piece: &Piece<'_>,
        (first, count): (usize, usize),
        first_k: usize,
        sums: &mut TileOut,
    ) {
        match part.kernel {
            TileKernel::Quant(kernel) => {
                let values =
                    &self.input.quantized[group_start(first, part.cols / BLOCK) + first_k / BLOCK * count..];
                self.kernels.quant_tile(kernel, piece, Tokens { values, stride: count, count }, sums);
            }
            TileKernel::Float(kernel) => {
                let stride = part.cols;
                let values = &self.input.values[first * stride + first_k..];
                self.kernels.float_tile(kernel, piece, Tokens { values, stride, count }, sums);
            }
        }
    }

    fn store(&self, token: usize, col: usize, sums: &[f32; TILE_ROWS], rows: usize) {
        // SAFETY: a task writes the columns of its own tiles, and a job runs each task once; `multiply` gives every tile of
        // the stack columns of its own.
        let out = unsafe { self.out.slice(token * self.out_cols + col, rows) };
        // A whole tile's length is known here, which makes the copy one store instead of a call.
        match <&mut [f32; TILE_ROWS]>::try_from(&mut *out) {
            Ok(out) => *out = *sums,
            Err(_) => out.copy_from_slice(&sums[..rows]),
        }
        if let Some(bias) = self.bias {
            for (out, bias) in out.iter_mut().zip(&bias[col..]) {
                *out += bias;
            }
        }
    }
}
