//! How models write calls of tools: a table with a row for each format.
//!
//! A model was trained on one way to write calls, and its chat template shows which. A row says how to recognise it, and has
//! what both the grammar (`grammar.rs`) and the reader (`reader.rs`) of the calls are made of.

use super::gemma;

/// A way to write calls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// For people.
    pub name: &'static str,
    /// Texts that its template has, all of them.
    pub recognised_by: &'static [&'static str],
    /// What comes before calls in a text.
    pub opening: &'static str,
    /// Whether a text that begins with a call needs no opening.
    pub starts_bare: bool,
    /// A name that stands for the user: text behind it is content. A prompt may end with the opening then, so that an answer begins
    /// with a name.
    pub user: Option<&'static str>,
    /// Whether an opening is followed by a JSON list of calls instead of one call.
    pub is_list: bool,
    /// Whether a text may have several calls.
    pub is_parallel: bool,
    /// How a call is written.
    pub call: Call,
    /// What comes after a call; empty if nothing does.
    pub closing: &'static str,
}

/// How a single call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// `{"name": "f", "arguments": {..}}`, with this key for the arguments.
    Object(&'static str),
    /// `f`, this text, `{..}`.
    Named(&'static str),
    /// `<function=f>`, a `<parameter=p>`, line break, value, line break, `</parameter>` for each argument, `</function>`.
    Xml,
    /// `call:f` and the arguments in Gemma's syntax.
    Gemma,
}

const HERMES: Format = Format {
    name: "Hermes",
    // GLM has the tag too, but no JSON in it.
    recognised_by: &["<tool_call>", "\"arguments"],
    opening: "<tool_call>",
    starts_bare: false,
    user: None,
    is_list: false,
    is_parallel: true,
    call: Call::Object("arguments"),
    closing: "</tool_call>",
};

/// The formats; the first that a template has is its own.
pub(crate) const FORMATS: &[Format] = &[
    Format {
        name: "Qwen3-Coder",
        recognised_by: &["<tool_call>", "<function=", "<parameter="],
        call: Call::Xml,
        ..HERMES
    },
    HERMES,
    Format {
        name: "Gemma 4",
        recognised_by: &["<|tool_call>call:"],
        opening: "<|tool_call>",
        call: Call::Gemma,
        closing: "<tool_call|>",
        ..HERMES
    },
    Format {
        name: "Mistral, name and arguments",
        recognised_by: &["[TOOL_CALLS]", "[ARGS]"],
        opening: "[TOOL_CALLS]",
        call: Call::Named("[ARGS]"),
        closing: "",
        ..HERMES
    },
    Format {
        name: "Mistral, list",
        recognised_by: &["[TOOL_CALLS]"],
        opening: "[TOOL_CALLS]",
        is_list: true,
        closing: "",
        ..HERMES
    },
    Format {
        name: "functionary 3.1",
        recognised_by: &["<function=", "</function>"],
        opening: "<function=",
        call: Call::Named(">"),
        closing: "</function>",
        ..HERMES
    },
    Format {
        name: "functionary 3.2",
        recognised_by: &[">>>all"],
        opening: ">>>",
        user: Some("all"),
        call: Call::Named("\n"),
        closing: "",
        ..HERMES
    },
    Format {
        name: "Llama 3",
        recognised_by: &["<|start_header_id|>", "\"parameters\": "],
        opening: "<|python_tag|>",
        starts_bare: true,
        is_parallel: false,
        call: Call::Object("parameters"),
        closing: "",
        ..HERMES
    },
];

/// For templates that know no tools: the prompt shows the model how to write calls.
pub(crate) const GENERIC: Format = Format { name: "generic", recognised_by: &[], ..HERMES };

/// The texts round a model's thoughts. A template that knows them has the second.
pub(crate) const THOUGHTS: &[(&str, &str)] =
    &[("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel>thought", "<channel|>")];

impl Format {
    /// The format of a template that knows tools; `None` if it knows none, or another format.
    pub fn of_template(source: &str) -> Option<&'static Self> {
        let knows_tools = source.contains("tools") && source.contains("tool_calls");
        let is_its_own = |format: &&Self| format.recognised_by.iter().all(|text| source.contains(text));
        FORMATS.iter().filter(|_| knows_tools).find(is_its_own)
    }

    /// Texts of the format that a vocabulary may have as control tokens.
    pub fn markers(&self) -> impl Iterator<Item = &'static str> {
        let between = match self.call {
            Call::Named(between) => between,
            Call::Gemma => gemma::QUOTE,
            Call::Object(_) | Call::Xml => "",
        };
        [self.opening, between, self.closing].into_iter().filter(|marker| !marker.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_s_format_is_recognised() {
        let check = |source: &str, expect: Option<&str>| {
            let source = format!("{{% if tools %}}..{{% endif %}}{{% if message.tool_calls %}}{source}");
            assert_eq!(Format::of_template(&source).map(|format| format.name), expect, "{source}");
        };
        check("'<tool_call>\\n{\"name\": \"' + name + '\", \"arguments\": '", Some("Hermes"));
        check("'<tool_call>' + name + '<arg_key>' + key", None);
        check("<tool_call>\\n<function=' + name + '>\\n<parameter='", Some("Qwen3-Coder"));
        check("'<|tool_call>call:' + name", Some("Gemma 4"));
        check("\"[TOOL_CALLS][\"", Some("Mistral, list"));
        check("'[TOOL_CALLS]' + name + '[ARGS]'", Some("Mistral, name and arguments"));
        check("'<function=' + name + '>' + arguments + '</function>'", Some("functionary 3.1"));
        check(
            "<|start_header_id|>'>>>all\\n' + content '>>>' + name \"parameters\": ",
            Some("functionary 3.2"),
        );
        check("<|start_header_id|>{{- '\"parameters\": ' }}", Some("Llama 3"));
        check("<|im_start|>", None);
        assert_eq!(Format::of_template("<tool_call>"), None, "it has no place for tools");
    }
}
