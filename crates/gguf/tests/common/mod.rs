//! What the tests share: a small valid file, raw bytes for invalid ones, temporary directories.
#![allow(dead_code)] // Each test binary uses some of it.

use std::path::{Path, PathBuf};

use gguf::{Array, Format, Gguf, GgufWriter, Value};

/// One tensor of every format (two rows of 256 weights of arbitrary bits) and one key of every value type.
/// Its last tensor ends at the file's last byte.
pub fn small_file() -> Vec<u8> {
    small_writer().write()
}

pub fn small_writer() -> GgufWriter {
    let mut writer = GgufWriter::new();
    for (key, value) in one_of_every_value() {
        writer.metadata(&key, value);
    }
    for format in Format::ALL {
        let bytes = format.bytes_for(512).unwrap() as usize;
        let data: Vec<u8> = (0..bytes).map(|i| (i * 37 % 251) as u8).collect();
        writer.tensor(&format!("blk.0.{format}"), &[256, 2], format, data);
    }
    writer.tensor("last", &[8], Format::F32, [7; 32]);
    writer
}

pub fn one_of_every_value() -> Vec<(String, Value)> {
    let values = [
        Value::String("llama".into()),
        Value::U8(200),
        Value::I8(-100),
        Value::U16(60_000),
        Value::I16(-30_000),
        Value::U32(4_000_000_000),
        Value::I32(-2_000_000_000),
        Value::F32(0.1),
        Value::Bool(true),
        Value::String(String::new()),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F64(0.1),
        Value::Array(Array::U8(vec![1, 255])),
        Value::Array(Array::I8(vec![1, -1])),
        Value::Array(Array::U16(vec![1, u16::MAX])),
        Value::Array(Array::I16(vec![1, -1])),
        Value::Array(Array::U32(vec![1, u32::MAX])),
        Value::Array(Array::I32(vec![1, -1])),
        Value::Array(Array::F32(vec![0.5, -1.5])),
        Value::Array(Array::Bool(vec![true, false])),
        Value::Array(Array::String(vec!["<s>".into(), String::new(), "é".into()])),
        Value::Array(Array::U64(vec![1, u64::MAX])),
        Value::Array(Array::I64(vec![1, -1])),
        Value::Array(Array::F64(vec![])),
    ];
    let mut n_keys = 0;
    values
        .into_iter()
        .map(|value| {
            n_keys += 1;
            let key = if n_keys == 1 { "general.architecture".into() } else { format!("key.{n_keys}") };
            (key, value)
        })
        .collect()
}

/// Uses everything that an open file offers: must not panic on any file that opened.
pub fn use_all(gguf: &Gguf) {
    for (key, value) in gguf.metadata().iter() {
        assert!(!value.to_string().is_empty(), "{key:?}");
    }
    for tensor in gguf.tensors() {
        assert_eq!(tensor.data().len(), tensor.rows() * tensor.row_bytes());
        assert_eq!(gguf.tensor(tensor.name()).unwrap().data(), tensor.data());
        let mut last_row = vec![0.0; tensor.cols()];
        tensor.dequantize_row(tensor.rows() - 1, &mut last_row);
        let all = tensor.dequantize();
        assert_eq!(all.len() % tensor.cols(), 0);
        assert!(all.ends_with(&last_row) || last_row.iter().any(|value| value.is_nan()));
    }
}

/// Bytes of a file, put together by hand so that any of them can be wrong.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    pub fn header(version: u32, n_tensors: u64, n_keys: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(version).u64(n_tensors).u64(n_keys)
    }

    pub fn u8(mut self, value: u8) -> Raw {
        self.0.push(value);
        self
    }

    pub fn u32(mut self, value: u32) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend(bytes);
        self
    }

    pub fn string(self, value: &str) -> Raw {
        self.u64(value.len() as u64).bytes(value.as_bytes())
    }

    /// A key and its type; the value follows.
    pub fn key(self, key: &str, value_type: u32) -> Raw {
        self.string(key).u32(value_type)
    }

    pub fn tensor(self, name: &str, dims: &[u64], ggml_type: u32, offset: u64) -> Raw {
        let raw = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(raw, |raw, &dim| raw.u64(dim)).u32(ggml_type).u64(offset)
    }

    /// Pads to the default alignment and adds `len` bytes of data.
    pub fn data(mut self, len: usize) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }
}

/// A directory that is removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("rustorch-gguf-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A directory that stays behind is the temporary directory's business.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SplitMix64: random enough for tests, the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, near enough to uniform.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
