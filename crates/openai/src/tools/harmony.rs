//! The format of gpt-oss: an answer is a row of messages, each with a header that names its channel and, if it is a call, the
//! function.
//!
//! ```text
//! <|channel|>analysis<|message|>thoughts<|end|>
//! <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{..}<|call|>
//! <|start|>assistant<|channel|>final<|message|>text for the user<|return|>
//! ```
//! The prompt has the first `<|start|>assistant`; the line breaks above are not in the text. Written from OpenAI's
//! description of the format (openai-harmony, docs/format.md).

use rustorch_llama::{GrammarRule as Rule, Tokenizer};
use serde_json::Value;

use super::grammar::marker;
use super::json::ValueReader;
use super::reader::Piece;

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const CONSTRAIN: &str = "<|constrain|>";
const MESSAGE: &str = "<|message|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";

/// Texts of the format that a vocabulary has as control tokens.
pub(super) const MARKERS: [&str; 7] = [START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN];
/// What ends a message.
const ENDS: [&str; 4] = [END, CALL, RETURN, START];
/// What comes before the name of a function in a header.
pub(super) const RECIPIENT: &str = " to=functions.";
/// A longer header is none.
const MAX_HEADER: usize = 512;

/// Whether a template writes this format.
pub(super) fn is_of_template(source: &str) -> bool {
    [CHANNEL, MESSAGE, CALL].into_iter().all(|marker| source.contains(marker))
}

/// Whether a text begins as a header does, by a whole marker or a recipient.
fn begins_header(text: &str) -> bool {
    MARKERS.into_iter().chain([RECIPIENT]).any(|beginning| text.starts_with(beginning))
}

/// Reads an answer one character at a time.
#[derive(Debug, Clone)]
pub(crate) struct Harmony {
    /// Whether thoughts are told apart from text.
    has_reasoning: bool,
    /// Whether functions may be called: otherwise what is sent to one is text.
    has_calls: bool,
    state: State,
    /// A header, or what may be a marker in a message.
    held: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum State {
    Header,
    Reasoning,
    Content,
    /// Of a call: its JSON, and whatever comes after it.
    Arguments(ValueReader, bool),
}

impl Harmony {
    /// Of an answer that begins with a header, or within a message for the user.
    pub fn new(begins_with_header: bool, has_reasoning: bool, has_calls: bool) -> Self {
        let state = if begins_with_header { State::Header } else { State::Content };
        Self { has_reasoning, has_calls, state, held: String::new(), pieces: Vec::new() }
    }

    /// Takes more of the text; what it completes.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        text.chars().for_each(|c| self.step(c));
        std::mem::take(&mut self.pieces)
    }

    /// Ends the text; what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        if matches!(self.state, State::Header) {
            // A header without its message says nothing.
            if begins_header(&held) {
                return std::mem::take(&mut self.pieces);
            }
            self.state = State::Content;
        }
        held.chars().for_each(|c| self.say(c));
        std::mem::take(&mut self.pieces)
    }

    fn step(&mut self, c: char) {
        self.held.push(c);
        if matches!(self.state, State::Header) {
            return self.step_header();
        }
        while let Some(first) = self.held.chars().next() {
            if ENDS.contains(&self.held.as_str()) {
                self.end_message();
                return;
            }
            if ENDS.iter().any(|marker| marker.starts_with(&self.held)) {
                return;
            }
            self.held.remove(0);
            self.say(first);
        }
    }

    fn step_header(&mut self) {
        let held = std::mem::take(&mut self.held);
        if let Some(header) = held.strip_suffix(MESSAGE) {
            self.state = self.message(header);
            return;
        }
        self.held = held;
        // A model that writes no headers writes text.
        let is_part = |text: &str| text.starts_with(self.held.as_str());
        let may_be_one = begins_header(&self.held) || MARKERS.into_iter().chain([RECIPIENT]).any(is_part);
        if !may_be_one || self.held.len() > MAX_HEADER {
            self.state = State::Content;
            std::mem::take(&mut self.held).chars().for_each(|c| self.step(c));
        }
    }

    /// What follows a header.
    fn message(&mut self, header: &str) -> State {
        if let Some((_, recipient)) = header.split_once(RECIPIENT)
            && self.has_calls
        {
            let name: String = recipient.chars().take_while(|c| !c.is_whitespace() && *c != '<').collect();
            self.pieces.push(Piece::Call(name));
            return State::Arguments(ValueReader::default(), false);
        }
        let channel = header.rsplit_once(CHANNEL).map_or("", |(_, channel)| channel);
        if channel.starts_with("analysis") && self.has_reasoning { State::Reasoning } else { State::Content }
    }

    fn end_message(&mut self) {
        if let State::Arguments(reader, _) = &self.state
            && !reader.has_begun()
        {
            self.emit(Piece::Arguments("{}".to_owned()));
        }
        let is_next = self.held == START;
        self.held.clear();
        if is_next {
            self.held.push_str(START);
        }
        self.state = State::Header;
    }

    fn say(&mut self, c: char) {
        let piece = match &mut self.state {
            State::Reasoning => Piece::Reasoning(c.to_string()),
            State::Arguments(reader, has_ended) => {
                if *has_ended {
                    return;
                }
                *has_ended = reader.push(c);
                if !reader.has_begun() {
                    return;
                }
                Piece::Arguments(c.to_string())
            }
            State::Header | State::Content => Piece::Content(c.to_string()),
        };
        self.emit(piece);
    }

    fn emit(&mut self, piece: Piece) {
        Piece::append(&mut self.pieces, piece);
    }
}

/// What an answer may be made of.
pub(super) struct Messages<'a> {
    pub tokenizer: &'a Tokenizer,
}

