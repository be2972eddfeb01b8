//! The kernels, compiled once for each instruction set, and the table that picks among them at start-up.
//!
//! The portable kernels are plain Rust over fixed-size arrays, marked `#[inline(always)]`. The compiler vectorises them for
//! the instructions that the function they are inlined into may use. [`isa_table!`] makes one such function for every kernel
//! and instruction set; hand-written kernels replace single entries. Nothing is chosen by how the crate was compiled.
//!
//! What the matrix kernels of all instruction sets have in common stands once, over the trait of [`vector`].
//!
//! An output's summation order is fixed by the weights alone, and every table gives the same bits: it adds the same numbers in
//! the same order and rounds in the same places. Products of matrices and attention are added with one rounding
//! ([`fma`]); all else rounds products first, as Rust does unless told otherwise.

#![allow(clippy::needless_range_loop)] // Lanes of several arrays are indexed together, as in the pseudo-code.

/// Serves tokens in groups whose sums, beside the weights at hand, fit the registers: each time the largest of the sizes,
/// which are given largest first and end with 1, that is left. A token's sums do not depend on its group. `$tokens` adds
/// the products of the piece with `N` tokens; it takes the piece, the activations (whose token `t` begins at
/// `t * $token_stride`) and sums from the first of them on, and the activations' stride.
macro_rules! in_groups {
    ($sizes:tt, $tokens:ident::<$F:ident>, $($rest:tt)*) => { in_groups!(@all $sizes, $tokens, $F, (), $($rest)*) };
    ($sizes:tt, $tokens:ident::<$F:ident, $B:ident>, $($rest:tt)*) => {
        in_groups!(@all $sizes, $tokens, $F, ($B), $($rest)*)
    };
    (@all [$($n:literal)+], $tokens:ident, $F:ident, $B:tt, $piece:expr, $x:expr, $token_stride:expr, $sums:expr) => {{
        let (piece, x, sums) = ($piece, $x, $sums);
        let mut t = 0;
        while t < x.count {
            let (left, rest, sums) = (x.count - t, &x.values[t * $token_stride..], &mut sums[t..]);
            $(if left >= $n {
                in_groups!(@call $tokens, $F, $n, $B, (piece, rest, x.stride, sums));
                t += $n;
                continue;
            })+
        }
    }};
    (@call $tokens:ident, $F:ident, $n:literal, (), $args:tt) => { $tokens::<$F, $n> $args };
    (@call $tokens:ident, $F:ident, $n:literal, ($B:ident), $args:tt) => { $tokens::<$F, $n, $B> $args };
}

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
use avx2::vnni_tiles as avx_vnni;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_attention;
mod float;
mod fma;
mod half;
mod portable;
mod quant;
mod rows;
mod vector;

use std::fmt;
use std::str::FromStr;

use gguf::Format;

use crate::activations::{self, ActBlock, Activations, ByteBlock, WideBlock, WideOrder};
use crate::disjoint::Columns;
use crate::tile::{BLOCK, MAX_TOKENS, TILE_ROWS};

use attention::TransposedKeys;
pub(crate) use attention::{
    KvElement, KvRows, MAX_HEAD_DIM, MAX_HEADS, PageLayout, Partial, Queries, RUN, Reference, Running, SPLIT,
};
pub(crate) use quant::unpack_row;

/// Some columns of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// Whole blocks of the tile's 16 rows.
    pub bytes: &'a [u8],
    /// What is multiplied next, so that memory can be asked for it early.
    pub next: &'a [u8],
}

/// The activations of a group of tokens. The tile kernels read, of each token, as many columns as their piece of the tile
/// has.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a, T> {
    /// From the first column of the first token on.
    pub values: &'a [T],
    /// Of quantised activations, `[block][token]`: elements from a token's block to its next one. Of f32 activations,
    /// `[token][column]`: elements from a token's column to the next token's.
    pub stride: usize,
    /// Number of tokens, 1 to [`MAX_TOKENS`].
    pub count: usize,
}

/// What a tile kernel adds to: `[token][row of the tile]`.
pub(crate) type TileOut = [[f32; TILE_ROWS]; MAX_TOKENS];

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// What every CPU of the architecture has.
    Portable,
    /// x86-64 with AVX2, FMA and F16C (2013 onwards): hand-written matrix kernels on pairs of bytes.
    Avx2,
    /// As `Avx2`, with AVX-VNNI (Intel's hybrid cores since 2021, AMD's since 2024): byte dot products on 256 bits.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI: hand-written matrix kernels on byte dot products.
    Avx512,
}

