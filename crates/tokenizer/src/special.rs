//! Finding the tokens that are matched as written, before the text between them is tokenised.
//!
//! Where several match, the leftmost wins and of those the longest, as in Hugging Face's tokenizers.
//! (llama.cpp looks for the longest first, anywhere; the two differ only where one such token overlaps the
//! end of another.)

use aho_corasick::{AhoCorasick, MatchKind};

/// A part of a text that has been searched for special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment<'t> {
    /// Not empty, and without special tokens.
    Text(&'t str),
    Token(u32),
}

/// A token to be found as written.
pub(crate) struct SpecialToken<'v> {
    pub(crate) id: u32,
    pub(crate) text: &'v str,
    /// Whether the white space after it is dropped.
    pub(crate) strips_right: bool,
}

/// Finds a set of special tokens in text.
#[derive(Debug)]
pub(crate) struct Matcher {
    automaton: AhoCorasick,
    /// For each pattern of the automaton: its token, and whether it strips the white space after it.
    tokens: Vec<(u32, bool)>,
}

impl Matcher {
    pub(crate) fn new<'v>(tokens: impl Iterator<Item = SpecialToken<'v>> + Clone) -> Self {
        let tokens = tokens.filter(|token| !token.text.is_empty());
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.clone().map(|token| token.text))
            .expect("a vocabulary is far smaller than an automaton may be");
        Matcher { automaton, tokens: tokens.map(|token| (token.id, token.strips_right)).collect() }
    }

    /// The tokens that it finds.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().map(|&(id, _)| id)
    }

    /// Calls `f` with each part of `text`, in order.
    pub(crate) fn split<'t>(&self, text: &'t str, mut f: impl FnMut(Fragment<'t>)) {
        let mut rest = text;
        while let Some(found) = self.automaton.find(rest) {
            let (id, strips_right) = self.tokens[found.pattern()];
            if found.start() > 0 {
                f(Fragment::Text(&rest[..found.start()]));
            }
            f(Fragment::Token(id));
            rest = &rest[found.end()..];
            if strips_right {
                rest = rest.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
            }
        }
        if !rest.is_empty() {
            f(Fragment::Text(rest));
        }
    }
}
