//! Models split into several files.

use std::path::PathBuf;

use crate::common::{TempDir, use_all};
use gguf::{Format, Gguf, GgufWriter, Value};

/// A part with one tensor, `tensor`, whose data is three times the part's number.
fn part(no: u16, count: u16, n_tensors: i32, tensor: &str) -> GgufWriter {
    let mut writer = GgufWriter::new();
    if no == 0 {
        writer.metadata("general.architecture", Value::String("llama".into()));
    }
    writer.metadata("split.no", Value::U16(no));
    writer.metadata("split.count", Value::U16(count));
    writer.metadata("split.tensors.count", Value::I32(n_tensors));
    writer.tensor(tensor, &[3], Format::F32, f32::from(no).to_le_bytes().repeat(3));
    writer
}

fn name(part: usize) -> String {
    format!("model-{part:05}-of-00003.gguf")
}

/// Writes the parts as `model-0000i-of-00003.gguf`; returns the first one's path.
fn write_parts(dir: &TempDir, parts: &[GgufWriter]) -> PathBuf {
    let paths: Vec<PathBuf> =
        parts.iter().enumerate().map(|(i, part)| dir.write(&name(i + 1), &part.write())).collect();
    paths[0].clone()
}

#[test]
fn the_first_part_opens_all() {
    let dir = TempDir::new("split");
    let parts = [part(0, 3, 3, "a"), part(1, 3, 3, "b"), part(2, 3, 3, "c")];
    let gguf = Gguf::open(&write_parts(&dir, &parts)).unwrap();
    use_all(&gguf);
    assert_eq!(gguf.metadata().architecture().unwrap(), "llama");
    let tensors: Vec<(&str, Vec<f32>)> =
        gguf.tensors().map(|tensor| (tensor.name(), tensor.dequantize())).collect();
    assert_eq!(tensors, [("a", vec![0.0; 3]), ("b", vec![1.0; 3]), ("c", vec![2.0; 3])]);
    assert_eq!(gguf.file_bytes(), parts.iter().map(|part| part.write().len() as u64).sum());
    gguf.tensors().for_each(|tensor| gguf.release(&tensor));
    use_all(&gguf);
}

#[cfg(unix)]
#[test]
fn parts_that_are_links_out_of_the_folder_are_told() {
    let link = |from: PathBuf, to: PathBuf| std::os::unix::fs::symlink(from, to).unwrap();
    let (dir, store) = (TempDir::new("split_links"), TempDir::new("split_store"));
    let [first, second, third] =
        [("a", 0), ("b", 1), ("c", 2)].map(|(tensor, no)| part(no, 3, 3, tensor).write());
    let path = dir.write(&name(1), &first);
    // A link to a neighbour is harmless.
    link(dir.write("second", &second), dir.path().join(name(2)));
    let outside = store.write("other", &third);
    link(outside.clone(), dir.path().join(name(3)));
    let gguf = Gguf::open(&path).unwrap();
    let linked = dir.path().join(name(3));
    assert_eq!(gguf.parts_elsewhere(), [(linked.as_path(), outside.canonicalize().unwrap())]);

    // A folder of links to another.
    let links = TempDir::new("split_all_links");
    for (index, bytes) in [first, second, third].iter().enumerate() {
        link(store.write(&format!("blob {index}"), bytes), links.path().join(name(index + 1)));
    }
    let gguf = Gguf::open(&links.path().join(name(1))).unwrap();
    assert_eq!(gguf.parts_elsewhere(), []);
}

#[test]
fn what_is_wrong_with_a_part_is_said() {
    type Case<'a> = (&'a str, Vec<GgufWriter>, &'a str);
    let (first, second) = (|| part(0, 3, 3, "a"), || part(1, 3, 3, "b"));
    let cases: Vec<Case<'_>> = vec![
        (
            "missing",
            vec![first(), second()],
            "DIR/model-00001-of-00003.gguf: part 3 of 3 of the split model is missing: \
             expected DIR/model-00003-of-00003.gguf",
        ),
        (
            "swapped",
            vec![first(), part(2, 3, 3, "b"), part(1, 3, 3, "c")],
            "DIR/model-00002-of-00003.gguf: metadata key \"split.no\" is 2: expected 1, \
             as the other parts of the split model say",
        ),
        (
            "other-count",
            vec![first(), second(), part(2, 4, 3, "c")],
            "DIR/model-00003-of-00003.gguf: metadata key \"split.count\" is 4: expected 3, \
             as the other parts of the split model say",
        ),
        (
            "other-total",
            vec![first(), second(), part(2, 3, 4, "c")],
            "DIR/model-00003-of-00003.gguf: metadata key \"split.tensors.count\" is 4: expected 3, \
             as the other parts of the split model say",
        ),
        (
            "no-keys",
            vec![first(), second(), GgufWriter::new()],
            "DIR/model-00003-of-00003.gguf: metadata key \"split.no\" is missing: expected a u64",
        ),
        (
            "twice",
            vec![first(), second(), part(2, 3, 3, "a")],
            "DIR/model-00003-of-00003.gguf: tensor \"a\" appears twice",
        ),
        (
            "total",
            vec![part(0, 3, 5, "a"), part(1, 3, 5, "b"), part(2, 3, 5, "c")],
            "DIR/model-00001-of-00003.gguf: the parts of the split model hold 3 tensors: expected 5, \
             as \"split.tensors.count\" says",
        ),
        (
            "not-first",
            vec![second()],
            "DIR/model-00001-of-00003.gguf: this is part 2 of a model split into 3 files: expected part 1; \
             hint: open the first part",
        ),
    ];
    for (case, parts, expected) in cases {
        let dir = TempDir::new(&format!("split-{case}"));
        let error = Gguf::open(&write_parts(&dir, &parts)).unwrap_err().to_string();
        assert_eq!(error.replace(&dir.path().display().to_string(), "DIR"), expected, "{case}");
    }
}

#[test]
fn a_later_part_points_to_the_first() {
    let dir = TempDir::new("split-later");
    write_parts(&dir, &[part(0, 3, 3, "a"), part(1, 3, 3, "b")]);
    let error = Gguf::open(&dir.path().join(name(2))).unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("expected part 1; hint: open {}", dir.path().join(name(1)).display())),
        "{error}"
    );
}

#[test]
fn a_renamed_or_unnamed_part_is_refused() {
    let dir = TempDir::new("split-renamed");
    let bytes = part(0, 3, 3, "a").write();
    let error = Gguf::open(&dir.write("model.gguf", &bytes)).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "a model split into 3 files is named \"-00001-of-00003.gguf\": \
             expected that ending in the file name"
        ),
        "{error}"
    );
    let error = Gguf::from_vec(bytes).unwrap_err().to_string();
    assert_eq!(error, "a model split into 3 files can only be opened by the path of its first part");
}

#[test]
fn one_part_of_one_is_a_whole_model() {
    Gguf::from_vec(part(0, 1, 1, "a").write()).unwrap();
}
