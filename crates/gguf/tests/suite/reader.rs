//! What a valid file gives: the writer's round trip, typed metadata, shapes, vocabularies, versions,
//! releasing pages.

use std::sync::Arc;

use crate::common::{Raw, TempDir, one_of_every_value, small_file, small_writer, use_all};
use gguf::{Array, Format, Gguf, GgufWriter, Metadata, Value};

#[test]
fn the_writers_file_is_read_as_written() {
    let file = small_file();
    let gguf = Gguf::from_vec(file.clone()).unwrap();
    use_all(&gguf);

    assert_eq!(gguf.file_bytes(), file.len() as u64);
    assert_eq!(gguf.metadata().architecture().unwrap(), "llama");
    let keys = one_of_every_value();
    assert_eq!(gguf.metadata().iter().len(), keys.len());
    for (key, value) in &keys {
        assert_eq!(gguf.metadata().get(key), Some(value), "{key}");
    }

    let names: Vec<&str> = gguf.tensors().map(|tensor| tensor.name()).collect();
    assert_eq!(names.len(), Format::ALL.len() + 1);
    for (format, name) in Format::ALL.into_iter().zip(names) {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!((tensor.format(), tensor.rows(), tensor.cols()), (format, 2, 256), "{name}");
        assert_eq!(tensor.data()[1], 37, "{name}");
        assert_eq!(tensor.row(1), &tensor.data()[tensor.row_bytes()..], "{name}");
    }

    // Written again from what was read, it is the same file.
    let mut again = GgufWriter::new();
    for (key, value) in keys {
        again.metadata(&key, value);
    }
    for tensor in gguf.tensors() {
        again.tensor(tensor.name(), tensor.dims(), tensor.format(), tensor.data());
    }
    assert!(again.write() == file);
}

/// Tensors of one pattern share memory when they are not written, and have bytes of their own when they are.
#[test]
fn a_patterned_model_is_the_same_in_memory_and_as_a_file() {
    let pattern: Arc<[u8]> = (0..3 * 34).collect();
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", Value::String("llama".into()));
    writer.patterned_tensor("a", &[64, 5], Format::Q8_0, &pattern);
    writer.tensor("b", &[2], Format::F16, [1, 2, 3, 4]);
    writer.patterned_tensor("c", &[32, 2], Format::Q8_0, &pattern);
    let file = Gguf::from_vec(writer.write()).unwrap();
    let memory = writer.into_gguf();
    assert_eq!(memory.metadata().architecture().unwrap(), "llama");
    for tensor in file.tensors() {
        let other = memory.tensor(tensor.name()).unwrap();
        assert_eq!((tensor.dims(), tensor.format()), (other.dims(), other.format()), "{tensor:?}");
        assert_eq!(tensor.data(), other.data(), "{tensor:?}");
    }
    let repeated: Vec<u8> = pattern.iter().copied().cycle().take(10 * 34).collect();
    assert_eq!(file.tensor("a").unwrap().data(), repeated);
    assert_eq!(memory.file_bytes(), 10 * 34 + 4);
}

#[test]
fn shapes_are_rows_of_the_first_dimension() {
    let mut writer = GgufWriter::new();
    writer.tensor("vector", &[6], Format::F16, [0; 12]);
    writer.tensor("matrix", &[2, 3], Format::F16, [0; 12]);
    writer.tensor("stack", &[1, 2, 1, 3], Format::F16, [0; 12]);
    let gguf = Gguf::from_vec(writer.write()).unwrap();
    let shape = |name: &str| {
        let tensor = gguf.tensor(name).unwrap();
        (tensor.rows(), tensor.cols(), tensor.dims().to_vec())
    };
    assert_eq!(shape("vector"), (1, 6, vec![6]));
    assert_eq!(shape("matrix"), (3, 2, vec![2, 3]));
    assert_eq!(shape("stack"), (6, 1, vec![1, 2, 1, 3]));
}

