//! IQ1, IQ2 and IQ3: weights eight or four at a time, as points of a lattice that are told by their number.
//!
//! ```text
//! 256 weights in sub-blocks of 32 (s) or 16 (t); weight = d / 8 * scale * level
//!
//! IQ2_XXS  66 bytes  d:f16 | 8 x (point:u8 x 4, word:u32)       scale_s = 2 (word >> 28) + 1; four sign codes of 7 bits in the word
//! IQ2_XS   74 bytes  d:f16 | q:u16 x 32 | scales:8              point = q & 511, sign code = q >> 9; scale_t = 2 nibble_t + 1
//! IQ2_S    82 bytes  d:f16 | q:32 | signs:32 | high:8 | scales:8     point = q | two bits of high; scale_t = 2 nibble_t + 1
//! IQ3_XXS  98 bytes  d:f16 | q:64 | word:u32 x 8                scale_s = 4 (word >> 28) + 2; four sign codes of 7 bits in the word
//! IQ3_S   110 bytes  d:f16 | q:64 | high:8 | signs:32 | scales:4     point = q | a bit of high; scale_s = 8 (2 nibble_s + 1)
//! IQ1_S    50 bytes  d:f16 | q:32 | high:u16 x 8                point = q | three bits of high; scale_s = 2 (high >> 12 & 7) + 1;
//!                                                               the top bit is the shift of 32 weights
//! IQ1_M    56 bytes  q:32 | high:16 | scales:u16 x 4            point = q | three bits of high, whose fourth is the shift of 8 weights;
//!                                                               scale_t = 2 (three bits of scales) + 1; d is the top four bits of all scales
//! ```
//!
//! Points of IQ2 are eight, those of IQ3 four magnitudes; a weight whose sign bit is set is negative. A sign code has the bits of
//! seven weights, and the eighth makes their number even. A level of IQ1 is eight times -1, 0 or 1, plus 1, or less 1 if shifted.
//!
//! ggml multiplies in another order. All products here are exact in `f32`, so the order does not matter.

use super::grids::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};
use super::{BlockFormat, block_array};
use crate::half::f16_to_f32;

/// Magnitudes of the weights of IQ2.
pub const IQ2_LEVELS: [i8; 3] = [8, 25, 43];
/// Magnitudes of the weights of IQ3_XXS.
pub const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// Magnitudes of the weights of IQ3_S. Those of IQ1 are among them.
pub const ODD_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// A block in plain numbers: weight `i` is `d / 8 * scales[i / 16] * levels[i]`.
pub struct GridBlock {
    /// A binary16, as in the file.
    pub d: [u8; 2],
    /// Of 16 weights each.
    pub scales: [u8; 16],
    /// By weight.
    pub levels: [i8; 256],
}

impl GridBlock {
    fn new(d: [u8; 2]) -> Self {
        Self { d, scales: [0; 16], levels: [0; 256] }
    }

    fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.levels.len());
        let d = f16_to_f32(u16::from_le_bytes(self.d)) * 0.125;
        for (i, (out, &level)) in out.iter_mut().zip(&self.levels).enumerate() {
            *out = d * f32::from(self.scales[i / 16]) * f32::from(level);
        }
    }

    /// Sub-block `s` of 32 weights has this scale.
    fn scale_of_32(&mut self, s: usize, scale: u8) {
        self.scales[2 * s..][..2].fill(scale);
    }

    /// Eight weights from `8 i` on: magnitudes of an IQ2 point, and signs.
    fn put_eight(&mut self, i: usize, point: u16, signs: u8) {
        for (k, level) in self.levels[8 * i..][..8].iter_mut().enumerate() {
            *level = signed(IQ2_LEVELS[usize::from(point >> (2 * k) & 3)], signs, k);
        }
    }

    /// Eight weights from `8 i` on: magnitudes of two IQ3 points, and signs.
    fn put_four_and_four(&mut self, i: usize, levels: &[i8; 8], points: [u16; 2], signs: u8) {
        for (k, level) in self.levels[8 * i..][..8].iter_mut().enumerate() {
            *level = signed(levels[usize::from(points[k / 4] >> (3 * (k % 4)) & 7)], signs, k);
        }
    }

    /// Eight weights from `8 i` on: an IQ1 point, shifted down or up.
    fn put_ternary(&mut self, i: usize, point: u16, is_down: bool) {
        let shift = if is_down { -1 } else { 1 };
        for (k, level) in self.levels[8 * i..][..8].iter_mut().enumerate() {
            *level = 8 * ((point >> (2 * k) & 3) as i8 - 1) + shift;
        }
    }
}

