//! How weights lie on the device: the file's blocks, cut into planes that lanes read side by side.
//!
//! A matrix of N rows and K columns is cut into tiles of 16 rows by 64 columns, row tile by row tile; what the last ones
//! lack is zero. A tile has 32 blocks, each 32 columns of a row: block `2 row + half` is lane `2 row + half` of whoever
//! reads the tile. A block keeps its format's bits, but each kind of them in a plane, a buffer, of its own:
//!
//! ```text
//! Quants, High   [tile][j][lane] of vectors of up to four words, so that a load of 32 lanes is contiguous
//! Scales         [tile][lane] of words, halves or bytes
//! Super          [row tile][256 columns][row] of words: d, and dmin above it
//! ```
//!
//! IQ1 to IQ3 and TQ1_0 do not keep their bits: points of lattices become indices of four bits into the levels, base-3 digits two
//! bits each.
//!
//! The order of the bits in a word is drawn in each format's file of the kernels' folder `formats`. Planes of consecutive row tiles
//! concatenate, so a matrix may be packed and sent a piece at a time.
#![forbid(unsafe_code)]

mod blocks;

use std::thread;

use gguf::Format;

use self::blocks::Codes;

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Columns of a tile.
pub const TILE_COLS: usize = 64;
/// Columns of a block: what a lane reads of a tile.
const BLOCK: usize = 32;
/// Blocks of a tile.
const LANES: usize = 32;
/// Columns that share a word of [`Role::Super`].
const SUPER_COLS: usize = 256;
/// Bytes of a file that are worth a thread.
const BYTES_PER_THREAD: usize = 1 << 20;

/// What a plane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The quants, or their low bits.
    Quants,
    /// The bits of the quants above those.
    High,
    /// What scales a block.
    Scales,
    /// What scales the scales of 256 columns.
    Super,
}

/// A plane of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// What it holds.
    pub role: Role,
    /// How much it has.
    pub size: Size,
}

/// What a plane has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes for each block; whole words are laid in vectors of up to four.
    BytesPerBlock(usize),
    /// A word for each row and 256 columns.
    WordPerSuper,
}

impl Plane {
    /// Words that a tile of rows of `cols` columns takes.
    pub fn words_per_row_tile(self, cols: usize) -> usize {
        match self.size {
            Size::BytesPerBlock(bytes) => cols.div_ceil(TILE_COLS) * LANES * bytes / 4,
            Size::WordPerSuper => cols.div_ceil(SUPER_COLS) * TILE_ROWS,
        }
    }
}

const fn plane(role: Role, bytes_per_block: usize) -> Plane {
    Plane { role, size: Size::BytesPerBlock(bytes_per_block) }
}

const SUPER: Plane = Plane { role: Role::Super, size: Size::WordPerSuper };

/// The planes of a format, in the order in which kernels bind them.
pub fn planes_of(format: Format) -> &'static [Plane] {
    use Role::{High, Quants, Scales};
    match format {
        Format::F32 => const { &[plane(Quants, 128)] },
        Format::F16 | Format::BF16 => const { &[plane(Quants, 64)] },
        Format::Q4_0 | Format::IQ4_NL => const { &[plane(Quants, 16), plane(Scales, 2)] },
        Format::Q4_1 => const { &[plane(Quants, 16), plane(Scales, 4)] },
        Format::Q5_0 => const { &[plane(Quants, 16), plane(High, 4), plane(Scales, 2)] },
        Format::Q5_1 => const { &[plane(Quants, 16), plane(High, 4), plane(Scales, 4)] },
        Format::Q8_0 => const { &[plane(Quants, 32), plane(Scales, 2)] },
        Format::Q2_K => const { &[plane(Quants, 8), plane(Scales, 2), SUPER] },
        Format::Q3_K => const { &[plane(Quants, 8), plane(High, 4), plane(Scales, 2), SUPER] },
        Format::Q4_K => const { &[plane(Quants, 16), plane(Scales, 2), SUPER] },
        Format::Q5_K => const { &[plane(Quants, 16), plane(High, 4), plane(Scales, 2), SUPER] },
        Format::Q6_K => const { &[plane(Quants, 16), plane(High, 8), plane(Scales, 2), SUPER] },
        Format::IQ4_XS => const { &[plane(Quants, 16), plane(Scales, 1), SUPER] },
        Format::MXFP4 => const { &[plane(Quants, 16), plane(Scales, 1)] },
        Format::IQ1_S
        | Format::IQ1_M
        | Format::IQ2_XXS
        | Format::IQ2_XS
        | Format::IQ2_S
        | Format::IQ3_XXS
        | Format::IQ3_S => const { &[plane(Quants, 16), plane(Scales, 2), SUPER] },
        Format::TQ1_0 | Format::TQ2_0 => const { &[plane(Quants, 8), SUPER] },
    }
}

