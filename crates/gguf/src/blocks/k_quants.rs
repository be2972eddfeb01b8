//! The K-quants: super-blocks of 256 weights, cut into sub-blocks whose scales are quantised in their turn.
//!
//! ```text
//! format  bytes  fields in order                                       sub-blocks   weight
//! Q2_K       84  sc:16 | q:64 | d:f16 | dmin:f16                       16 of 16     d*sc * q - dmin*m
//! Q3_K      110  h:32 | q:64 | sc:12 | d:f16                           16 of 16     d*(sc-32) * (q-4)
//! Q4_K      144  d:f16 | dmin:f16 | sc:12 | q:128                      8 of 32      d*sc * q - dmin*m
//! Q5_K      176  d:f16 | dmin:f16 | sc:12 | h:32 | q:128               8 of 32      d*sc * q - dmin*m
//! Q6_K      210  q:128 | h:64 | sc:16 (i8) | d:f16                     16 of 16     d*sc * (q-32)
//! ```
//!
//! Where the bits of weight `i` lie, with `group = i / 32`, `lane = i % 32`, `half = group / 4` and
//! `quarter = group % 4`:
//!
//! ```text
//! 2 bits (q of Q2_K, Q3_K; h of Q6_K)   byte 32 half + lane, bits 2 quarter and up
//! 1 bit  (h of Q3_K, Q5_K)              byte lane, bit group
//! 4 bits (q of Q4_K, Q5_K)              byte 32 (group / 2) + lane; low half for even groups, high for odd
//! 4 bits (q of Q6_K)                    byte 64 half + 32 (quarter % 2) + lane; low half for quarters 0 and 1
//! ```
//!
//! A sub-block of 16 has entry `i / 16` of `sc`: in Q2_K a byte, its low half the scale and its high half the
//! minimum `m`; in Q3_K see [`q3_k_scales`]. A sub-block of 32 has entry `group`: see [`q45_k_scale_min`].

use super::{BlockFormat, block_array, f16_at, nibbles};

const LEN: usize = 256;
const GROUP: usize = 32;

/// 2-bit with minima, 4-bit scales; 2.625 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q2_K {}

impl BlockFormat for Q2_K {
    const NAME: &'static str = "Q2_K";
    const GGML_TYPE: u32 = 10;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 84;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let (scales, q) = block[..80].split_at(16);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for_each_weight(out, |group, lane| {
            let (scale, min) = nibbles(scales[2 * group + lane / 16]);
            let q = two_bits(q, group, lane);
            d * f32::from(scale) * f32::from(q) - dmin * f32::from(min)
        });
    }
}

/// 3-bit, symmetric, 6-bit scales; 3.4375 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q3_K {}

impl BlockFormat for Q3_K {
    const NAME: &'static str = "Q3_K";
    const GGML_TYPE: u32 = 11;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 110;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let (high, q) = block[..96].split_at(32);
        let scales = q3_k_scales(block_array(&block[96..108]));
        let d = f16_at(block, 108);
        for_each_weight(out, |group, lane| {
            let q = two_bits(q, group, lane) | one_bit(high, group, lane) << 2;
            d * f32::from(scales[2 * group + lane / 16]) * (f32::from(q) - 4.0)
        });
    }
}

/// 4-bit with minima, 6-bit scales; 4.5 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q4_K {}

impl BlockFormat for Q4_K {
    const NAME: &'static str = "Q4_K";
    const GGML_TYPE: u32 = 12;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 144;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let scales = block_array(&block[4..16]);
        let q = &block[16..];
        for_each_weight(out, |group, lane| {
            let (scale, min) = q45_k_scale_min(scales, group);
            let q = four_bits(q, group, lane);
            d * f32::from(scale) * f32::from(q) - dmin * f32::from(min)
        });
    }
}

/// 5-bit with minima, 6-bit scales; 5.5 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q5_K {}

impl BlockFormat for Q5_K {
    const NAME: &'static str = "Q5_K";
    const GGML_TYPE: u32 = 13;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 176;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let scales = block_array(&block[4..16]);
        let (high, q) = block[16..].split_at(32);
        for_each_weight(out, |group, lane| {
            let (scale, min) = q45_k_scale_min(scales, group);
            let q = four_bits(q, group, lane) | one_bit(high, group, lane) << 4;
            d * f32::from(scale) * f32::from(q) - dmin * f32::from(min)
        });
    }
}

/// 6-bit, symmetric, 8-bit scales; 6.5625 bits per weight.
#[allow(non_camel_case_types)]
pub enum Q6_K {}

impl BlockFormat for Q6_K {
    const NAME: &'static str = "Q6_K";
    const GGML_TYPE: u32 = 14;
    const BLOCK_LEN: usize = LEN;
    const BLOCK_BYTES: usize = 210;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let (low, high) = block[..192].split_at(128);
        let scales = &block[192..208];
        let d = f16_at(block, 208);
        for_each_weight(out, |group, lane| {
            let (half, quarter) = (group / 4, group % 4);
            let (first, last) = nibbles(low[64 * half + 32 * (quarter % 2) + lane]);
            let low = if quarter < 2 { first } else { last };
            let q = low | two_bits(high, group, lane) << 4;
            d * f32::from(scales[2 * group + lane / 16] as i8) * (f32::from(q) - 32.0)
        });
    }
}

/// Unpacks the 16 six-bit scales of Q3_K, with the offset of 32 taken off: -32 to 31.
///
/// Scale `s` has its low four bits in byte `s % 8`, in the low half for `s < 8`. Its high two are in byte
/// `8 + s % 4`, at bit `2 (s / 4)`.
pub fn q3_k_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|s| {
        let (first, last) = nibbles(packed[s % 8]);
        let low = if s < 8 { first } else { last };
        let high = (packed[8 + s % 4] >> (2 * (s / 4))) & 3;
        (low | high << 4) as i8 - 32
    })
}

/// The six-bit scale and minimum of group `group` (0 to 7) of Q4_K and Q5_K.
///
/// ```text
/// byte     0..4                    4..8                    8..12
/// bits     0-5: scale of 0..4      0-5: min of 0..4        0-3: low bits of the scale of 4..8
///          6-7: top of scale 4..8  6-7: top of min 4..8    4-7: low bits of the min of 4..8
/// ```
pub fn q45_k_scale_min(packed: &[u8; 12], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let (scale, min) = nibbles(packed[group + 4]);
    (scale | (packed[group - 4] >> 6) << 4, min | (packed[group] >> 6) << 4)
}

/// Fills a super-block with `weight(group, lane)`.
fn for_each_weight(out: &mut [f32], weight: impl Fn(usize, usize) -> f32) {
    assert_eq!(out.len(), LEN);
    for (i, value) in out.iter_mut().enumerate() {
        *value = weight(i / GROUP, i % GROUP);
    }
}

fn one_bit(bytes: &[u8], group: usize, lane: usize) -> u8 {
    (bytes[lane] >> group) & 1
}

fn two_bits(bytes: &[u8], group: usize, lane: usize) -> u8 {
    let (half, quarter) = (group / 4, group % 4);
    (bytes[GROUP * half + lane] >> (2 * quarter)) & 3
}

fn four_bits(bytes: &[u8], group: usize, lane: usize) -> u8 {
    let (low, high) = nibbles(bytes[GROUP * (group / 2) + lane]);
    if group.is_multiple_of(2) { low } else { high }
}
