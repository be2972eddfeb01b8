//! Files that are wrong in one way each, and what is said of them.

use crate::common::Raw;
use gguf::Gguf;

#[track_caller]
fn check(file: Raw, expected: &str) {
    match Gguf::from_vec(file.0) {
        Ok(gguf) => panic!("opened as {gguf:?}; expected: {expected}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

/// A file with one key of the given type, whose value `value` adds.
fn with_key(value_type: u32, value: impl Fn(Raw) -> Raw) -> Raw {
    value(Raw::header(3, 0, 1).key("k", value_type))
}

/// A file with one tensor "t" at `offset`, and `data` bytes of data.
fn with_tensor(dims: &[u64], ggml_type: u32, offset: u64, data: usize) -> Raw {
    Raw::header(3, 1, 0).tensor("t", dims, ggml_type, offset).data(data)
}

fn with_tensors(second_name: &str, first_offset: u64, second_offset: u64) -> Raw {
    let tensors = Raw::header(3, 2, 0).tensor("t", &[16], 0, first_offset);
    tensors.tensor(second_name, &[16], 0, second_offset).data(128)
}

const FETCH_AGAIN: &str = "hint: the file is truncated or damaged, fetch it again";

#[test]
fn the_header() {
    check(Raw::default().bytes(b"ggml0000"), r#"not a GGUF file: expected the magic "GGUF", found "ggml""#);
    check(
        Raw::header(1, 0, 0),
        "GGUF version 1 is not supported: expected 2 or 3; hint: convert the model again with a recent tool",
    );
    check(
        Raw::header(4, 0, 0),
        "GGUF version 4 is not supported: expected 2 or 3; hint: convert the model again with a recent tool",
    );
    check(
        Raw::header(3u32.swap_bytes(), 0, 0),
        "big-endian GGUF files are not supported; hint: convert it with gguf-py's gguf_convert_endian.py",
    );
    check(
        Raw::header(3, 0, u64::MAX).bytes(&[0; 16]),
        &format!(
            "the file ends inside the header: \
             18446744073709551615 bytes expected at byte 24, 16 left; {FETCH_AGAIN}"
        ),
    );
    check(
        Raw::header(3, 1 << 40, 0).bytes(&[0; 16]),
        &format!(
            "the file ends inside the header: \
             35184372088832 bytes expected at byte 24, 16 left; {FETCH_AGAIN}"
        ),
    );
}

#[test]
fn metadata() {
    check(
        Raw::header(3, 0, 1).u64(1 << 60).bytes(&[b'k'; 16]),
        &format!(
            "the file ends inside the name of metadata key number 0: \
             1152921504606846976 bytes expected at byte 32, 16 left; {FETCH_AGAIN}"
        ),
    );
    check(
        Raw::header(3, 0, 1).u64(2).bytes(b"k\xff").bytes(&[0; 8]),
        "the name of metadata key number 0 is not valid UTF-8 from its byte 1 on",
    );
    check(
        Raw::header(3, 0, 1).string(&"k".repeat(65_536)),
        "the name of metadata key number 0 is 65536 bytes long: expected at most 65535",
    );
    check(Raw::header(3, 0, 2).key("k", 0).u8(1).key("k", 4).u32(1), r#"metadata key "k" appears twice"#);
    check(with_key(13, |raw| raw.u32(0)), r#"metadata key "k" has value type 13: expected 0 to 12"#);
    check(with_key(9, |raw| raw.u32(13).u64(0)), r#"metadata key "k" has value type 13: expected 0 to 12"#);
    check(
        with_key(9, |raw| raw.u32(9).u64(1).u32(0).u64(0)),
        r#"metadata key "k" is an array of arrays, which is not supported"#,
    );
    check(with_key(7, |raw| raw.u8(2)), r#"metadata key "k" holds the boolean 2: expected 0 or 1"#);
    check(
        with_key(9, |raw| raw.u32(7).u64(2).u8(1).u8(255)),
        r#"metadata key "k" holds the boolean 255: expected 0 or 1"#,
    );
    check(
        with_key(8, |raw| raw.u64(3).bytes(b"a\xc3b")),
        r#"metadata key "k" is not valid UTF-8 from its byte 1 on"#,
    );
    check(
        with_key(8, |raw| raw.u64(u64::MAX)),
        &format!(
            "the file ends inside metadata key \"k\": \
             18446744073709551615 bytes expected at byte 45, 0 left; {FETCH_AGAIN}"
        ),
    );
    check(
        with_key(9, |raw| raw.u32(6).u64(1 << 62)),
        &format!(
            "the file ends inside metadata key \"k\": \
             18446744073709551615 bytes expected at byte 49, 0 left; {FETCH_AGAIN}"
        ),
    );
    check(
        with_key(9, |raw| raw.u32(8).u64(3).u64(0).u64(0)),
        &format!(
            "the file ends inside metadata key \"k\": 24 bytes expected at byte 49, 16 left; {FETCH_AGAIN}"
        ),
    );
}

#[test]
fn alignment() {
    for found in [0, 3, 48, 1 << 21] {
        check(
            Raw::header(3, 0, 1).key("general.alignment", 4).u32(found),
            &format!("metadata key \"general.alignment\" is {found}: expected a power of two up to 1048576"),
        );
    }
    check(
        Raw::header(3, 0, 1).key("general.alignment", 8).string("32"),
        r#"metadata key "general.alignment" has the wrong type: expected u32, found string"#,
    );
}

#[test]
fn tensor_records() {
    check(
        Raw::header(3, 1, 0).u64(1).bytes(b"\xff").bytes(&[0; 24]),
        "the name of tensor number 0 is not valid UTF-8 from its byte 0 on",
    );
    check(with_tensors("t", 0, 64), r#"tensor "t" appears twice"#);
    check(with_tensor(&[], 0, 0, 32), r#"tensor "t" has 0 dimensions: expected 1 to 4"#);
    check(with_tensor(&[1; 5], 0, 0, 32), r#"tensor "t" has 5 dimensions: expected 1 to 4"#);
    check(
        Raw::header(3, 1, 0).string("t").u32(u32::MAX).bytes(&[0; 40]),
        r#"tensor "t" has 4294967295 dimensions: expected 1 to 4"#,
    );
    check(
        with_tensor(&[4, 0], 0, 0, 32),
        r#"tensor "t" has the shape [4, 0]: expected every dimension to be at least 1"#,
    );
    let supported = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, \
         IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, TQ1_0, TQ2_0";
    for (found, name) in [
        (4, "Q4_2, removed from ggml"),
        (9, "Q8_1"),
        (15, "Q8_K"),
        (26, "I32"),
        (1000, "not a known ggml type"),
    ] {
        check(
            with_tensor(&[256], found, 0, 256),
            &format!(
                "tensor \"t\" has ggml type {found} ({name}), which is not supported: \
                 expected one of {supported}"
            ),
        );
    }
    check(
        with_tensor(&[255, 2], 12, 0, 288),
        r#"tensor "t" has rows of 255 weights: expected a multiple of 256, the block length of Q4_K"#,
    );
    check(
        with_tensor(&[u64::MAX, 2], 0, 0, 32),
        r#"tensor "t" has the shape [18446744073709551615, 2]: too large for this machine's addresses"#,
    );
    // The product of the dimensions wraps around to zero.
    check(
        with_tensor(&[1 << 32, 1 << 32], 8, 0, 32),
        r#"tensor "t" has the shape [4294967296, 4294967296]: too large for this machine's addresses"#,
    );
}

#[test]
fn tensor_data() {
    check(
        with_tensor(&[8], 0, 16, 64),
        r#"tensor "t" is at offset 16 of the data: expected a multiple of the alignment 32"#,
    );
    let out_of_file = |bytes: u64, offset: u64, available: u64| {
        format!(
            "tensor \"t\" does not fit in the file: {bytes} bytes expected at offset {offset} of the data, \
             which has {available} bytes; {FETCH_AGAIN}"
        )
    };
    check(with_tensor(&[9], 0, 0, 32), &out_of_file(36, 0, 32));
    check(with_tensor(&[8], 0, 64, 64), &out_of_file(32, 64, 64));
    check(with_tensor(&[8], 0, u64::MAX - 31, 64), &out_of_file(32, u64::MAX - 31, 64));
    check(with_tensor(&[1 << 40], 0, 0, 64), &out_of_file(1 << 42, 0, 64));
    // Without padding or data, the data would start after the file's end.
    check(Raw::header(3, 1, 0).tensor("t", &[8], 0, 0), &out_of_file(32, 0, 0));
    let overlap = "tensors \"t\" and \"u\" overlap: \"u\" is at offset 32 of the data, \
                   where \"t\" still has 32 bytes";
    check(with_tensors("u", 0, 32), overlap);
    check(
        with_tensors("u", 64, 64),
        "tensors \"t\" and \"u\" overlap: \"u\" is at offset 64 of the data, where \"t\" still has 64 bytes",
    );
}

#[test]
fn control_characters_in_names_are_escaped() {
    check(
        Raw::header(3, 1, 0).tensor("\u{1b}[2J\n", &[8], 0, 1).data(64),
        r#"tensor "\u{1b}[2J\n" is at offset 1 of the data: expected a multiple of the alignment 32"#,
    );
}