/// Bytes on the device of a matrix of `rows` rows and `cols` columns, all planes together.
pub fn packed_bytes(format: Format, rows: usize, cols: usize) -> u64 {
    let words: usize = planes_of(format).iter().map(|plane| plane.words_per_row_tile(cols)).sum();
    (rows.div_ceil(TILE_ROWS) * words) as u64 * 4
}

/// Packs rows of `cols` weights, `bytes` as the file stores them, to the format's planes in their order. Only the last
/// piece of a matrix may end within a row tile.
///
/// # Panics
/// When `cols` is no whole number of blocks, or `bytes` of rows.
pub fn pack(format: Format, bytes: &[u8], cols: usize) -> Vec<(Role, Vec<u32>)> {
    let row_bytes = format.bytes_for(cols as u64).expect("a row is whole blocks") as usize;
    assert!(row_bytes > 0 && bytes.len().is_multiple_of(row_bytes), "{format}: a matrix is whole rows");
    let tile_bytes = TILE_ROWS * row_bytes;
    let row_tiles = bytes.len().div_ceil(tile_bytes);
    let planes = planes_of(format);
    let mut packed: Vec<(Role, Vec<u32>)> = planes
        .iter()
        .map(|plane| (plane.role, vec![0; row_tiles * plane.words_per_row_tile(cols)]))
        .collect();

    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(bytes.len() / BYTES_PER_THREAD).max(1);
    let tiles_per_thread = row_tiles.div_ceil(threads).max(1);
    let mut rest: Vec<&mut [u32]> = packed.iter_mut().map(|(_, words)| words.as_mut_slice()).collect();
    thread::scope(|scope| {
        let mut pieces = bytes.chunks(tiles_per_thread * tile_bytes).peekable();
        while let Some(piece) = pieces.next() {
            let tiles = piece.len().div_ceil(tile_bytes);
            let mut out: Vec<&mut [u32]> = rest
                .iter_mut()
                .zip(planes)
                .map(|(words, plane)| {
                    words
                        .split_off_mut(..tiles * plane.words_per_row_tile(cols))
                        .expect("planes hold all tiles")
                })
                .collect();
            let mut work = move || pack_row_tiles(format, piece, cols, row_bytes, &mut out);
            match pieces.peek() {
                Some(_) => drop(scope.spawn(work)),
                None => work(),
            }
        }
    });
    packed
}

fn pack_row_tiles(format: Format, bytes: &[u8], cols: usize, row_bytes: usize, planes: &mut [&mut [u32]]) {
    for (row_tile, rows) in bytes.chunks(TILE_ROWS * row_bytes).enumerate() {
        let mut tile: Vec<TilePlane<'_>> = planes
            .iter_mut()
            .zip(planes_of(format))
            .map(|(words, &plane)| {
                let len = plane.words_per_row_tile(cols);
                TilePlane { plane, words: &mut words[row_tile * len..][..len] }
            })
            .collect();
        for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
            pack_row(format, bytes, row, &mut tile);
        }
    }
}

