//! Products of a weight with activations: which kernel runs, and over which grid.
//!
//! A matrix has one numeric path for its life: matrix units, or f32 multiply-adds. The kernels of a path differ in how many
//! tokens they take at a time, and form every element by the same additions in the same order.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gguf::Format;

use crate::device::{Capabilities, Gpu};
use crate::kernel::{Kernel, KernelSpec, Kernels};
use crate::planes::{define, kernel_part};

/// How a matrix is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NumericPath {
    /// f16 operands, f32 sums, on matrix units.
    MatrixUnits,
    /// f32 multiply-adds.
    Float,
}

/// Most columns of activations that have a copy in f16.
pub(crate) const MAX_HALF_COLS: usize = 32768;

/// Segments of columns whose chains of additions are added up in order.
const SEGMENTS: u32 = 8;

/// Tokens, and rows, that a workgroup of the tiled kernel takes.
const TILED_SIDE: usize = 128;

/// Most tokens of a skinny product: reading the weights takes longer than multiplying with them.
const MAX_SKINNY_TOKENS: usize = 64;

/// Most tokens whose inputs the skinny kernel stages.
const MAX_STAGED_TOKENS: usize = 16;

impl NumericPath {
    /// The path of a matrix on a device: a matter of its format and its columns.
    pub fn of(capabilities: Capabilities, format: Format, cols: usize) -> Self {
        let fits = cols <= MAX_HALF_COLS && format != Format::F32;
        // Weights in f32 are there for their digits, which f16 would cost.
        if capabilities.has_matrix_units() && fits { NumericPath::MatrixUnits } else { NumericPath::Float }
    }
}

/// A kernel's part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// On matrix units, a workgroup taking up to `2 * staged` tokens and so many tiles of 16 rows.
    SkinnyStaged { staged: usize, row_tiles: usize },
    /// On matrix units, a workgroup taking so many tiles of 16 tokens and of 16 rows.
    Skinny { token_tiles: usize, row_tiles: usize },
    /// On matrix units, a workgroup taking 128 tokens and 128 rows.
    Tiled,
    /// In f32, a workgroup taking so many tokens and a tile of 16 rows.
    Float { tokens: usize },
}

impl Shape {
    /// Every shape that products with a matrix of `rows` rows have, whatever their number of tokens.
    pub fn all_of(path: NumericPath, format: Format, rows: usize) -> Vec<Shape> {
        // More tokens than a skinny product has are all alike.
        let mut shapes: Vec<Shape> =
            (1..=MAX_SKINNY_TOKENS + 1).map(|tokens| Self::for_product(path, format, tokens, rows)).collect();
        shapes.dedup();
        shapes
    }

    /// The shape for a product of `tokens` with `rows` rows.
    pub fn for_product(path: NumericPath, format: Format, tokens: usize, rows: usize) -> Self {
        match path {
            NumericPath::Float => {
                let fits = |count: &usize| *count >= tokens;
                let most = FLOAT_TOKENS[FLOAT_TOKENS.len() - 1];
                Shape::Float { tokens: FLOAT_TOKENS.into_iter().find(fits).unwrap_or(most) }
            }
            NumericPath::MatrixUnits if tokens > MAX_SKINNY_TOKENS => Shape::Tiled,
            // Tiles of rows share the reading of inputs, as long as there are workgroups for every multiprocessor.
            NumericPath::MatrixUnits if tokens <= MAX_STAGED_TOKENS => {
                let fits = |staged: &usize| 2 * staged >= tokens && *staged >= least_staged(format);
                let staged = STAGED.into_iter().find(fits).expect("all that may be staged");
                let row_tiles = if SINGLE_TILE_ROWS.contains(&rows) { 1 } else { 2 };
                Shape::SkinnyStaged { staged, row_tiles }
            }
            NumericPath::MatrixUnits => {
                let fits = |tiles: &usize| tiles * 16 >= tokens;
                let token_tiles = TOKEN_TILES.into_iter().find(fits).expect("all tokens of a skinny product");
                Shape::Skinny { token_tiles, row_tiles: if rows < 16384 { 2 } else { 4 } }
            }
        }
    }

    /// Workgroups, for a slice of `row_tiles` tiles of 16 rows.
    pub fn grid(self, tokens: usize, row_tiles: usize) -> [u32; 3] {
        let (x, y) = match self {
            Shape::SkinnyStaged { row_tiles: of_group, .. } => (row_tiles.div_ceil(of_group), 1),
            Shape::Skinny { token_tiles, row_tiles: of_group } => {
                (row_tiles.div_ceil(of_group), tokens.div_ceil(16 * token_tiles))
            }
            Shape::Tiled => (row_tiles.div_ceil(TILED_SIDE / 16), tokens.div_ceil(TILED_SIDE)),
            Shape::Float { tokens: of_group } => (row_tiles, tokens.div_ceil(of_group)),
        };
        [x as u32, y as u32, 1]
    }
}

