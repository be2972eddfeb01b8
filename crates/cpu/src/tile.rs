//! The packed layout of quantised weights: tiles of 16 rows, interleaved so that one vector load feeds 16 rows.
//!
//! ```text
//! matrix = [tiles of 16 rows][super-blocks along the columns][header | one record a 32-column block]
//! header = d: 16 x f16, or 16 x byte | (dmin or m: 16 x f16) | (sub-block scales) | (sub-block mins)       each [sub][16 rows]
//! record = planes of the 32 columns x 16 rows, 2 to 8 bits each
//! ```
//!
//! A record unpacks to eight *groups* of 64 bytes: group `g`, byte `4 r + c` is row `r`, column `4 g + c`: the operand
//! order of a four-way byte dot product. Quants are unsigned: `q = weight's integer + OFFSET`, so that
//! `sum(weight * x) = sum(q * x) - OFFSET * sum(x)` and an accumulator that starts at the last term needs no fix-up.
//!
//! Weights stay as narrow as in the file; only 6-bit sub-block scales widen to bytes (at most 4 % of a tile). IQ1 to IQ3 are the
//! exception: points of their lattices become indices of 4 bits into a format's levels, which one look-up serves; and TQ1_0's
//! digits take two bits. Formats of the same levels share a tile.

use gguf::blocks::{IQ2_LEVELS, IQ3_XXS_LEVELS, IQ4_LEVELS, MXFP4_LEVELS, ODD_LEVELS};

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Columns of a record, and of one block of quantised activations.
pub(crate) const BLOCK: usize = 32;
/// Tokens that a tile kernel serves with one pass over its weights.
pub(crate) const MAX_TOKENS: usize = 16;
/// Groups of four columns in a record.
pub(crate) const GROUPS: usize = BLOCK / 4;

/// A record unpacked: `[group][4 * row + column]`.
pub(crate) type Groups = [[u8; 64]; GROUPS];

/// How the bits of a quant are spread over planes. A plane of `n` bits takes `n * 64` bytes a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planes {
    /// 2 bits: byte `i` of line `j` holds groups `j, j + 2, j + 4, j + 6`, low bits first.
    B2,
    /// A 2-bit plane, then one line whose bit `g` is the third bit of group `g`.
    B2B1,
    /// 4 bits: byte `i` of line `j` holds groups `j` (low) and `j + 4` (high).
    B4,
    /// A 4-bit plane, then a line of fifth bits.
    B4B1,
    /// A 4-bit plane, then a 2-bit plane.
    B4B2,
    /// Bytes.
    B8,
}

impl Planes {
    /// Bytes of a record.
    pub const fn bytes(self) -> usize {
        64 * match self {
            Planes::B2 => 2,
            Planes::B2B1 => 3,
            Planes::B4 => 4,
            Planes::B4B1 => 5,
            Planes::B4B2 => 6,
            Planes::B8 => 8,
        }
    }
}

/// What a header holds, and so how a sub-block's scale and minimum come about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// `d`; one scale for 32 columns.
    D,
    /// A byte, the power of two that is twice `d`; one scale for 32 columns.
    E8M0,
    /// `d, m`; weight = `d * q + m`.
    DM,
    /// `d, dmin, 8 x u8, 8 x u8`; weight = `d * scale * q - dmin * min`, per 32 columns.
    DMinBytes,
    /// `d, dmin, 16 x (4-bit scale | 4-bit min << 4)`, per 16 columns.
    DMinNibbles,
    /// `d, 8 x i8`; per 32 columns.
    DSigned32,
    /// `d, 16 x i8`; per 16 columns.
    DSigned16,
    /// `8 d, 16 x u8`; per 16 columns.
    EighthBytes,
}

impl Scales {
    /// Bytes of a header.
    pub const fn bytes(self) -> usize {
        TILE_ROWS
            * match self {
                Scales::E8M0 => 1,
                Scales::D => 2,
                Scales::DM => 4,
                Scales::DMinBytes => 4 + 8 + 8,
                Scales::DMinNibbles => 4 + 16,
                Scales::DSigned32 => 2 + 8,
                Scales::DSigned16 | Scales::EighthBytes => 2 + 16,
            }
    }

    /// Sub-blocks of a 32-column record that have scales of their own.
    pub const fn halves(self) -> usize {
        match self {
            Scales::DMinNibbles | Scales::DSigned16 | Scales::EighthBytes => 2,
            _ => 1,
        }
    }

    /// Whether a weight has an additive term.
    pub const fn has_min(self) -> bool {
        matches!(self, Scales::DM | Scales::DMinBytes | Scales::DMinNibbles)
    }
}

/// A block format as tiles. Constants, so that each kernel is compiled for each format.
pub(crate) trait TileFormat {
    /// 32-column records of a super-block.
    const RECORDS: usize;
    const PLANES: Planes;
    const SCALES: Scales;
    /// `OFFSET = 1 << OFFSET_LOG2`, or 0 when `None`.
    const OFFSET_LOG2: Option<u32>;
    /// Unpacked 4-bit values are indices into this table of unsigned quants.
    const LOOKUP: Option<&'static [u8; 16]> = None;

