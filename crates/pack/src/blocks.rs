//! From a block of the file to the words of its planes, 32 weights at a time.
//!
//! The file's blocks are drawn in [`gguf::blocks`]. Words of four bytes hold the weights in the order 0, 2, 1, 3, so
//! that a mask of a kernel leaves two neighbours as the halves of a word.

use gguf::Format;
use gguf::blocks::{
    GridBlock, GridFormat, IQ1_M, IQ1_S, IQ2_LEVELS, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ3_XXS_LEVELS,
    ODD_LEVELS, level_indices, q3_k_scales, q45_k_scale_min, tq1_0_digits,
};

use super::BLOCK;

/// What the planes hold of 32 weights.
#[derive(Default)]
pub(super) struct Codes {
    pub quants: [u32; 32],
    pub high: [u32; 2],
    pub scale: u32,
    /// `d`, and `dmin` above it.
    pub factors: u32,
}

impl Codes {
    /// Up to 32 floats, as they are.
    pub fn of_floats(bytes: &[u8]) -> Self {
        let mut codes = Self::default();
        for (word, bytes) in codes.quants.iter_mut().zip(bytes.chunks(4)) {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_le_bytes(padded);
        }
        codes
    }

    /// Weights `32 part ..` of a block of a quantised format.
    pub fn of_block(format: Format, block: &[u8], part: usize) -> Self {
        if let Some((block, magnitudes)) = grid_block(format, block) {
            return Self::of_grid(&block, magnitudes, part);
        }
        let fours = fours(&quants(format, block, part));
        let mut codes =
            Self { scale: scale(format, block, part), factors: factors(format, block), ..Self::default() };
        match format {
            Format::Q8_0 => codes.quants[..8].copy_from_slice(&fours),
            Format::Q2_K | Format::Q3_K | Format::TQ1_0 | Format::TQ2_0 => {
                codes.quants[..2].copy_from_slice(&two_bits(&fours, 0))
            }
            _ => codes.quants[..4].copy_from_slice(&nibbles(&fours)),
        }
        match format {
            Format::Q3_K => codes.high[0] = one_bit(&fours, 2),
            Format::Q5_0 | Format::Q5_1 | Format::Q5_K => codes.high[0] = one_bit(&fours, 4),
            Format::Q6_K => codes.high = two_bits(&fours, 4),
            _ => {}
        }
        codes
    }

    /// Weights `32 part ..` of a block of points.
    fn of_grid(block: &GridBlock, magnitudes: &[i8], part: usize) -> Self {
        let levels: &[i8; BLOCK] =
            block.levels[BLOCK * part..].first_chunk().expect("a block has 256 weights");
        let mut codes =
            Self { scale: u16_at(&block.scales, 2 * part), factors: u16_at(&block.d, 0), ..Self::default() };
        codes.quants[..4].copy_from_slice(&nibbles(&fours(&level_indices(levels, magnitudes))));
        codes
    }
}

/// A block of a format whose weights are points, and the magnitudes of its levels.
fn grid_block(format: Format, block: &[u8]) -> Option<(GridBlock, &'static [i8])> {
    Some(match format {
        Format::IQ1_S => (IQ1_S::spread(block), &ODD_LEVELS),
        Format::IQ1_M => (IQ1_M::spread(block), &ODD_LEVELS),
        Format::IQ2_XXS => (IQ2_XXS::spread(block), &IQ2_LEVELS),
        Format::IQ2_XS => (IQ2_XS::spread(block), &IQ2_LEVELS),
        Format::IQ2_S => (IQ2_S::spread(block), &IQ2_LEVELS),
        Format::IQ3_XXS => (IQ3_XXS::spread(block), &IQ3_XXS_LEVELS),
        Format::IQ3_S => (IQ3_S::spread(block), &ODD_LEVELS),
        _ => return None,
    })
}

/// Weights `4 i .. 4 i + 3` as the bytes of word `i`, in the order 0, 2, 1, 3.
fn fours(q: &[u8; BLOCK]) -> [u32; 8] {
    std::array::from_fn(|i| u32::from_le_bytes([q[4 * i], q[4 * i + 2], q[4 * i + 1], q[4 * i + 3]]))
}

/// The low four bits: words `2 j` in the low nibbles and `2 j + 1` in the high ones.
fn nibbles(fours: &[u32; 8]) -> [u32; 4] {
    std::array::from_fn(|j| (fours[2 * j] & 0x0f0f_0f0f) | (fours[2 * j + 1] & 0x0f0f_0f0f) << 4)
}

/// Bits `from` and `from + 1`: those of word `i` at bit `2 (i % 4)` of the bytes of word `i / 4`.
fn two_bits(fours: &[u32; 8], from: u32) -> [u32; 2] {
    std::array::from_fn(|k| {
        (0..4).fold(0, |word, i| word | ((fours[4 * k + i] >> from) & 0x0303_0303) << (2 * i))
    })
}

/// Bit `from`: that of word `i` at bit `i` of the bytes.
fn one_bit(fours: &[u32; 8], from: u32) -> u32 {
    (0..8).fold(0, |word, i| word | ((fours[i] >> from) & 0x0101_0101) << i)
}

fn u16_at(block: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[at], block[at + 1]]))
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u16_at(block, at) | u16_at(block, at + 2) << 16
}

