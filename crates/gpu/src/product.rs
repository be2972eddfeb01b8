//! Products of a weight with activations: which kernel runs, and over which grid.
//!
//! A matrix has one numeric path for its life: matrix units, or f32 multiply-adds. The kernels of a path differ in how many
//! tokens they take at a time, and form every element by the same additions in the same order.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gguf::Format;

use crate::device::{Capabilities, Gpu};
use crate::kernel::{Kernel, KernelSpec, Kernels};
use crate::pack;

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

/// Segments of columns whose chains of additions are joined in order.
const SEGMENTS: u32 = 8;

/// Tokens that a workgroup of the kernel for many takes, as well as rows.
const MANY: usize = 128;

/// Most tokens for which reading the weights takes longer than multiplying with them.
const MOST_FEW: usize = 64;

impl NumericPath {
    /// The path of a matrix on a device: a matter of its format and its columns.
    pub fn of(capabilities: Capabilities, format: Format, cols: usize) -> Self {
        let fits = cols <= MAX_HALF_COLS && format != Format::F32;
        match capabilities.matrix_tile {
            // Weights in f32 are there for their digits, which f16 would cost.
            Some(16) if fits => NumericPath::MatrixUnits,
            _ => NumericPath::Float,
        }
    }
}

/// A kernel's part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// On matrix units, for up to `2 * staged` tokens and so many tiles of 16 rows a workgroup.
    Fewest { staged: usize, row_tiles: usize },
    /// On matrix units, for so many tiles of 16 tokens and of 16 rows a workgroup.
    Few { token_tiles: usize, row_tiles: usize },
    /// On matrix units, 128 tokens and 128 rows a workgroup.
    Many,
    /// In f32, for so many tokens and a tile of 16 rows a workgroup.
    Float { tokens: usize },
}

impl Shape {
    /// Every shape of a path.
    pub fn all(path: NumericPath) -> Vec<Shape> {
        match path {
            NumericPath::Float => FLOAT_TOKENS.map(|tokens| Shape::Float { tokens }).to_vec(),
            NumericPath::MatrixUnits => {
                let fewest = |staged| [1, 2].map(|row_tiles| Shape::Fewest { staged, row_tiles });
                let few = |token_tiles| [2, 4].map(|row_tiles| Shape::Few { token_tiles, row_tiles });
                let small = STAGED.into_iter().flat_map(fewest);
                small.chain(TOKEN_TILES.into_iter().flat_map(few)).chain([Shape::Many]).collect()
            }
        }
    }

    /// The shape for a product of `tokens` with `rows` rows.
    pub fn for_product(path: NumericPath, format: Format, tokens: usize, rows: usize) -> Self {
        match path {
            NumericPath::Float => {
                let fits = |count: &usize| *count >= tokens;
                let most = FLOAT_TOKENS[FLOAT_TOKENS.len() - 1];
                Shape::Float { tokens: FLOAT_TOKENS.into_iter().find(fits).unwrap_or(most) }
            }
            NumericPath::MatrixUnits if tokens > MOST_FEW => Shape::Many,
            // Tiles of rows share the reading of inputs, as long as there are workgroups for every multiprocessor.
            NumericPath::MatrixUnits if tokens <= 16 => {
                let room = |staged: &usize| 2 * staged >= tokens && *staged >= least_staged(format);
                let staged = STAGED.into_iter().find(room).expect("up to 16 tokens");
                let row_tiles = if SINGLE_TILE_ROWS.contains(&rows) { 1 } else { 2 };
                Shape::Fewest { staged, row_tiles }
            }
            NumericPath::MatrixUnits => {
                let token_tiles =
                    TOKEN_TILES.into_iter().find(|tiles| tiles * 16 >= tokens).expect("few tokens");
                Shape::Few { token_tiles, row_tiles: if rows < 16384 { 2 } else { 4 } }
            }
        }
    }

