//! The manifest: everything that a run's results depend on, stored beside them. A later run continues them only if all of
//! it is the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::durable;
use crate::error::{Difference, Error, Result};

/// What a run's results depend on. Beside `OUT.jsonl` it is the file `OUT.jsonl.run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file and of the lines of results: [`Manifest::FORMAT`].
    pub format: u32,
    /// Version of the program, whose arithmetic may change from one to the next.
    pub rustorch: String,
    /// What answers call the model.
    pub model: String,
    /// The model's file, or all of its parts one after the other.
    pub model_file: FileHash,
    /// The input, if it is a regular file.
    pub input: Option<FileHash>,
    /// What computes: `cpu`, all of which give the same bits, or a GPU by its name.
    pub device: String,
    /// Every option that results depend on.
    pub options: Map<String, Value>,
    /// Whether each line of the output depends on the model, these options and the line that it answers alone, and stands in
    /// their order: no times, no numbers of lines, nothing of the prefix cache. Not even a failure of the device becomes a result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reproducible: bool,
}

/// What a manifest says of results that a run adds to.
pub(crate) struct Earlier {
    /// The differences between the inputs.
    pub differences: Vec<Difference>,
    /// The instruction set of the CPU, which versions name whose results depend on it: in the last bits they may differ from
    /// this version's, whichever it is.
    pub isa: Option<Value>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Its length.
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// The current version.
    pub const FORMAT: u32 = 1;
    /// The option that is true where each result is one text, as an output of texts is made of them. A line whose answer would be
    /// anything else is an error.
    pub const TEXTS: &str = "texts";

    /// Where the manifest of an output is.
    pub fn path(output: &Path) -> PathBuf {
        durable::with_suffix(output, ".run.json")
    }

    /// Writes it beside its output: a crash leaves the old one or the new one, whole.
    pub(crate) fn write(&self, output: &Path) -> Result<()> {
        write(&Self::path(output), self)
    }

    /// As [`write`](Self::write), beside results that stay: what is to be known of them stays too.
    pub(crate) fn write_again(&self, output: &Path, earlier: Earlier) -> Result<()> {
        let Some(isa) = earlier.isa else { return self.write(output) };
        let mut manifest = self.to_json();
        manifest[ISA] = isa;
        write(&Self::path(output), &manifest)
    }

    /// Writes it to a file that is not there yet; if there is one, it stays.
    pub(crate) fn create(&self, path: &Path) -> Result<()> {
        durable::create_once(path, &text(self)).map_err(Error::writing(&path.display().to_string()))
    }

    /// What differs in the manifest at `path`, if there is one.
    pub(crate) fn compare(&self, path: &Path) -> Result<Option<Vec<Difference>>> {
        Ok(read(path)?.map(|expected| differences(&expected, &self.to_json())))
    }

    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("names, numbers and strings are JSON")
    }

    /// Refuses a file beside the output that is no manifest: somebody else's, which would be replaced.
    pub(crate) fn must_not_hide(output: &Path) -> Result<()> {
        match read(&Self::path(output))? {
            Some(found) if found.get("rustorch").is_none() => {
                Err(Error::BadManifest { manifest: Self::path(output), found: openai::shown(&found) })
            }
            _ => Ok(()),
        }
    }

    /// Compares it with the one beside the output, whose results go on only if all but the input is the same.
    pub(crate) fn check(&self, output: &Path) -> Result<Earlier> {
        let manifest = Self::path(output);
        let Some(mut expected) = read(&manifest)? else {
            return Err(Error::NoManifest { output: output.to_owned(), manifest });
        };
        let isa = expected.as_object_mut().and_then(|fields| fields.remove(ISA)).filter(|isa| !isa.is_null());
        let differences = differences(&expected, &self.to_json());
        let are_files = expected["input"].is_object() && self.input.is_some();
        if are_files && differences.iter().all(|difference| difference.field.starts_with("input."))
            || differences.is_empty()
        {
            return Ok(Earlier { differences, isa });
        }
        Err(Error::OtherRun { output: output.to_owned(), differences })
    }
}

/// The field of [`Earlier::isa`]; null if a GPU computes.
const ISA: &str = "isa";

