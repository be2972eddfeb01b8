//! How a model's file says that embeddings are pooled.

use engine::Pooling;
use gguf::Gguf;

/// The pooling that a file names, and a sentence if it names one that there is not.
pub fn file_pooling(gguf: &Gguf) -> (Pooling, Option<String>) {
    let metadata = gguf.metadata();
    let architecture = metadata.architecture().unwrap_or_default();
    let key = format!("{architecture}.pooling_type");
    match metadata.u32(&key).ok().flatten() {
        Some(1) => (Pooling::Mean, None),
        // No way is the first.
        None | Some(0 | 3) => (Pooling::Last, None),
        Some(found) => {
            let note = format!(
                "embeddings are those of the last token: {key}: expected 1 (mean) or 3 (last), found {found}"
            );
            (Pooling::Last, Some(note))
        }
    }
}
