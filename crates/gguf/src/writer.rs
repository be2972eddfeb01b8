//! Writing GGUF version 3: for tests and for tools that make or change models.

use std::io::{self, Write};
use std::sync::Arc;

use crate::file::Gguf;
use crate::format::Format;
use crate::header::{DEFAULT_ALIGNMENT, TensorRecord};
use crate::metadata::Metadata;
use crate::value::{Array, Value};

/// Collects metadata and tensors, then writes them as one file, in the order they were given.
///
/// Nothing about the model is checked here but what would make the file unreadable.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    format: Format,
    len: usize,
    data: Data,
}

/// Where a tensor's bytes come from.
#[derive(Clone, Debug)]
enum Data {
    Own(Vec<u8>),
    /// These bytes over and over.
    Pattern(Arc<[u8]>),
}

impl GgufWriter {
    /// A file without metadata or tensors.
    pub fn new() -> Self {
        GgufWriter::default()
    }

    /// Adds a key. `general.alignment`, if given as a `u32`, also sets the alignment of this file's data.
    ///
    /// # Panics
    /// If the key is there already.
    pub fn metadata(&mut self, key: &str, value: Value) -> &mut Self {
        assert!(self.metadata.iter().all(|(known, _)| known != key), "metadata key {key:?} given twice");
        self.metadata.push((key.into(), value));
        self
    }

    /// Adds a tensor: `dims` in the file's order (`dims[0]` is the length of a row), `data` in `format`, row
    /// after row.
    ///
    /// # Panics
    /// If the name is there already, or `data` has not the size that `dims` and `format` need.
    pub fn tensor(
        &mut self,
        name: &str,
        dims: &[u64],
        format: Format,
        data: impl Into<Vec<u8>>,
    ) -> &mut Self {
        let data = data.into();
        let given = data.len();
        let len = self.add(name, dims, format, Data::Own(data));
        assert_eq!(given, len, "tensor {name:?} of shape {dims:?} in {format}: bytes given and needed");
        self
    }

    /// Adds a tensor whose data is `pattern`, whole blocks of `format`, over and over: however large the tensor, it takes
    /// no memory here.
    ///
    /// # Panics
    /// If the name is there already, or the pattern is not a whole number of blocks.
    pub fn patterned_tensor(
        &mut self,
        name: &str,
        dims: &[u64],
        format: Format,
        pattern: &Arc<[u8]>,
    ) -> &mut Self {
        assert!(
            !pattern.is_empty() && pattern.len().is_multiple_of(format.block_bytes()),
            "tensor {name:?}: a pattern of {} bytes is not blocks of {format}",
            pattern.len()
        );
        self.add(name, dims, format, Data::Pattern(Arc::clone(pattern)));
        self
    }

    /// Returns the bytes that the tensor takes.
    fn add(&mut self, name: &str, dims: &[u64], format: Format, data: Data) -> usize {
        assert!(self.tensors.iter().all(|known| known.name != name), "tensor {name:?} given twice");
        assert!((1..=4).contains(&dims.len()), "tensor {name:?} has {} dimensions, not 1 to 4", dims.len());
        let rows: u64 = dims[1..].iter().product();
        let row = format.bytes_for(dims[0]);
        let row =
            row.unwrap_or_else(|| panic!("tensor {name:?}: rows of {} are no blocks of {format}", dims[0]));
        let len = (row * rows) as usize;
        self.tensors.push(Tensor { name: name.into(), dims: dims.into(), format, len, data });
        len
    }