impl Isa {
    /// Every instruction set, the best last.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::AvxVnni, Isa::Avx512];

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => false,
        }
    }

    /// The best instruction set of this machine.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = Isa::ALL.iter().map(|isa| isa.name()).collect();
            format!("instruction set: expected one of {}, found '{name}'", names.join(", "))
        })
    }
}

/// `(piece of a tile, quantised activations, sums)`: adds the piece's products to the sums.
type QuantTile<const B: usize> = unsafe fn(&Piece<'_>, Tokens<'_, ActBlock<B>>, &mut TileOut);
/// Of activations of 8 bits, and of 16.
type ByteTile = QuantTile<BLOCK>;
type WideTile = QuantTile<{ 2 * BLOCK }>;
/// `(piece of a tile, activations, sums)`.
type FloatTile = unsafe fn(&Piece<'_>, Tokens<'_, f32>, &mut TileOut);

/// One instruction set's kernels. The entries may use its instructions, so calling one requires that the machine has
/// them; [`Kernels::new`] alone makes a table and checks that it does. The methods are the safe way in.
pub(crate) struct Kernels {
    isa: Isa,
    byte_tile: fn(Format) -> Option<ByteTile>,
    wide_tile: fn(Format) -> Option<WideTile>,
    float_tile: fn(Format) -> Option<FloatTile>,
    quantize_group: unsafe fn(&[f32], usize, usize, &mut [ByteBlock]),
    quantize_group_wide: unsafe fn(&[f32], usize, usize, &mut [WideBlock]),
    rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    add: unsafe fn(&mut [f32], &[f32]),
    swiglu: unsafe fn(&[f32], &[f32], &mut [f32]),
    geglu: unsafe fn(&[f32], &[f32], &mut [f32]),
    clamped_swiglu: unsafe fn(&[f32], &[f32], &mut [f32]),
    softcap: unsafe fn(&mut [f32], f32),
    softmax: unsafe fn(&mut [f32]),
    merge_partial: unsafe fn(&mut f32, &mut f32, &mut [f32], &Partial<'_>),
    f16: AttentionKernels<u16>,
    f32: AttentionKernels<f32>,
}

/// `(queries, split, (keys, values), running softmax, out, transposed keys)`.
type AttendSplit<E> = unsafe fn(
    &Queries<'_>,
    usize,
    (KvRows<'_, E>, KvRows<'_, E>),
    &mut Running,
    &mut Columns<'_, f32>,
    &mut TransposedKeys,
);

/// The attention kernels over a cache of `E`.
pub(crate) struct AttentionKernels<E: KvElement> {
    attend_split: AttendSplit<E>,
    scores: unsafe fn(&Reference<'_>, KvRows<'_, E>, &mut [f32]),
    values: unsafe fn(&Reference<'_>, KvRows<'_, E>, &mut [f32]),
}

/// A module whose `KERNELS` holds every portable kernel compiled with the given target features, but for the matrix kernels, which
/// the named module has, and attention's inner loops.
macro_rules! isa_table {
    ($module:ident, $isa:expr, [$($feature:literal)?], $tiles:ident, $order:expr, $inner:ty) => {
        mod $module {
            use super::*;

            pub(super) const KERNELS: Kernels = Kernels {
                isa: $isa,
                byte_tile: $tiles::byte_tile,
                wide_tile: $tiles::wide_tile,
                float_tile: $tiles::float_tile,
                quantize_group,
                quantize_group_wide,
                rms_norm,
                add,
                swiglu,
                geglu,
                clamped_swiglu,
                softcap,
                softmax,
                merge_partial,
                f16: AttentionKernels { attend_split, scores, values },
                f32: AttentionKernels { attend_split, scores, values },
            };

            $(#[target_feature(enable = $feature)])?
            fn quantize_group(x: &[f32], stride: usize, count: usize, out: &mut [ByteBlock]) {
                activations::quantize_group(x, stride, count, out);
            }
            $(#[target_feature(enable = $feature)])?
            fn quantize_group_wide(x: &[f32], stride: usize, count: usize, out: &mut [WideBlock]) {
                activations::quantize_group_wide($order, x, stride, count, out);
            }
            $(#[target_feature(enable = $feature)])?
            fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
                rows::rms_norm(x, weight, eps, out);
            }
            $(#[target_feature(enable = $feature)])?
            fn add(x: &mut [f32], delta: &[f32]) {
                rows::add(x, delta);
            }
            $(#[target_feature(enable = $feature)])?
            fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
                rows::swiglu(gate, up, out);
            }
            $(#[target_feature(enable = $feature)])?
            fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
                rows::geglu(gate, up, out);
            }
            $(#[target_feature(enable = $feature)])?
            fn clamped_swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
                rows::clamped_swiglu(gate, up, out);
            }
            $(#[target_feature(enable = $feature)])?
            fn softcap(x: &mut [f32], cap: f32) {
                rows::softcap(x, cap);
            }
            $(#[target_feature(enable = $feature)])?
            fn softmax(x: &mut [f32]) {
                rows::softmax(x);
            }
            $(#[target_feature(enable = $feature)])?
            fn attend_split<E: KvElement>(
                queries: &Queries<'_>,
                split: usize,
                rows: (KvRows<'_, E>, KvRows<'_, E>),
                running: &mut Running,
                out: &mut Columns<'_, f32>,
                keys: &mut TransposedKeys,
            ) {
                attention::attend_split::<E, $inner>(queries, split, rows, running, out, keys);
            }
            $(#[target_feature(enable = $feature)])?
            fn merge_partial(max: &mut f32, sum: &mut f32, out: &mut [f32], partial: &Partial<'_>) {
                attention::merge(max, sum, out, partial);
            }
            $(#[target_feature(enable = $feature)])?
            fn scores<E: KvElement>(rows: &Reference<'_>, k: KvRows<'_, E>, out: &mut [f32]) {
                attention::scores(rows, k, out);
            }
            $(#[target_feature(enable = $feature)])?
            fn values<E: KvElement>(rows: &Reference<'_>, v: KvRows<'_, E>, out: &mut [f32]) {
                attention::values(rows, v, out);
            }
        }
    };
}

isa_table!(portable_table, Isa::Portable, [], portable, WideOrder::Words, attention::Plain<fma::Baseline>);
#[cfg(target_arch = "x86_64")]
isa_table!(
    avx2_table,
    Isa::Avx2,
    ["avx2,fma,f16c"],
    avx2,
    WideOrder::Words,
    attention::Plain<fma::Instruction>
);
#[cfg(target_arch = "x86_64")]
isa_table!(
    avx_vnni_table,
    Isa::AvxVnni,
    ["avx2,fma,f16c"],
    avx_vnni,
    WideOrder::Bytes,
    attention::Plain<fma::Instruction>
);
#[cfg(target_arch = "x86_64")]
isa_table!(
    avx512_table,
    Isa::Avx512,
    ["avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"],
    avx512,
    WideOrder::Bytes,
    avx512_attention::Loops
);

impl Kernels {
    /// The kernels of `isa`, or `None` when this machine lacks it.
    pub fn new(isa: Isa) -> Option<Kernels> {
        if !isa.is_available() {
            return None;
        }
        match isa {
            Isa::Portable => Some(portable_table::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(avx2_table::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Some(avx_vnni_table::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(avx512_table::KERNELS),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => None,
        }
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The tile kernel of a format.
    pub fn tile_kernel(&self, format: Format, activations: Activations) -> TileKernel {
        let quant = match activations {
            Activations::Bits8 => (self.byte_tile)(format).map(TileKernel::Bytes),
            Activations::Bits16 => (self.wide_tile)(format).map(TileKernel::Wide),
        };
        let float = || (self.float_tile)(format).map(TileKernel::Float);
        quant.or_else(float).expect("every format has a tile kernel")
    }
}

/// The kernel that multiplies one tile of 16 rows with up to [`MAX_TOKENS`] tokens.
#[derive(Clone, Copy)]
pub(crate) enum TileKernel {
    /// Takes activations of 8 bits.
    Bytes(ByteTile),
    /// Takes activations of 16 bits.
    Wide(WideTile),
    /// Takes f32 activations.
    Float(FloatTile),
}

impl TileKernel {
    /// Whether it takes quantised activations.
    pub fn is_quantized(self) -> bool {
        !matches!(self, TileKernel::Float(_))
    }

    /// Bytes that a token's activations take for each column, with the scales and sums of blocks.
    pub fn bytes_per_column(self) -> usize {
        match self {
            TileKernel::Bytes(_) => size_of::<ByteBlock>() / BLOCK,
            TileKernel::Wide(_) => size_of::<WideBlock>() / BLOCK,
            // As if they were bytes: more of them are not worth a shorter piece.
            TileKernel::Float(_) => 2,
        }
    }
}

/// Safe methods over the table's entries.
macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*);)*) => {
        impl Kernels {
            $($(#[$doc])*
            #[inline]
            pub fn $name(&self, $($arg: $ty),*) {
                // SAFETY: the machine has this table's instructions: `Kernels::new` checked.
                unsafe { (self.$name)($($arg),*) }
            })*
        }
    };
}

entries! {
    /// Quantises whole blocks of a group of `count` tokens, whose rows begin `stride` values apart.
    quantize_group(x: &[f32], stride: usize, count: usize, out: &mut [ByteBlock]);
    /// As `quantize_group`, to 16 bits.
    quantize_group_wide(x: &[f32], stride: usize, count: usize, out: &mut [WideBlock]);
    /// `out = x / sqrt(mean(x^2) + eps) * weight`.
    rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    /// `x += delta`.
    add(x: &mut [f32], delta: &[f32]);
    /// `out = silu(gate) * up`.
    swiglu(gate: &[f32], up: &[f32], out: &mut [f32]);
    /// The SwiGLU of gpt-oss.
    clamped_swiglu(gate: &[f32], up: &[f32], out: &mut [f32]);
    /// `out = gelu(gate) * up`, by the approximation with tanh.
    geglu(gate: &[f32], up: &[f32], out: &mut [f32]);
    /// `x = cap * tanh(x / cap)`.
    softcap(x: &mut [f32], cap: f32);
    /// `x = exp(x - max(x)) / sum(exp(x - max(x)))`.
    softmax(x: &mut [f32]);
    /// Merges one head's attention over a split, `partial`, into that over the splits before it: maximum, sum and values.
    merge_partial(max: &mut f32, sum: &mut f32, out: &mut [f32], partial: &Partial<'_>);
}

impl Kernels {
    /// Fused attention of a run of tokens over the positions of one split, from an empty softmax.
    #[inline]
    fn attend_split<E: KvElement>(
        &self,
        queries: &Queries<'_>,
        split: usize,
        rows: (KvRows<'_, E>, KvRows<'_, E>),
        running: &mut Running,
        out: &mut Columns<'_, f32>,
        keys: &mut TransposedKeys,
    ) {
        // SAFETY: the machine has this table's instructions: `Kernels::new` checked.
        unsafe { (E::kernels(self).attend_split)(queries, split, rows, running, out, keys) }
    }

    /// Reference attention, step 1; `out: [group, stride]`.
    #[inline]
    pub fn scores<E: KvElement>(&self, rows: &Reference<'_>, k: KvRows<'_, E>, out: &mut [f32]) {
        // SAFETY: as in `attend_split`.
        unsafe { (E::kernels(self).scores)(rows, k, out) }
    }

    /// Reference attention, step 3; `out: [group, head_dim]`.
    #[inline]
    pub fn values<E: KvElement>(&self, rows: &Reference<'_>, v: KvRows<'_, E>, out: &mut [f32]) {
        // SAFETY: as in `attend_split`.
        unsafe { (E::kernels(self).values)(rows, v, out) }
    }

    /// `sums[t] += piece * x[t]`, records in order.
    #[inline]
    pub fn quant_tile<const B: usize>(
        &self,
        kernel: QuantTile<B>,
        piece: &Piece<'_>,
        x: Tokens<'_, ActBlock<B>>,
        sums: &mut TileOut,
    ) {
        // SAFETY: kernels are had from `tile_kernel` of a table, and tables from `Kernels::new`, which checked that
        // the machine has the instructions.
        unsafe { kernel(piece, x, sums) }
    }

    /// `sums[t] += piece * x[t]`, columns in order.
    #[inline]
    pub fn float_tile(&self, kernel: FloatTile, piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
        // SAFETY: as in `quant_tile`.
        unsafe { kernel(piece, x, sums) }
    }
}
