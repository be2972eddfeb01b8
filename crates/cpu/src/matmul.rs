//! Matrix products: how the work is cut so that weights are read once and activations stay near.
//!
//! A task takes a run of tiles, small enough for the second-level cache, and all tokens. It serves sixteen tokens at a
//! time; their sums for the whole run are kept while the columns pass in pieces for which the tokens' activations stay in the
//! first-level cache. How a product is cut never shows: an output's terms are added in the order of its columns, by
//! one thread.

use std::ops::Range;

use crate::activations::{ActBlock, Quantized};
use crate::disjoint::Disjoint;
use crate::kernels::{Kernels, Piece, TileKernel, TileOut, Tokens};
use crate::matrix::CpuMatrix;
use crate::pool::ThreadPool;
use crate::tile::{BLOCK, MAX_TOKENS, TILE_ROWS};

/// Bytes of weights that a task keeps in the second-level cache while its tokens pass.
const TASK_BYTES: usize = 256 << 10;
/// Most tiles of a task: their sums for a group of tokens take 16 KiB.
const MAX_RUN: usize = 16;
/// Bytes of activations that stay in the first-level cache while a run's tiles pass.
const ACTIVATION_BYTES: usize = 16 << 10;

/// Tiles of a task: few enough for the cache and for every thread to find work, many enough to be worth a draw. `matrices` are
/// multiplied in one job.
fn tiles_per_task(matrix: &CpuMatrix, matrices: usize, threads: usize) -> usize {
    let by_cache = TASK_BYTES / matrix.tile_bytes.max(1);
    let by_balance = matrices * matrix.num_tiles() / (4 * threads);
    by_cache.min(by_balance).clamp(1, MAX_RUN)
}

/// Tasks of one matrix.
fn num_tasks(matrix: &CpuMatrix, matrices: usize, threads: usize) -> usize {
    matrix.num_tiles().div_ceil(tiles_per_task(matrix, matrices, threads))
}

/// The tokens of a product, `[rows, cols]`.
pub(crate) struct Input<'a> {
    pub rows: usize,
    pub cols: usize,
    pub values: &'a [f32],
    /// The same quantised, for parts that take it so.
    pub quantized: &'a Quantized,
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
    let product = Product { kernels, input, bias, order: None, out_cols, out: &Disjoint::new(out) };
    // The parts' tasks in one job, so that threads meet once.
    let threads = pool.num_threads();
    let num_tasks = |part: &CpuMatrix| num_tasks(part, 1, threads);
    pool.run(parts.iter().map(num_tasks).sum(), |mut task| {
        let mut first_col = 0;
        for part in parts {
            if task < num_tasks(part) {
                let run = tiles_per_task(part, 1, threads);
                let tiles = task * run..part.num_tiles().min((task + 1) * run);
                return product.multiply_tiles(part, (0, tiles), first_col, 0..input.rows);
            }
            task -= num_tasks(part);
            first_col += part.rows;
        }
    });
}

/// Rows that are multiplied with one expert's weights: places in [`Order::pairs`].
pub(crate) struct ExpertRows {
    pub expert: usize,
    pub places: Range<usize>,
}

/// The pairs of tokens and experts in the order in which they are multiplied, an expert's together.
pub(crate) struct Order<'a> {
    pub pairs: &'a [u32],
    /// Pairs that share a row of the input.
    pub pairs_per_row: usize,
    /// The experts that have pairs.
    pub experts: &'a [ExpertRows],
}

impl Order<'_> {
    /// The input's row of a place.
    pub fn source(&self, place: usize) -> usize {
        self.pairs[place] as usize / self.pairs_per_row
    }
}

/// `out[pair] = parts[expert] * x[row of the pair] + bias[expert]`; `parts` have a matrix for each expert, and `out` is
/// `[pairs, rows of all parts]`. `input` has its quantised rows by place, an expert's in groups of their own.
pub(crate) fn multiply_experts(
    pool: &ThreadPool,
    kernels: &Kernels,
    parts: &[CpuMatrix],
    bias: Option<&[f32]>,
    (input, order): (&Input<'_>, &Order<'_>),
    out: &mut [f32],
) {
    for part in parts {
        assert_eq!(part.cols, input.cols, "matmul of experts: inner dimension");
    }
    let out_cols = parts.iter().map(|part| part.rows).sum::<usize>();
    let out = &mut out[..order.pairs.len() * out_cols];
    let (threads, matrices) = (pool.num_threads(), order.experts.len());
    let of_part = |part: &CpuMatrix| num_tasks(part, matrices, threads);
    let of_expert = parts.iter().map(of_part).sum::<usize>();
    let out = Disjoint::new(out);
    pool.run(matrices * of_expert, |task| {
        let (ExpertRows { expert, places }, mut task) = (&order.experts[task / of_expert], task % of_expert);
        let bias = bias.map(|bias| &bias[expert * out_cols..][..out_cols]);
        let product = Product { kernels, input, bias, order: Some(order), out_cols, out: &out };
        let mut first_col = 0;
        for part in parts {
            if task < of_part(part) {
                let run = tiles_per_task(part, matrices, threads);
                let tiles = task * run..part.num_tiles().min((task + 1) * run);
                return product.multiply_tiles(part, (*expert, tiles), first_col, places.clone());
            }
            task -= of_part(part);
            first_col += part.rows;
        }
    });
}