/// Of each level the index among the magnitudes and, behind those, the same below zero: four bits.
pub fn level_indices<const N: usize>(levels: &[i8; N], magnitudes: &[i8]) -> [u8; N] {
    let mut indices = [0; 128];
    for (i, &magnitude) in magnitudes.iter().enumerate() {
        indices[usize::from(64 + magnitude.unsigned_abs())] = i as u8;
        indices[usize::from(64 - magnitude.unsigned_abs())] = (magnitudes.len() + i) as u8;
    }
    levels.map(|level| indices[usize::from((64 + level).unsigned_abs())])
}

fn signed(magnitude: i8, signs: u8, bit: usize) -> i8 {
    if signs >> bit & 1 == 1 { -magnitude } else { magnitude }
}

/// The signs of eight weights from the code of seven.
fn signs_of(code: u32) -> u8 {
    let seven = code as u8 & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from(u16_at(block, at)) | u32::from(u16_at(block, at + 2)) << 16
}

/// Half `i` of a row of nibbles, low ones first.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (i % 2 * 4) & 15
}

/// A format whose blocks are [`GridBlock`]s.
pub trait GridFormat: BlockFormat {
    /// Takes a block apart.
    ///
    /// # Panics
    /// If `block` has another length than [`BLOCK_BYTES`](BlockFormat::BLOCK_BYTES).
    fn spread(block: &[u8]) -> GridBlock;
}

