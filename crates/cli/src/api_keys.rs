//! The keys of `rustorch serve`.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rustorch_llama::Weight;
use server::ApiKey;

/// The key of `--api-key`.
///
/// # Errors
/// One that no header can hold.
pub fn given(key: &str) -> Result<Vec<ApiKey>> {
    let weight = Weight::default();
    checked(key).map(|key| vec![ApiKey { key, weight }]).context("--api-key")
}

/// The keys of a file: one in each line, perhaps with a weight behind it. Empty lines and those that begin with `#` have none.
///
/// # Errors
/// A file that cannot be read, that has no key or one twice, and a line that is no key with a weight.
pub fn of_file(path: &Path) -> Result<Vec<ApiKey>> {
    let name = || path.display().to_string();
    let mut text = String::new();
    // A device may have no end.
    let read = fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    if read.with_context(name)? as u64 > MAX_BYTES {
        bail!("{}: expected at most {MAX_BYTES} bytes of keys, found more", name());
    }
    let mut keys: Vec<ApiKey> = Vec::new();
    for (line_idx, line) in text.lines().enumerate().filter(|(_, line)| is_key(line)) {
        let number = line_idx + 1;
        let key = line_key(line).with_context(|| format!("{}, line {number}", name()))?;
        if keys.iter().any(|other| other.key == key.key) {
            bail!("{}, line {number}: expected each key once, found one again", name());
        }
        keys.push(key);
    }
    if keys.is_empty() {
        bail!("{}: expected a key, found an empty one", name());
    }
    Ok(keys)
}

/// Most bytes of a file of keys.
const MAX_BYTES: u64 = 1 << 20;

fn is_key(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#')
}

fn line_key(line: &str) -> Result<ApiKey> {
    let line = line.trim_ascii();
    let (key, weight) = line.split_once([' ', '\t']).map_or((line, None), |(key, rest)| (key, Some(rest)));
    let weight = match weight.map(str::trim_ascii) {
        None => Weight::default(),
        Some(text) => {
            let weight = text.parse().ok().and_then(Weight::new);
            let expected =
                || anyhow!("expected a weight of 1 to {} behind the key, found {text:?}", Weight::MAX);
            weight.ok_or_else(expected)?
        }
    };
    Ok(ApiKey { key: checked(key)?, weight })
}

/// A key that a header can hold.
fn checked(key: &str) -> Result<String> {
    if key.is_empty() {
        bail!("expected a key, found an empty one");
    }
    if !key.chars().all(|c| c.is_ascii_graphic()) {
        bail!("expected a key of visible ASCII characters, found one with blanks, line breaks or others");
    }
    Ok(key.to_owned())
}
