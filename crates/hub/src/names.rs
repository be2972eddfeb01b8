//! Names of repositories and files, checked before they become paths, and which file of a repository is meant.

use std::fmt;
use std::str::FromStr;

use crate::{HubError, Result};

/// A repository of the hub, `USER/REPO`: two names of letters, digits, `-`, `_` and `.`, so that it is harmless as a path and in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId(String);

/// The path of a file in its repository: relative, with `/` between its parts, none of them `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName(String);

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelId {
    /// Where it is.
    pub repo: RepoId,
    /// Branch, tag or commit.
    pub revision: String,
    /// Which of the repository's models.
    pub choice: Choice,
}

/// Which of a repository's models.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// That in Q4_K_M, or else the first.
    Default,
    /// The one whose name ends in this, whatever the case: `Q8_0`.
    Quant(String),
    /// This file.
    File(FileName),
}

/// What is taken where nothing is said.
const DEFAULT_QUANT: &str = "Q4_K_M";
/// The branch that every repository has.
pub(crate) const MAIN: &str = "main";
/// Longer names are none of the hub's.
const MOST_CHARS: usize = 512;

impl FromStr for RepoId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self> {
        let is_name = |name: &str| {
            let is_char = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            // Two dashes stand for the slash in the cache's names.
            let is_clear = !name.contains("..") && !name.contains("--") && !name.starts_with(['-', '.']);
            !name.is_empty() && name.len() <= 96 && name.chars().all(is_char) && is_clear
        };
        match text.split_once('/') {
            Some((user, repo)) if is_name(user) && is_name(repo) => Ok(Self(text.to_owned())),
            _ => Err(HubError::Name { expected: "USER/REPO", found: text.to_owned() }),
        }
    }
}

impl RepoId {
    /// `USER/REPO`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// The repository whose folder this is.
    pub(crate) fn of_folder(name: &str) -> Option<Self> {
        name.strip_prefix("models--")?.replacen("--", "/", 1).parse().ok()
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FileName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self> {
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        // Drives, streams and separators of Windows, and what a terminal would obey.
        let is_char = |c: char| !c.is_control() && !"\\:*?\"<>|".contains(c);
        match text.len() <= MOST_CHARS && text.split('/').all(is_part) && text.chars().all(is_char) {
            true => Ok(Self(text.to_owned())),
            false => Err(HubError::Name { expected: "a path inside the repository", found: text.to_owned() }),
        }
    }
}

impl FileName {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a model of text or a part of one: no projector of images, and no statistics for quantisation.
    pub fn is_model(&self) -> bool {
        let name = self.0.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        name.ends_with(".gguf") && !name.contains("mmproj") && !name.contains("imatrix")
    }

    /// What stands before `-00001-of-00003.gguf`, the part's number and how many there are.
    fn part(&self) -> Option<(&str, u32, u32)> {
        let (rest, count) = self.stem().rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let read = |text: &str| (text.len() == 5).then(|| text.parse::<u32>().ok()).flatten();
        Some((prefix, read(number)?, read(count)?))
    }

    /// Whether it opens a model: a whole one, or the first part.
    fn is_first(&self) -> bool {
        self.part().is_none_or(|(_, number, _)| number == 1)
    }

    fn stem(&self) -> &str {
        let end = self.0.len() - ".gguf".len().min(self.0.len());
        self.0.get(..end).unwrap_or_default()
    }

