//! Reads an answer as it comes: thoughts, text for the user, and calls of tools.
//!
//! It takes one character at a time, so how the text is cut into tokens cannot change what is read.

use std::sync::Arc;

use serde_json::Value;

use super::formats::{Call, Format};
use super::gemma;
use super::json::{CallReader, Progress, ValueReader};
use super::xml::XmlReader;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text of the model's thoughts.
    Reasoning(String),
    /// Text for the user.
    Content(String),
    /// A call of this function begins.
    Call(String),
    /// Text of the arguments of the last call, which is JSON.
    Arguments(String),
}

impl Piece {
    /// Adds a piece to those before it, and to the last if that is of its kind.
    pub fn append(pieces: &mut Vec<Self>, piece: Self) {
        let is_empty = match &piece {
            Self::Reasoning(text) | Self::Content(text) | Self::Arguments(text) => text.is_empty(),
            Self::Call(_) => false,
        };
        if is_empty {
            return;
        }
        match (pieces.last_mut(), &piece) {
            (Some(Self::Reasoning(last)), Self::Reasoning(text))
            | (Some(Self::Content(last)), Self::Content(text))
            | (Some(Self::Arguments(last)), Self::Arguments(text)) => last.push_str(text),
            _ => pieces.push(piece),
        }
    }
}

/// What an answer may have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Syntax {
    /// How calls are written, if there may be any.
    pub format: Option<&'static Format>,
    /// The texts round thoughts, if these are to be told apart.
    pub thoughts: Option<(&'static str, &'static str)>,
    /// Whether the answer begins inside thoughts.
    pub begins_in_thoughts: bool,
    /// Whether the answer begins behind an opening.
    pub begins_opened: bool,
    /// The schemas of the functions' arguments, by name.
    pub schemas: Arc<Vec<(String, Value)>>,
}

/// The state of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    syntax: Syntax,
    state: State,
    /// What may be the beginning of a marker.
    held: String,
    /// White space that is shown only if something comes after it.
    blank: String,
    /// Whether the answer has had thoughts, if only their beginning.
    has_thoughts: bool,
    has_reasoning: bool,
    has_content: bool,
    num_calls: usize,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum State {
    Reasoning,
    /// Before the first character that is not white space, where a call may need no opening.
    Beginning,
    Text,
    Call(Box<CallState>),
}

/// Where the next character belongs.
enum Next {
    /// To the call.
    Call,
    /// The call has ended.
    Text,
    /// The call ended before this character.
    TextFrom,
    /// What was read is no call.
    None,
}

#[derive(Debug, Clone)]
struct CallState {
    /// Everything since the opening, in case it is none.
    raw: String,
    at: At,
    is_announced: bool,
}

impl CallState {
    /// After an opening, of which this was read.
    fn new(raw: String) -> Self {
        Self { raw, at: At::Before, is_announced: false }
    }
}

#[derive(Debug, Clone)]
enum At {
    /// Before a call, or before a list of them.
    Before,
    /// Before a call in a list.
    Element,
    Object(CallReader),
    Name(String),
    Arguments(ValueReader),
    Xml(XmlReader),
    /// Gemma's call so far, with its closing.
    Gemma(String),
    /// After a call, with what has come of the closing.
    After(String),
}

/// Longest name of a function with what may be between it and its arguments.
const MAX_NAME: usize = 256;

impl Reader {
    pub fn new(syntax: Syntax) -> Self {
        let state = match () {
            () if syntax.begins_in_thoughts => State::Reasoning,
            () if syntax.begins_opened => State::Call(Box::new(CallState::new(String::new()))),
            () if syntax.format.is_some_and(|format| format.starts_bare) => State::Beginning,
            () => State::Text,
        };
        Self {
            has_thoughts: syntax.begins_in_thoughts,
            syntax,
            state,
            held: String::new(),
            blank: String::new(),
            has_reasoning: false,
            has_content: false,
            num_calls: 0,
            pieces: Vec::new(),
        }
    }

