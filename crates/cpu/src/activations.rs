//! Activations quantised once per matmul, for every quantised weight format alike.
//!
//! Blocks of 32 columns: signed integers with an f32 scale, `x ~ scale * q`, and what the kernels need of the block's sum.
//! Finer than one scale for 256 columns, and integer sums over a block are exact in any order.
//!
//! An integer has 8 bits, or 16 ([`Activations`]). One of 16 bits is `256 * high + low`, two signed bytes, so that the dot products
//! of bytes serve it too: `256 * dot(q, high) + dot(q, low)` is exact. Its range, `127 * 256` on either side of zero, keeps
//! both within a byte, and makes whatever 8 bits hold exactly exact here too.
//!
//! Tokens are laid out in groups of [`MAX_TOKENS`](crate::tile::MAX_TOKENS) that a tile kernel serves together:
//!
//! ```text
//! [group][block of 32 columns][token of the group]      the last group has as many tokens as are left
//! ```
//! so that a group's blocks begin at its first token times the blocks of a row, and a kernel walks a single run of memory, from one address, whatever the number of tokens.

use std::fmt;
use std::str::FromStr;

use crate::tile::{BLOCK, GROUPS};

/// To how many bits activations are rounded before they are multiplied with quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// 8: the fastest.
    #[default]
    Bits8,
    /// 16: their rounding costs no more than that of f32 arithmetic through a model.
    Bits16,
}

impl Activations {
    /// Every precision.
    pub const ALL: [Activations; 2] = [Activations::Bits8, Activations::Bits16];

    /// The number of bits.
    pub fn bits(self) -> u32 {
        match self {
            Activations::Bits8 => 8,
            Activations::Bits16 => 16,
        }
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bits())
    }
}

impl FromStr for Activations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Activations::ALL.into_iter().find(|activations| activations.to_string() == text);
        found.ok_or_else(|| format!("bits of activations: expected 8 or 16, found '{text}'"))
    }
}

/// 32 activations of one token: `BYTES` bytes of integers. One cache line of 8 bits, two of 16.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct ActBlock<const BYTES: usize> {
    pub q: [i8; BYTES],
    pub scale: f32,
    /// `-sum(q)` of each half of 16 and of all 32: where accumulators start, times the weight format's offset.
    pub neg_halves: [i32; 2],
    pub neg_sum: i32,
    /// `scale * sum(q)` of each half of 16 and of all 32: what multiplies a weight block's minimum.
    pub scaled_halves: [f32; 2],
    pub scaled_sum: f32,
}

/// Integers of 8 bits.
pub(crate) type ByteBlock = ActBlock<BLOCK>;
/// Integers of 16 bits, in the order of the instruction set: see [`WideOrder`].
pub(crate) type WideBlock = ActBlock<{ 2 * BLOCK }>;

/// How a [`WideBlock`] holds its integers: as the products of the instruction set want them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WideOrder {
    /// The high bytes of all columns, then the low ones.
    Bytes,
    /// Words of 16 bits, of each four columns in the order 0, 2, 1, 3: a pair that is multiplied with the even bytes of a
    /// group's lane, then one for the odd ones.
    Words,
}

/// Where column `c` of four lies among their words; its own inverse.
const WORD_ORDER: [usize; 4] = [0, 2, 1, 3];

impl<const BYTES: usize> Default for ActBlock<BYTES> {
    fn default() -> Self {
        let (neg_halves, scaled_halves) = ([0; 2], [0.0; 2]);
        Self { q: [0; BYTES], scale: 0.0, neg_halves, neg_sum: 0, scaled_halves, scaled_sum: 0.0 }
    }
}

impl<const BYTES: usize> ActBlock<BYTES> {
    /// The integer of column `4 g + c`; of 16 bits in [`WideOrder::Words`].
    #[inline(always)]
    pub fn column(&self, g: usize, c: usize) -> i32 {
        if BYTES == BLOCK {
            return i32::from(self.q[4 * g + c]);
        }
        let at = 2 * (4 * g + WORD_ORDER[c]);
        i32::from(i16::from_le_bytes([self.q[at] as u8, self.q[at + 1] as u8]))
    }

    /// Takes over the scale and the sums of these integers.
    #[inline(always)]
    fn with_sums(mut self, scale: f32, integers: &[i32; BLOCK]) -> Self {
        self.scale = scale;
        for (half, q) in integers.as_chunks::<16>().0.iter().enumerate() {
            let sum: i32 = q.iter().sum();
            self.neg_halves[half] = -sum;
            self.scaled_halves[half] = scale * sum as f32;
        }
        self.neg_sum = self.neg_halves[0] + self.neg_halves[1];
        self.scaled_sum = scale * -self.neg_sum as f32;
        self
    }
}

/// A product's quantised activations, of one precision; the other's have no room.
#[derive(Default)]
pub(crate) struct Quantized {
    pub bytes: Vec<ByteBlock>,
    pub wide: Vec<WideBlock>,
}

