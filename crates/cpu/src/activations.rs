//! Activations quantised once per matmul, for every quantised weight format alike.
//!
//! Blocks of 32 columns: signed bytes with an f32 scale, `x ~ scale * q`, and what the kernels need of the block's sum.
//! Finer than one scale for 256 columns, and integer sums over a block are exact in any order.
//!
//! Tokens are laid out in groups of [`MAX_TOKENS`](crate::tile::MAX_TOKENS) that a tile kernel serves together:
//!
//! ```text
//! [group][block of 32 columns][token of the group]      the last group has as many tokens as are left
//! ```
//! so that a group's blocks begin at its first token times the blocks of a row, and a kernel walks a single run of memory, from one address, whatever the number of tokens.

use crate::tile::BLOCK;

/// 32 activations of one token. One cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct ActBlock {
    pub q: [i8; BLOCK],
    pub scale: f32,
    /// `-sum(q)` of each half of 16 and of all 32: where accumulators start, times the weight format's offset.
    pub neg_halves: [i32; 2],
    pub neg_sum: i32,
    /// `scale * sum(q)` of each half of 16 and of all 32: what multiplies a weight block's minimum.
    pub scaled_halves: [f32; 2],
    pub scaled_sum: f32,
}

/// Quantises a group of `count` tokens, whose rows begin `stride` values apart: as many blocks of each as `out`,
/// `[block][token]`, holds.
#[inline(always)]
pub(crate) fn quantize_group(x: &[f32], stride: usize, count: usize, out: &mut [ActBlock]) {
    for (block_idx, blocks) in out.chunks_exact_mut(count).enumerate() {
        for (t, block) in blocks.iter_mut().enumerate() {
            let x = &x[t * stride + block_idx * BLOCK..][..BLOCK];
            *block = quantize_block(x.try_into().expect("a block of columns"));
        }
    }
}

#[inline(always)]
fn quantize_block(x: &[f32; BLOCK]) -> ActBlock {
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
    let max = f32::from_bits(lanes[0]);
    // An infinite or NaN activation must not be hidden: its scale poisons the block, and so the logits.
    let scale = if max.is_finite() { max / 127.0 } else { f32::NAN };
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    let mut block = ActBlock { scale, ..ActBlock::default() };
    let mut rounded = [0i32; BLOCK];
    for i in 0..BLOCK {
        rounded[i] = round_to_i8(x[i] * inverse);
        block.q[i] = rounded[i] as i8;
    }
    for (half, q) in rounded.as_chunks::<16>().0.iter().enumerate() {
        let sum: i32 = q.iter().sum();
        block.neg_halves[half] = -sum;
        block.scaled_halves[half] = scale * sum as f32;
    }
    block.neg_sum = block.neg_halves[0] + block.neg_halves[1];
    block.scaled_sum = scale * -block.neg_sum as f32;
    block
}

/// Rounds half to even for `|x| <= 127`: adding 1.5 * 2^23 leaves the integer in the low bits of the mantissa. What is
/// not finite gives some integer of eight bits.
#[inline(always)]
fn round_to_i8(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    i32::from(((x + MAGIC).to_bits() & 0xff) as i8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_values_to_half_a_step_and_its_sums_exactly() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
        let mut blocks = [ActBlock::default(); 2];
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
        let mut group = [ActBlock::default(); 6];
        quantize_group(&x, 64, 3, &mut group);
        for (t, x) in x.chunks_exact(64).enumerate() {
            let mut alone = [ActBlock::default(); 2];
            quantize_group(x, 64, 1, &mut alone);
            for (b, alone) in alone.iter().enumerate() {
                assert_eq!((group[3 * b + t].q, group[3 * b + t].scale), (alone.q, alone.scale));
            }
        }
    }

    #[test]
    fn zeros_quantise_to_zeros_and_a_nan_stays_visible() {
        let mut blocks = [ActBlock::default(); 1];
        quantize_group(&[0.0; 32], 32, 1, &mut blocks);
        assert_eq!((blocks[0].q, blocks[0].scale), ([0; 32], 0.0));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 32];
            x[5] = bad;
            quantize_group(&x, 32, 1, &mut blocks);
            assert!(blocks[0].scale.is_nan());
        }
    }
}
