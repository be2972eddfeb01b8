//! llama.cpp's GBNF in the library's syntax of Lark.
//!
//! The library's lexer takes the longest lexeme, while GBNF knows no lexemes. So a grammar without recursion becomes one regular
//! expression, and any other has a lexeme for each character: then both mean the same.
//!
//! Syntax: <https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>. Tokens (`<[id]>`) are not supported.

use std::collections::HashMap;
use std::fmt::Write;

use crate::error::{GrammarError, Result};
use crate::lark;

/// The rule that a text is a sentence of.
const ROOT: &str = "root";
/// Most repetitions that a grammar may write as a number.
const MAX_REPEAT: usize = 10_000;
/// Most groups in groups.
const MAX_DEPTH: usize = 64;
/// Most bytes of a grammar as one expression.
const MAX_REGEX: usize = 64 << 10;

#[derive(Debug)]
enum Node {
    /// In this order.
    Seq(Vec<Node>),
    /// One of these.
    Alternatives(Vec<Node>),
    Literal(String),
    /// A class of characters, as a regular expression.
    Class(String),
    /// A rule, by its index.
    Rule(usize),
    Repeat(Box<Node>, usize, Option<usize>),
}

/// Translates a grammar.
pub(crate) fn to_lark(text: &str) -> Result<String> {
    let (rules, root) = Parser::new(text).grammar()?;
    if let Some(regex) = as_regex(&rules, &rules[root], &mut Vec::from([root])) {
        if regex.is_empty() {
            return Err(GrammarError::Gbnf {
                line: 1,
                message: "expected a text, found only the empty one".to_owned(),
            });
        }
        return Ok(format!("start: {}\n", lark::regex(&regex)));
    }
    let mut out = format!("start: r{root}\n");
    for (index, rule) in rules.iter().enumerate() {
        let _ = write!(out, "r{index}: ");
        write_rule(rule, &mut out);
        out.push('\n');
    }
    Ok(out)
}

/// A node as one regular expression, if no rule on the way leads to itself and it is not too long.
fn as_regex(rules: &[Node], node: &Node, path: &mut Vec<usize>) -> Option<String> {
    let mut all = |nodes: &[Node], separator: &str| {
        let parts = nodes.iter().map(|node| as_regex(rules, node, path)).collect::<Option<Vec<_>>>()?;
        Some(parts.join(separator))
    };
    let regex = match node {
        Node::Seq(nodes) => all(nodes, "")?,
        Node::Alternatives(nodes) => format!("(?:{})", all(nodes, "|")?),
        Node::Literal(text) => lark::escape(text),
        Node::Class(class) => class.clone(),
        Node::Rule(index) if path.contains(index) => return None,
        Node::Rule(index) => {
            path.push(*index);
            let regex = as_regex(rules, &rules[*index], path);
            path.pop();
            regex?
        }
        Node::Repeat(node, least, most) => {
            let most = most.map_or(String::new(), |most| most.to_string());
            format!("(?:{}){{{least},{most}}}", as_regex(rules, node, path)?)
        }
    };
    (regex.len() <= MAX_REGEX).then_some(regex)
}

