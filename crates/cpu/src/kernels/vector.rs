//! What the matrix loops ask of an instruction set.
//!
//! The loops and the unpacking in [`quant`](super::quant) and [`float`](super::float) stand once, over [`Vector`]. Its
//! methods are `#[inline(always)]`, so that they become single instructions inside the `#[target_feature]` functions that
//! call them.
//!
//! A tile's 16 rows lie in `16 / ROWS` registers, which loops number `0..V::REGISTERS`.

use std::ops::IndexMut;

use gguf::blocks::half_e8m0;

use super::Piece;
use super::fma::{self, MulAdd};
use super::half::f16_to_f32;
use crate::tile::TILE_ROWS;

/// Registers of an instruction set and the operations on them. A value of the type stands for the instructions: whoever
/// makes one guarantees that the machine has them, so the methods are safe.
pub(super) trait Vector: Copy {
    /// Rows of a tile whose values one register of `Ints` or `Floats` holds.
    const ROWS: usize;
    /// Registers that hold one value for each row of a tile.
    const REGISTERS: usize = TILE_ROWS / Self::ROWS;

    /// Some bytes of a record's line.
    type Bytes: Copy;
    /// An `i32` for each row.
    type Ints: Copy;
    /// An `f32` for each row.
    type Floats: Copy;
    /// `[T; REGISTERS]`.
    type Tile<T: Copy>: Copy + IndexMut<usize, Output = T>;

    /// `[value; REGISTERS]`.
    fn tile<T: Copy>(self, value: T) -> Self::Tile<T>;

    /// The bytes from byte `at` of a line on.
    fn load_bytes(self, line: &[u8; 64], at: usize) -> Self::Bytes;
    fn splat_bytes(self, value: u8) -> Self::Bytes;
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn xor(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Shifts each byte to the left; what enters from a neighbouring byte must be masked away, or be zero.
    fn shl(self, bytes: Self::Bytes, by: usize) -> Self::Bytes;
    /// Shifts each byte to the right; as for `shl`.
    fn shr(self, bytes: Self::Bytes, by: usize) -> Self::Bytes;
    /// `table[index]` of indices below 16.
    fn look_up(self, table: &[u8; 16], indices: Self::Bytes) -> Self::Bytes;
    /// `q`, whose bit `to` is clear, with bit `from` of `line` in its place.
    #[inline(always)]
    fn with_bit(self, q: Self::Bytes, line: Self::Bytes, from: usize, to: usize) -> Self::Bytes {
        let bit = self.and(self.shr(line, from), self.splat_bytes(1));
        self.or(q, self.shl(bit, to))
    }

    /// The bytes of register `register`'s rows, zero-extended.
    fn load_u8(self, rows: &[u8; TILE_ROWS], register: usize) -> Self::Ints;
    /// The bytes of register `register`'s rows, sign-extended.
    fn load_i8(self, rows: &[u8; TILE_ROWS], register: usize) -> Self::Ints;
    /// The low four bits of values below 256.
    fn low_nibble(self, values: Self::Ints) -> Self::Ints;
    /// The high four bits of values below 256.
    fn high_nibble(self, values: Self::Ints) -> Self::Ints;
    fn to_floats(self, values: Self::Ints) -> Self::Floats;

    fn load(self, rows: &[f32; TILE_ROWS], register: usize) -> Self::Floats;
    fn store(self, rows: &mut [f32; TILE_ROWS], register: usize, values: Self::Floats);
    /// F32 values in the file's byte order.
    fn load_f32(self, rows: &[u8; 4 * TILE_ROWS], register: usize) -> Self::Floats;
    fn load_f16(self, rows: &[u8; 2 * TILE_ROWS], register: usize) -> Self::Floats;
    fn load_bf16(self, rows: &[u8; 2 * TILE_ROWS], register: usize) -> Self::Floats;
    /// `2^(byte - 128)`.
    fn load_half_e8m0(self, rows: &[u8; TILE_ROWS], register: usize) -> Self::Floats;
    fn splat(self, value: f32) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `sum + a * b`, rounded once.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats;
    /// `sum - a * b`, rounded as `mul_add`.
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats;
    /// `0 - value`.
    fn negate(self, value: Self::Floats) -> Self::Floats;

    /// Asks memory for `bytes` bytes of the weights that come some way after byte `at` of the piece.
    #[inline(always)]
    fn prefetch(self, _piece: &Piece<'_>, _at: usize, _bytes: usize) {}
}

/// The 16 values of a tile's rows, in registers.
#[inline(always)]
pub(super) fn load_tile<V: Vector>(v: V, rows: &[f32; TILE_ROWS]) -> V::Tile<V::Floats> {
    let mut tile = v.tile(v.splat(0.0));
    for register in 0..V::REGISTERS {
        tile[register] = v.load(rows, register);
    }
    tile
}

#[inline(always)]
pub(super) fn store_tile<V: Vector>(v: V, rows: &mut [f32; TILE_ROWS], tile: V::Tile<V::Floats>) {
    for register in 0..V::REGISTERS {
        v.store(rows, register, tile[register]);
    }
}

/// Methods of a [`Vector`] that are instructions, `name(arguments) -> type = expression`. For types whose values exist only
/// where the machine has the instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! instructions {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: whoever made `self` guarantees that the machine has the instructions.
            unsafe { $body }
        })*
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use instructions;

