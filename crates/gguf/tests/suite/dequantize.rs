//! The formats against an independent implementation, bit for bit.
//!
//! `data/dequant_vectors.gguf` was written, and its expected values computed, by the PyPI package `gguf` (see
//! `make_dequant_vectors.py`). Both sides round in `f32` after each operation in ggml's order, so nothing may
//! differ.

use std::path::Path;

use gguf::{Array, Format, Gguf, Value};

fn vectors() -> Gguf {
    Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dequant_vectors.gguf")).unwrap()
}

#[test]
fn every_format_agrees_with_ggml_bit_for_bit() {
    let vectors = vectors();
    for format in Format::ALL {
        let blocks = vectors.tensor(format.name()).unwrap();
        let expected = vectors.tensor(&format!("{format}.values")).unwrap();
        assert_eq!((blocks.format(), expected.format()), (format, Format::F32));
        assert_eq!(blocks.dims(), expected.dims());

        let (found, expected) = (blocks.dequantize(), expected.dequantize());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{format} weight {i}: {found} and {expected}");
        }
        let mut row = vec![0.0; blocks.cols()];
        for (row_idx, expected) in expected.chunks_exact(blocks.cols()).enumerate() {
            blocks.dequantize_row(row_idx, &mut row);
            assert_eq!(row, expected, "{format} row {row_idx}");
        }
    }
}

#[test]
fn another_writers_metadata_is_read_as_written() {
    let vectors = vectors();
    for (key, expected) in [
        ("value.u8", Value::U8(200)),
        ("value.i8", Value::I8(-100)),
        ("value.u16", Value::U16(60_000)),
        ("value.i16", Value::I16(-30_000)),
        ("value.u32", Value::U32(4_000_000_000)),
        ("value.i32", Value::I32(-2_000_000_000)),
        ("value.f32", Value::F32(0.1)),
        ("value.bool", Value::Bool(true)),
        ("value.string", Value::String("naïve 🦊\0".into())),
        ("value.u64", Value::U64(u64::MAX)),
        ("value.i64", Value::I64(i64::MIN)),
        ("value.f64", Value::F64(0.1)),
        ("value.strings", Value::Array(Array::String(vec!["<s>".into(), String::new(), "é".into()]))),
        ("value.i32s", Value::Array(Array::I32(vec![1, -2, 3]))),
        ("value.f32s", Value::Array(Array::F32(vec![0.5, -1.5]))),
        ("value.bools", Value::Array(Array::Bool(vec![true, false]))),
        ("value.u16s", Value::Array(Array::U16(vec![1, 65_535]))),
    ] {
        assert_eq!(vectors.metadata().get(key), Some(&expected), "{key}");
    }
}

#[test]
fn a_format_is_found_by_its_number() {
    for format in Format::ALL {
        assert_eq!(Format::from_ggml_type(format.ggml_type()), Some(format));
        assert_eq!(format.bytes_for(format.block_len() as u64 * 3), Some(format.block_bytes() as u64 * 3));
    }
    for unknown in [4, 5, 9, 15, 24, 40, u32::MAX] {
        assert_eq!(Format::from_ggml_type(unknown), None, "{unknown}");
    }
    assert_eq!(Format::Q4_K.bytes_for(255), None);
    assert_eq!(Format::F32.bytes_for(u64::MAX), None);
}

#[test]
#[should_panic(expected = "Q4_0: 36 bytes and 32 values are not the same whole number of blocks")]
fn a_short_output_is_a_panic() {
    Format::Q4_0.dequantize(&[0; 36], &mut [0.0; 32]);
}
