//! Reading the header: a position in the file's bytes that checks every step against the bytes that are left.
//!
//! Nothing is allocated for a count or a length before that many elements are known to be in the file, so
//! memory use is bounded by a small multiple of the file's own size.

use std::fmt::Display;

use crate::error::{GgufError, Result};

/// A number of a fixed width, stored little-endian.
pub(crate) trait Number: Copy {
    /// Width in bytes.
    const BYTES: usize;
    /// Reads one from exactly `BYTES` bytes.
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! impl_number {
    ($($number:ty)*) => {$(
        impl Number for $number {
            const BYTES: usize = size_of::<$number>();
            fn from_le(bytes: &[u8]) -> Self {
                <$number>::from_le_bytes(bytes.try_into().expect("the caller cuts the width"))
            }
        }
    )*};
}
impl_number!(u8 i8 u16 i16 u32 i32 f32 u64 i64 f64);

/// The bytes of a file and how far they have been read. Each method takes `what`, the thing being read, for
/// its error.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next `len` bytes.
    pub(crate) fn bytes(&mut self, len: u64, what: &dyn Display) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let Some(taken) = taken else {
            return Err(self.truncated(len, what));
        };
        self.at += taken.len();
        Ok(taken)
    }

    pub(crate) fn number<T: Number>(&mut self, what: &dyn Display) -> Result<T> {
        Ok(T::from_le(self.bytes(T::BYTES as u64, what)?))
    }

    /// An array of `count` numbers.
    pub(crate) fn numbers<T: Number>(&mut self, count: u64, what: &dyn Display) -> Result<Vec<T>> {
        let bytes = self.bytes(count.saturating_mul(T::BYTES as u64), what)?;
        Ok(bytes.chunks_exact(T::BYTES).map(T::from_le).collect())
    }

    /// A count of things that take at least `min_bytes` each, checked against the bytes left.
    pub(crate) fn count(&mut self, min_bytes: u64, what: &dyn Display) -> Result<u64> {
        let count: u64 = self.number(what)?;
        self.expect_room(count, min_bytes, what)?;
        Ok(count)
    }

    /// Fails unless `count` things of at least `min_bytes` each can still follow.
    pub(crate) fn expect_room(&self, count: u64, min_bytes: u64, what: &dyn Display) -> Result<()> {
        let need = count.saturating_mul(min_bytes);
        if need > self.left() { Err(self.truncated(need, what)) } else { Ok(()) }
    }

    /// A string: its length in bytes, then UTF-8.
    pub(crate) fn string(&mut self, what: &dyn Display) -> Result<&'a str> {
        let len = self.number(what)?;
        let bytes = self.bytes(len, what)?;
        std::str::from_utf8(bytes)
            .map_err(|error| GgufError::Utf8 { what: what.to_string(), valid_up_to: error.valid_up_to() })
    }

    /// A string of at most `max` bytes.
    pub(crate) fn name(&mut self, max: u64, what: &dyn Display) -> Result<&'a str> {
        let start = self.at;
        let len: u64 = self.number(what)?;
        if len > max && len <= self.left() {
            return Err(GgufError::NameLength { what: what.to_string(), len, max });
        }
        self.at = start;
        self.string(what)
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn truncated(&self, need: u64, what: &dyn Display) -> GgufError {
        GgufError::Truncated { what: what.to_string(), at: self.at as u64, need, left: self.left() }
    }
}
