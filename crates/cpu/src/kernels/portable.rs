//! Matrix tiles in plain code: `quant` and `float` as they stand.

use gguf::Format;

use super::{ByteTile, FloatTile, Piece, TileOut, Tokens, WideTile, float, quant};
use crate::activations::ActBlock;
use crate::tile::{TileFormat, with_tile_format};

/// The kernel of a quantised format, for activations of 8 bits.
pub(super) fn byte_tile(format: Format) -> Option<ByteTile> {
    Some(with_tile_format!(format, F => tile::<F, _> as ByteTile, _ => return None))
}

/// As `byte_tile`, of 16 bits.
pub(super) fn wide_tile(format: Format) -> Option<WideTile> {
    Some(with_tile_format!(format, F => tile::<F, _> as WideTile, _ => return None))
}

/// The kernel of a float format.
pub(super) fn float_tile(format: Format) -> Option<FloatTile> {
    Some(float::with_float_weight!(format, W => float_tile_of::<W> as FloatTile, _ => return None))
}

fn tile<F: TileFormat, const B: usize>(piece: &Piece<'_>, x: Tokens<'_, ActBlock<B>>, sums: &mut TileOut) {
    quant::tile::<F, B>(piece, x, sums);
}

fn float_tile_of<W: float::FloatWeight>(piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
    float::tile::<W>(piece, x, sums);
}