    /// Bytes of a super-block: 16 rows x `32 * RECORDS` columns.
    const BYTES: usize = Self::SCALES.bytes() + Self::RECORDS * Self::PLANES.bytes();
    const OFFSET: i32 = match Self::OFFSET_LOG2 {
        Some(log2) => 1 << log2,
        None => 0,
    };
}

/// The non-linear 4-bit code of IQ4_NL and IQ4_XS, raised by 128.
pub(crate) const IQ4_CODE: [u8; 16] = {
    let mut code = [0; 16];
    let mut i = 0;
    while i < 16 {
        code[i] = IQ4_LEVELS[i].cast_unsigned() ^ 0x80;
        i += 1;
    }
    code
};

/// Magnitudes, then the same below zero, all raised by `offset`; the rest is no level.
const fn signed_code<const N: usize>(magnitudes: [i8; N], offset: i8) -> [u8; 16] {
    let mut code = [offset.cast_unsigned(); 16];
    let mut i = 0;
    while i < N {
        code[i] = (offset + magnitudes[i]).cast_unsigned();
        code[N + i] = (offset - magnitudes[i]).cast_unsigned();
        i += 1;
    }
    code
}

/// The levels of IQ2, raised by 64.
pub(crate) const IQ2_CODE: [u8; 16] = signed_code(IQ2_LEVELS, 64);
/// The levels of IQ3_XXS, raised by 64.
pub(crate) const IQ3_XXS_CODE: [u8; 16] = signed_code(IQ3_XXS_LEVELS, 64);
/// The levels of IQ3_S, and of IQ1, raised by 16.
pub(crate) const ODD_CODE: [u8; 16] = signed_code(ODD_LEVELS, 16);

/// The four-bit floats of MXFP4, raised by 16.
pub(crate) const MXFP4_CODE: [u8; 16] = {
    let mut code = [0; 16];
    let mut i = 0;
    while i < 16 {
        code[i] = (MXFP4_LEVELS[i] + 16).cast_unsigned();
        i += 1;
    }
    code
};

macro_rules! tile_formats {
    ($($name:ident: $records:literal, $planes:ident, $scales:ident, $offset:expr $(, $lookup:expr)?;)*) => {
        $(
            #[allow(non_camel_case_types)]
            pub(crate) struct $name;
            impl TileFormat for $name {
                const RECORDS: usize = $records;
                const PLANES: Planes = Planes::$planes;
                const SCALES: Scales = Scales::$scales;
                const OFFSET_LOG2: Option<u32> = $offset;
                $(const LOOKUP: Option<&'static [u8; 16]> = Some($lookup);)?
            }
        )*
    };
}

tile_formats! {
    Q4_0: 1, B4, D, Some(3);
    Q4_1: 1, B4, DM, None;
    Q5_0: 1, B4B1, D, Some(4);
    Q5_1: 1, B4B1, DM, None;
    Q8_0: 1, B8, D, Some(7);
    Q2_K: 8, B2, DMinNibbles, None;
    Q3_K: 8, B2B1, DSigned16, Some(2);
    Q4_K: 8, B4, DMinBytes, None;
    Q5_K: 8, B4B1, DMinBytes, None;
    Q6_K: 8, B4B2, DSigned16, Some(5);
    IQ4_NL: 1, B4, D, Some(7), &IQ4_CODE;
    IQ4_XS: 8, B4, DSigned32, Some(7), &IQ4_CODE;
    MXFP4: 1, B4, E8M0, Some(4), &MXFP4_CODE;
    Iq2: 8, B4, EighthBytes, Some(6), &IQ2_CODE;
    Iq3Xxs: 8, B4, EighthBytes, Some(6), &IQ3_XXS_CODE;
    Odd: 8, B4, EighthBytes, Some(4), &ODD_CODE;
    Ternary: 8, B2, D, Some(0);
}

/// Evaluates an expression with `$F` bound to the [`TileFormat`] of a [`Format`](gguf::Format); `$other` for formats without
/// tiles.
macro_rules! with_tile_format {
    ($format:expr, $F:ident => $body:expr, _ => $other:expr) => {
        $crate::tile::with_tile_format!(@match $format, $F => $body, $other,
            (Q4_0: Q4_0) (Q4_1: Q4_1) (Q5_0: Q5_0) (Q5_1: Q5_1) (Q8_0: Q8_0) (Q2_K: Q2_K) (Q3_K: Q3_K) (Q4_K: Q4_K)
            (Q5_K: Q5_K) (Q6_K: Q6_K) (IQ4_NL: IQ4_NL) (IQ4_XS: IQ4_XS) (MXFP4: MXFP4) (Iq2: IQ2_XXS IQ2_XS IQ2_S)
            (Iq3Xxs: IQ3_XXS) (Odd: IQ3_S IQ1_S IQ1_M) (Ternary: TQ1_0 TQ2_0))
    };
    (@match $format:expr, $F:ident => $body:expr, $other:expr, $(($tile:ident: $($name:ident)*))*) => {
        match $format {
            $($(gguf::Format::$name)|* => {
                type $F = $crate::tile::$tile;
                $body
            })*
            _ => $other,
        }
    };
}
pub(crate) use with_tile_format;
