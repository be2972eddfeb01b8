//! A model's files: asked for, compared with the cache, and fetched where they are not there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cache::{Cache, SOURCE};
use crate::client::{Client, Follow, LINKED_ETAG, header};
use crate::download::{Event, Remote, create_parent, hex, lock};
use crate::names::{FileName, ModelId, is_revision};
use crate::url::{Url, encoded};
use crate::{HubError, Result};

/// Where the hub is, who asks, and where files go.
#[derive(Clone)]
#[non_exhaustive]
pub struct HubOptions {
    /// The hub's URL.
    pub endpoint: String,
    /// A user's token, for models that are not public.
    pub token: Option<String>,
    /// Files of the hub.
    pub cache: Cache,
}

impl HubOptions {
    /// The public hub, without a token.
    pub fn new(cache: Cache) -> Self {
        Self { endpoint: Self::ENDPOINT.to_owned(), token: None, cache }
    }

    /// The public hub.
    pub const ENDPOINT: &str = "https://huggingface.co";
}

/// A hub, and the cache of its files.
pub struct Hub {
    client: Client,
    endpoint: String,
    cache: Cache,
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Info {
    /// The commit.
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// What a server says of a file without sending it.
struct Probe {
    etag: Option<String>,
    size: u64,
    commit: Option<String>,
}

impl Hub {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// An endpoint that is no URL, and a token that is none.
    pub fn new(options: HubOptions) -> Result<Self> {
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        let url = Url::parse(&endpoint)?;
        let is_token = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        if options.token.as_ref().is_some_and(|token| !is_token(token)) {
            return Err(HubError::Name {
                expected: "a token of letters and digits",
                found: "other characters".to_owned(),
            });
        }
        let client = Client::new(options.token.map(|token| (url, token)));
        Ok(Self { client, endpoint, cache: options.cache })
    }

    /// The path of a model's first file, after all of its files were fetched that the cache does not have. If the hub cannot be
    /// reached, what the cache has.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn model(&self, id: &ModelId, watch: &mut dyn FnMut(Event<'_>)) -> Result<PathBuf> {
        let info = match self.info(id) {
            Err(error) if error.is_unreachable() => {
                let Ok(found) = self.cache.find(id) else { return Err(error) };
                watch(Event::Unreachable { reason: &error.to_string() });
                return Ok(found);
            }
            info => info?,
        };
        // Names that are no paths are none of a model's.
        let names: Vec<FileName> =
            info.siblings.iter().filter_map(|file| file.rfilename.parse().ok()).collect();
        let files = id.choose(&names)?;
        let mut paths = Vec::new();
        for file in &files {
            let sibling = info.siblings.iter().find(|sibling| sibling.rfilename == file.as_str());
            paths.push(self.file(id, &info.sha, file, sibling, watch)?);
        }
        let branch = self.cache.repo(&id.repo).join("refs").join(&id.revision);
        create_parent(&branch)?;
        let unnamed = branch.with_extension(format!("{}.new", std::process::id()));
        fs::write(&unnamed, &info.sha)
            .and_then(|()| fs::rename(&unnamed, &branch))
            .map_err(HubError::io(branch))?;
        Ok(paths.swap_remove(0))
    }

    fn info(&self, id: &ModelId) -> Result<Info> {
        let url = Url::parse(&format!(
            "{}/api/models/{}/revision/{}?blobs=true",
            self.endpoint, id.repo, id.revision
        ))?;
        let text = self.client.text(&url)?;
        let wrong = |found: String| HubError::Answer {
            url: url.to_string(),
            expected: "a repository's commit and files in JSON".to_owned(),
            found,
        };
        let info: Info = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if !is_revision(&info.sha) {
            return Err(wrong(format!("the commit {:?}", info.sha)));
        }
        Ok(info)
    }

    /// One file's path in the cache, after it was fetched if it is not there.
    fn file(
        &self,
        id: &ModelId,
        commit: &str,
        file: &FileName,
        sibling: Option<&Sibling>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf> {
        let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, id.repo, encoded(file.as_str()));
        let url = Url::parse(&url)?;
        let folder = self.cache.repo(&id.repo);
        let lfs = sibling.and_then(|sibling| sibling.lfs.as_ref());
        let sha256 = lfs.and_then(|lfs| lfs.sha256.clone()).filter(|text| is_sha256(text));
        let size = sibling.and_then(|sibling| lfs.and_then(|lfs| lfs.size).or(sibling.size));
        let link = folder.join("snapshots").join(commit).join(file.as_str());
        // Already there, as far as the list of files tells.
        if let (Some(sha256), Some(size)) = (&sha256, size) {
            let blob = folder.join("blobs").join(sha256);
            if has_size(&blob, size) {
                link_to(&blob, &link, file)?;
                return Ok(link);
            }
        }
        let probe = self.probe(&url)?;
        let contradiction = |what: &str, listed: &str, found: String| HubError::Answer {
            url: url.to_string(),
            expected: format!("the {what} {listed} of the list of files"),
            found,
        };
        let Some(etag) = probe.etag else {
            let (expected, found) = ("an ETag of letters and digits".to_owned(), "none".to_owned());
            return Err(HubError::Answer { url: url.to_string(), expected, found });
        };
        match (&sha256, size, probe.commit) {
            (Some(listed), ..) if *listed != etag => return Err(contradiction("SHA-256", listed, etag)),
            (_, Some(listed), _) if listed != probe.size => {
                return Err(contradiction("size", &listed.to_string(), probe.size.to_string()));
            }
            (.., Some(found)) if found != commit => return Err(contradiction("commit", commit, found)),
            _ => {}
        }
        let blob = folder.join("blobs").join(&etag);
        let lock_file = self.cache.root().join(".locks").join(id.repo.folder()).join(format!("{etag}.lock"));
        let name = file.as_str().to_owned();
        let _lock = lock(&lock_file, &name, watch)?;
        // Another process may have fetched it meanwhile. One of another size is damaged.
        if !has_size(&blob, probe.size) {
            create_parent(&blob)?;
            let sha256 = is_sha256(&etag).then(|| etag.clone());
            let partial = folder.join("blobs").join(format!("{etag}.incomplete"));
            Remote { url, name, size: probe.size, sha256 }.fetch(&self.client, &partial, &blob, watch)?;
        }
        link_to(&blob, &link, file)?;
        Ok(link)
    }

    /// Asks for a file's first byte, and reads what is said beside it.
    fn probe(&self, url: &Url) -> Result<Probe> {
        let answer = self.client.get(url, Some("bytes=0-0"), Follow::SameServer)?;
        let is_link = (300..400).contains(&answer.status);
        let mut headers = answer.headers;
        let linked = header(&headers, LINKED_ETAG);
        let commit = header(&headers, "x-repo-commit");
        let mut size = header(&headers, "x-linked-size");
        let etag = linked.or_else(|| header(&headers, "etag").filter(|_| !is_link));
        let mut status = answer.status;
        if is_link && (size.is_none() || etag.is_none()) {
            let answer = self.client.get(url, Some("bytes=0-0"), Follow::Anywhere)?;
            (headers, status) = (answer.headers, answer.status);
        }
        let etag = etag.or_else(|| header(&headers, "etag"));
        let range =
            header(&headers, "content-range").and_then(|range| Some(range.rsplit_once('/')?.1.to_owned()));
        let length = header(&headers, "content-length").filter(|_| status == 200);
        size = size.or(range).or(length);
        match size.as_deref().and_then(|size| size.parse().ok()) {
            Some(size) if size > 0 => {
                Ok(Probe { etag: etag.and_then(|etag| plain_etag(&etag)), size, commit })
            }
            _ => Err(HubError::Answer {
                url: url.to_string(),
                expected: "the file's size".to_owned(),
                found: size.map_or("none".to_owned(), |size| format!("{size:?}")),
            }),
        }
    }

    /// The path of the file at a URL of any server, fetched if it is not in `folder` or has another ETag there. If the server cannot
    /// be reached, what is there.
    ///
    /// # Errors
    /// See [`HubError`]; `http://` is for this machine alone.
    pub fn file_at(&self, url: &str, folder: &Path, watch: &mut dyn FnMut(Event<'_>)) -> Result<PathBuf> {
        let (url, path) = place_of(url, folder)?;
        let source = path.with_file_name(SOURCE);
        let probe = match self.probe(&url) {
            Err(error) if error.is_unreachable() && path.is_file() => {
                watch(Event::Unreachable { reason: &error.to_string() });
                return Ok(path);
            }
            probe => probe?,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _lock = lock(&path.with_file_name("lock"), &name, watch)?;
        let etag = probe.etag.unwrap_or_default();
        let known = fs::read_to_string(&source).unwrap_or_default();
        let is_same = !etag.is_empty() && known.lines().nth(1) == Some(&etag);
        if is_same && has_size(&path, probe.size) {
            return Ok(path);
        }
        let partial =
            path.with_file_name(format!("{}.incomplete", if etag.is_empty() { "file" } else { &etag }));
        if etag.is_empty() {
            // Nothing says that what an earlier run kept is of the same file.
            let _ = fs::remove_file(&partial);
        }
        let sha256 = is_sha256(&etag).then(|| etag.clone());
        Remote { url: url.clone(), name, size: probe.size, sha256 }.fetch(
            &self.client,
            &partial,
            &path,
            watch,
        )?;
        fs::write(&source, format!("{url}\n{etag}\n")).map_err(HubError::io(source))?;
        Ok(path)
    }
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "..");
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &token)
            .field("cache", &self.cache)
            .finish()
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// The path of the file at a URL, if it was fetched.
///
/// # Errors
/// Names the URL if it was not.
pub fn find_url(url: &str, folder: &Path) -> Result<PathBuf> {
    let (url, path) = place_of(url, folder)?;
    match path.is_file() {
        true => Ok(path),
        false => Err(HubError::NotCached { name: url.to_string(), cache: folder.to_owned() }),
    }
}

/// A URL, and where its file lies.
fn place_of(url: &str, folder: &Path) -> Result<(Url, PathBuf)> {
    let url = Url::parse(url)?;
    if !url.is_secret() && !url.is_local() {
        return Err(HubError::Name { expected: "an https:// URL", found: url.to_string() });
    }
    let name = url.file_name();
    if name.contains('/')
        || name.parse::<FileName>().is_err()
        || !name.to_ascii_lowercase().ends_with(".gguf")
    {
        return Err(HubError::Name {
            expected: "a URL whose path ends in the name of a GGUF file",
            found: url.to_string(),
        });
    }
    let hash = hex(&Sha256::digest(url.as_str().as_bytes())[..16]);
    let path = folder.join(hash).join(name);
    Ok((url, path))
}

/// An ETag that is harmless as a file's name.
fn plain_etag(etag: &str) -> Option<String> {
    let etag = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    Some(etag).filter(|etag| is_revision(etag))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn has_size(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// Makes `link` lead to `blob`, by a relative path, so that the cache can be moved.
fn link_to(blob: &Path, link: &Path, file: &FileName) -> Result<()> {
    if link.is_symlink() && link.canonicalize().ok() == blob.canonicalize().ok() {
        return Ok(());
    }
    create_parent(link)?;
    let etag = blob.file_name().unwrap_or_default();
    let levels = file.as_str().split('/').count() + 1;
    let target: PathBuf = std::iter::repeat_n("..", levels).collect::<PathBuf>().join("blobs").join(etag);
    let unnamed = link.with_file_name(format!(".{}.link", std::process::id()));
    let _ = fs::remove_file(&unnamed);
    symlink(&target, blob, &unnamed).and_then(|()| fs::rename(&unnamed, link)).map_err(HubError::io(link))
}

#[cfg(unix)]
fn symlink(target: &Path, _blob: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// A link needs a right that not every user has; then another name of the file, or a copy.
#[cfg(not(unix))]
fn symlink(_target: &Path, blob: &Path, link: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, link).or_else(|_| fs::copy(blob, link).map(drop))
}
