//! Parsing and checking one file: its metadata, and where each tensor's data lies.
//!
//! ```text
//! "GGUF" | version: u32 | n_tensors: u64 | n_keys: u64
//! n_keys    x ( key: string | type: u32 | value )
//! n_tensors x ( name: string | n_dims: u32 | dims: n_dims x u64 | ggml_type: u32 | offset: u64 )
//! padding to the alignment | data, at whose start offsets count from zero
//!
//! string: len: u64 | UTF-8        array: type: u32 | count: u64 | elements
//! ```
//!
//! Versions 2 and 3 share this layout (3 added big-endian files, which are refused; 1 had 32-bit lengths).
//! Each record is checked as it is read; the tensors' places are checked once all are known.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use crate::cursor::{Cursor, Number};
use crate::error::{GgufError, Result};
use crate::format::Format;
use crate::metadata::Metadata;
use crate::value::{Array, Value, type_id};

/// Alignment of the data if `general.alignment` does not say.
pub(crate) const DEFAULT_ALIGNMENT: u32 = 32;
/// A larger alignment than this is taken for damage: nobody needs more than the largest page, 64 KiB.
const MAX_ALIGNMENT: u32 = 1 << 20;
/// Longest key the format allows; tensor names are held to the same.
const MAX_NAME_BYTES: u64 = 65_535;
const MAX_DIMS: u32 = 4;
/// The least a metadata key takes: an empty name, a type, a one-byte value.
const MIN_KEY_BYTES: u64 = 8 + 4 + 1;
/// The least a tensor record takes: an empty name, one dimension, type and offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// What one file says, checked.
pub(crate) struct Header {
    pub(crate) metadata: Metadata,
    /// In the file's order.
    pub(crate) tensors: Vec<TensorRecord>,
}

/// One tensor, whose shape, format and place have been checked against each other and the file.
pub(crate) struct TensorRecord {
    pub(crate) name: String,
    pub(crate) format: Format,
    /// In the file's order: `dims[0]` is the length of a row. All at least 1; as `f32` they can be addressed.
    pub(crate) dims: Vec<u64>,
    /// Where the data lies in the file; exactly as long as `dims` and `format` need.
    pub(crate) data: Range<usize>,
}

/// What is being read, for errors.
enum Item<'a> {
    Header,
    KeyName(u64),
    Key(&'a str),
    TensorName(u64),
    Tensor(&'a str),
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Header => write!(f, "the header"),
            Item::KeyName(index) => write!(f, "the name of metadata key number {index}"),
            Item::Key(key) => write!(f, "metadata key {key:?}"),
            Item::TensorName(index) => write!(f, "the name of tensor number {index}"),
            Item::Tensor(name) => write!(f, "the record of tensor {name:?}"),
        }
    }
}

/// Reads the header of a whole file.
pub(crate) fn read(file: &[u8]) -> Result<Header> {
    let mut cursor = Cursor::new(file);
    let (n_tensors, metadata) = read_metadata(&mut cursor)?;

    let alignment = alignment(&metadata)?;
    cursor.expect_room(n_tensors, MIN_TENSOR_BYTES, &Item::Header)?;
    let unplaced: Vec<UnplacedTensor> =
        (0..n_tensors).map(|index| read_tensor(&mut cursor, index)).collect::<Result<_>>()?;

    let mut names = HashSet::with_capacity(unplaced.len());
    if let Some(twice) = unplaced.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
        return Err(GgufError::DuplicateTensor { tensor: twice.name.clone() });
    }

    // A file without tensors may end before the padding: vocabularies do.
    let data_start = cursor.position().next_multiple_of(alignment as usize);
    let tensors = unplaced
        .into_iter()
        .map(|tensor| tensor.place(data_start, file.len(), alignment))
        .collect::<Result<Vec<_>>>()?;
    check_overlap(&tensors, data_start)?;
    Ok(Header { metadata, tensors })
}

