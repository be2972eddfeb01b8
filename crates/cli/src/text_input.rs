//! Text taken byte for byte from a file or standard input.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

pub fn read_file(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| name.clone())?;
    decode(bytes, &name)
}

pub fn read_stdin() -> Result<String> {
    const NAME: &str = "standard input";
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context(NAME)?;
    decode(bytes, NAME)
}

fn decode(bytes: Vec<u8>, source: &str) -> Result<String> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            bail!("{source}: expected UTF-8, found byte {:#04x} at offset {at}", error.as_bytes()[at])
        }
    }
}
