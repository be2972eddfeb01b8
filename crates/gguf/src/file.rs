//! An open model: the bytes of one file or of all parts of a split one, and the index of their tensors.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::cursor::Cursor;
use crate::error::{GgufError, Result};
use crate::header::{self, Header, TensorRecord};
use crate::mapping::Mapping;
use crate::metadata::Metadata;
use crate::split::Split;
use crate::tensor::TensorView;

/// A model's file, or all files of a split model, open and checked. Share it by reference or in an `Arc`.
///
/// Every tensor is known to lie within its file, aligned, apart from all others, and as long as its shape and
/// format need. The bytes stay in the mapped file: opening costs the header, not the weights. (Tensors that
/// [`GgufWriter::into_gguf`](crate::GgufWriter::into_gguf) made of one pattern do share their bytes.)
pub struct Gguf {
    metadata: Metadata,
    parts: Vec<Part>,
    /// Of the parts; none of a model in memory.
    paths: Vec<PathBuf>,
    /// For each name, its part and its place in that part.
    index: HashMap<String, (usize, usize)>,
}

struct Part {
    bytes: Mapping,
    tensors: Vec<TensorRecord>,
}

impl Gguf {
    /// Opens a file. The first part of a split model opens all parts, which must lie beside it.
    ///
    /// # Errors
    /// If a file cannot be read, is not GGUF version 2 or 3 in little-endian order, ends early, or
    /// contradicts itself; if it holds a tensor in a format that is not in
    /// [`Format::ALL`](crate::Format::ALL); if a part is missing, or `path` is not the first.
    pub fn open(path: &Path) -> Result<Gguf> {
        let (bytes, header) = open_part(path)?;
        let split = Split::of(&header.metadata).map_err(|error| error.in_file(path))?;
        let mut gguf = Gguf::whole(bytes, header);
        gguf.paths.push(path.to_owned());
        if let Some(split) = split {
            gguf.add_parts(path, &split).map_err(|error| error.in_file(path))?;
        }
        Ok(gguf)
    }

    /// Reads a model that is part of the program.
    ///
    /// # Errors
    /// As [`Gguf::open`]; a part of a split model is refused.
    pub fn from_static(bytes: &'static [u8]) -> Result<Gguf> {
        Gguf::in_memory(Mapping::Static(bytes))
    }

    /// Reads a model from memory.
    ///
    /// # Errors
    /// As [`Gguf::open`]; a part of a split model is refused.
    pub fn from_vec(bytes: Vec<u8>) -> Result<Gguf> {
        Gguf::in_memory(Mapping::Owned(bytes))
    }