fn write(path: &Path, manifest: &impl Serialize) -> Result<()> {
    durable::write(path, &text(manifest)).map_err(Error::writing(&path.display().to_string()))
}

/// As a file for people too.
pub(crate) fn text(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("names, numbers and strings are JSON");
    text.push(b'\n');
    text
}

/// The JSON object in the file at `manifest`, if there is a file.
fn read(manifest: &Path) -> Result<Option<Value>> {
    let text = match fs::read(manifest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::io(manifest))?,
    };
    let bad = |found| Err(Error::BadManifest { manifest: manifest.to_owned(), found });
    match serde_json::from_slice(&text) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(found) => bad(openai::shown(&found)),
        Err(error) => bad(error.to_string()),
    }
}

/// Compares the leaves of two JSON trees (all values but objects) and returns those that differ.
fn differences(expected: &Value, found: &Value) -> Vec<Difference> {
    let (mut expected_leaves, mut found_leaves) = (BTreeMap::new(), BTreeMap::new());
    leaves("", expected, &mut expected_leaves);
    leaves("", found, &mut found_leaves);
    // Manifests of different formats cannot be compared any further.
    if expected_leaves.get("format") != found_leaves.get("format") {
        expected_leaves.retain(|field, _| field == "format");
        found_leaves.retain(|field, _| field == "format");
    }
    let mut fields: Vec<&String> = expected_leaves.keys().chain(found_leaves.keys()).collect();
    fields.sort_unstable();
    fields.dedup();
    let shown = |value: Option<&&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        // Whole: part of a hash is of no use.
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let difference = |field: &String| {
        let (expected, found) = (shown(expected_leaves.get(field)), shown(found_leaves.get(field)));
        (expected != found).then(|| Difference { field: field.clone(), expected, found })
    };
    fields.into_iter().filter_map(difference).collect()
}

fn leaves<'v>(prefix: &str, value: &'v Value, out: &mut BTreeMap<String, &'v Value>) {
    let Value::Object(fields) = value else {
        out.insert(prefix.to_owned(), value);
        return;
    };
    for (name, value) in fields {
        let separator = if prefix.is_empty() { "" } else { "." };
        leaves(&format!("{prefix}{separator}{name}"), value, out);
    }
}

impl FileHash {
    /// Of bytes in memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Of files, one after the other. Reads all of them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of_files(paths: &[PathBuf]) -> Result<Self> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 20];
        for path in paths {
            let mut file = File::open(path).map_err(Error::io(path))?;
            loop {
                let bytes = file.read(&mut buffer).map_err(Error::io(path))?;
                if bytes == 0 {
                    break;
                }
                hasher.update(&buffer[..bytes]);
            }
        }
        Ok(hasher.finish())
    }
}

/// Computes a [`FileHash`].
#[derive(Default)]
pub(crate) struct Hasher {
    bytes: u64,
    sha256: Sha256,
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    pub fn finish(self) -> FileHash {
        let digest = self.sha256.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        FileHash { bytes: self.bytes, sha256 }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_name_the_field_and_both_values() {
        let check = |expected: Value, found: Value, expect: &[&str]| {
            let all: Vec<String> = differences(&expected, &found).iter().map(Difference::to_string).collect();
            assert_eq!(all, expect);
        };
        let run = json!({"format": 1, "input": {"bytes": 5, "sha256": "ab"}, "options": {"seed": 0}});
        check(run.clone(), run.clone(), &[]);
        let mut other = run.clone();
        other["options"]["seed"] = json!(1);
        check(run.clone(), other, &["options.seed: expected 0, found 1"]);
        let mut other = run.clone();
        other["input"] = Value::Null;
        let expect = ["input.bytes: expected 5, found none", "input.sha256: expected ab, found none"];
        check(run.clone(), other, &expect);
        check(run, json!({"format": 2, "more": 1}), &["format: expected 1, found 2"]);
    }

    /// The vector of FIPS 180-2.
    #[test]
    fn hashes_are_sha256() {
        let hash = FileHash::of_bytes(b"abc");
        let expect = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hash.bytes, hash.sha256.as_str()), (3, expect));
    }
}