#[test]
fn a_missing_tensor_is_named() {
    let gguf = Gguf::from_vec(small_file()).unwrap();
    assert!(gguf.find_tensor("output.weight").is_none());
    let error = gguf.tensor("output.weight").unwrap_err();
    assert_eq!(error.to_string(), r#"tensor "output.weight" is missing"#);
}

#[test]
fn typed_metadata_converts_integers_that_fit_and_names_what_does_not() {
    let mut writer = GgufWriter::new();
    writer
        .metadata("int", Value::I64(7))
        .metadata("negative", Value::I8(-1))
        .metadata("float", Value::F64(0.5));
    writer.metadata("big", Value::U64(1 << 40)).metadata("text", Value::String("x".into()));
    writer.metadata("ints", Value::Array(Array::I64(vec![1, -2]))).metadata("no", Value::Bool(false));
    writer.metadata("floats", Value::Array(Array::F64(vec![0.25])));
    writer.metadata("texts", Value::Array(Array::String(vec!["a".into()])));
    let gguf = Gguf::from_vec(writer.write()).unwrap();
    let metadata = gguf.metadata();

    assert_eq!(metadata.u32("int").unwrap(), Some(7));
    assert_eq!(metadata.u64("big").unwrap(), Some(1 << 40));
    assert_eq!(metadata.f32("float").unwrap(), Some(0.5));
    assert_eq!(metadata.bool("no").unwrap(), Some(false));
    assert_eq!(metadata.str("text").unwrap(), Some("x"));
    assert_eq!(metadata.i32s("ints").unwrap(), Some(vec![1, -2]));
    assert_eq!(metadata.f32s("floats").unwrap(), Some(vec![0.25]));
    assert_eq!(metadata.strings("texts").unwrap(), Some(&["a".to_string()][..]));

    assert_eq!(metadata.u32("absent").unwrap(), None);
    assert_eq!(metadata.strings("absent").unwrap(), None);

    let check = |error: gguf::GgufError, expected: &str| assert_eq!(error.to_string(), expected);
    check(
        metadata.u32("negative").unwrap_err(),
        r#"metadata key "negative" has the wrong type: expected u32, found i8 -1"#,
    );
    check(
        metadata.u32("big").unwrap_err(),
        r#"metadata key "big" has the wrong type: expected u32, found u64 1099511627776"#,
    );
    check(
        metadata.f32("int").unwrap_err(),
        r#"metadata key "int" has the wrong type: expected f32, found i64 7"#,
    );
    check(
        metadata.u32s("ints").unwrap_err(),
        r#"metadata key "ints" has the wrong type: expected array of u32, found array of i64"#,
    );
    check(
        metadata.strings("text").unwrap_err(),
        r#"metadata key "text" has the wrong type: expected array of string, found string"#,
    );
    check(
        metadata.architecture().unwrap_err(),
        r#"metadata key "general.architecture" is missing: expected a string"#,
    );
}

#[test]
fn versions_2_and_3_and_files_without_tensors_open() {
    for version in [2, 3] {
        let bare = Raw::header(version, 0, 1).key("general.architecture", 8).string("gpt2");
        let gguf = Gguf::from_vec(bare.0).unwrap();
        assert_eq!(gguf.metadata().architecture().unwrap(), "gpt2");
        assert_eq!(gguf.tensors().count(), 0);

        let one = Raw::header(version, 1, 0).tensor("t", &[3], 0, 0).data(12);
        assert_eq!(Gguf::from_vec(one.0).unwrap().tensor("t").unwrap().dequantize(), [0.0; 3]);
    }
}

#[test]
fn the_alignment_is_the_files_own() {
    for alignment in [1, 8, 64, 4096] {
        let mut writer = GgufWriter::new();
        writer.metadata("general.alignment", Value::U32(alignment));
        writer.tensor("a", &[3], Format::F16, [1, 2, 3, 4, 5, 6]).tensor("b", &[1], Format::F16, [7, 8]);
        let file = writer.write();
        assert!(file.len().is_multiple_of(alignment as usize));
        let gguf = Gguf::from_vec(file).unwrap();
        assert_eq!(gguf.tensor("b").unwrap().data(), [7, 8], "alignment {alignment}");
    }
}

#[test]
fn metadata_alone_opens_whatever_the_tensors_are() {
    let dir = TempDir::new("metadata");
    let exotic =
        Raw::header(3, 1, 1).key("general.architecture", 8).string("llama").tensor("t", &[256], 15, 0);
    let path = dir.write("exotic.gguf", &exotic.data(292).0);
    assert!(Gguf::open(&path).is_err());
    assert_eq!(Metadata::open(&path).unwrap().architecture().unwrap(), "llama");
}

#[test]
fn a_static_file_opens_without_a_copy() {
    let file: &'static [u8] = Box::leak(small_file().into_boxed_slice());
    let gguf = Gguf::from_static(file).unwrap();
    let tensor = gguf.tensor("last").unwrap();
    assert!(file.as_ptr_range().contains(&tensor.data().as_ptr()));
    gguf.release(&tensor);
    assert_eq!(tensor.data(), [7; 32]);
}

#[test]
fn released_pages_leave_memory_and_come_back() {
    let dir = TempDir::new("release");
    let weights: Vec<u8> = (0..8u32 << 20).map(|i| (i / 5) as u8).collect();
    let mut writer = small_writer();
    writer.tensor("large", &[1 << 20, 2], Format::F32, weights.clone());
    let path = dir.write("model.gguf", &writer.write());

    let gguf = Gguf::open(&path).unwrap();
    let large = gguf.tensor("large").unwrap();
    assert!(large.data() == weights);
    let touched = resident_bytes(&path);
    gguf.release(&large);
    let released = resident_bytes(&path);
    if let (Some(touched), Some(released)) = (touched, released) {
        assert!(touched >= weights.len() as u64, "{touched} bytes were resident");
        assert!(
            released <= touched - weights.len() as u64 + 8192,
            "{released} of {touched} bytes are resident"
        );
    }
    assert!(large.data() == weights);
    use_all(&gguf);
}

/// How much of the mapping of `path` is in memory, by Linux's account; `None` elsewhere.
fn resident_bytes(path: &std::path::Path) -> Option<u64> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let of_file = smaps.split(path.to_str()?).nth(1)?;
    let line = of_file.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[test]
fn file_errors_name_the_file() {
    let dir = TempDir::new("errors");
    let check = |path: &std::path::Path, expected: &str| {
        assert_eq!(Gguf::open(path).unwrap_err().to_string(), format!("{}: {expected}", path.display()));
        assert_eq!(Metadata::open(path).unwrap_err().to_string(), format!("{}: {expected}", path.display()));
    };
    check(dir.path(), "not a regular file");
    check(
        &dir.write("empty.gguf", b""),
        "the file ends inside the header: 4 bytes expected at byte 0, 0 left; \
         hint: the file is truncated or damaged, fetch it again",
    );
    check(
        &dir.write("page.gguf", b"<!DOCTYPE html>"),
        r#"not a GGUF file: expected the magic "GGUF", found "<!DO""#,
    );
    let missing = dir.path().join("missing.gguf");
    assert!(Gguf::open(&missing).unwrap_err().to_string().starts_with(&missing.display().to_string()));
}