/// A plane's words of a row tile.
struct TilePlane<'a> {
    plane: Plane,
    words: &'a mut [u32],
}

impl TilePlane<'_> {
    /// Writes the bits of the block of `row` that starts at column `32 block`.
    fn put(&mut self, row: usize, block: usize, codes: &Codes) {
        let (tile, lane) = (block / 2, 2 * row + block % 2);
        match (self.plane.role, self.plane.size) {
            (_, Size::WordPerSuper) => {
                self.words[block / (SUPER_COLS / BLOCK) * TILE_ROWS + row] = codes.factors;
            }
            (Role::Scales, Size::BytesPerBlock(bytes)) => {
                let lanes_per_word = 4 / bytes;
                let shift = lane % lanes_per_word * 8 * bytes;
                self.words[(tile * LANES + lane) / lanes_per_word] |= codes.scale << shift;
            }
            (role, Size::BytesPerBlock(bytes)) => {
                let words =
                    if role == Role::Quants { &codes.quants[..bytes / 4] } else { &codes.high[..bytes / 4] };
                let vector = words.len().min(4);
                let tile = &mut self.words[tile * LANES * words.len()..][..LANES * words.len()];
                for (j, part) in words.chunks_exact(vector).enumerate() {
                    tile[(j * LANES + lane) * vector..][..vector].copy_from_slice(part);
                }
            }
        }
    }
}

fn pack_row(format: Format, bytes: &[u8], row: usize, tile: &mut [TilePlane<'_>]) {
    let mut put =
        |block: usize, codes: &Codes| tile.iter_mut().for_each(|plane| plane.put(row, block, codes));
    match format {
        Format::F32 | Format::F16 | Format::BF16 => {
            for (block, bytes) in bytes.chunks(BLOCK * format.block_bytes()).enumerate() {
                put(block, &Codes::of_floats(bytes));
            }
        }
        _ => {
            let per_file_block = format.block_len() / BLOCK;
            for (file_block, bytes) in bytes.chunks_exact(format.block_bytes()).enumerate() {
                for part in 0..per_file_block {
                    put(file_block * per_file_block + part, &Codes::of_block(format, bytes, part));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::{Rng, random_blocks};

    #[test]
    fn a_matrix_takes_at_most_a_tenth_more_than_in_the_file_unless_it_is_unpacked() {
        for format in Format::ALL {
            let bits = match format {
                Format::IQ1_S
                | Format::IQ1_M
                | Format::IQ2_XXS
                | Format::IQ2_XS
                | Format::IQ2_S
                | Format::IQ3_XXS
                | Format::IQ3_S => 4.625,
                Format::TQ1_0 => 2.125,
                _ => 1.10 * 8.0 * format.block_bytes() as f64 / format.block_len() as f64,
            };
            let bytes = random_blocks(format, 256 * 1024, 0.02, &mut Rng::new(1));
            let packed: usize = pack(format, &bytes, 1024).iter().map(|(_, words)| words.len() * 4).sum();
            assert_eq!(packed as u64, packed_bytes(format, 256, 1024));
            let most = bits * (256 * 1024 / 8) as f64;
            assert!(packed as f64 <= most, "{format}: {packed} for {}, at most {most}", bytes.len());
        }
    }

    #[test]
    fn pieces_of_row_tiles_concatenate() {
        let (rows, cols) = (16 * 70 + 5, 2048);
        for format in Format::ALL {
            let bytes = random_blocks(format, rows * cols, 0.02, &mut Rng::new(2));
            let whole = pack(format, &bytes, cols);
            let mut pieces: Vec<(Role, Vec<u32>)> =
                planes_of(format).iter().map(|plane| (plane.role, Vec::new())).collect();
            for piece in bytes.chunks(16 * 3 * format.bytes_for(cols as u64).unwrap() as usize) {
                for ((_, words), (_, more)) in pieces.iter_mut().zip(pack(format, piece, cols)) {
                    words.extend(more);
                }
            }
            assert!(whole == pieces, "{format}");
        }
    }
}
