//! Embeddings in the API's shape.

use rustorch_llama::Usage;
use serde::Serialize;

use crate::body::Encoding;

/// How embeddings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EmbeddingFormat {
    pub encoding: Encoding,
    /// So many values, if fewer than all are wanted.
    pub dimensions: Option<usize>,
    /// Whether the body is in Ollama's form.
    pub is_ollamas: bool,
}

impl EmbeddingFormat {
    /// The first values, scaled to length 1 again, as models are trained whose embeddings may be cut.
    fn cut(self, mut values: Vec<f32>) -> Vec<f32> {
        let Some(dimensions) = self.dimensions.filter(|&dimensions| dimensions < values.len()) else {
            return values;
        };
        values.truncate(dimensions);
        let length = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            for value in &mut values {
                *value = (f64::from(*value) / length) as f32;
            }
        }
        values
    }
}

/// The body of a response in Ollama's form.
#[derive(Debug, Serialize)]
pub(crate) struct OllamaEmbeddings {
    model: String,
    embeddings: Vec<Vec<f32>>,
    /// In nanoseconds.
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: usize,
}

impl OllamaEmbeddings {
    pub fn new(
        model: String,
        embeddings: impl Iterator<Item = Vec<f32>>,
        format: EmbeddingFormat,
        usage: Usage,
        total_duration: u64,
    ) -> Self {
        let embeddings = embeddings.map(|values| format.cut(values)).collect();
        Self { model, embeddings, total_duration, load_duration: 0, prompt_eval_count: usage.prompt_tokens }
    }
}

/// The body of a response.
#[derive(Debug, Serialize)]
pub(crate) struct EmbeddingList {
    object: &'static str,
    data: Vec<EmbeddingBody>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize)]
struct EmbeddingBody {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Values {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl EmbeddingList {
    pub fn new(
        model: String,
        embeddings: impl Iterator<Item = Vec<f32>>,
        format: EmbeddingFormat,
        usage: Usage,
    ) -> Self {
        let body = |(index, values): (usize, Vec<f32>)| {
            let values = format.cut(values);
            let embedding = match format.encoding {
                Encoding::Float => Values::Float(values),
                Encoding::Base64 => {
                    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    Values::Base64(base64(&bytes))
                }
            };
            EmbeddingBody { object: "embedding", index, embedding }
        };
        let data = embeddings.enumerate().map(body).collect();
        let usage = EmbeddingUsage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.prompt_tokens };
        Self { object: "list", data, model, usage }
    }
}

/// RFC 4648's base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit <= three.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 4648.
    #[test]
    fn base64_is_the_standard_s() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, expect) in cases {
            assert_eq!(base64(text.as_bytes()), expect);
        }
        assert_eq!(base64(&[0xff, 0xfb, 0xff]), "//v/");
    }
}