/// What a block's plane of scales holds.
fn scale(format: Format, block: &[u8], part: usize) -> u32 {
    let pair = |first: u8, second: u8| u32::from(u16::from_le_bytes([first, second]));
    match format {
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::IQ4_NL => u16_at(block, 0),
        Format::Q4_1 | Format::Q5_1 => u32_at(block, 0),
        Format::Q2_K => u16_at(block, 2 * part),
        Format::Q3_K => {
            let scales = q3_k_scales(block[96..108].try_into().expect("12 bytes"));
            pair(scales[2 * part].cast_unsigned(), scales[2 * part + 1].cast_unsigned())
        }
        Format::Q4_K | Format::Q5_K => {
            let (scale, min) = q45_k_scale_min(block[4..16].try_into().expect("12 bytes"), part);
            pair(scale, min)
        }
        Format::Q6_K => u16_at(block, 192 + 2 * part),
        Format::IQ4_XS => {
            let low = block[4 + part / 2] >> (part % 2 * 4) & 15;
            let high = (u16_at(block, 2) >> (2 * part)) as u8 & 3;
            u32::from((low | high << 4).wrapping_sub(32))
        }
        Format::MXFP4 => u32::from(block[0]),
        Format::TQ1_0 | Format::TQ2_0 => 0,
        _ => unreachable!("{format} has no scales here"),
    }
}

/// `d`, and `dmin` above it, of the formats whose scales are scaled.
fn factors(format: Format, block: &[u8]) -> u32 {
    match format {
        Format::Q2_K => u32_at(block, 80),
        Format::Q3_K => u16_at(block, 108),
        Format::Q4_K | Format::Q5_K => u32_at(block, 0),
        Format::Q6_K => u16_at(block, 208),
        Format::IQ4_XS => u16_at(block, 0),
        Format::TQ1_0 => u16_at(block, 52),
        Format::TQ2_0 => u16_at(block, 64),
        _ => 0,
    }
}

/// The quants, raised to be unsigned.
fn quants(format: Format, block: &[u8], part: usize) -> [u8; BLOCK] {
    match format {
        Format::Q4_0 | Format::IQ4_NL => nibbles_of_32(&block[2..]),
        Format::Q4_1 => nibbles_of_32(&block[4..]),
        Format::Q5_0 => with_fifth_bits(nibbles_of_32(&block[6..]), u32_at(block, 2)),
        Format::Q5_1 => with_fifth_bits(nibbles_of_32(&block[8..]), u32_at(block, 4)),
        Format::Q8_0 => bytes_of_32(&block[2..]).map(|byte| byte ^ 0x80),
        Format::Q2_K => two_bits_of_256(&block[16..], part),
        Format::Q3_K => both(two_bits_of_256(&block[32..], part), bits_of_256(block, part), 2),
        Format::Q4_K => nibbles_of_64(&block[16..], part),
        Format::Q5_K => both(nibbles_of_64(&block[48..], part), bits_of_256(&block[16..], part), 4),
        Format::Q6_K => {
            let (half, quarter) = (part / 4, part % 4);
            let bytes = bytes_of_32(&block[64 * half + 32 * (quarter % 2)..]);
            let low = bytes.map(|byte| byte >> (quarter / 2 * 4) & 15);
            both(low, two_bits_of_256(&block[128..], part), 4)
        }
        Format::IQ4_XS => nibbles_of_32(&block[8 + 16 * part..]),
        Format::MXFP4 => nibbles_of_32(&block[1..]),
        Format::TQ1_0 => {
            let digits = tq1_0_digits(block.try_into().expect("a block has the length its format states"));
            *digits[BLOCK * part..].first_chunk().expect("a block has 256 weights")
        }
        Format::TQ2_0 => two_bits_of_256(block, part),
        _ => unreachable!("{format} has no quants of its own"),
    }
}

fn bytes_of_32(bytes: &[u8]) -> [u8; BLOCK] {
    *bytes.first_chunk().expect("a block has the length its format states")
}

/// `low | high << shift`, weight by weight.
fn both(low: [u8; BLOCK], high: [u8; BLOCK], shift: u32) -> [u8; BLOCK] {
    std::array::from_fn(|i| low[i] | high[i] << shift)
}

/// 16 bytes: weight `i` in the low half of byte `i`, weight `16 + i` in the high one.
fn nibbles_of_32(bytes: &[u8]) -> [u8; BLOCK] {
    let bytes: &[u8; 16] = bytes.first_chunk().expect("a block has the length its format states");
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

fn with_fifth_bits(q: [u8; BLOCK], bits: u32) -> [u8; BLOCK] {
    std::array::from_fn(|i| q[i] | ((bits >> i & 1) << 4) as u8)
}

/// Two parts share 32 bytes: the even one has the low halves.
fn nibbles_of_64(bytes: &[u8], part: usize) -> [u8; BLOCK] {
    bytes_of_32(&bytes[32 * (part / 2)..]).map(|byte| byte >> (part % 2 * 4) & 15)
}

/// Four parts share 32 bytes, from the low bits up.
fn two_bits_of_256(bytes: &[u8], part: usize) -> [u8; BLOCK] {
    bytes_of_32(&bytes[32 * (part / 4)..]).map(|byte| byte >> (part % 4 * 2) & 3)
}

/// Eight parts share 32 bytes, from the low bits up.
fn bits_of_256(bytes: &[u8], part: usize) -> [u8; BLOCK] {
    bytes_of_32(bytes).map(|byte| byte >> part & 1)
}
