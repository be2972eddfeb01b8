//! Reads JSON as it comes, without waiting for its end.

/// Finds the end of one JSON value. It does not check the value: a grammar does that, or the caller's client.
#[derive(Debug, Clone, Default)]
pub(crate) struct ValueReader {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    has_begun: bool,
}

impl ValueReader {
    /// Takes the next character; whether the value ends with it. (A number at the top level has no end of its own.)
    pub fn push(&mut self, c: char) -> bool {
        if self.in_string {
            match c {
                _ if self.is_escaped => self.is_escaped = false,
                '\\' => self.is_escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
        } else {
            match c {
                '"' => self.in_string = true,
                '{' | '[' => self.depth += 1,
                '}' | ']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.has_begun |= !c.is_whitespace();
        self.has_begun && self.depth == 0 && !self.in_string
    }

    /// Whether there was more than white space.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }
}

/// Reads an object such as `{"name": "f", "arguments": {..}}`: its name, and the text of the arguments piece by piece.
#[derive(Debug, Clone)]
pub(crate) struct CallReader {
    at: At,
    key: String,
    value: ValueReader,
    text: String,
    /// The name, once it is known.
    pub name: Option<String>,
    /// Text of the arguments that has not been taken.
    pub arguments: String,
    has_arguments: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Open,
    /// Before a key, or the end.
    Member,
    Key,
    Colon,
    BeforeValue,
    Value,
    Done,
    Invalid,
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    /// The character was the last.
    Done,
    /// It is something else.
    Invalid,
}

impl CallReader {
    pub fn new() -> Self {
        Self {
            at: At::Open,
            key: String::new(),
            value: ValueReader::default(),
            text: String::new(),
            name: None,
            arguments: String::new(),
            has_arguments: false,
        }
    }

    /// Takes the next character.
    pub fn push(&mut self, c: char) -> Progress {
        self.at = match (self.at, c) {
            (At::Open, '{') => At::Member,
            (At::Open | At::Member | At::Colon | At::BeforeValue, c) if c.is_whitespace() => self.at,
            (At::Member, '"') => {
                self.key.clear();
                At::Key
            }
            (At::Member, ',') => At::Member,
            (At::Member, '}') => At::Done,
            (At::Key, '"') => At::Colon,
            (At::Key, c) => {
                self.key.push(c);
                At::Key
            }
            (At::Colon, ':') => At::BeforeValue,
            (At::BeforeValue, c) => {
                self.value = ValueReader::default();
                self.text.clear();
                self.take_value(c)
            }
            // A number or word ends where something else begins.
            (At::Value, ',') if self.is_scalar() => self.end_value(At::Member),
            (At::Value, '}') if self.is_scalar() => self.end_value(At::Done),
            (At::Value, c) => self.take_value(c),
            _ => At::Invalid,
        };
        match self.at {
            At::Done => Progress::Done,
            At::Invalid => Progress::Invalid,
            _ => Progress::More,
        }
    }

    /// Whether the object had arguments; if not, they are those of a function without any.
    pub fn has_arguments(&self) -> bool {
        self.has_arguments
    }

    /// `arguments` or `parameters`: models write either, whatever they were shown.
    fn is_arguments(&self) -> bool {
        matches!(self.key.as_str(), "arguments" | "parameters")
    }

    fn is_scalar(&self) -> bool {
        !self.text.starts_with(['"', '{', '['])
    }

    fn take_value(&mut self, c: char) -> At {
        self.text.push(c);
        let ends = self.value.push(c) && !self.is_scalar();
        if self.is_arguments() && !self.text.starts_with('"') {
            self.has_arguments = true;
            self.arguments.push(c);
        }
        if ends { self.end_value(At::Member) } else { At::Value }
    }

    fn end_value(&mut self, next: At) -> At {
        let string = || serde_json::from_str::<String>(&self.text).ok();
        if matches!(self.key.as_str(), "name" | "function") {
            self.name = string().or(self.name.take());
        } else if self.is_arguments()
            && let Some(text) = string()
        {
            // Arguments as a string of JSON, as the API itself has them.
            self.has_arguments = true;
            self.arguments = text;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<String>, String, Progress, usize) {
        let mut reader = CallReader::new();
        for (index, c) in text.char_indices() {
            match reader.push(c) {
                Progress::More => {}
                progress => return (reader.name, reader.arguments, progress, index),
            }
        }
        (reader.name, reader.arguments, Progress::More, text.len())
    }

    #[test]
    fn a_call_is_read_to_its_end() {
        let check = |text: &str, arguments: &str| {
            let (name, found, progress, end) = read(&format!("{text}rest"));
            assert_eq!(
                (name.as_deref(), found.as_str(), progress, end),
                (Some("f"), arguments, Progress::Done, text.len() - 1)
            );
        };
        check("{\"name\": \"f\", \"arguments\": {\"a\": [1, \"}\\\"\"]}}", "{\"a\": [1, \"}\\\"\"]}");
        check("\n{ \"arguments\" : {} , \"name\":\"f\" , \"id\": 5}", "{}");
        check("{\"name\": \"f\", \"parameters\": null}", "null");
        check("{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}", "{\"a\": 1}");
        check("{\"name\": \"f\"}", "");
    }

    #[test]
    fn what_is_no_object_is_invalid() {
        for text in ["x", "[1]", "{5: 1}", "{\"a\" 1}"] {
            assert_eq!(read(text).2, Progress::Invalid, "{text}");
        }
    }
}