/// One row at a time, one byte at a time: plain loops for the compiler to vectorise.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

impl Vector for Scalar {
    const ROWS: usize = 1;
    type Bytes = u8;
    type Ints = i32;
    type Floats = f32;
    type Tile<T: Copy> = [T; TILE_ROWS];

    #[inline(always)]
    fn tile<T: Copy>(self, value: T) -> [T; TILE_ROWS] {
        [value; TILE_ROWS]
    }

    #[inline(always)]
    fn load_bytes(self, line: &[u8; 64], at: usize) -> u8 {
        line[at]
    }
    #[inline(always)]
    fn splat_bytes(self, value: u8) -> u8 {
        value
    }
    #[inline(always)]
    fn and(self, a: u8, b: u8) -> u8 {
        a & b
    }
    #[inline(always)]
    fn or(self, a: u8, b: u8) -> u8 {
        a | b
    }
    #[inline(always)]
    fn xor(self, a: u8, b: u8) -> u8 {
        a ^ b
    }
    #[inline(always)]
    fn shl(self, bytes: u8, by: usize) -> u8 {
        bytes << by
    }
    #[inline(always)]
    fn shr(self, bytes: u8, by: usize) -> u8 {
        bytes >> by
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], indices: u8) -> u8 {
        table[usize::from(indices)]
    }

    #[inline(always)]
    fn load_u8(self, rows: &[u8; TILE_ROWS], register: usize) -> i32 {
        i32::from(rows[register])
    }
    #[inline(always)]
    fn load_i8(self, rows: &[u8; TILE_ROWS], register: usize) -> i32 {
        i32::from(rows[register] as i8)
    }
    #[inline(always)]
    fn low_nibble(self, values: i32) -> i32 {
        values & 15
    }
    #[inline(always)]
    fn high_nibble(self, values: i32) -> i32 {
        values >> 4
    }
    #[inline(always)]
    fn to_floats(self, values: i32) -> f32 {
        values as f32
    }

    #[inline(always)]
    fn load(self, rows: &[f32; TILE_ROWS], register: usize) -> f32 {
        rows[register]
    }
    #[inline(always)]
    fn store(self, rows: &mut [f32; TILE_ROWS], register: usize, values: f32) {
        rows[register] = values;
    }
    #[inline(always)]
    fn load_f32(self, rows: &[u8; 4 * TILE_ROWS], register: usize) -> f32 {
        f32::from_le_bytes(rows.as_chunks::<4>().0[register])
    }
    #[inline(always)]
    fn load_f16(self, rows: &[u8; 2 * TILE_ROWS], register: usize) -> f32 {
        f16_to_f32(u16::from_le_bytes(rows.as_chunks::<2>().0[register]))
    }
    #[inline(always)]
    fn load_bf16(self, rows: &[u8; 2 * TILE_ROWS], register: usize) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(rows.as_chunks::<2>().0[register])) << 16)
    }
    #[inline(always)]
    fn load_half_e8m0(self, rows: &[u8; TILE_ROWS], register: usize) -> f32 {
        half_e8m0(rows[register])
    }
    #[inline(always)]
    fn splat(self, value: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, sum: f32) -> f32 {
        fma::Baseline::mul_add(a, b, sum)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: f32, b: f32, sum: f32) -> f32 {
        fma::Baseline::mul_add(-a, b, sum)
    }
    #[inline(always)]
    fn negate(self, value: f32) -> f32 {
        0.0 - value
    }
}