    /// Whether this is the model in `quant`: its name ends in it, or has it between other marks.
    fn has_quant(&self, quant: &str) -> bool {
        let stem = self.part().map_or(self.stem(), |(prefix, ..)| prefix).to_ascii_lowercase();
        let quant = quant.to_ascii_lowercase();
        let is_mark = |c: char| "-./".contains(c);
        stem.match_indices(&quant).any(|(at, _)| {
            let (before, after) = (&stem[..at], &stem[at + quant.len()..]);
            let begins = before.is_empty() || before.ends_with(|c| is_mark(c) || c == '_');
            begins && (after.is_empty() || after.starts_with(is_mark))
        })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `USER/REPO` or `USER/REPO:QUANT`.
impl FromStr for ModelId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "USER/REPO or USER/REPO:QUANT";
        let fault = || HubError::Name { expected, found: text.to_owned() };
        let (repo, quant) = text.split_once(':').map_or((text, None), |(repo, quant)| (repo, Some(quant)));
        let is_quant = |quant: &str| {
            !quant.is_empty() && quant.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let choice = match quant {
            None => Choice::Default,
            // As other programs name the default.
            Some(quant) if quant.eq_ignore_ascii_case("latest") => Choice::Default,
            Some(quant) if is_quant(quant) => Choice::Quant(quant.to_owned()),
            Some(_) => return Err(fault()),
        };
        let repo = repo.parse().map_err(|_| fault())?;
        Ok(Self { repo, revision: MAIN.to_owned(), choice })
    }
}

impl ModelId {
    /// Another file of the repository.
    pub fn with_file(self, file: FileName) -> Self {
        Self { choice: Choice::File(file), ..self }
    }

    /// The model behind a link to a file of the hub at `endpoint`, as its pages show it (`/blob/`) or as it is fetched (`/resolve/`).
    pub fn of_link(link: &str, endpoint: &str) -> Option<Self> {
        let path = link.strip_prefix(endpoint.trim_end_matches('/'))?.strip_prefix('/')?;
        let path = path.split(['?', '#']).next()?;
        let parts: Vec<&str> = path.splitn(5, '/').collect();
        let [user, repo, "blob" | "resolve", revision, file] = parts[..] else { return None };
        let repo = format!("{user}/{repo}").parse().ok()?;
        // What is encoded is left to the server.
        let is_plain = !file.contains('%') && is_revision(revision);
        let choice = Choice::File(file.parse().ok().filter(|_| is_plain)?);
        Some(Self { repo, revision: revision.to_owned(), choice })
    }

    /// The model's files among `files`, those of a split model in order.
    ///
    /// # Errors
    /// Names what there is if there is no such model, and a part that is missing.
    pub fn choose(&self, files: &[FileName]) -> Result<Vec<FileName>> {
        let mut models: Vec<&FileName> =
            files.iter().filter(|file| file.is_model() && file.is_first()).collect();
        // Of several with the same ending, such as M-Q4_K_M and M-UD-Q4_K_M, the plainest.
        let in_quant = |quant: &str| {
            let fits = models.iter().copied().filter(|file| file.has_quant(quant));
            fits.min_by_key(|file| (file.0.len(), file.0.clone()))
        };
        let (found, expected) = match &self.choice {
            Choice::File(name) => {
                (files.iter().find(|file| *file == name), format!("the file {name:?}", name = name.0))
            }
            Choice::Quant(quant) => (in_quant(quant), format!("a GGUF file in {quant}")),
            Choice::Default => {
                (in_quant(DEFAULT_QUANT).or(models.first().copied()), "a GGUF file".to_owned())
            }
        };
        let Some(found) = found else {
            models.sort();
            let names: Vec<String> = models.iter().take(LISTED).map(|file| format!("{:?}", file.0)).collect();
            let more = if models.len() > LISTED { ", .." } else { "" };
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") + more };
            return Err(HubError::NoSuchFile { repo: self.repo.0.clone(), expected, found });
        };
        self.parts(found, files)
    }

    /// All parts of the model that `first` opens.
    fn parts(&self, first: &FileName, files: &[FileName]) -> Result<Vec<FileName>> {
        let Some((prefix, _, count)) = first.part() else { return Ok(vec![first.clone()]) };
        let mut parts = Vec::new();
        for number in 1..=count {
            let name = FileName(format!("{prefix}-{number:05}-of-{count:05}.gguf"));
            if !files.contains(&name) {
                let (repo, expected) =
                    (self.repo.0.clone(), format!("part {number} of {count}, {:?}", name.0));
                return Err(HubError::NoSuchFile { repo, expected, found: "none".to_owned() });
            }
            parts.push(name);
        }
        Ok(parts)
    }
}

/// `USER/REPO:QUANT`, or with the file's name.
impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.choice {
            Choice::Default => write!(f, "{}", self.repo),
            Choice::Quant(quant) => write!(f, "{}:{quant}", self.repo),
            Choice::File(file) => write!(f, "{}/{file}", self.repo),
        }
    }
}

