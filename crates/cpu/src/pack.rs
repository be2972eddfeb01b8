//! Repacking at load: from the file's blocks, row after row, to interleaved tiles.
//!
//! Each source block is first spread into plain integers ([`Block`]), the one place that knows the file's bit order,
//! then written into its row's lanes of the tile. Block layouts are drawn in `gguf::blocks`.

use gguf::Format;
use gguf::blocks::{
    GridFormat, IQ1_M, IQ1_S, IQ2_LEVELS, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ3_XXS_LEVELS, ODD_LEVELS,
    level_indices, q3_k_scales, q45_k_scale_min, tq1_0_digits,
};

use crate::tile::{BLOCK, GROUPS, Groups, Planes, Scales, TILE_ROWS, TileFormat};

/// One block of a row: quants raised to unsigned (or table indices), scale bytes as the tile stores them.
struct Block {
    /// Of formats whose `d` is a byte, in the first.
    d: [u8; 2],
    /// `dmin`, or `m`.
    min: [u8; 2],
    scales: [u8; 16],
    mins: [u8; 8],
    q: [u8; 256],
}

/// Packs up to 16 rows, `rows[i]` being the bytes of a row in the file, into one tile; absent rows stay zero weights.
///
/// # Panics
/// When the tile is not as long as the rows' blocks make it.
pub(crate) fn pack_tile<F: TileFormat>(format: Format, rows: &[&[u8]], tile: &mut [u8]) {
    let block_bytes = format.block_bytes();
    let num_blocks = rows[0].len() / block_bytes;
    assert_eq!(tile.len(), num_blocks * F::BYTES, "tile size");
    let mut blocks = Vec::with_capacity(rows.len());
    for (block_idx, out) in tile.chunks_exact_mut(F::BYTES).enumerate() {
        blocks.clear();
        blocks.extend(rows.iter().map(|row| spread(format, &row[block_idx * block_bytes..][..block_bytes])));
        let (header, records) = out.split_at_mut(F::SCALES.bytes());
        for (row, block) in blocks.iter().enumerate() {
            pack_scales(F::SCALES, block, row, header);
        }
        for (record_idx, record) in records.chunks_exact_mut(F::PLANES.bytes()).enumerate() {
            let mut groups: Groups = [[0; 64]; GROUPS];
            for (row, block) in blocks.iter().enumerate() {
                for (col, &q) in block.q[record_idx * BLOCK..][..BLOCK].iter().enumerate() {
                    groups[col / 4][4 * row + col % 4] = q;
                }
            }
            pack_planes(F::PLANES, &groups, record);
        }
    }
}

/// Writes one row's lanes of a header.
fn pack_scales(scales: Scales, block: &Block, row: usize, header: &mut [u8]) {
    if scales == Scales::E8M0 {
        header[row] = block.d[0];
        return;
    }
    header[2 * row..][..2].copy_from_slice(&block.d);
    let mut rest = &mut header[2 * TILE_ROWS..];
    if scales.has_min() {
        let (min, tail) = rest.split_at_mut(2 * TILE_ROWS);
        min[2 * row..][..2].copy_from_slice(&block.min);
        rest = tail;
    }
    let lanes = |bytes: &[u8], out: &mut [u8]| {
        for (byte, lane) in bytes.iter().zip(out.chunks_exact_mut(TILE_ROWS)) {
            lane[row] = *byte;
        }
    };
    match scales {
        Scales::E8M0 | Scales::D | Scales::DM => {}
        Scales::DMinBytes => {
            lanes(&block.scales[..8], &mut rest[..8 * TILE_ROWS]);
            lanes(&block.mins, &mut rest[8 * TILE_ROWS..]);
        }
        Scales::DSigned32 => lanes(&block.scales[..8], rest),
        Scales::DMinNibbles | Scales::DSigned16 | Scales::EighthBytes => lanes(&block.scales, rest),
    }
}

