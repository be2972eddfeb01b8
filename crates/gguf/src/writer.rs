//! Writing GGUF version 3: for tests and for tools that make or change models.

use std::io::{self, Write};

use crate::format::Format;
use crate::header::DEFAULT_ALIGNMENT;
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
    data: Vec<u8>,
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
        assert!(self.tensors.iter().all(|known| known.name != name), "tensor {name:?} given twice");
        assert!((1..=4).contains(&dims.len()), "tensor {name:?} has {} dimensions, not 1 to 4", dims.len());
        let rows: u64 = dims[1..].iter().product();
        let expected = format.bytes_for(dims[0]).map(|row| row * rows);
        assert_eq!(
            Some(data.len() as u64),
            expected,
            "tensor {name:?} of shape {dims:?} in {format}: bytes given and needed"
        );
        self.tensors.push(Tensor { name: name.into(), dims: dims.into(), format, data });
        self
    }

    /// The whole file in memory.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("writing to memory does not fail");
        bytes
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
            offset += tensor.data.len().next_multiple_of(alignment);
        }
        write_padded(out, &header.0, alignment)?;
        self.tensors.iter().try_for_each(|tensor| write_padded(out, &tensor.data, alignment))
    }

    fn alignment(&self) -> usize {
        let given = self.metadata.iter().find_map(|(key, value)| match value {
            Value::U32(alignment) if key == "general.alignment" => Some(*alignment),
            _ => None,
        });
        given.unwrap_or(DEFAULT_ALIGNMENT) as usize
    }
}

fn write_padded(out: &mut impl Write, bytes: &[u8], alignment: usize) -> io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(&vec![0; bytes.len().next_multiple_of(alignment) - bytes.len()])
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