/// Names that an error lists.
const LISTED: usize = 40;

/// Whether this is a branch, tag or commit that is harmless as a file's name.
pub(crate) fn is_revision(text: &str) -> bool {
    let is_char = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=128).contains(&text.len()) && text.chars().all(is_char) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<FileName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn names_that_would_be_other_paths_are_refused() {
        for name in [
            "",
            "/etc/passwd",
            "../a.gguf",
            "a/../../b.gguf",
            "a//b",
            "./a",
            "a/",
            "a\\b",
            "C:a",
            "a\nb",
            "\u{1b}[m",
        ] {
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        for name in ["a.gguf", "Q4_K_M/a b-00001-of-00002.gguf", "..a", "é.gguf"] {
            assert!(name.parse::<FileName>().is_ok(), "{name:?}");
        }
        for repo in ["", "a", "a/b/c", "../a", "a/..", "a/.b", "a--b/c", "a/b c", "a/b%2f", "/a"] {
            assert!(repo.parse::<RepoId>().is_err(), "{repo:?}");
        }
        for model in ["a/b:", "a/b:c/d", "a:b", "a/b:Q4:K"] {
            assert!(model.parse::<ModelId>().is_err(), "{model:?}");
        }
    }

    #[test]
    fn the_file_is_that_of_the_quantisation() {
        let check = |id: &str, files: &[&str], expect: &[&str]| {
            let id: ModelId = id.parse().unwrap();
            let found = id
                .choose(&names(files))
                .map(|files| files.into_iter().map(|file| file.0).collect::<Vec<_>>());
            assert_eq!(found.unwrap_or_default(), expect, "{id}");
        };
        let plain =
            &["README.md", "m-BF16.gguf", "m-F16.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf"];
        check("a/b", plain, &["m-Q4_K_M.gguf"]);
        check("a/b:latest", plain, &["m-Q4_K_M.gguf"]);
        check("a/b:q8_0", plain, &["m-Q8_0.gguf"]);
        check("a/b:F16", plain, &["m-F16.gguf"]);
        check("a/b:Q4_K", plain, &[]);
        check("a/b:Q6_K", plain, &[]);
        check(
            "a/b",
            &["mmproj-m-Q4_K_M.gguf", "m.imatrix.gguf", "m.Q5_0.gguf", "a.Q6_K.gguf"],
            &["m.Q5_0.gguf"],
        );
        check("a/b", &["README.md"], &[]);
        check("a/b", &["m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf"], &["m-Q4_K_M.gguf"]);
        check("a/b:UD-Q4_K_M", &["m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf"], &["m-UD-Q4_K_M.gguf"]);
        let split =
            &["Q8_0/m-00002-of-00002.gguf", "Q8_0/m-00001-of-00002.gguf", "m-q4_0-00001-of-00003.gguf"];
        check("a/b:q8_0", split, &["Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"]);
        check("a/b:q4_0", split, &[]);
    }

    #[test]
    fn links_to_the_hub_are_its_files() {
        let of =
            |link| ModelId::of_link(link, "https://huggingface.co").map(|id| (id.to_string(), id.revision));
        let found = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
        assert_eq!(
            of("https://huggingface.co/a/b/resolve/main/c/d.gguf?download=true"),
            found("a/b/c/d.gguf", "main")
        );
        assert_eq!(of("https://huggingface.co/a/b/blob/v1/d.gguf"), found("a/b/d.gguf", "v1"));
        assert_eq!(of("https://huggingface.co/a/b/blob/../d.gguf"), None);
        assert_eq!(of("https://huggingface.co/a/b/resolve/main/../../d.gguf"), None);
        assert_eq!(of("https://example.com/a/b/resolve/main/d.gguf"), None);
    }
}