/// A node as a rule of one lexeme for each character.
fn write_rule(node: &Node, out: &mut String) {
    let mut all = |nodes: &[Node], separator: &str| {
        out.push('(');
        for (index, node) in nodes.iter().enumerate() {
            out.push_str(if index > 0 { separator } else { "" });
            write_rule(node, out);
        }
        out.push(')');
    };
    match node {
        Node::Seq(nodes) if nodes.is_empty() => out.push_str("\"\""),
        Node::Seq(nodes) => all(nodes, " "),
        Node::Alternatives(nodes) => all(nodes, " | "),
        Node::Literal(text) if text.is_empty() => out.push_str("\"\""),
        Node::Literal(text) => {
            let chars: Vec<String> =
                text.chars().map(|c| lark::regex(&lark::escape(c.encode_utf8(&mut [0; 4])))).collect();
            let _ = write!(out, "({})", chars.join(" "));
        }
        Node::Class(class) => out.push_str(&lark::regex(class)),
        Node::Rule(index) => drop(write!(out, "r{index}")),
        Node::Repeat(node, least, most) => {
            out.push('(');
            write_rule(node, out);
            out.push(')');
            out.push_str(&lark::repeat(*least, *most));
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    /// What is left of it.
    rest: &'t str,
    /// Rules by name.
    names: HashMap<&'t str, usize>,
    rules: Vec<Option<Node>>,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, rest: text, names: HashMap::new(), rules: Vec::new(), depth: 0 }
    }

    fn grammar(mut self) -> Result<(Vec<Node>, usize)> {
        self.skip_space(Newlines::Skip);
        while !self.rest.is_empty() {
            self.rule()?;
            self.skip_space(Newlines::Skip);
        }
        let mut names: Vec<(&str, usize)> = self.names.iter().map(|(&name, &index)| (name, index)).collect();
        names.sort_by_key(|&(_, index)| index);
        let Some(&root) = self.names.get(ROOT) else {
            return Err(self.error(&format!("a rule called {ROOT:?}"), "none"));
        };
        if let Some((name, _)) = names.iter().find(|&&(_, index)| self.rules[index].is_none()) {
            return Err(self.error(&format!("a rule called {name:?}, which another one uses"), "none"));
        }
        Ok((self.rules.into_iter().flatten().collect(), root))
    }

    fn rule(&mut self) -> Result<()> {
        let name = self.name()?;
        self.skip_space(Newlines::Stop);
        let Some(rest) = self.rest.strip_prefix("::=") else { return Err(self.unexpected("\"::=\"")) };
        self.rest = rest;
        self.skip_space(Newlines::Skip);
        let index = self.index(name);
        if self.rules[index].is_some() {
            return Err(self.error("rules of different names", &format!("a second {name:?}")));
        }
        let node = self.alternatives(Newlines::Stop)?;
        self.rules[index] = Some(node);
        if self.rest.is_empty() || self.rest.starts_with(['\r', '\n']) {
            return Ok(());
        }
        Err(self.unexpected("the end of the rule"))
    }

    fn index(&mut self, name: &'t str) -> usize {
        *self.names.entry(name).or_insert_with(|| {
            self.rules.push(None);
            self.rules.len() - 1
        })
    }

    fn name(&mut self) -> Result<&'t str> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let len = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        if len == 0 {
            return Err(self.unexpected("a rule's name"));
        }
        let (name, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(name)
    }

    fn alternatives(&mut self, newlines: Newlines) -> Result<Node> {
        let mut options = vec![self.sequence(newlines)?];
        loop {
            // A bar at the beginning of the next line goes on with the rule.
            let before = self.rest;
            self.skip_space(Newlines::Skip);
            let Some(rest) = self.rest.strip_prefix('|') else {
                self.rest = before;
                break;
            };
            self.rest = rest;
            self.skip_space(Newlines::Skip);
            options.push(self.sequence(newlines)?);
        }
        Ok(if options.len() == 1 { options.swap_remove(0) } else { Node::Alternatives(options) })
    }

    fn sequence(&mut self, newlines: Newlines) -> Result<Node> {
        let mut nodes = Vec::new();
        loop {
            self.skip_space(newlines);
            let node = match self.rest.chars().next() {
                None | Some('|' | ')' | '\r' | '\n') => return Ok(Node::Seq(nodes)),
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.rest = &self.rest[1..];
                    Node::Class("(?s:.)".to_owned())
                }
                Some('(') => self.group()?,
                Some('<' | '!') => return Err(self.error("text", "a token (not supported)")),
                Some(_) => {
                    let name = self.name()?;
                    Node::Rule(self.index(name))
                }
            };
            nodes.push(self.repetition(node)?);
        }
    }

    fn group(&mut self) -> Result<Node> {
        self.rest = &self.rest[1..];
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(&format!("at most {MAX_DEPTH} groups in groups"), "more"));
        }
        let node = self.alternatives(Newlines::Skip)?;
        self.depth -= 1;
        self.skip_space(Newlines::Skip);
        let Some(rest) = self.rest.strip_prefix(')') else { return Err(self.unexpected("\")\"")) };
        self.rest = rest;
        Ok(node)
    }

    /// What follows an element: one or more of `*`, `+`, `?` and `{m,n}`.
    fn repetition(&mut self, mut node: Node) -> Result<Node> {
        loop {
            let (least, most, rest) = match self.rest.chars().next() {
                Some('*') => (0, None, &self.rest[1..]),
                Some('+') => (1, None, &self.rest[1..]),
                Some('?') => (0, Some(1), &self.rest[1..]),
                Some('{') => self.bounds()?,
                _ => return Ok(node),
            };
            self.rest = rest;
            node = Node::Repeat(Box::new(node), least, most);
        }
    }

    fn bounds(&self) -> Result<(usize, Option<usize>, &'t str)> {
        let bounds = self.rest[1..].split_once('}').and_then(|(inside, rest)| {
            let number =
                |text: &str| text.trim().parse::<usize>().ok().filter(|&number| number <= MAX_REPEAT);
            let (least, most) = match inside.split_once(',') {
                None => (number(inside)?, Some(number(inside)?)),
                Some((least, most)) if most.trim().is_empty() => (number(least)?, None),
                Some((least, most)) => (number(least)?, Some(number(most)?)),
            };
            most.is_none_or(|most| least <= most).then_some((least, most, rest))
        });
        bounds.ok_or_else(|| {
            self.unexpected(&format!("{{m}}, {{m,}} or {{m,n}} of numbers up to {MAX_REPEAT}"))
        })
    }

    fn literal(&mut self) -> Result<Node> {
        self.rest = &self.rest[1..];
        let mut text = String::new();
        loop {
            match self.rest.chars().next() {
                None | Some('\n') => return Err(self.unexpected("the end of a text in quotes")),
                Some('"') => break,
                Some(_) => text.push(self.character()?),
            }
        }
        self.rest = &self.rest[1..];
        Ok(Node::Literal(text))
    }

    fn class(&mut self) -> Result<Node> {
        self.rest = &self.rest[1..];
        let mut class = "[".to_owned();
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.rest = rest;
            class.push('^');
        }
        let empty = class.len();
        loop {
            match self.rest.chars().next() {
                None | Some('\n') => return Err(self.unexpected("the end of a class")),
                Some(']') => break,
                Some(_) => {}
            }
            let first = self.character()?;
            let mut last = first;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.rest = &self.rest[1..];
                last = self.character()?;
            }
            if last < first {
                return Err(self.error("a range in ascending order", &format!("{first:?} to {last:?}")));
            }
            let _ = write!(class, "\\u{{{:x}}}-\\u{{{:x}}}", u32::from(first), u32::from(last));
        }
        self.rest = &self.rest[1..];
        match (class.len() == empty, empty) {
            (false, _) => Ok(Node::Class(class + "]")),
            (true, 1) => Err(self.error("characters in a class", "none")),
            (true, _) => Ok(Node::Class("(?s:.)".to_owned())),
        }
    }

    /// A character of a literal or class, which may be escaped.
    fn character(&mut self) -> Result<char> {
        let mut chars = self.rest.chars();
        let c = chars.next().unwrap_or_default();
        if c != '\\' {
            self.rest = chars.as_str();
            return Ok(c);
        }
        let escaped = chars.next();
        let (c, rest) = match escaped {
            Some('n') => (Some('\n'), chars.as_str()),
            Some('r') => (Some('\r'), chars.as_str()),
            Some('t') => (Some('\t'), chars.as_str()),
            Some(kind @ ('x' | 'u' | 'U')) => {
                let len = match kind {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits = chars.as_str().get(..len).unwrap_or_default();
                let c = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                (c, chars.as_str().get(len..).unwrap_or_default())
            }
            Some(c @ ('"' | '\\' | '[' | ']' | '-' | '^' | '/' | '.')) => (Some(c), chars.as_str()),
            _ => (None, ""),
        };
        let Some(c) = c else {
            return Err(self.unexpected("an escape (\\n, \\r, \\t, \\\", \\\\, \\[, \\], \\x00, \\u0000)"));
        };
        self.rest = rest;
        Ok(c)
    }

    fn skip_space(&mut self, newlines: Newlines) {
        loop {
            self.rest = self.rest.trim_start_matches(|c| match newlines {
                Newlines::Skip => matches!(c, ' ' | '\t' | '\r' | '\n'),
                Newlines::Stop => matches!(c, ' ' | '\t'),
            });
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
        }
    }

    fn unexpected(&self, expected: &str) -> GrammarError {
        let found: String = self.rest.chars().take_while(|&c| c != '\n').take(20).collect();
        let found = if found.is_empty() { "the end of the line".to_owned() } else { format!("{found:?}") };
        self.error(expected, &found)
    }

    fn error(&self, expected: &str, found: &str) -> GrammarError {
        let line = self.text[..self.text.len() - self.rest.len()].matches('\n').count() + 1;
        GrammarError::Gbnf { line, message: format!("expected {expected}, found {found}") }
    }
}