/// Pairs of tokens that a skinny kernel may stage.
const STAGED: [usize; 4] = [1, 2, 4, 8];

/// The fewest pairs of tokens to stage for a format, as measured: on an H100, Q8_0 is read a tenth faster by the kernel for
/// eight tokens than by that for two, whose registers the driver's compiler allots otherwise.
fn least_staged(format: Format) -> usize {
    if format == Format::Q8_0 { 4 } else { 1 }
}

const TOKEN_TILES: [usize; 2] = [2, 4];
const FLOAT_TOKENS: [usize; 3] = [1, 4, 8];

/// Rows of which a workgroup takes one tile at a time, and otherwise two. Measured on an H100: fewer rows leave workgroups
/// alone on their multiprocessors either way, and more give every one enough.
const SINGLE_TILE_ROWS: Range<usize> = 4097..16384;

/// Rows of a buffer of activations: what tiles of `rows` tokens reach.
pub(crate) fn padded_rows(rows: usize) -> usize {
    match rows {
        0..=MAX_STAGED_TOKENS => MAX_STAGED_TOKENS,
        rows if rows <= MAX_SKINNY_TOKENS => MAX_SKINNY_TOKENS,
        _ => rows.next_multiple_of(TILED_SIDE),
    }
}

/// The kernels of a format on a path, compiled when first asked for.
pub(crate) struct ProductKernels {
    pub format: Format,
    pub path: NumericPath,
    /// By shape, and whether there is a bias.
    products: Mutex<HashMap<(Shape, bool), Arc<Kernel>>>,
    embed: OnceLock<Arc<Kernel>>,
}

impl ProductKernels {
    pub fn new(format: Format, path: NumericPath) -> Self {
        Self { format, path, products: Mutex::default(), embed: OnceLock::new() }
    }

    /// The kernel of a shape, with or without a bias.
    pub fn get(&self, gpu: &Gpu, kernels: &Kernels, shape: Shape, has_bias: bool) -> Arc<Kernel> {
        let products = || self.products.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = products().get(&(shape, has_bias)) {
            return Arc::clone(kernel);
        }
        // Not under the lock: kernels of several shapes are compiled at a time.
        let kernel = kernels.get(gpu, &spec_for(gpu.loads_vectors(), self.format, shape, has_bias));
        products().insert((shape, has_bias), Arc::clone(&kernel));
        kernel
    }

    /// The kernel that gathers rows.
    pub fn embed(&self, gpu: &Gpu, kernels: &Kernels) -> &Arc<Kernel> {
        self.embed.get_or_init(|| kernels.get(gpu, &embed_spec(self.format)))
    }

    /// Compiles what products without a bias take with a matrix of `rows` rows, on threads of their own.
    pub fn compile(&self, gpu: &Gpu, kernels: &Kernels, rows: usize) {
        let missing = {
            let products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
            let mut shapes = Shape::all_of(self.path, self.format, rows);
            shapes.retain(|shape| !products.contains_key(&(*shape, false)));
            shapes
        };
        std::thread::scope(|scope| {
            for shape in missing {
                scope.spawn(move || self.get(gpu, kernels, shape, false));
            }
        });
    }
}

/// The values of a product's immediates.
pub(crate) struct Product {
    pub cols: usize,
    /// Rows of this slice, and where they begin in `out`.
    pub rows: usize,
    pub out_first: usize,
    pub tokens: usize,
    /// Columns of `x`, or words of a row of its f16 copy.
    pub x_stride: usize,
    pub out_stride: usize,
}

impl Product {
    /// In the order of the shape's kernel.
    pub fn immediates(&self, gpu: &Gpu, shape: Shape) -> ([u32; 9], usize) {
        let chunks = self.cols.div_ceil(pack::TILE_COLS) as u32;
        let supers = self.cols.div_ceil(256) as u32;
        let [rows, out_first, tokens, out_stride] =
            [self.rows, self.out_first, self.tokens, self.out_stride].map(|value| value as u32);
        let row_tiles = rows.div_ceil(16);
        match shape {
            Shape::Float { .. } => {
                let (cols, x_stride) = (self.cols as u32, self.x_stride as u32);
                ([chunks, supers, cols, rows, x_stride, out_stride, out_first, 0, 0], 7)
            }
            _ => {
                let x_stride = match shape {
                    Shape::Skinny { .. } if !gpu.loads_vectors() => 2 * self.x_stride,
                    _ => self.x_stride / 2,
                } as u32;
                let segment = chunks.div_ceil(SEGMENTS);
                ([chunks, supers, segment, row_tiles, rows, tokens, x_stride, out_stride, out_first], 9)
            }
        }
    }
}