    /// Workgroups, for a part of `row_tiles` tiles of 16 rows.
    pub fn grid(self, tokens: usize, row_tiles: usize) -> [u32; 3] {
        let (x, y) = match self {
            Shape::Fewest { row_tiles: of_group, .. } => (row_tiles.div_ceil(of_group), 1),
            Shape::Few { token_tiles, row_tiles: of_group } => {
                (row_tiles.div_ceil(of_group), tokens.div_ceil(16 * token_tiles))
            }
            Shape::Many => (row_tiles.div_ceil(MANY / 16), tokens.div_ceil(MANY)),
            Shape::Float { tokens: of_group } => (row_tiles, tokens.div_ceil(of_group)),
        };
        [x as u32, y as u32, 1]
    }
}

const STAGED: [usize; 4] = [1, 2, 4, 8];
/// The least staging that a format is quick with: which registers a driver's compiler spends on what is not ours to say.
/// Measured on an H100: Q8_0 reads a tenth faster with room for eight tokens than with room for two.
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
        0..=16 => 16,
        17..=MOST_FEW => MOST_FEW,
        _ => rows.next_multiple_of(MANY),
    }
}

/// The kernels of a format on a path, compiled when first asked for.
pub(crate) struct ProductKernels {
    pub format: Format,
    pub path: NumericPath,
    shapes: Vec<(Shape, [OnceLock<Arc<Kernel>>; 2])>,
    embed: OnceLock<Arc<Kernel>>,
}

impl ProductKernels {
    pub fn new(format: Format, path: NumericPath) -> Self {
        let shapes = Shape::all(path).into_iter().map(|shape| (shape, Default::default())).collect();
        Self { format, path, shapes, embed: OnceLock::new() }
    }

    /// The kernel of a shape, with or without a bias.
    pub fn get(&self, gpu: &Gpu, kernels: &Kernels, shape: Shape, has_bias: bool) -> &Arc<Kernel> {
        let (_, of_shape) =
            self.shapes.iter().find(|(own, _)| *own == shape).expect("a shape belongs to its path");
        of_shape[usize::from(has_bias)]
            .get_or_init(|| kernels.get(gpu, &spec_for(has_vectors(gpu), self.format, shape, has_bias)))
    }

    /// The kernel that gathers rows.
    pub fn embed(&self, gpu: &Gpu, kernels: &Kernels) -> &Arc<Kernel> {
        self.embed.get_or_init(|| kernels.get(gpu, &embed_spec(self.format)))
    }

    /// Compiles what products without a bias take, some on threads of their own.
    pub fn compile(&self, gpu: &Gpu, kernels: &Kernels) {
        std::thread::scope(|scope| {
            for (shape, _) in &self.shapes {
                scope.spawn(|| self.get(gpu, kernels, *shape, false));
            }
        });
    }
}

/// The values of a product's immediates.
pub(crate) struct Product {
    pub cols: usize,
    /// Rows of this part, and where they begin in `out`.
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
                    Shape::Few { .. } if !has_vectors(gpu) => 2 * self.x_stride,
                    _ => self.x_stride / 2,
                } as u32;
                let segment = chunks.div_ceil(SEGMENTS);
                ([chunks, supers, segment, row_tiles, rows, tokens, x_stride, out_stride, out_first], 9)
            }
        }
    }
}

/// Whether matrices are loaded from vectors, which Metal's functions do not take.
pub(crate) fn has_vectors(gpu: &Gpu) -> bool {
    gpu.info().backend == wgpu::Backend::Vulkan
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
        Shape::Float { tokens } => KernelSpec::new("matmul_float").with("TOKENS", tokens),
        Shape::Many => KernelSpec::new("matmul_many").with_flag("F16", true).with_flag("MATRIX", true),
        Shape::Fewest { staged, row_tiles } => KernelSpec::new("matmul_few")
            .with("STAGED", staged)
            .with("TOKEN_TILES", 1)
            .with("ROW_TILES", row_tiles)
            .with("AHEAD", ahead(format) / row_tiles)
            .with_flag("F16", true)
            .with_flag("MATRIX", true),
        Shape::Few { token_tiles, row_tiles } => KernelSpec::new("matmul_few")
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
fn with_planes(spec: KernelSpec, format: Format) -> KernelSpec {
    let spec = spec.with("FORMAT", pack::kernel_part(format));
    (FIRST_PLANE..)
        .zip(pack::planes_of(format))
        .fold(spec, |spec, (binding, plane)| spec.with(plane.role.define(), binding))
}
