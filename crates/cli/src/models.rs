//! `rustorch models`: what was fetched.

use std::env;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hub::{Cache, list_urls};
use serde_json::json;

use crate::output;

/// List the GGUF files that were fetched from the Hugging Face hub and from URLs
///
/// Each line has the size, the repository (or URL), the file and the path, which --model takes. The cache is that of all programs
/// that use the hub: HF_HUB_CACHE, or the folder hub in HF_HOME [default: ~/.cache/huggingface]. What came from URLs is in
/// ~/.cache/rustorch.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let cache = Cache::new(cache_folder()?);
    let mut files = cache.list()?;
    files.extend(list_urls(&url_folder()?)?);
    if args.json {
        let files: Vec<_> = files
            .iter()
            .map(|file| json!({"source": file.source, "file": file.file.as_str(), "bytes": file.size, "path": file.path}))
            .collect();
        return output::print(&(serde_json::to_string_pretty(&files)? + "\n"));
    }
    if files.is_empty() {
        output::note(&format!("no models in {}", cache.root().display()));
    }
    let width = |of: &dyn Fn(&hub::CachedFile) -> usize| files.iter().map(of).max().unwrap_or(0);
    let (source, name) = (width(&|file| file.source.len()), width(&|file| file.file.as_str().len()));
    let mut text = String::new();
    for file in &files {
        let (size, path) = (output::bytes(file.size), file.path.display().to_string());
        let line = format!("{size:>10}  {:<source$}  {:<name$}  {path}", file.source, file.file.as_str());
        writeln!(text, "{}", output::visible_line(&line))?;
    }
    output::print(&text)
}

/// The folder of the hub's files.
///
/// # Errors
/// If nothing says where it is.
pub fn cache_folder() -> Result<PathBuf> {
    let of_home = || Some(hf_home()?.join("hub"));
    folder("HF_HUB_CACHE")
        .or_else(of_home)
        .context("expected a folder for the cache in HF_HOME or HOME, found neither")
}

/// The folder of files from URLs.
///
/// # Errors
/// If nothing says where it is.
pub fn url_folder() -> Result<PathBuf> {
    let own =
        user_cache().context("expected a folder for the cache in XDG_CACHE_HOME or HOME, found neither")?;
    Ok(own.join("rustorch").join("downloads"))
}

/// The hub's folder of the user.
pub fn hf_home() -> Option<PathBuf> {
    folder("HF_HOME").or_else(|| Some(user_cache()?.join("huggingface")))
}

fn user_cache() -> Option<PathBuf> {
    let home = || folder(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
    folder("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))
}

fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