/// Quantises a group of `count` tokens, whose rows begin `stride` values apart: as many blocks of each as `out`,
/// `[block][token]`, holds.
#[inline(always)]
pub(crate) fn quantize_group(x: &[f32], stride: usize, count: usize, out: &mut [ByteBlock]) {
    each_block(x, stride, count, out, quantize_block);
}

/// As [`quantize_group`], to 16 bits.
#[inline(always)]
pub(crate) fn quantize_group_wide(
    order: WideOrder,
    x: &[f32],
    stride: usize,
    count: usize,
    out: &mut [WideBlock],
) {
    each_block(x, stride, count, out, |x| quantize_wide_block(order, x));
}

#[inline(always)]
fn each_block<T>(
    x: &[f32],
    stride: usize,
    count: usize,
    out: &mut [T],
    quantize: impl Fn(&[f32; BLOCK]) -> T,
) {
    for (block_idx, blocks) in out.chunks_exact_mut(count).enumerate() {
        for (t, block) in blocks.iter_mut().enumerate() {
            let x = &x[t * stride + block_idx * BLOCK..][..BLOCK];
            *block = quantize(x.try_into().expect("a block of columns"));
        }
    }
}

/// The largest magnitude; one that is infinite or NaN, if there is any.
#[inline(always)]
fn largest(x: &[f32; BLOCK]) -> f32 {
    // Bits order magnitudes as values do, and an infinite or NaN one above all others.
    let mut lanes = [0u32; 16];
    for i in 0..16 {
        lanes[i] = (x[i].to_bits() & 0x7fff_ffff).max(x[i + 16].to_bits() & 0x7fff_ffff);
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] = lanes[i].max(lanes[i + width]);
        }
        width /= 2;
    }
    f32::from_bits(lanes[0])
}

#[inline(always)]
fn quantize_block(x: &[f32; BLOCK]) -> ByteBlock {
    let max = largest(x);
    // An infinite or NaN activation must not be hidden: its scale poisons the block, and so the logits.
    let scale = if max.is_finite() { max / 127.0 } else { f32::NAN };
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    let mut block = ByteBlock::default();
    let mut rounded = [0i32; BLOCK];
    for i in 0..BLOCK {
        rounded[i] = round_to_i8(x[i] * inverse);
        block.q[i] = rounded[i] as i8;
    }
    block.with_sums(scale, &rounded)
}

/// The largest integer of 16 bits.
const WIDE_MAX: f32 = 127.0 * 256.0;
/// Blocks of nothing larger than this are taken as zeros: the inverse of their scale may be infinite.
const TINY: f32 = 1e-30;

#[inline(always)]
fn quantize_wide_block(order: WideOrder, x: &[f32; BLOCK]) -> WideBlock {
    let max = largest(x);
    // As in `quantize_block`.
    let scale = if max.is_finite() { max / WIDE_MAX } else { f32::NAN };
    let inverse = if max > TINY { WIDE_MAX / max } else { 0.0 };
    let mut block = WideBlock::default();
    let rounded = x.map(|x| round_to_i16(x * inverse));
    match order {
        WideOrder::Bytes => {
            for (i, rounded) in rounded.iter().enumerate() {
                // Within 127, and the rest from -128 to 127.
                let high = (rounded + 128) >> 8;
                block.q[i] = high as i8;
                block.q[BLOCK + i] = (rounded - (high << 8)) as i8;
            }
        }
        WideOrder::Words => {
            let mut pairs = [0u32; 2 * GROUPS];
            for g in 0..GROUPS {
                for c in 0..2 {
                    let (low, high) = (rounded[4 * g + c], rounded[4 * g + 2 + c]);
                    pairs[2 * g + c] = (low as u32 & 0xffff) | (high as u32) << 16;
                }
            }
            for (q, pair) in block.q.as_chunks_mut::<4>().0.iter_mut().zip(pairs) {
                *q = pair.to_le_bytes().map(u8::cast_signed);
            }
        }
    }
    block.with_sums(scale, &rounded)
}

/// Adding this, 1.5 * 2^23, leaves a number's integer, rounded half to even, in the low bits of the mantissa.
const MAGIC: f32 = 12_582_912.0;

/// Rounds half to even for `|x| <= 127`. What is not finite gives some integer of eight bits.
#[inline(always)]
fn round_to_i8(x: f32) -> i32 {
    i32::from(((x + MAGIC).to_bits() & 0xff) as i8)
}