/// Writes a record's planes; the inverse of the kernels' unpacking.
fn pack_planes(planes: Planes, groups: &Groups, record: &mut [u8]) {
    let two_bits = |shift: u32, out: &mut [u8]| {
        for (i, byte) in out.iter_mut().enumerate() {
            let (line, lane) = (i / 64, i % 64);
            *byte = (0..4).map(|k| ((groups[line + 2 * k][lane] >> shift) & 3) << (2 * k)).sum();
        }
    };
    let one_bit = |shift: u32, out: &mut [u8]| {
        for (lane, byte) in out.iter_mut().enumerate() {
            *byte = (0..GROUPS).map(|g| ((groups[g][lane] >> shift) & 1) << g).sum();
        }
    };
    let four_bits = |out: &mut [u8]| {
        for (i, byte) in out.iter_mut().enumerate() {
            let (line, lane) = (i / 64, i % 64);
            *byte = (groups[line][lane] & 15) | (groups[line + 4][lane] << 4);
        }
    };
    match planes {
        Planes::B2 => two_bits(0, record),
        Planes::B2B1 => {
            two_bits(0, &mut record[..128]);
            one_bit(2, &mut record[128..]);
        }
        Planes::B4 => four_bits(record),
        Planes::B4B1 => {
            four_bits(&mut record[..256]);
            one_bit(4, &mut record[256..]);
        }
        Planes::B4B2 => {
            four_bits(&mut record[..256]);
            two_bits(4, &mut record[256..]);
        }
        Planes::B8 => record.copy_from_slice(groups.as_flattened()),
    }
}

/// Spreads a block of the file into plain integers.
fn spread(format: Format, bytes: &[u8]) -> Block {
    let mut b = Block { d: [0; 2], min: [0; 2], scales: [0; 16], mins: [0; 8], q: [0; 256] };
    let half = |at: usize| [bytes[at], bytes[at + 1]];
    match format {
        Format::Q4_0 | Format::IQ4_NL => {
            b.d = half(0);
            nibbles_of_32(&bytes[2..], &mut b.q);
        }
        Format::Q4_1 => {
            (b.d, b.min) = (half(0), half(2));
            nibbles_of_32(&bytes[4..], &mut b.q);
        }
        Format::Q5_0 => {
            b.d = half(0);
            nibbles_of_32(&bytes[6..], &mut b.q);
            fifth_bits(&bytes[2..6], &mut b.q);
        }
        Format::Q5_1 => {
            (b.d, b.min) = (half(0), half(2));
            nibbles_of_32(&bytes[8..], &mut b.q);
            fifth_bits(&bytes[4..8], &mut b.q);
        }
        Format::Q8_0 => {
            b.d = half(0);
            for (q, &byte) in b.q.iter_mut().zip(&bytes[2..34]) {
                *q = byte ^ 0x80;
            }
        }
        Format::Q2_K => {
            (b.d, b.min) = (half(80), half(82));
            b.scales.copy_from_slice(&bytes[..16]);
            two_bits_of_256(&bytes[16..80], &mut b.q);
        }
        Format::Q3_K => spread_q3_k(bytes, &mut b),
        Format::Q4_K => {
            (b.d, b.min) = (half(0), half(2));
            six_bit_pairs(&bytes[4..16], &mut b);
            nibbles_of_64(&bytes[16..144], &mut b.q);
        }
        Format::Q5_K => {
            (b.d, b.min) = (half(0), half(2));
            six_bit_pairs(&bytes[4..16], &mut b);
            nibbles_of_64(&bytes[48..176], &mut b.q);
            for (i, q) in b.q.iter_mut().enumerate() {
                *q |= ((bytes[16 + i % 32] >> (i / 32)) & 1) << 4;
            }
        }
        Format::Q6_K => spread_q6_k(bytes, &mut b),
        Format::IQ4_XS => spread_iq4_xs(bytes, &mut b),
        Format::MXFP4 => {
            b.d[0] = bytes[0];
            nibbles_of_32(&bytes[1..], &mut b.q);
        }
        Format::IQ1_S => spread_grid::<IQ1_S>(bytes, &ODD_LEVELS, &mut b),
        Format::IQ1_M => spread_grid::<IQ1_M>(bytes, &ODD_LEVELS, &mut b),
        Format::IQ2_XXS => spread_grid::<IQ2_XXS>(bytes, &IQ2_LEVELS, &mut b),
        Format::IQ2_XS => spread_grid::<IQ2_XS>(bytes, &IQ2_LEVELS, &mut b),
        Format::IQ2_S => spread_grid::<IQ2_S>(bytes, &IQ2_LEVELS, &mut b),
        Format::IQ3_XXS => spread_grid::<IQ3_XXS>(bytes, &IQ3_XXS_LEVELS, &mut b),
        Format::IQ3_S => spread_grid::<IQ3_S>(bytes, &ODD_LEVELS, &mut b),
        Format::TQ1_0 => {
            b.d = half(52);
            b.q = tq1_0_digits(bytes.try_into().expect("a block has the length its format states"));
        }
        Format::TQ2_0 => {
            b.d = half(64);
            two_bits_of_256(&bytes[..64], &mut b.q);
        }
        Format::F32 | Format::F16 | Format::BF16 => unreachable!("{format} has no blocks"),
    }
    b
}

