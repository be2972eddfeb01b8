//! Activations quantised once per matmul, for every quantised weight format alike.
//!
//! Blocks of 32 columns: signed bytes with an f32 scale, `x ~ scale * q`, and what the kernels need of the block's sum.
//! Finer than one scale for 256 columns, and integer sums over a block are exact in any order.

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

/// Quantises one row; `x` is as many whole blocks as `out`.
#[inline(always)]
pub(crate) fn quantize_row(x: &[f32], out: &mut [ActBlock]) {
    assert_eq!(x.len(), out.len() * BLOCK, "quantised columns come in blocks of 32");
    for (x, block) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        *block = quantize_block(x);
    }
}

#[inline(always)]
fn quantize_block(x: &[f32; BLOCK]) -> ActBlock {
    let mut lanes = [0f32; 16];
    for i in 0..16 {
        lanes[i] = x[i].abs().max(x[i + 16].abs());
    }
    let max = lanes.iter().fold(0f32, |a, &b| a.max(b));
    // An infinite or NaN activation must not be hidden: its scale poisons the block, and so the logits.
    let scale = if x.iter().all(|v| v.is_finite()) { max / 127.0 } else { f32::NAN };
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    let mut block = ActBlock { scale, ..ActBlock::default() };
    for (q, &x) in block.q.iter_mut().zip(x) {
        *q = round_to_i8(x * inverse);
    }
    for (half, q) in block.q.as_chunks::<16>().0.iter().enumerate() {
        let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
        block.neg_halves[half] = -sum;
        block.scaled_halves[half] = scale * sum as f32;
    }
    block.neg_sum = block.neg_halves[0] + block.neg_halves[1];
    block.scaled_sum = scale * -block.neg_sum as f32;
    block
}

/// Rounds half to even for `|x| <= 127`: adding 1.5 * 2^23 leaves the integer in the low bits of the mantissa.
#[inline(always)]
fn round_to_i8(x: f32) -> i8 {
    const MAGIC: f32 = 12_582_912.0;
    ((x + MAGIC).to_bits() & 0xff) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_values_to_half_a_step_and_its_sums_exactly() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
        let mut blocks = [ActBlock::default(); 2];
        quantize_row(&x, &mut blocks);
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
    fn zeros_quantise_to_zeros_and_a_nan_stays_visible() {
        let mut blocks = [ActBlock::default(); 1];
        quantize_row(&[0.0; 32], &mut blocks);
        assert_eq!((blocks[0].q, blocks[0].scale), ([0; 32], 0.0));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 32];
            x[5] = bad;
            quantize_row(&x, &mut blocks);
            assert!(blocks[0].scale.is_nan());
        }
    }
}