/// Rounds half to even for `|x| < 32768`. What is not finite gives 0.
#[inline(always)]
fn round_to_i16(x: f32) -> i32 {
    i32::from(((x + MAGIC).to_bits() & 0xffff) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_values_to_half_a_step_and_its_sums_exactly() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
        let mut blocks = [ByteBlock::default(); 2];
        quantize_group(&x, 64, 1, &mut blocks);
        for (x, block) in x.as_chunks::<32>().0.iter().zip(&blocks) {
            for (x, &q) in x.iter().zip(&block.q) {
                assert!((x - block.scale * f32::from(q)).abs() <= block.scale * 0.5001);
            }
            let sum: i32 = block.q.iter().map(|&q| i32::from(q)).sum();
            assert_eq!(block.neg_sum, -sum);
            assert_eq!(block.scaled_sum, block.scale * sum as f32);
        }
    }

    #[test]
    fn a_group_lays_its_tokens_side_by_side() {
        let x: Vec<f32> = (0..3 * 64).map(|i| (i * 29 % 97) as f32).collect();
        let mut group = [ByteBlock::default(); 6];
        quantize_group(&x, 64, 3, &mut group);
        for (t, x) in x.chunks_exact(64).enumerate() {
            let mut alone = [ByteBlock::default(); 2];
            quantize_group(x, 64, 1, &mut alone);
            for (b, alone) in alone.iter().enumerate() {
                assert_eq!((group[3 * b + t].q, group[3 * b + t].scale), (alone.q, alone.scale));
            }
        }
    }

    #[test]
    fn zeros_quantise_to_zeros_and_a_nan_stays_visible() {
        let mut blocks = [ByteBlock::default(); 1];
        quantize_group(&[0.0; 32], 32, 1, &mut blocks);
        assert_eq!((blocks[0].q, blocks[0].scale), ([0; 32], 0.0));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 32];
            x[5] = bad;
            quantize_group(&x, 32, 1, &mut blocks);
            assert!(blocks[0].scale.is_nan());
        }
    }

    /// The integers of a block of 16 bits, from either order.
    fn integers(order: WideOrder, block: &WideBlock) -> Vec<i32> {
        let of = |col: usize| match order {
            WideOrder::Words => block.column(col / 4, col % 4),
            WideOrder::Bytes => {
                let (high, low) = (block.q[col], block.q[BLOCK + col]);
                assert_ne!(high, -128);
                256 * i32::from(high) + i32::from(low)
            }
        };
        (0..BLOCK).map(of).collect()
    }

    #[test]
    fn a_block_of_16_bits_keeps_its_values_to_half_a_step_in_either_order() {
        for size in [1.0, 3e-30, 1e30] {
            let x: Vec<f32> = (0..32).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * size).collect();
            let mut found = Vec::new();
            for order in [WideOrder::Bytes, WideOrder::Words] {
                let mut blocks = [WideBlock::default(); 1];
                quantize_group_wide(order, &x, 32, 1, &mut blocks);
                let integers = integers(order, &blocks[0]);
                for (x, &q) in x.iter().zip(&integers) {
                    let (step, q) = (f64::from(blocks[0].scale), f64::from(q));
                    assert!((f64::from(*x) - step * q).abs() <= step * 0.503, "{x} {q}");
                }
                assert_eq!(blocks[0].neg_sum, -integers.iter().sum::<i32>());
                assert_eq!(blocks[0].neg_halves[1], -integers[16..].iter().sum::<i32>());
                found.push(integers);
            }
            assert_eq!(found[0], found[1]);
            assert_eq!(found[0].iter().map(|q| q.abs()).max(), Some(127 * 256));
        }
    }

    #[test]
    fn what_is_exact_in_8_bits_is_in_16() {
        let x: Vec<f32> = (0..32).map(|i| ((i * 67 % 255) - 127) as f32 / 32.0).collect();
        let (mut bytes, mut wide) = ([ByteBlock::default(); 1], [WideBlock::default(); 1]);
        quantize_group(&x, 32, 1, &mut bytes);
        quantize_group_wide(WideOrder::Words, &x, 32, 1, &mut wide);
        let of_bytes: Vec<i32> = bytes[0].q.iter().map(|&q| 256 * i32::from(q)).collect();
        assert_eq!(integers(WideOrder::Words, &wide[0]), of_bytes);
    }

    #[test]
    fn in_16_bits_too_nothing_is_zeros_and_a_nan_stays_visible() {
        for order in [WideOrder::Bytes, WideOrder::Words] {
            let mut blocks = [WideBlock::default(); 1];
            for nothing in [0.0, 1e-40, -1e-31] {
                quantize_group_wide(order, &[nothing; 32], 32, 1, &mut blocks);
                assert_eq!(integers(order, &blocks[0]), [0; 32]);
            }
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = [1.0; 32];
                x[5] = bad;
                quantize_group_wide(order, &x, 32, 1, &mut blocks);
                assert!(blocks[0].scale.is_nan());
                assert_eq!(integers(order, &blocks[0]), [0; 32]);
            }
        }
    }

    #[test]
    fn names_are_the_numbers_of_bits() {
        for activations in Activations::ALL {
            assert_eq!(activations.to_string().parse(), Ok(activations));
        }
        let error = "12".parse::<Activations>().unwrap_err();
        assert_eq!(error, "bits of activations: expected 8 or 16, found '12'");
    }
}