impl Messages<'_> {
    /// Thoughts and a word about what follows, if the model likes, and then this.
    pub fn then(&self, last: Rule) -> Rule {
        let free = |channel: &str| {
            let text = Rule::Regex("(.|\\n)*".to_owned());
            let next = [END, START].map(|marker| self.marker(marker));
            Rule::Seq(
                [self.head(channel), text].into_iter().chain(next).chain([Rule::text("assistant")]).collect(),
            )
        };
        Rule::Seq(vec![free("analysis").optional(), free("commentary").optional(), last])
    }

    /// A message for the user with this content.
    pub fn last(&self, content: Rule) -> Rule {
        Rule::Seq(vec![self.head("final"), content])
    }

    /// One call of these functions.
    pub fn call(&self, functions: &[(String, Value)]) -> Rule {
        let begin = Rule::text(format!("commentary{RECIPIENT}"));
        Rule::Seq(vec![self.marker(CHANNEL), begin, self.after_the_recipient(functions)])
    }

    /// What follows `to=functions.`.
    pub fn after_the_recipient(&self, functions: &[(String, Value)]) -> Rule {
        let space = || Rule::text(" ").optional();
        let channel = Rule::Seq(vec![self.marker(CHANNEL), Rule::text("commentary"), space()]);
        let kind = Rule::Seq(vec![self.marker(CONSTRAIN), Rule::text("json")]);
        let call = |(name, schema): &(String, Value)| {
            let schema = Rule::Json(schema.clone());
            Rule::Seq(vec![
                Rule::text(name),
                space(),
                channel.clone().optional(),
                kind.clone().optional(),
                self.marker(MESSAGE),
                schema,
            ])
        };
        Rule::Any(functions.iter().map(call).collect())
    }

    fn head(&self, channel: &str) -> Rule {
        Rule::Seq(vec![self.marker(CHANNEL), Rule::text(channel), self.marker(MESSAGE)])
    }

    fn marker(&self, text: &str) -> Rule {
        marker(self.tokenizer, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the text whole, by characters, and cut at each place.
    #[track_caller]
    fn check(reader: &Harmony, text: &str, expect: &[Piece]) {
        let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let cuts = [vec![], bounds.clone()].into_iter().chain(bounds.iter().map(|&at| vec![at]));
        for cut in cuts {
            let mut reader = reader.clone();
            let (mut pieces, mut start) = (Vec::new(), 0);
            for &end in cut.iter().chain([&text.len()]) {
                reader
                    .push(&text[start..end])
                    .into_iter()
                    .for_each(|piece| Piece::append(&mut pieces, piece));
                start = end;
            }
            reader.finish().into_iter().for_each(|piece| Piece::append(&mut pieces, piece));
            assert_eq!(pieces, expect, "{text:?} cut at {cut:?}");
        }
    }

    fn content(text: &str) -> Piece {
        Piece::Content(text.to_owned())
    }

    fn reasoning(text: &str) -> Piece {
        Piece::Reasoning(text.to_owned())
    }

    fn call(name: &str, arguments: &str) -> [Piece; 2] {
        [Piece::Call(name.to_owned()), Piece::Arguments(arguments.to_owned())]
    }

    const THOUGHTS: &str = "<|channel|>analysis<|message|>Hm, 1 < 2.<|end|><|start|>assistant";

    #[test]
    fn channels_are_told_apart() {
        let reader = Harmony::new(true, true, true);
        let last = format!("{THOUGHTS}<|channel|>final<|message|>Yes.\n<b>");
        check(&reader, &last, &[reasoning("Hm, 1 < 2."), content("Yes.\n<b>")]);
        check(&reader, &format!("{last}<|return|>"), &[reasoning("Hm, 1 < 2."), content("Yes.\n<b>")]);
        let in_content = Harmony::new(true, false, true);
        check(&in_content, &last, &[content("Hm, 1 < 2.Yes.\n<b>")]);
        check(&Harmony::new(false, true, true), "and so on", &[content("and so on")]);
    }

    #[test]
    fn calls_are_read() {
        let reader = Harmony::new(true, true, true);
        let f = call("f", "{\"city\": \"<|x|>\"}");
        for header in [
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
            "<|channel|>commentary to=functions.f<|message|>",
            "<|channel|>analysis to=functions.f code<|message|>",
            " to=functions.f<|channel|>commentary <|constrain|>json<|message|>",
        ] {
            for end in ["", "<|call|>", "\n<|call|>"] {
                check(&reader, &format!("{header}{{\"city\": \"<|x|>\"}}{end}"), &f);
                let after = [&[reasoning("Hm, 1 < 2.")], &f[..]].concat();
                check(&reader, &format!("{THOUGHTS}{header}{{\"city\": \"<|x|>\"}}{end}"), &after);
            }
        }
        let preamble = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary \
            to=functions.g<|message|><|call|>";
        check(&reader, preamble, &[&[content("I look.")], &call("g", "{}")[..]].concat());
        let without_tools = Harmony::new(true, true, false);
        check(&without_tools, "<|channel|>commentary to=functions.f<|message|>{}", &[content("{}")]);
    }

    #[test]
    fn what_is_cut_off_is_shown_as_far_as_it_goes() {
        let reader = Harmony::new(true, true, true);
        check(&reader, "", &[]);
        check(&reader, "<|channel|>analysis<|message|>so<|en", &[reasoning("so<|en")]);
        check(&reader, "<|channel|>ana", &[]);
        check(&reader, "<|channel|>commentary to=functions.f<|message|>{\"ci", &call("f", "{\"ci"));
        check(&reader, "<|channel|>final<|message|>so<|end|><|start|>assis", &[content("so")]);
        for text in ["No headers at all <|", "<b> is bold", " to be", "  "] {
            check(&reader, text, &[content(text)]);
        }
    }
}
