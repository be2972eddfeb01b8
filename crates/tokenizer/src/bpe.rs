//! Byte-level BPE: `tokenizer.ggml.model` = `gpt2`.
//!
//! A pre-tokenizer splits the text into words. A word's bytes are symbols. Of all neighbouring pairs that are in the file's
//! list of merges, the pair listed first is merged first; of equal pairs, the leftmost.
//!
//! Files spell tokens in GPT-2's alphabet, in which every byte is a printable character. It is undone once,
//! at load, so that text is merged as the bytes it is. The pairs are by number, not by text: a symbol's
//! number is its token, or, for what stands only halfway to a token, the next free one.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::merge::{Merge, Symbol, merge};
use crate::pre::{PreTokenizer, Splitter};
use crate::vocab::{Kind, Vocab};

#[derive(Debug)]
pub(crate) struct Bpe {
    splitter: Splitter,
    /// The symbol of each byte.
    bytes: Box<[u32; 256]>,
    /// The symbol that a pair of symbols becomes.
    merges: HashMap<(u32, u32), Merge>,
    /// The first symbol that is not a token.
    vocab_size: u32,
    /// Words that become their token without merging: all tokens, or none.
    words: HashMap<Box<[u8]>, u32>,
}

impl Bpe {
    pub(crate) fn new(vocab: &Vocab<'_>, merges: &[String], pre: &PreTokenizer) -> Self {
        let mut symbols = Symbols::new(vocab);
        let mut number = |byte| symbols.number(byte_to_char(byte).encode_utf8(&mut [0; 4]));
        let bytes = Box::new(std::array::from_fn(|byte| number(byte as u8)));
        let mut pairs = HashMap::with_capacity(merges.len());
        let mut joined = String::new();
        for (rank, line) in (0..).zip(merges) {
            let Some((left, right)) = split_merge(line) else { continue };
            joined.clear();
            joined.extend([left, right]);
            let pair = (symbols.number(left), symbols.number(right));
            let id = symbols.number(&joined);
            pairs.entry(pair).or_insert(Merge { priority: u32::MAX - rank, id });
        }
        let words = match pre.ignore_merges {
            true => vocab.plain_tokens().map(|(id, text)| (decode_text(text).into(), id)).collect(),
            false => HashMap::new(),
        };
        let vocab_size = vocab.texts.len() as u32;
        Bpe { splitter: Splitter::new(pre), bytes, merges: pairs, vocab_size, words }
    }

    /// Appends the tokens of `text`. A byte that has no token is left out.
    pub(crate) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        self.splitter.each_word(text, &mut |word| self.encode_word(word.as_bytes(), out));
    }

    fn encode_word(&self, word: &[u8], out: &mut Vec<u32>) {
        if let Some(&id) = self.words.get(word) {
            out.push(id);
            return;
        }
        let symbols = word.iter().enumerate().map(|(start, &byte)| Symbol {
            id: Some(self.bytes[byte as usize]),
            start,
            end: start + 1,
        });
        let merged = merge(symbols.collect(), |left, right| self.merges.get(&(left.id?, right.id?)).copied());
        for symbol in merged {
            match symbol.id {
                Some(id) if id < self.vocab_size => out.push(id),
                _ => {
                    let bytes = word[symbol.start..symbol.end].iter();
                    out.extend(
                        bytes.map(|&byte| self.bytes[byte as usize]).filter(|&id| id < self.vocab_size),
                    );
                }
            }
        }
    }
}

/// Numbers for the texts that merges speak of.
struct Symbols<'g> {
    numbers: HashMap<Cow<'g, str>, u32>,
    next: u32,
}

impl<'g> Symbols<'g> {
    fn new(vocab: &Vocab<'g>) -> Self {
        let mut numbers = HashMap::with_capacity(vocab.texts.len() + 256);
        for (id, text) in vocab.plain_tokens() {
            numbers.entry(Cow::Borrowed(text)).or_insert(id);
        }
        Symbols { numbers, next: vocab.texts.len() as u32 }
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.numbers.insert(Cow::Owned(text.to_owned()), self.next);
        self.next += 1;
        self.next - 1
    }
}

impl<'g> Vocab<'g> {
    /// The tokens that plain text can become.
    fn plain_tokens(&self) -> impl Iterator<Item = (u32, &'g str)> {
        let tokens = (0..).zip(self.texts).zip(&self.kinds);
        tokens
            .filter(|(_, kind)| !matches!(kind, Kind::Control | Kind::Unknown))
            .map(|((id, text), _)| (id, text.as_str()))
    }
}

/// The two sides of a merge, which a space separates. The left side may itself begin with one.
fn split_merge(line: &str) -> Option<(&str, &str)> {
    let after_first = line.chars().next()?.len_utf8();
    let space = after_first + line[after_first..].find(' ')?;
    Some((&line[..space], &line[space + 1..]))
}

/// The bytes that a token's text stands for; a character that is not in GPT-2's alphabet stands for its own
/// UTF-8.
pub(crate) fn decode_text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match char_to_byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Whether GPT-2's alphabet has the byte's own Latin-1 character for it.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on, in order.
fn byte_to_char(byte: u8) -> char {
    if is_printable(byte) {
        return byte.into();
    }
    let nth = (0..byte).filter(|&before| !is_printable(before)).count() as u32;
    char::from_u32(0x100 + nth).expect("far below the surrogates")
}

fn char_to_byte(c: char) -> Option<u8> {
    match u8::try_from(u32::from(c)) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => {
            (0..=255).filter(|&byte| !is_printable(byte)).nth(u32::from(c).checked_sub(0x100)? as usize)
        }
    }
}