    /// The whole file in memory.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("writing to memory does not fail");
        bytes
    }

    /// The model as if it had been written and opened. Tensors of one pattern share their bytes, so that all of them take
    /// the memory of the largest; a file would not be allowed that.
    pub fn into_gguf(self) -> Gguf {
        let mut metadata = Metadata::default();
        for (key, value) in self.metadata {
            metadata.insert(&key, value).expect("the writer takes each key once");
        }
        let mut sources: Vec<(Data, Vec<TensorRecord>)> = Vec::new();
        for Tensor { name, dims, format, len, data } in self.tensors {
            let record = TensorRecord { name, format, dims, data: 0..len };
            let shared = sources.iter_mut().find(|(known, _)| known.is_same_pattern(&data));
            match shared {
                Some((_, records)) => records.push(record),
                None => sources.push((data, vec![record])),
            }
        }
        let parts = sources.into_iter().map(|(data, records)| {
            let longest = records.iter().map(|record| record.data.end).max().unwrap_or(0);
            (data.into_bytes(longest), records)
        });
        Gguf::from_sources(metadata, parts.collect())
    }

    /// Writes the file; the tensors' data goes out as it is, without another copy.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let alignment = self.alignment();
        let mut header = Encoder::default();
        header.0.extend(b"GGUF");
        header.u32(3);
        header.u64(self.tensors.len() as u64);
        header.u64(self.metadata.len() as u64);
        for (key, value) in &self.metadata {
            header.string(key);
            header.u32(value.type_id());
            header.value(value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            header.string(&tensor.name);
            header.u32(tensor.dims.len() as u32);
            tensor.dims.iter().for_each(|&dim| header.u64(dim));
            header.u32(tensor.format.ggml_type());
            header.u64(offset as u64);
            offset += tensor.len.next_multiple_of(alignment);
        }
        out.write_all(&header.0)?;
        pad(out, header.0.len(), alignment)?;
        for tensor in &self.tensors {
            tensor.data.write_to(out, tensor.len)?;
            pad(out, tensor.len, alignment)?;
        }
        Ok(())
    }

    fn alignment(&self) -> usize {
        let given = self.metadata.iter().find_map(|(key, value)| match value {
            Value::U32(alignment) if key == "general.alignment" => Some(*alignment),
            _ => None,
        });
        given.unwrap_or(DEFAULT_ALIGNMENT) as usize
    }
}

impl Data {
    fn is_same_pattern(&self, other: &Data) -> bool {
        matches!((self, other), (Data::Pattern(ours), Data::Pattern(theirs)) if Arc::ptr_eq(ours, theirs))
    }

    /// The first `len` bytes.
    fn into_bytes(self, len: usize) -> Vec<u8> {
        match self {
            Data::Own(bytes) => bytes,
            Data::Pattern(pattern) => {
                let mut bytes = Vec::with_capacity(len);
                while bytes.len() < len {
                    bytes.extend(&pattern[..pattern.len().min(len - bytes.len())]);
                }
                bytes
            }
        }
    }

    fn write_to(&self, out: &mut impl Write, len: usize) -> io::Result<()> {
        match self {
            Data::Own(bytes) => out.write_all(bytes),
            Data::Pattern(pattern) => {
                for _ in 0..len / pattern.len() {
                    out.write_all(pattern)?;
                }
                out.write_all(&pattern[..len % pattern.len()])
            }
        }
    }
}

/// Fills up what `len` bytes lack of the alignment.
fn pad(out: &mut impl Write, len: usize, alignment: usize) -> io::Result<()> {
    out.write_all(&vec![0; len.next_multiple_of(alignment) - len])
}

/// The header's bytes so far.
#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn string(&mut self, value: &str) {
        self.u64(value.len() as u64);
        self.0.extend(value.as_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::U8(value) => self.0.extend(value.to_le_bytes()),
            Value::I8(value) => self.0.extend(value.to_le_bytes()),
            Value::U16(value) => self.0.extend(value.to_le_bytes()),
            Value::I16(value) => self.0.extend(value.to_le_bytes()),
            Value::U32(value) => self.0.extend(value.to_le_bytes()),
            Value::I32(value) => self.0.extend(value.to_le_bytes()),
            Value::F32(value) => self.0.extend(value.to_le_bytes()),
            Value::Bool(value) => self.0.push(u8::from(*value)),
            Value::String(value) => self.string(value),
            Value::Array(array) => self.array(array),
            Value::U64(value) => self.0.extend(value.to_le_bytes()),
            Value::I64(value) => self.0.extend(value.to_le_bytes()),
            Value::F64(value) => self.0.extend(value.to_le_bytes()),
        }
    }

    fn array(&mut self, array: &Array) {
        self.u32(array.element_type_id());
        self.u64(array.len() as u64);
        match array {
            Array::U8(values) => self.0.extend(values),
            Array::I8(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::U16(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::I16(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::U32(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::I32(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::F32(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::Bool(values) => self.0.extend(values.iter().map(|&value| u8::from(value))),
            Array::String(values) => values.iter().for_each(|value| self.string(value)),
            Array::U64(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::I64(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Array::F64(values) => self.0.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        }
    }
}