/// How many blocks a lane reads ahead of their use: enough bytes under way to hide the memory's latency, in registers that
/// do not crowd out other workgroups.
fn ahead(format: Format) -> usize {
    match format {
        Format::F32 | Format::F16 | Format::BF16 => 2,
        _ => 4,
    }
}

/// The first binding of a kernel that a weight's planes take.
const FIRST_PLANE: u32 = 2;

/// The kernel of a shape, loading matrices from vectors or not.
pub(crate) fn spec_for(vectors: bool, format: Format, shape: Shape, has_bias: bool) -> KernelSpec {
    let spec = match shape {
        // Formats without blocks have rows of any length; the others' end with a block.
        Shape::Float { tokens } => KernelSpec::new("matmul_float")
            .with("TOKENS", tokens)
            .with_flag("RAGGED", format.block_len() == 1),
        Shape::Tiled => KernelSpec::new("matmul_tiled").with_flag("F16", true).with_flag("MATRIX", true),
        Shape::SkinnyStaged { staged, row_tiles } => KernelSpec::new("matmul_skinny")
            .with("STAGED", staged)
            .with("TOKEN_TILES", 1)
            .with("ROW_TILES", row_tiles)
            .with("AHEAD", ahead(format) / row_tiles)
            .with_flag("F16", true)
            .with_flag("MATRIX", true),
        Shape::Skinny { token_tiles, row_tiles } => KernelSpec::new("matmul_skinny")
            .with("TOKEN_TILES", token_tiles)
            .with("ROW_TILES", row_tiles)
            .with("AHEAD", 1)
            .with_flag("X_SCALARS", !vectors)
            .with_flag("F16", true)
            .with_flag("MATRIX", true),
    };
    let spec = with_planes(spec, format).with_flag("VECTORS", vectors);
    if has_bias { spec.with("BIAS", FIRST_PLANE + pack::planes_of(format).len() as u32) } else { spec }
}

/// The kernel that gathers rows of a format.
pub(crate) fn embed_spec(format: Format) -> KernelSpec {
    with_planes(KernelSpec::new("embed"), format)
}

/// Names the format's file and numbers its planes.
pub(crate) fn with_planes(spec: KernelSpec, format: Format) -> KernelSpec {
    let spec = spec.with("FORMAT", kernel_part(format));
    (FIRST_PLANE..)
        .zip(pack::planes_of(format))
        .fold(spec, |spec, (binding, plane)| spec.with(define(plane.role), binding))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compiled at load is what products take, and no more.
    #[test]
    fn shapes_are_those_that_products_take() {
        let units = |format, rows| Shape::all_of(NumericPath::MatrixUnits, format, rows);
        let staged = |staged, row_tiles| Shape::SkinnyStaged { staged, row_tiles };
        let skinny = |token_tiles, row_tiles| Shape::Skinny { token_tiles, row_tiles };
        assert_eq!(
            units(Format::Q4_K, 4096),
            [
                staged(1, 2),
                staged(2, 2),
                staged(4, 2),
                staged(8, 2),
                skinny(2, 2),
                skinny(4, 2),
                Shape::Tiled
            ]
        );
        // Kernels that stage two and four tokens are none of Q8_0's.
        assert_eq!(
            units(Format::Q8_0, 28_672),
            [staged(4, 2), staged(8, 2), skinny(2, 4), skinny(4, 4), Shape::Tiled]
        );
        assert_eq!(units(Format::Q8_0, 6144)[..2], [staged(4, 1), staged(8, 1)]);
        let float = FLOAT_TOKENS.map(|tokens| Shape::Float { tokens });
        assert_eq!(Shape::all_of(NumericPath::Float, Format::Q8_0, 4096), float);
        for (tokens, rows) in [1, 2, 5, 16, 17, 33, 64, 65, 512, 4096]
            .into_iter()
            .flat_map(|tokens| [1, 4096, 4097, 16_383, 16_384, 128_256].map(|rows| (tokens, rows)))
        {
            for path in [NumericPath::Float, NumericPath::MatrixUnits] {
                let shape = Shape::for_product(path, Format::Q8_0, tokens, rows);
                let all = Shape::all_of(path, Format::Q8_0, rows);
                assert!(all.contains(&shape), "{tokens} tokens, {rows} rows: {shape:?}");
            }
        }
    }
}