/// A product under way: what every task of it shares.
struct Product<'a> {
    kernels: &'a Kernels,
    input: &'a Input<'a>,
    bias: Option<&'a [f32]>,
    /// Where rows are taken from and put; `None` if they stay where they are.
    order: Option<&'a Order<'a>>,
    out_cols: usize,
    out: &'a Disjoint<'a, f32>,
}

impl Product<'_> {
    /// Multiplies a run of tiles of one expert's matrix with these rows, a group of tokens at a time: their sums for the whole run are kept, and
    /// the columns pass in pieces for which the group's activations stay in the first-level cache. The run itself is
    /// small enough for the second-level cache, where the next group finds it.
    fn multiply_tiles(
        &self,
        part: &CpuMatrix,
        (expert, tiles): (usize, Range<usize>),
        first_col: usize,
        rows: Range<usize>,
    ) {
        let first_tile = expert * part.num_tiles();
        for first in rows.clone().step_by(MAX_TOKENS) {
            let count = MAX_TOKENS.min(rows.end - first);
            let mut sums = [TileOut::default(); MAX_RUN];
            let piece = part.piece_cols(ACTIVATION_BYTES / (part.kernel.bytes_per_column() * count));
            for first_k in (0..part.cols).step_by(piece) {
                for (tile_idx, sums) in tiles.clone().zip(&mut sums) {
                    let (next_tile, next_k) = if tile_idx + 1 < tiles.end {
                        (tile_idx + 1, first_k)
                    } else if first_k + piece < part.cols {
                        (tiles.start, first_k + piece)
                    } else if first + count < rows.end || tiles.end == part.num_tiles() {
                        (tiles.start, 0)
                    } else {
                        // The thread's next run, as a rule.
                        (tiles.end, 0)
                    };
                    let weights = Piece {
                        bytes: part.piece(first_tile + tile_idx, first_k, piece),
                        next: part.piece(first_tile + next_tile, next_k, piece),
                    };
                    self.multiply_piece(part, &weights, (first, count), first_k, sums);
                }
            }
            for (tile_idx, sums) in tiles.clone().zip(&sums) {
                let tile_row = tile_idx * TILE_ROWS;
                for (t, sums) in sums[..count].iter().enumerate() {
                    let row = self.order.map_or(first + t, |order| order.pairs[first + t] as usize);
                    self.store(row, first_col + tile_row, sums, TILE_ROWS.min(part.rows - tile_row));
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
            TileKernel::Bytes(kernel) => {
                let tokens = blocks_of(&self.input.quantized.bytes, part, (first, count), first_k);
                self.kernels.quant_tile(kernel, piece, tokens, sums);
            }
            TileKernel::Wide(kernel) => {
                let tokens = blocks_of(&self.input.quantized.wide, part, (first, count), first_k);
                self.kernels.quant_tile(kernel, piece, tokens, sums);
            }
            TileKernel::Float(kernel) => {
                let stride = part.cols;
                let values_of = |row: usize| &self.input.values[row * stride + first_k..];
                match self.order {
                    None => {
                        let tokens = Tokens { values: values_of(first), stride, count };
                        self.kernels.float_tile(kernel, piece, tokens, sums);
                    }
                    // Rows from anywhere, one after the other. An element's sum is the same for any number of them.
                    Some(order) => {
                        for t in 0..count {
                            let values = values_of(order.source(first + t));
                            // The kernel adds to the first token's sums.
                            sums.swap(0, t);
                            self.kernels.float_tile(kernel, piece, Tokens { values, stride, count: 1 }, sums);
                            sums.swap(0, t);
                        }
                    }
                }
            }
        }
    }

    fn store(&self, row: usize, col: usize, sums: &[f32; TILE_ROWS], rows: usize) {
        // SAFETY: a task writes the columns of its own tiles, and a job runs each task once; `multiply` gives every tile of
        // the stack columns of its own.
        let out = unsafe { self.out.slice(row * self.out_cols + col, rows) };
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

/// The blocks of a group of tokens from column `first_k` on.
fn blocks_of<'a, const B: usize>(
    values: &'a [ActBlock<B>],
    part: &CpuMatrix,
    (first, count): (usize, usize),
    first_k: usize,
) -> Tokens<'a, ActBlock<B>> {
    let values = &values[first * (part.cols / BLOCK) + first_k / BLOCK * count..];
    Tokens { values, stride: count, count }
}