    /// Takes more of the text; what it completes.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        text.chars().for_each(|c| self.step(c));
        std::mem::take(&mut self.pieces)
    }

    /// Ends the text; what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        if let State::Call(call) = &mut self.state
            && !call.is_announced
        {
            let raw = std::mem::take(&mut call.raw);
            self.state = State::Text;
            // After calls it is the beginning of one more, and before text what that begins with.
            if self.num_calls == 0 && !self.addresses_user(&raw) {
                raw.chars().for_each(|c| self.say(c));
            }
        }
        let held = std::mem::take(&mut self.held);
        let opening = self.syntax.format.map_or("", |format| format.opening);
        if self.num_calls == 0 || !opening.starts_with(&held) {
            held.chars().for_each(|c| self.say(c));
        }
        if self.num_calls == 0 && !matches!(self.state, State::Reasoning) {
            let blank = std::mem::take(&mut self.blank);
            self.emit(Piece::Content(blank));
        }
        std::mem::take(&mut self.pieces)
    }

    fn step(&mut self, c: char) {
        match &mut self.state {
            State::Call(_) => self.step_call(c),
            State::Beginning if c == '{' => {
                self.open(String::new());
                self.step_call(c);
            }
            State::Beginning | State::Text | State::Reasoning => {
                if matches!(self.state, State::Beginning) && !c.is_whitespace() {
                    self.state = State::Text;
                }
                self.held.push(c);
                self.step_text();
            }
        }
    }

    /// Finds markers in what is held, and shows what is none.
    fn step_text(&mut self) {
        let Syntax { format, thoughts, .. } = self.syntax;
        let opening = format.map(|format| format.opening);
        let thought = match (&self.state, thoughts) {
            (State::Reasoning, Some((_, end))) => Some(end),
            (_, Some((begin, _))) if !self.has_thoughts && !self.has_content => Some(begin),
            _ => None,
        };
        while let Some(first) = self.held.chars().next() {
            if opening == Some(&self.held) {
                let raw = std::mem::take(&mut self.held);
                return self.open(raw);
            }
            if thought == Some(&self.held) {
                self.held.clear();
                self.blank.clear();
                let begins = !matches!(self.state, State::Reasoning);
                self.has_thoughts = true;
                let is_bare = format.is_some_and(|format| format.starts_bare);
                self.state = match begins {
                    true => State::Reasoning,
                    false if is_bare => State::Beginning,
                    false => State::Text,
                };
                return;
            }
            if [opening, thought].into_iter().flatten().any(|marker| marker.starts_with(&self.held)) {
                return;
            }
            self.held.remove(0);
            self.say(first);
        }
    }

    fn open(&mut self, raw: String) {
        self.state = State::Call(Box::new(CallState::new(raw)));
    }

    fn step_call(&mut self, c: char) {
        let State::Call(mut call) = std::mem::replace(&mut self.state, State::Text) else { return };
        call.raw.push(c);
        match self.next(&mut call, c) {
            Next::Call => self.state = State::Call(call),
            Next::Text => self.blank.clear(),
            Next::TextFrom => {
                self.blank.clear();
                self.step(c);
            }
            // Nobody has been told of a call, so it is text.
            Next::None if !call.is_announced => call.raw.chars().for_each(|c| self.say(c)),
            Next::None => self.step(c),
        }
    }

    /// Takes a character of a call.
    fn next(&mut self, call: &mut CallState, c: char) -> Next {
        let Some(format) = self.syntax.format else { return Next::None };
        match &mut call.at {
            At::Before | At::Element if c.is_whitespace() => {}
            At::Before if format.is_list && c == '[' => call.at = At::Element,
            At::Before | At::Element => {
                call.at = match format.call {
                    Call::Object(_) => At::Object(CallReader::new()),
                    Call::Named(_) => At::Name(String::new()),
                    Call::Xml => At::Xml(XmlReader::new()),
                    Call::Gemma => At::Gemma(String::new()),
                };
                return self.next(call, c);
            }
            At::Object(reader) => {
                let progress = reader.push(c);
                if let Some(name) = reader.name.take() {
                    self.announce(name, &mut call.is_announced);
                }
                if call.is_announced {
                    let arguments = std::mem::take(&mut reader.arguments);
                    self.emit(Piece::Arguments(arguments));
                }
                match progress {
                    Progress::More => {}
                    Progress::Invalid => return Next::None,
                    Progress::Done if !call.is_announced => return Next::None,
                    Progress::Done => {
                        if !reader.has_arguments() {
                            self.emit(Piece::Arguments("{}".to_owned()));
                        }
                        return self.end_call(call, format);
                    }
                }
            }
            At::Name(name) => {
                let Call::Named(between) = format.call else { return Next::None };
                name.push(c);
                if let Some(rest) = name.strip_suffix(between) {
                    // Between the two there may be an id, which the API's replaces.
                    let name = rest.split("[CALL_ID]").next().unwrap_or_default().trim().to_owned();
                    if format.user == Some(&name) {
                        return Next::Text;
                    }
                    // The opening is also what an example in the text may begin with.
                    if format.user.is_some() && !self.syntax.schemas.iter().any(|(known, _)| *known == name) {
                        return Next::None;
                    }
                    call.at = At::Arguments(ValueReader::default());
                    self.announce(name, &mut call.is_announced);
                } else if name.len() > MAX_NAME {
                    return Next::None;
                }
            }
            At::Arguments(reader) => {
                let ends = reader.push(c);
                if reader.has_begun() {
                    self.emit(Piece::Arguments(c.to_string()));
                }
                if ends {
                    return self.end_call(call, format);
                }
            }
            At::Xml(reader) => {
                let progress = reader.push(c, &self.syntax.schemas);
                if let Some(name) = reader.name.take() {
                    self.announce(name, &mut call.is_announced);
                }
                let arguments = std::mem::take(&mut reader.arguments);
                self.emit(Piece::Arguments(arguments));
                match progress {
                    Progress::More => {}
                    Progress::Invalid => return Next::None,
                    Progress::Done => return self.end_call(call, format),
                }
            }
            At::Gemma(text) => {
                text.push(c);
                let Some(call_text) = text.strip_prefix("call:") else {
                    return if "call:".starts_with(text.as_str()) { Next::Call } else { Next::None };
                };
                let Some((name, rest)) = call_text.split_once('{') else {
                    return if text.len() < MAX_NAME { Next::Call } else { Next::None };
                };
                let name = (!call.is_announced).then(|| name.trim().to_owned());
                let arguments = gemma::closed(rest, format.closing);
                if let Some(name) = name {
                    self.announce(name, &mut call.is_announced);
                }
                if let Some(arguments) = arguments {
                    self.emit(Piece::Arguments(arguments));
                    return Next::Text;
                }
            }
            At::After(_) if format.is_list => match c {
                ',' => call.at = At::Element,
                ']' => return Next::Text,
                c if c.is_whitespace() => {}
                _ => return Next::TextFrom,
            },
            At::After(closing) => {
                if closing.is_empty() && c.is_whitespace() {
                    return Next::Call;
                }
                closing.push(c);
                if closing == format.closing {
                    return Next::Text;
                }
                if !format.closing.starts_with(closing.as_str()) {
                    return Next::TextFrom;
                }
            }
        }
        Next::Call
    }

    /// Whether this is the beginning of text for the user, as far as it goes.
    fn addresses_user(&self, raw: &str) -> bool {
        let Some((format, user)) = self.syntax.format.and_then(|format| Some((format, format.user?))) else {
            return false;
        };
        user.starts_with(raw.strip_prefix(format.opening).unwrap_or(raw).trim())
    }

    fn announce(&mut self, name: String, is_announced: &mut bool) {
        if !std::mem::replace(is_announced, true) {
            self.num_calls += 1;
            self.blank.clear();
            self.emit(Piece::Call(name));
        }
    }

    fn end_call(&mut self, call: &mut CallState, format: &Format) -> Next {
        if format.closing.is_empty() && !format.is_list {
            return Next::Text;
        }
        // A next call in a list is announced anew.
        (call.at, call.is_announced) = (At::After(String::new()), !format.is_list);
        call.raw.clear();
        Next::Call
    }

    /// Shows a character of thoughts or text. White space round them is not shown where it separates the parts of an answer.
    fn say(&mut self, c: char) {
        if c.is_whitespace() {
            self.blank.push(c);
            return;
        }
        let is_reasoning = matches!(self.state, State::Reasoning);
        let has_begun = match is_reasoning {
            true => self.has_reasoning,
            false => self.has_content || !(self.has_thoughts || self.num_calls > 0),
        };
        let mut text = std::mem::take(&mut self.blank);
        if !has_begun {
            text.clear();
        }
        text.push(c);
        if is_reasoning {
            self.has_reasoning = true;
            self.emit(Piece::Reasoning(text));
        } else {
            self.has_content = true;
            self.emit(Piece::Content(text));
        }
    }

    fn emit(&mut self, piece: Piece) {
        Piece::append(&mut self.pieces, piece);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::formats::{FORMATS, GENERIC, THOUGHTS};

    fn format(name: &str) -> Option<&'static Format> {
        FORMATS.iter().find(|format| format.name == name)
    }

    fn syntax(name: &str) -> Syntax {
        let schema = json!({"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "all": {"type": "boolean"},
        }});
        Syntax {
            format: format(name),
            thoughts: Some(THOUGHTS[0]),
            begins_in_thoughts: false,
            begins_opened: false,
            schemas: Arc::new(vec![("f".to_owned(), schema), ("g".to_owned(), json!({}))]),
        }
    }

    /// Reads the text in pieces that end at these bytes, and puts together what belongs together.
    fn read(syntax: &Syntax, text: &str, ends: &[usize]) -> Vec<Piece> {
        let mut reader = Reader::new(syntax.clone());
        let mut pieces = Vec::new();
        let mut start = 0;
        for &end in ends.iter().chain([&text.len()]) {
            pieces.extend(reader.push(&text[start..end]));
            start = end;
        }
        pieces.extend(reader.finish());
        let mut joined = Vec::new();
        pieces.into_iter().for_each(|piece| Piece::append(&mut joined, piece));
        joined
    }

    #[track_caller]
    fn check(syntax: &Syntax, text: &str, expect: &[Piece]) {
        assert_eq!(read(syntax, text, &[]), expect, "{text:?}");
        let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        assert_eq!(read(syntax, text, &bounds), expect, "{text:?} by characters");
        for &end in &bounds {
            assert_eq!(read(syntax, text, &[end]), expect, "{text:?} cut at {end}");
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

    #[test]
    fn every_format_is_read() {
        let arguments = "{\"city\": \"Paris\", \"days\": 3}";
        let f = call("f", arguments);
        let two = [f.clone(), call("g", "{}")].concat();
        let said = [&[content("I look.")], &two[..]].concat();
        let object = |key: &str| format!("{{\"name\": \"f\", \"{key}\": {arguments}}}");
        let g = "{\"name\": \"g\", \"arguments\": {}}";
        let hermes =
            format!("<tool_call>\n{}\n</tool_call>\n<tool_call>\n{g}\n</tool_call>", object("arguments"));
        check(&syntax("Hermes"), &hermes, &two);
        check(&syntax("Hermes"), &format!("I look.\n\n{hermes}\n"), &said);
        let list = format!("[TOOL_CALLS] [{}, {g}]", object("arguments"));
        check(&syntax("Mistral, list"), &list, &two);
        check(&syntax("Mistral, list"), &format!("I look.{list}"), &said);
        let named = format!("[TOOL_CALLS]f[ARGS]{arguments}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{{}}");
        check(&syntax("Mistral, name and arguments"), &named, &two);
        let functionary = format!("<function=f>{arguments}</function><function=g>{{}}</function>");
        check(&syntax("functionary 3.1"), &functionary, &two);
        check(&syntax("Llama 3"), &object("parameters"), &f);
        check(&syntax("Llama 3"), &format!("<|python_tag|>{}", object("parameters")), &f);
        let gemma =
            "<|tool_call>call:f{city:<|\"|>Paris<|\"|>,days:3}<tool_call|><|tool_call>call:g{}<tool_call|>";
        let compact = [call("f", "{\"city\":\"Paris\",\"days\":3}"), call("g", "{}")].concat();
        check(&syntax("Gemma 4"), gemma, &compact);
        let coder = "<tool_call>\n<function=f>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n\
            </parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>";
        check(&syntax("Qwen3-Coder"), coder, &two);
    }

    #[test]
    fn text_is_addressed_to_the_user_as_calls_are_to_functions() {
        let inside = syntax("functionary 3.2");
        let opened = Syntax { begins_opened: true, ..inside.clone() };
        let arguments = "{\"city\": \"Paris\", \"days\": 3}";
        let two = [call("f", arguments), call("g", "{}")].concat();
        let calls = format!("f\n{arguments}>>>g\n{{}}");
        check(&opened, &calls, &two);
        check(&inside, &format!(">>>{calls}"), &two);
        let said = [&[content("I look.")], &two[..]].concat();
        check(&opened, &format!("all\nI look.>>>{calls}"), &said);
        check(&inside, &format!("I look.\n>>>{calls}"), &said);
        let after = [&call("f", arguments)[..], &[content("Done.")]].concat();
        check(&opened, &format!("f\n{arguments}>>>all\nDone."), &after);
        for text in ["Hello,\nyou > all", "A session:\n>>> x = 1\n>>> f(x)\n2", "a >> b >"] {
            check(&opened, &format!("all\n{text}"), &[content(text)]);
            check(&inside, text, &[content(text)]);
        }
        for text in ["", "al", "all", "all\n"] {
            check(&opened, text, &[]);
        }
        check(&opened, "nobody\n{}", &[content("nobody\n{}")]);
    }

    #[test]
    fn values_of_xml_have_the_types_of_the_schema() {
        let text = "<tool_call><function=f><parameter=city>\n3 \"a\"\n<b>\n</parameter><parameter=all>true</parameter>\
            <parameter=days>\n[1]\n</parameter><parameter=new>\nx\n</parameter></function></tool_call>";
        let arguments = "{\"city\": \"3 \\\"a\\\"\\n<b>\", \"all\": true, \"days\": [1], \"new\": \"x\"}";
        check(&syntax("Qwen3-Coder"), text, &call("f", arguments));
    }

    #[test]
    fn thoughts_are_told_apart() {
        let calls = "<tool_call>{\"name\": \"f\"}</tool_call>";
        let f = call("f", "{}");
        let hermes = syntax("Hermes");
        check(&hermes, "<think>\nwell <b>\n</think>\n\nYes. ", &[reasoning("well <b>"), content("Yes. ")]);
        check(&hermes, &format!("<think>a</think>{calls}"), &[&[reasoning("a")], &f[..]].concat());
        check(&hermes, "Yes <think>", &[content("Yes <think>")]);
        check(&hermes, "<think>a", &[reasoning("a")]);
        let inside = Syntax { begins_in_thoughts: true, ..hermes.clone() };
        check(&inside, "a\n</think>\nb", &[reasoning("a"), content("b")]);
        check(&inside, &format!("a {calls}"), &[&[reasoning("a")], &f[..]].concat());
        check(&inside, "", &[]);
        let llama = Syntax { begins_in_thoughts: true, ..syntax("Llama 3") };
        check(&llama, "a</think> {\"name\": \"f\"}", &[&[reasoning("a")], &f[..]].concat());
    }

    #[test]
    fn what_is_no_call_is_text() {
        let generic = Syntax { format: Some(&GENERIC), ..syntax("Hermes") };
        for text in [
            "",
            " a\n ",
            "a < b <tool_ca",
            "<tool_call>",
            "a <tool_call> b",
            "<tool_call>{\"a\": 1}</tool_call>",
            "<tool_call>{\"name\"",
            "é<tool_call>é",
        ] {
            let expect: Vec<Piece> = (!text.is_empty()).then(|| content(text)).into_iter().collect();
            check(&generic, text, &expect);
            check(&syntax("Hermes"), text, &expect);
        }
        check(&syntax("Llama 3"), "{\"a\": 1}", &[content("{\"a\": 1}")]);
        check(&syntax("Llama 3"), " {\"a\"", &[content(" {\"a\"")]);
        check(&syntax("Mistral, list"), "[TOOL_CALLS] none", &[content("[TOOL_CALLS] none")]);
        check(&syntax("Qwen3-Coder"), "<tool_call> <b>", &[content("<tool_call> <b>")]);
    }

    #[test]
    fn a_call_that_is_cut_off_is_shown_as_far_as_it_goes() {
        check(&syntax("Hermes"), "<tool_call>{\"name\": \"f\", \"arguments\": {\"ci", &call("f", "{\"ci"));
        check(&syntax("Mistral, name and arguments"), "[TOOL_CALLS]f[ARGS]{", &call("f", "{"));
        for more in ["\n<tool_ca", "<tool_call>", "\n<tool_call>{\"na"] {
            let text = format!("<tool_call>{{\"name\": \"f\"}}</tool_call>{more}");
            check(&syntax("Hermes"), &text, &call("f", "{}"));
        }
    }
}
