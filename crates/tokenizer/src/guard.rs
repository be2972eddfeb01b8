//! Keeps a message's content from being read as control tokens of the template.
//!
//! A rendered chat is one text, and control tokens are found in it by their spelling; `<|im_end|>` in a
//! message would end the turn. The template may do anything with a message before it is in that text: trim,
//! slice, split, join, compare it. So where the content lies can only be told from the characters themselves.
//!
//! Hence every character of a message that a control token could be made of ([`Guard::guarded`]: its signs,
//! `<|>_`) is replaced before rendering by a stand-in: a private-use code point that occurs nowhere in this
//! chat, its template and the control tokens, and so cannot be forged. No control token matches where a
//! stand-in is, whatever was cut or joined. Afterwards, in the text between control tokens, each stand-in
//! becomes its character again. Letters, digits and white space stay as they are, and so does the number of
//! characters: `trim`, `length` and `message.content[1:]` see what they would have seen.
//!
//! What templates test messages for are strings in their source (`'</think>' in content`). These must still
//! be found, so where a message has such a string, its characters stay if the string itself shows that no
//! control token covers them: after `<` in `</think>` no control token continues with `/think>`. Only a
//! template that deletes a part of such a string, or that writes a control token's signs itself round the
//! content (`<|{{ content }}|>`), could be played.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use crate::error::{Result, TokenizerError};

/// What must be guarded in messages, for one template and one vocabulary.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Of these characters every control token has at least one.
    guarded: BTreeSet<char>,
    literals: Vec<Literal>,
    /// Private-use characters of the template and of control tokens, which must not be stand-ins.
    taken: HashSet<char>,
}

/// A string in the template's source.
#[derive(Debug)]
struct Literal {
    text: String,
    /// Where it has characters (at which bytes) that are guarded elsewhere, but that no control token covers.
    harmless: Vec<usize>,
}

/// For one chat: each guarded character and what stands for it.
pub(crate) struct StandIns(Vec<(char, char)>);

impl Guard {
    pub(crate) fn new<'v>(source: &str, control_tokens: impl Iterator<Item = &'v str>) -> Self {
        let control_tokens: Vec<Vec<char>> = control_tokens
            .map(|text| text.chars().collect())
            .filter(|token: &Vec<char>| !token.is_empty())
            .collect();
        // Templates write messages as JSON too, which must see what it escapes.
        let is_sign =
            |c: &&char| !c.is_alphanumeric() && !c.is_whitespace() && !matches!(c, '"' | '\\' | '\'');
        let mut guarded = BTreeSet::new();
        for token in &control_tokens {
            guarded.extend(token.iter().filter(is_sign));
            if !token.iter().any(|c| guarded.contains(c)) {
                guarded.insert(token[0]);
            }
        }
        let literals = string_literals(source).into_iter().filter_map(|text| {
            let chars: Vec<char> = text.chars().collect();
            let is_harmless = |at: usize| {
                guarded.contains(&chars[at])
                    && !control_tokens.iter().any(|token| may_cover(token, &chars, at))
            };
            let offsets = text.char_indices().enumerate();
            let harmless: Vec<usize> =
                offsets.filter(|&(at, _)| is_harmless(at)).map(|(_, (offset, _))| offset).collect();
            (!harmless.is_empty()).then_some(Literal { text, harmless })
        });
        let literals = literals.collect();
        let chars = source.chars().chain(control_tokens.iter().flatten().copied());
        let taken = chars.filter(|&c| is_private(c)).collect();
        Guard { guarded, literals, taken }
    }

    /// Chooses stand-ins for a chat with these messages.
    pub(crate) fn stand_ins<'m>(&self, messages: impl Iterator<Item = &'m str>) -> Result<StandIns> {
        let used: HashSet<char> = messages.flat_map(str::chars).filter(|&c| is_private(c)).collect();
        let all = ('\u{f0000}'..='\u{10ffff}').chain('\u{e000}'..='\u{f8ff}');
        let mut free = all.filter(|c| !used.contains(c) && !self.taken.contains(c));
        let pairs = self.guarded.iter().map(|&c| Some((c, free.next()?))).collect::<Option<_>>();
        pairs.map(StandIns).ok_or_else(|| {
            TokenizerError::ChatTemplateFailed("the messages use up Unicode's private-use characters".into())
        })
    }

    /// A message's content for the template to render.
    pub(crate) fn hide(&self, content: &str, stand_ins: &StandIns) -> String {
        let mut harmless = HashSet::new();
        for literal in &self.literals {
            for (start, _) in content.match_indices(&literal.text) {
                harmless.extend(literal.harmless.iter().map(|offset| start + offset));
            }
        }
        let replace = |(at, c): (usize, char)| match stand_ins.of(c) {
            Some(stand_in) if !harmless.contains(&at) => stand_in,
            _ => c,
        };
        content.char_indices().map(replace).collect()
    }
}

impl StandIns {
    /// The text with the characters that stand-ins stand for.
    pub(crate) fn restore<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !text.contains(is_private) {
            return text.into();
        }
        let original = |c| self.0.iter().find(|&&(_, stand_in)| stand_in == c).map(|&(original, _)| original);
        text.chars().map(|c| original(c).unwrap_or(c)).collect()
    }

    fn of(&self, c: char) -> Option<char> {
        let at = self.0.binary_search_by_key(&c, |&(original, _)| original).ok()?;
        Some(self.0[at].1)
    }
}

/// Whether Unicode leaves the character to its users.
fn is_private(c: char) -> bool {
    matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Whether a text in which `literal` occurs could have `token` over the literal's character `at`.
fn may_cover(token: &[char], literal: &[char], at: usize) -> bool {
    (0..token.len()).any(|in_token| {
        // The token begins `in_token` characters before `at`; the two must agree wherever both are.
        let mut overlap =
            (0..literal.len()).filter_map(|i| Some((i, token.get((i + in_token).checked_sub(at)?)?)));
        overlap.all(|(i, c)| literal[i] == *c)
    })
}

/// The strings in a template's statements and expressions.
fn string_literals(source: &str) -> BTreeSet<String> {
    let mut literals = BTreeSet::new();
    let mut rest = source;
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        let close = match rest.chars().next() {
            Some('{') => "}}",
            Some('%') => "%}",
            Some('#') => {
                rest = rest.split_once("#}").map_or("", |(_, after)| after);
                continue;
            }
            _ => continue,
        };
        rest = &rest[1..];
        while let Some(c) = rest.chars().next().filter(|_| !rest.starts_with(close)) {
            rest = &rest[c.len_utf8()..];
            if c == '"' || c == '\'' {
                let (literal, after) = string_literal(rest, c);
                literals.insert(literal);
                rest = after;
            }
        }
    }
    literals
}

/// The string that `text` begins with, after its opening `quote`, and what follows it.
fn string_literal(text: &str, quote: char) -> (String, &str) {
    let mut literal = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next().filter(|&c| c != quote) {
        match c {
            '\\' => literal.extend(chars.next().map(|escaped| match escaped {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            })),
            _ => literal.push(c),
        }
    }
    (literal, chars.as_str())
}