    /// The metadata; of a split model, that of its first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file's records, part after part.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.parts
            .iter()
            .flat_map(|part| part.tensors.iter().map(|record| TensorView::new(record, &part.bytes)))
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`GgufError::MissingTensor`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.find_tensor(name).ok_or_else(|| GgufError::MissingTensor { tensor: name.into() })
    }

    /// The tensor of that name, if there is one.
    pub fn find_tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let &(part, place) = self.index.get(name)?;
        let part = &self.parts[part];
        Some(TensorView::new(&part.tensors[place], &part.bytes))
    }

    /// Size of the file, or of all parts together; of a model that was never a file, the memory of its weights.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }

    /// The file, or all parts of a split model, the first one first; none of a model in memory.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Parts of a split model that are links out of the folder, and where they lead. A folder is also that to which the first part,
    /// which its user named, leads: some stores of downloaded models are folders of links to files in another.
    pub fn parts_elsewhere(&self) -> Vec<(&Path, PathBuf)> {
        let Some((first, others)) = self.paths.split_first() else { return Vec::new() };
        let real = |path: &Path| path.canonicalize().ok();
        let named =
            first.parent().map(|folder| if folder == Path::new("") { Path::new(".") } else { folder });
        let own = [named.and_then(real), real(first).and_then(|path| Some(path.parent()?.to_owned()))];
        let is_own = |path: &Path| own.iter().flatten().any(|folder| path.parent() == Some(folder));
        let elsewhere = others.iter().filter_map(|path| Some((path.as_path(), real(path)?)));
        elsewhere.filter(|(_, target)| !is_own(target)).collect()
    }

    /// Tells the OS that the memory holding `tensor`'s pages of the mapped file is not needed for now: call
    /// it once the weights have been copied elsewhere. The tensor stays readable; its pages then come
    /// from disk again. Does nothing for a model in memory.
    pub fn release(&self, tensor: &TensorView<'_>) {
        if let Some(&(part, place)) = self.index.get(tensor.name()) {
            let part = &self.parts[part];
            part.bytes.release(part.tensors[place].data.clone());
        }
    }

    /// A model whose tensors lie in these memories, each of them within its own.
    pub(crate) fn from_sources(metadata: Metadata, sources: Vec<(Vec<u8>, Vec<TensorRecord>)>) -> Gguf {
        let mut index = HashMap::new();
        let mut parts = Vec::new();
        for (bytes, tensors) in sources {
            let places = tensors.iter().enumerate();
            index.extend(places.map(|(place, record)| (record.name.clone(), (parts.len(), place))));
            parts.push(Part { bytes: Mapping::Owned(bytes), tensors });
        }
        Gguf { metadata, parts, paths: Vec::new(), index }
    }

    fn in_memory(bytes: Mapping) -> Result<Gguf> {
        let header = header::read(&bytes)?;
        match Split::of(&header.metadata)? {
            Some(split) => Err(GgufError::SplitInMemory { count: split.count }),
            None => Ok(Gguf::whole(bytes, header)),
        }
    }

    fn whole(bytes: Mapping, header: Header) -> Gguf {
        let Header { metadata, tensors } = header;
        let index =
            tensors.iter().enumerate().map(|(place, record)| (record.name.clone(), (0, place))).collect();
        Gguf { metadata, parts: vec![Part { bytes, tensors }], paths: Vec::new(), index }
    }

    fn add_parts(&mut self, first: &Path, split: &Split) -> Result<()> {
        for (part, path) in split.other_paths(first)? {
            let (bytes, header) = open_part(&path).map_err(|error| missing_part(error, part, split.count))?;
            split.check_part(part, &header.metadata).map_err(|error| error.in_file(&path))?;
            for (place, record) in header.tensors.iter().enumerate() {
                match self.index.entry(record.name.clone()) {
                    Entry::Vacant(entry) => entry.insert((self.parts.len(), place)),
                    Entry::Occupied(entry) => {
                        return Err(GgufError::DuplicateTensor { tensor: entry.key().clone() }.in_file(&path));
                    }
                };
            }
            self.parts.push(Part { bytes, tensors: header.tensors });
            self.paths.push(path);
        }
        split.check_tensor_count(self.index.len())
    }
}

impl Metadata {
    /// Reads only the metadata of a file, of whatever format its tensors are: enough for a tokenizer. Of a
    /// split model, the first part has it.
    ///
    /// # Errors
    /// If the file cannot be read or its header is damaged.
    pub fn open(path: &Path) -> Result<Metadata> {
        let bytes = Mapping::open(path)?;
        let (_, metadata) =
            header::read_metadata(&mut Cursor::new(&bytes)).map_err(|error| error.in_file(path))?;
        Ok(metadata)
    }
}

fn open_part(path: &Path) -> Result<(Mapping, Header)> {
    let bytes = Mapping::open(path)?;
    let header = header::read(&bytes).map_err(|error| error.in_file(path))?;
    Ok((bytes, header))
}

/// Says which part it is that could not be found.
fn missing_part(error: GgufError, part: u64, count: u64) -> GgufError {
    match error {
        GgufError::Io { path, source } if source.kind() == io::ErrorKind::NotFound => {
            GgufError::MissingPart { part, count, path }
        }
        other => other,
    }
}

/// The sizes; the contents are too long to print.
impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("n_parts", &self.parts.len())
            .field("n_keys", &self.metadata.iter().len())
            .field("n_tensors", &self.index.len())
            .field("file_bytes", &self.file_bytes())
            .finish()
    }
}