/// What line breaks are.
#[derive(Clone, Copy)]
enum Newlines {
    /// White space.
    Skip,
    /// The end of a rule.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grammar_without_recursion_is_one_expression() {
        let check =
            |text, expect: &str| assert_eq!(to_lark(text), Ok(format!("start: /(?:{expect})/\n")), "{text}");
        check(
            "root ::= \"a b\" x+ # comment\nx ::= [a-c^\\n]",
            "a\\x20b(?:[\\u{61}-\\u{63}\\u{5e}-\\u{5e}\\u{a}-\\u{a}]){1,}",
        );
        check("root ::= (\n  \"a\"\n  | \"b\"?\n)", "(?:a|(?:b){0,1})");
        check("root ::= \"a\"\n  | \"\\x41\\u00e9\"", "(?:a|Aé)");
        check("root ::= [^\"]{2,3} .", "(?:[^\\u{22}-\\u{22}]){2,3}(?s:.)");
    }

    #[test]
    fn recursion_is_kept_character_by_character() {
        let expect = "start: r0\nr0: ((/(?:\\()/) r0 (/(?:a)/ /(?:b)/) | \"\")\n";
        assert_eq!(
            to_lark("root ::= \"(\" root \"ab\" |").as_deref(),
            Ok(expect
                .replace("((/(?:\\()/) r0 (/(?:a)/ /(?:b)/)", "(((/(?:\\()/) r0 (/(?:a)/ /(?:b)/))")
                .as_str())
        );
    }

    #[test]
    fn errors_name_the_line() {
        let check = |text, line, part: &str| match to_lark(text) {
            Err(GrammarError::Gbnf { line: found, message }) => {
                assert!(found == line && message.contains(part), "{text:?}: line {found}: {message}");
            }
            other => panic!("{text:?}: {other:?}"),
        };
        check("root ::= \"a\nb", 1, "the end of a text in quotes");
        check("root ::= a\n\nb ::= [c", 3, "the end of a class");
        check("root ::= a", 1, "a rule called \"a\"");
        check("a ::= \"b\"", 1, "a rule called \"root\"");
        check("root ::= \"a\"\nroot ::= \"b\"", 2, "a second \"root\"");
        check("root ::= \"a\"{3,2}", 1, "{m,n}");
        check("root ::= (\"a\"", 1, "\")\"");
        check("root ::= <[5]>", 1, "a token (not supported)");
        check("root := \"a\"", 1, "\"::=\"");
        check("root ::= \"\\q\"", 1, "an escape");
        check("root ::= \"\"", 1, "the empty one");
    }
}
