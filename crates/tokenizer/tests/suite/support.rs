//! Small vocabularies made to measure, as the files that hold them.

use std::path::PathBuf;

use gguf::{Array, Gguf, GgufWriter, Value};
use tokenizer::{Result, Tokenizer};

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy)]
pub enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Byte = 6,
}

/// A vocabulary under construction.
pub struct Vocabulary {
    texts: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
    keys: Vec<(&'static str, Value)>,
}

impl Vocabulary {
    /// `<unk>`, `<s>` and `</s>` as tokens 0 to 2, then the bytes from token 3 on, then `pieces`, the first
    /// scored highest.
    pub fn spm(pieces: &[&str]) -> Self {
        let mut vocabulary = Vocabulary { texts: vec![], scores: vec![], kinds: vec![], keys: vec![] };
        vocabulary.key("tokenizer.ggml.model", Value::String("llama".into()));
        vocabulary.token("<unk>", Kind::Unknown);
        vocabulary.token("<s>", Kind::Control);
        vocabulary.token("</s>", Kind::Control);
        for byte in 0..=255 {
            vocabulary.token(&format!("<0x{byte:02X}>"), Kind::Byte);
        }
        for piece in pieces {
            vocabulary.token(piece, Kind::Normal);
        }
        vocabulary
    }

    /// The bytes as tokens 0 to 255, then what the merges make.
    pub fn bpe(pre: &str, merges: &[&str]) -> Self {
        let mut vocabulary = Vocabulary { texts: vec![], scores: vec![], kinds: vec![], keys: vec![] };
        vocabulary.key("tokenizer.ggml.model", Value::String("gpt2".into()));
        vocabulary.key("tokenizer.ggml.pre", Value::String(pre.into()));
        vocabulary.key("tokenizer.ggml.merges", strings(merges));
        let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let mut others = 0x100..;
        for byte in 0..256 {
            let c = if printable(&byte) { byte } else { others.next().unwrap() };
            vocabulary.token(&char::from_u32(c).unwrap().to_string(), Kind::Normal);
        }
        for merge in merges {
            vocabulary.token(&merge.replace(' ', ""), Kind::Normal);
        }
        vocabulary
    }

    /// Adds a token, of lower score than all before, and returns its id.
    pub fn token(&mut self, text: &str, kind: Kind) -> u32 {
        self.texts.push(text.into());
        self.scores.push(-(self.scores.len() as f32));
        self.kinds.push(kind as i32);
        self.texts.len() as u32 - 1
    }

    pub fn key(&mut self, key: &'static str, value: Value) -> &mut Self {
        self.keys.push((key, value));
        self
    }

    pub fn id(&self, text: &str) -> u32 {
        self.texts.iter().position(|known| known == text).unwrap_or_else(|| panic!("no token {text:?}"))
            as u32
    }

    pub fn build(&self) -> Tokenizer {
        self.try_build().unwrap()
    }

    /// A key given by [`Vocabulary::key`] takes the place of the vocabulary's own.
    pub fn try_build(&self) -> Result<Tokenizer> {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let mut writer = GgufWriter::new();
        let own = [
            ("tokenizer.ggml.tokens", strings(&texts)),
            ("tokenizer.ggml.scores", Value::Array(Array::F32(self.scores.clone()))),
            ("tokenizer.ggml.token_type", Value::Array(Array::I32(self.kinds.clone()))),
        ];
        for (key, value) in own.iter().filter(|(key, _)| self.keys.iter().all(|(given, _)| given != key)) {
            writer.metadata(key, value.clone());
        }
        for (i, (key, value)) in self.keys.iter().enumerate() {
            if self.keys[i + 1..].iter().all(|(later, _)| later != key) {
                writer.metadata(key, value.clone());
            }
        }
        Tokenizer::from_gguf(&Gguf::from_vec(writer.write()).unwrap())
    }
}

pub fn strings(values: &[&str]) -> Value {
    Value::Array(Array::String(values.iter().map(|value| value.to_string()).collect()))
}

/// A vocabulary of a real model: `gpt-2`, `phi-3` or `qwen2`.
pub fn published(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::open(&published_path(name)).unwrap()).unwrap()
}

pub fn published_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vocab/ggml-vocab-{name}.gguf"))
}
