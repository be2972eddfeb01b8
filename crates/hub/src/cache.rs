//! The cache folder, as the hub's own library lays it out.
//!
//! `models--USER--REPO/blobs/ETAG` are the contents, `snapshots/COMMIT/FILE` links to them, `refs/main` the commit that a branch was last
//! seen at, and `.locks/models--USER--REPO/ETAG.lock` is locked by who writes a content.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::names::{Choice, FileName, ModelId, RepoId, is_revision};
use crate::{HubError, Result};

/// A cache folder, which need not exist.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A model's file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedFile {
    /// The repository, `USER/REPO`, or the URL.
    pub source: String,
    /// Its path in the repository, or its name.
    pub file: FileName,
    /// In bytes.
    pub size: u64,
    /// Where it lies.
    pub path: PathBuf,
}

/// Beside a file from a URL: a line with the URL, without its query, and one with the ETag.
pub(crate) const SOURCE: &str = "source";
/// Folders in folders of a repository that are looked into.
const MOST_LEVELS: usize = 8;

impl Cache {
    /// The cache in this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn repo(&self, repo: &RepoId) -> PathBuf {
        self.root.join(repo.folder())
    }

    /// All GGUF files, by repository and name: each content once, though several commits may have it. None of a folder that does not exist.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list(&self) -> Result<Vec<CachedFile>> {
        let mut found: Vec<CachedFile> = Vec::new();
        for name in names_in(&self.root)? {
            let Some(repo) = RepoId::of_folder(&name) else { continue };
            let snapshots = self.repo(&repo).join("snapshots");
            let mut seen = Vec::new();
            for commit in names_in(&snapshots)? {
                for (file, size) in files_in(&snapshots.join(&commit))? {
                    let path = snapshots.join(&commit).join(file.as_str());
                    let content = (file.clone(), path.canonicalize().ok());
                    if !seen.contains(&content) {
                        seen.push(content);
                        found.push(CachedFile { source: repo.to_string(), file, size, path });
                    }
                }
            }
        }
        found.sort_by(|a, b| (&a.source, &a.file, &a.path).cmp(&(&b.source, &b.file, &b.path)));
        Ok(found)
    }

    /// The model's first file as it was last seen.
    ///
    /// # Errors
    /// Names the model if the cache does not have it, or not all of its parts. Where nothing says which file is meant, that in Q4_K_M is, or
    /// the only one: what else the repository has is not known here.
    pub fn find(&self, id: &ModelId) -> Result<PathBuf> {
        let missing = || HubError::NotCached { name: id.to_string(), cache: self.root.clone() };
        let folder = self.repo(&id.repo);
        let commit =
            fs::read_to_string(folder.join("refs").join(&id.revision)).unwrap_or(id.revision.clone());
        let commit = commit.trim();
        if !is_revision(commit) {
            return Err(missing());
        }
        let snapshot = folder.join("snapshots").join(commit);
        let files: Vec<FileName> = files_in(&snapshot)?.into_iter().map(|(file, _)| file).collect();
        let chosen = id.choose(&files).map_err(|_| missing())?;
        let is_guess = id.choice == Choice::Default && {
            let q4 = ModelId { choice: Choice::Quant("Q4_K_M".to_owned()), ..id.clone() };
            q4.choose(&files).is_err() && files.iter().any(|file| file.is_model() && !chosen.contains(file))
        };
        if is_guess {
            let names: Vec<String> = files.iter().map(|file| format!("{:?}", file.as_str())).collect();
            return Err(HubError::NoSuchFile {
                repo: id.repo.to_string(),
                expected: "one model in the cache, or one in Q4_K_M".to_owned(),
                found: names.join(", "),
            });
        }
        Ok(snapshot.join(chosen[0].as_str()))
    }
}

/// Files that were fetched from URLs into `folder`.
///
/// # Errors
/// A folder that cannot be read.
pub fn list_urls(folder: &Path) -> Result<Vec<CachedFile>> {
    let mut found = Vec::new();
    for name in names_in(folder)? {
        let own = folder.join(name);
        let Ok(text) = fs::read_to_string(own.join(SOURCE)) else { continue };
        let source = text.lines().next().unwrap_or_default();
        let files = files_in(&own)?.into_iter();
        found.extend(files.map(|(file, size)| {
            let path = own.join(file.as_str());
            CachedFile { source: source.to_owned(), file, size, path }
        }));
    }
    Ok(found)
}

/// Names in a folder, sorted; none if there is no folder.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(HubError::io(folder))?,
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// GGUF files below a snapshot with their sizes. Links that lead nowhere are none.
fn files_in(snapshot: &Path) -> Result<Vec<(FileName, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((prefix, level)) = folders.pop() {
        for name in names_in(&snapshot.join(&prefix))? {
            let name = format!("{prefix}{name}");
            let path = snapshot.join(&name);
            let Ok(metadata) = path.metadata() else { continue };
            // A link to a folder is none of the hub's, and may lead in a circle.
            if metadata.is_dir() && !path.is_symlink() && level < MOST_LEVELS {
                folders.push((name + "/", level + 1));
            } else if let Ok(file) = name.parse::<FileName>()
                && metadata.is_file()
                && file.as_str().to_ascii_lowercase().ends_with(".gguf")
            {
                found.push((file, metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}
