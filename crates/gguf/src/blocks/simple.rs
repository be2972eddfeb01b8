//! The 32-weight blocks: one scale `d`, for the `_1` kinds a minimum `m`, and 32 small integers `q`.
//!
//! ```text
//! format  bytes of a block                                    weight
//! Q4_0    d:f16 | q:16                                        (q - 8)  * d
//! Q4_1    d:f16 | m:f16 | q:16                                q * d + m
//! Q5_0    d:f16 | h:4 | q:16                                  (q - 16) * d
//! Q5_1    d:f16 | m:f16 | h:4 | q:16                          q * d + m
//! Q8_0    d:f16 | q:32 (i8)                                   q * d
//! ```
//!
//! The 16 bytes of 4-bit numbers hold weight `i` in the low half of byte `i`, and weight `i + 16` in its high
//! half. In the 5-bit formats `h` is a 32-bit word whose bit `i` is the fifth bit of weight `i`.

use super::{BlockFormat, block_array, f16_at, nibbles};

const LEN: usize = 32;

/// 4-bit, symmetric; 4.5 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q4_0 {}

impl BlockFormat for Q4_0 {
    const NAME: &'static str = "Q4_0";
    const GGML_TYPE: u32 = 2;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 18;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = f16_at(block, 0);
        for_each_nibble(&block[2..], out, |_, q| (f32::from(q) - 8.0) * d);
    }
}

/// 4-bit with a minimum; 5 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q4_1 {}

impl BlockFormat for Q4_1 {
    const NAME: &'static str = "Q4_1";
    const GGML_TYPE: u32 = 3;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 20;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for_each_nibble(&block[4..], out, |_, q| f32::from(q) * d + m);
    }
}

/// 5-bit, symmetric; 5.5 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q5_0 {}

impl BlockFormat for Q5_0 {
    const NAME: &'static str = "Q5_0";
    const GGML_TYPE: u32 = 6;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 22;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = f16_at(block, 0);
        let high = u32::from_le_bytes(*block_array(&block[2..6]));
        for_each_nibble(&block[6..], out, |i, q| (f32::from(q | fifth_bit(high, i)) - 16.0) * d);
    }
}

/// 5-bit with a minimum; 6 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q5_1 {}

impl BlockFormat for Q5_1 {
    const NAME: &'static str = "Q5_1";
    const GGML_TYPE: u32 = 7;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 24;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        let high = u32::from_le_bytes(*block_array(&block[4..8]));
        for_each_nibble(&block[8..], out, |i, q| f32::from(q | fifth_bit(high, i)) * d + m);
    }
}

/// 8-bit, symmetric; 8.5 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q8_0 {}

impl BlockFormat for Q8_0 {
    const NAME: &'static str = "Q8_0";
    const GGML_TYPE: u32 = 8;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 34;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        assert_eq!(out.len(), LEN);
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = f16_at(block, 0);
        for (value, &q) in out.iter_mut().zip(&block[2..]) {
            *value = f32::from(q as i8) * d;
        }
    }
}

/// Fills `out[i]` with `weight(i, q_i)` from 16 bytes of 4-bit numbers.
pub(super) fn for_each_nibble(bytes: &[u8], out: &mut [f32], weight: impl Fn(usize, u8) -> f32) {
    assert_eq!((bytes.len(), out.len()), (LEN / 2, LEN));
    for (i, &byte) in bytes.iter().enumerate() {
        let (low, high) = nibbles(byte);
        out[i] = weight(i, low);
        out[i + LEN / 2] = weight(i + LEN / 2, high);
    }
}

/// Bit `i` of `word`, as the value of a fifth bit.
fn fifth_bit(word: u32, i: usize) -> u8 {
    (((word >> i) & 1) << 4) as u8
}