macro_rules! grid_formats {
    ($($(#[$doc:meta])* $name:ident: $number:literal, $bytes:literal, $spread:ident;)*) => {
        $(
            $(#[$doc])*
            #[allow(non_camel_case_types)]
            pub enum $name {}

            impl BlockFormat for $name {
                const NAME: &'static str = stringify!($name);
                const GGML_TYPE: u32 = $number;
                const BLOCK_LEN: usize = 256;
                const BLOCK_BYTES: usize = $bytes;

                fn dequantize(block: &[u8], out: &mut [f32]) {
                    Self::spread(block).dequantize(out);
                }
            }

            impl GridFormat for $name {
                fn spread(block: &[u8]) -> GridBlock {
                    $spread(block_array(block))
                }
            }
        )*
    };
}

grid_formats! {
    /// Ternary points of eight; 1.5625 bits per weight.
    IQ1_S: 19, 50, spread_iq1_s;
    /// Ternary points of eight, scales for 16; 1.75 bits per weight.
    IQ1_M: 29, 56, spread_iq1_m;
    /// 256 points of eight; 2.0625 bits per weight.
    IQ2_XXS: 16, 66, spread_iq2_xxs;
    /// 512 points of eight; 2.3125 bits per weight.
    IQ2_XS: 17, 74, spread_iq2_xs;
    /// 1,024 points of eight; 2.5625 bits per weight.
    IQ2_S: 22, 82, spread_iq2_s;
    /// 256 points of four; 3.0625 bits per weight.
    IQ3_XXS: 18, 98, spread_iq3_xxs;
    /// 512 points of four; 3.4375 bits per weight.
    IQ3_S: 21, 110, spread_iq3_s;
}

fn spread_iq1_s(block: &[u8; 50]) -> GridBlock {
    let mut out = GridBlock::new([block[0], block[1]]);
    for s in 0..8 {
        let high = u16_at(block, 34 + 2 * s);
        out.scale_of_32(s, 2 * (high >> 12 & 7) as u8 + 1);
        for k in 0..4 {
            let point = u16::from(block[2 + 4 * s + k]) | (high >> (3 * k) & 7) << 8;
            out.put_ternary(4 * s + k, IQ1_GRID[usize::from(point)], high >> 15 == 1);
        }
    }
    out
}

fn spread_iq1_m(block: &[u8; 56]) -> GridBlock {
    let words: [u16; 4] = std::array::from_fn(|k| u16_at(block, 48 + 2 * k));
    let d = words.iter().enumerate().fold(0, |d, (k, word)| d | word >> 12 << (4 * k));
    let mut out = GridBlock::new(d.to_le_bytes());
    for (t, scale) in out.scales.iter_mut().enumerate() {
        *scale = 2 * (words[t / 4] >> (3 * (t % 4)) & 7) as u8 + 1;
    }
    for i in 0..32 {
        let high = nibble(&block[32..48], i);
        let point = u16::from(block[i]) | u16::from(high & 7) << 8;
        out.put_ternary(i, IQ1_GRID[usize::from(point)], high & 8 == 8);
    }
    out
}

fn spread_iq2_xxs(block: &[u8; 66]) -> GridBlock {
    let mut out = GridBlock::new([block[0], block[1]]);
    for (s, bytes) in block[2..].chunks_exact(8).enumerate() {
        let word = u32_at(bytes, 4);
        out.scale_of_32(s, 2 * (word >> 28) as u8 + 1);
        for k in 0..4 {
            out.put_eight(4 * s + k, IQ2_XXS_GRID[usize::from(bytes[k])], signs_of(word >> (7 * k)));
        }
    }
    out
}

fn spread_iq2_xs(block: &[u8; 74]) -> GridBlock {
    let mut out = GridBlock::new([block[0], block[1]]);
    out.scales = std::array::from_fn(|t| 2 * nibble(&block[66..], t) + 1);
    for i in 0..32 {
        let q = u16_at(block, 2 + 2 * i);
        out.put_eight(i, IQ2_XS_GRID[usize::from(q & 511)], signs_of(u32::from(q >> 9)));
    }
    out
}

fn spread_iq2_s(block: &[u8; 82]) -> GridBlock {
    let mut out = GridBlock::new([block[0], block[1]]);
    out.scales = std::array::from_fn(|t| 2 * nibble(&block[74..], t) + 1);
    for i in 0..32 {
        let high = u16::from(block[66 + i / 4] >> (2 * (i % 4)) & 3);
        let point = u16::from(block[2 + i]) | high << 8;
        out.put_eight(i, IQ2_S_GRID[usize::from(point)], block[34 + i]);
    }
    out
}

fn spread_iq3_xxs(block: &[u8; 98]) -> GridBlock {
    let mut out = GridBlock::new([block[0], block[1]]);
    for s in 0..8 {
        let word = u32_at(block, 66 + 4 * s);
        out.scale_of_32(s, 4 * (word >> 28) as u8 + 2);
        for k in 0..4 {
            let i = 4 * s + k;
            let points = [0, 1].map(|half| IQ3_XXS_GRID[usize::from(block[2 + 2 * i + half])]);
            out.put_four_and_four(i, &IQ3_XXS_LEVELS, points, signs_of(word >> (7 * k)));
        }
    }
    out
}

fn spread_iq3_s(block: &[u8; 110]) -> GridBlock {
    let mut out = GridBlock::new([block[0], block[1]]);
    for s in 0..8 {
        out.scale_of_32(s, 8 * (2 * nibble(&block[106..], s) + 1));
    }
    for i in 0..32 {
        let points = [0, 1].map(|half| {
            let at = 2 * i + half;
            let high = u16::from(block[66 + at / 8] >> (at % 8) & 1);
            IQ3_S_GRID[usize::from(u16::from(block[2 + at]) | high << 8)]
        });
        out.put_four_and_four(i, &ODD_LEVELS, points, block[74 + i]);
    }
    out
}