/// Reads the header up to and including the metadata, which needs nothing of what follows. Returns the number
/// of tensors as well, not yet checked.
pub(crate) fn read_metadata(cursor: &mut Cursor<'_>) -> Result<(u64, Metadata)> {
    let magic = cursor.bytes(4, &Item::Header)?;
    if magic != b"GGUF" {
        return Err(GgufError::Magic { found: magic.try_into().expect("four bytes were read") });
    }
    match cursor.number::<u32>(&Item::Header)? {
        2 | 3 => {}
        swapped if (1..=3).contains(&swapped.swap_bytes()) => return Err(GgufError::BigEndian),
        found => return Err(GgufError::Version { found }),
    }
    let n_tensors = cursor.number(&Item::Header)?;
    let n_keys = cursor.count(MIN_KEY_BYTES, &Item::Header)?;

    let mut metadata = Metadata::default();
    for index in 0..n_keys {
        let key = cursor.name(MAX_NAME_BYTES, &Item::KeyName(index))?;
        metadata.insert(key, read_value(cursor, key)?)?;
    }
    Ok((n_tensors, metadata))
}

fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value> {
    let what = &Item::Key(key);
    Ok(match cursor.number::<u32>(what)? {
        type_id::U8 => Value::U8(cursor.number(what)?),
        type_id::I8 => Value::I8(cursor.number(what)?),
        type_id::U16 => Value::U16(cursor.number(what)?),
        type_id::I16 => Value::I16(cursor.number(what)?),
        type_id::U32 => Value::U32(cursor.number(what)?),
        type_id::I32 => Value::I32(cursor.number(what)?),
        type_id::F32 => Value::F32(cursor.number(what)?),
        type_id::BOOL => Value::Bool(to_bool(cursor.number(what)?, key)?),
        type_id::STRING => Value::String(cursor.string(what)?.to_owned()),
        type_id::ARRAY => Value::Array(read_array(cursor, key)?),
        type_id::U64 => Value::U64(cursor.number(what)?),
        type_id::I64 => Value::I64(cursor.number(what)?),
        type_id::F64 => Value::F64(cursor.number(what)?),
        found => return Err(GgufError::ValueType { key: key.into(), found }),
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array> {
    let what = &Item::Key(key);
    let element_type: u32 = cursor.number(what)?;
    let mut read = ArrayReader { count: cursor.number(what)?, cursor, key };
    Ok(match element_type {
        type_id::U8 => Array::U8(read.numbers()?),
        type_id::I8 => Array::I8(read.numbers()?),
        type_id::U16 => Array::U16(read.numbers()?),
        type_id::I16 => Array::I16(read.numbers()?),
        type_id::U32 => Array::U32(read.numbers()?),
        type_id::I32 => Array::I32(read.numbers()?),
        type_id::F32 => Array::F32(read.numbers()?),
        type_id::BOOL => Array::Bool(read.bools()?),
        type_id::STRING => Array::String(read.strings()?),
        type_id::ARRAY => return Err(GgufError::NestedArray { key: key.into() }),
        type_id::U64 => Array::U64(read.numbers()?),
        type_id::I64 => Array::I64(read.numbers()?),
        type_id::F64 => Array::F64(read.numbers()?),
        found => return Err(GgufError::ValueType { key: key.into(), found }),
    })
}

/// The elements of one array.
struct ArrayReader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    key: &'c str,
    count: u64,
}

impl ArrayReader<'_, '_> {
    fn numbers<T: Number>(&mut self) -> Result<Vec<T>> {
        self.cursor.numbers(self.count, &Item::Key(self.key))
    }

    fn bools(&mut self) -> Result<Vec<bool>> {
        self.numbers()?.into_iter().map(|byte| to_bool(byte, self.key)).collect()
    }

    fn strings(&mut self) -> Result<Vec<String>> {
        let what = &Item::Key(self.key);
        // Each string takes at least its length's eight bytes.
        self.cursor.expect_room(self.count, 8, what)?;
        let mut strings = Vec::with_capacity(self.count as usize);
        for _ in 0..self.count {
            strings.push(self.cursor.string(what)?.to_owned());
        }
        Ok(strings)
    }
}

fn to_bool(byte: u8, key: &str) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(GgufError::Bool { key: key.into(), found }),
    }
}