fn spread_grid<G: GridFormat>(bytes: &[u8], magnitudes: &[i8], b: &mut Block) {
    let block = G::spread(bytes);
    (b.d, b.scales) = (block.d, block.scales);
    b.q = level_indices(&block.levels, magnitudes);
}

/// 16 bytes to 32 quants: low nibbles first, then high ones.
fn nibbles_of_32(bytes: &[u8], q: &mut [u8]) {
    for (i, &byte) in bytes[..16].iter().enumerate() {
        q[i] = byte & 15;
        q[i + 16] = byte >> 4;
    }
}

/// 128 bytes to 256 quants: every 32 bytes are 32 low nibbles, then 32 high ones.
fn nibbles_of_64(bytes: &[u8], q: &mut [u8]) {
    for (i, &byte) in bytes.iter().enumerate() {
        let at = i / 32 * 64 + i % 32;
        q[at] = byte & 15;
        q[at + 32] = byte >> 4;
    }
}

/// 64 bytes to 256 quants: every 32 bytes hold four runs of 32, low bits first.
fn two_bits_of_256(bytes: &[u8], q: &mut [u8]) {
    for (i, q) in q.iter_mut().enumerate() {
        *q = (bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    }
}

/// The fifth bits of 32 quants, one bit each in order.
fn fifth_bits(bytes: &[u8], q: &mut [u8]) {
    for (i, q) in q[..32].iter_mut().enumerate() {
        *q |= ((bytes[i / 8] >> (i % 8)) & 1) << 4;
    }
}

/// Eight 6-bit scales and eight 6-bit mins in 12 bytes (Q4_K, Q5_K).
fn six_bit_pairs(packed: &[u8], b: &mut Block) {
    let packed = packed.try_into().expect("12 bytes");
    for group in 0..8 {
        (b.scales[group], b.mins[group]) = q45_k_scale_min(packed, group);
    }
}

/// 32 bytes of third bits, 64 bytes of low two bits, 12 bytes of sixteen 6-bit scales raised by 32, `d`.
fn spread_q3_k(bytes: &[u8], b: &mut Block) {
    let (third_bits, low_bits, scales) = (&bytes[..32], &bytes[32..96], &bytes[96..108]);
    b.d = [bytes[108], bytes[109]];
    two_bits_of_256(low_bits, &mut b.q);
    for (i, q) in b.q.iter_mut().enumerate() {
        *q |= ((third_bits[i % 32] >> (i / 32)) & 1) << 2;
    }
    b.scales = q3_k_scales(scales.try_into().expect("12 bytes")).map(i8::cast_unsigned);
}

/// 128 bytes of low nibbles, 64 bytes of high two bits, sixteen `i8` scales, `d`.
fn spread_q6_k(bytes: &[u8], b: &mut Block) {
    let (low, high) = (&bytes[..128], &bytes[128..192]);
    b.scales.copy_from_slice(&bytes[192..208]);
    b.d = [bytes[208], bytes[209]];
    for (i, q) in b.q.iter_mut().enumerate() {
        let (part, run, lane) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[part * 64 + run % 2 * 32 + lane] >> (run / 2 * 4) & 15;
        *q = nibble | (high[part * 32 + lane] >> (2 * run) & 3) << 4;
    }
}

/// `d`, two high bits of eight scales in a `u16`, their low nibbles in 4 bytes, nibbles of 32 each; scales raised by 32.
fn spread_iq4_xs(bytes: &[u8], b: &mut Block) {
    b.d = [bytes[0], bytes[1]];
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    for i in 0..8 {
        let low = bytes[4 + i / 2] >> (i % 2 * 4) & 15;
        b.scales[i] = (low | ((high >> (2 * i)) as u8 & 3) << 4).wrapping_sub(32);
        nibbles_of_32(&bytes[8 + 16 * i..], &mut b.q[32 * i..]);
    }
}