fn alignment(metadata: &Metadata) -> Result<u32> {
    let alignment = metadata.u32("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
        Ok(alignment)
    } else {
        Err(GgufError::Alignment { found: alignment, max: MAX_ALIGNMENT })
    }
}

/// A tensor whose record has been read, but whose offset has not been checked.
struct UnplacedTensor {
    name: String,
    format: Format,
    dims: Vec<u64>,
    bytes: u64,
    offset: u64,
}

fn read_tensor(cursor: &mut Cursor<'_>, index: u64) -> Result<UnplacedTensor> {
    let name = cursor.name(MAX_NAME_BYTES, &Item::TensorName(index))?;
    let what = &Item::Tensor(name);
    let n_dims: u32 = cursor.number(what)?;
    if !(1..=MAX_DIMS).contains(&n_dims) {
        return Err(GgufError::DimensionCount { tensor: name.into(), found: n_dims });
    }
    let dims: Vec<u64> = cursor.numbers(n_dims.into(), what)?;
    let ggml_type = cursor.number(what)?;
    let format = Format::from_ggml_type(ggml_type)
        .ok_or_else(|| GgufError::UnsupportedFormat { tensor: name.into(), found: ggml_type })?;
    let bytes = tensor_bytes(name, &dims, format)?;
    let offset = cursor.number(what)?;
    Ok(UnplacedTensor { name: name.to_owned(), format, dims, bytes, offset })
}

/// The size of a tensor's data. Also makes sure that its `f32` form could be addressed, so that products of
/// dimensions need no further checks.
fn tensor_bytes(name: &str, dims: &[u64], format: Format) -> Result<u64> {
    if dims.contains(&0) {
        return Err(GgufError::EmptyDimension { tensor: name.into(), dims: dims.into() });
    }
    if !dims[0].is_multiple_of(format.block_len() as u64) {
        return Err(GgufError::RowLength { tensor: name.into(), format, cols: dims[0] });
    }
    let n_weights = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    n_weights
        .filter(|&n| n.checked_mul(4).is_some_and(|bytes| isize::try_from(bytes).is_ok()))
        .and_then(|n| format.bytes_for(n))
        .ok_or_else(|| GgufError::TooLarge { tensor: name.into(), dims: dims.into() })
}

impl UnplacedTensor {
    fn place(self, data_start: usize, file_len: usize, alignment: u32) -> Result<TensorRecord> {
        let UnplacedTensor { name, format, dims, bytes, offset } = self;
        let alignment = u64::from(alignment);
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned { tensor: name, offset, alignment });
        }
        let available = file_len.saturating_sub(data_start) as u64;
        if offset.checked_add(bytes).is_none_or(|end| end > available) {
            return Err(GgufError::OutOfFile { tensor: name, offset, bytes, available });
        }
        // Both are at most the file's length, which is a usize.
        let start = data_start + offset as usize;
        Ok(TensorRecord { name, format, dims, data: start..start + bytes as usize })
    }
}

fn check_overlap(tensors: &[TensorRecord], data_start: usize) -> Result<()> {
    let mut by_place: Vec<&TensorRecord> = tensors.iter().collect();
    by_place.sort_by_key(|tensor| tensor.data.start);
    for pair in by_place.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        if first.data.end > second.data.start {
            return Err(GgufError::Overlap {
                first: first.name.clone(),
                second: second.name.clone(),
                offset: (second.data.start - data_start) as u64,
                bytes: (first.data.end - second.data.start) as u64,
            });
        }
    }
    Ok(())
}
