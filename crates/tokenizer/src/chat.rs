//! Chats: a model's own Jinja template (`tokenizer.chat_template`) turns messages into its prompt.
//!
//! Templates are written for Hugging Face's `transformers`, which renders them with Python's Jinja: blocks
//! swallow the line break after them and the blanks before them, Python's string and dictionary methods are
//! there, and the globals below. Whatever a template does with a message's content, control tokens spelled in
//! it stay text: see [`crate::guard`].

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, context};
use serde_json::Map;

use crate::counted;
use crate::deadline::{self, Deadline};
use crate::error::{Result, TokenizerError};
use crate::guard::{Guard, StandIns};
use crate::jinja::{self, refused};
use crate::python;
use crate::reads;
use crate::time::strftime_at;

/// What one participant said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who: `system`, `user`, `assistant`, or another that the template knows; a word of ASCII letters,
    /// digits, `_` and `-`.
    pub role: String,
    /// What: any text. `None` for a message that consists of something else, such as calls of tools.
    pub content: Option<String>,
    /// What else the template is given of it, by name, such as `tool_calls`.
    pub fields: Map<String, serde_json::Value>,
}

impl ChatMessage {
    /// A message of `role` that says `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        ChatMessage { role: role.into(), content: Some(content.into()), fields: Map::new() }
    }
}

/// What a template is given.
#[derive(Clone, Copy, Debug)]
pub struct Chat<'a> {
    /// Who said what, in this order.
    pub messages: &'a [ChatMessage],
    /// Descriptions of tools that the model may call, in the form that the template expects: that of OpenAI's API.
    pub tools: &'a [serde_json::Value],
    /// Further variables of the template, such as `enable_thinking`. They cannot replace those that every template has.
    pub variables: Option<&'a Map<String, serde_json::Value>>,
    /// How the prompt ends.
    pub prompt: GenerationPrompt,
}

impl<'a> Chat<'a> {
    /// Messages alone.
    pub fn new(messages: &'a [ChatMessage], prompt: GenerationPrompt) -> Self {
        Chat { messages, tools: &[], variables: None, prompt }
    }

    /// Everything in it that a client may have written, as text or as JSON.
    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.tools.iter().map(ToString::to_string).collect();
        let variables = self.variables.into_iter().flatten();
        let fields = self.messages.iter().flat_map(|message| &message.fields);
        for (name, value) in variables.chain(fields) {
            texts.extend([name.clone(), value.to_string()]);
        }
        texts.extend(self.messages.iter().filter_map(|message| message.content.clone()));
        texts
    }
}

/// How a prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// With the beginning of the assistant's answer.
    Add,
    /// As the chat does.
    Omit,
    /// With the text of the last message, for the model to go on with it.
    Continue,
}

/// A model's chat template. Made by [`Tokenizer::from_gguf`](crate::Tokenizer::from_gguf).
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    tokens: TemplateTokens,
    guard: Guard,
    time_limit: Duration,
}

/// The special tokens that templates refer to by variables, as text.
#[derive(Debug)]
pub(crate) struct TemplateTokens {
    pub(crate) bos: Option<String>,
    pub(crate) eos: Option<String>,
    pub(crate) unknown: Option<String>,
    pub(crate) padding: Option<String>,
}

/// A rendered chat in which stand-ins guard what messages say.
pub(crate) struct Rendered {
    text: String,
    stand_ins: StandIns,
}

/// The template's name in error messages.
const NAME: &str = "chat_template";

/// Steps that a template may take, or 64 bytes it may make: enough for thousands of messages, but a hostile
/// file cannot keep a thread busy for ever.
const FUEL: u64 = 2_000_000;

/// Bytes of the stack on which templates are compiled; only what is used of it becomes memory.
const COMPILER_STACK: usize = 64 << 20;

impl ChatTemplate {
    pub(crate) fn new<'v>(
        source: &str,
        tokens: TemplateTokens,
        control_tokens: impl Iterator<Item = &'v str>,
    ) -> std::result::Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python::method);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: String| date(&format, SystemTime::now()));
        environment.add_filter("tojson", python::tojson);
        environment.add_filter(python::PERCENT, python::percent);
        environment.add_test("callable", python::is_callable);
        // Jinja's None is not iterable, minijinja's is; templates ask `tools is iterable`.
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_filter(jinja::KEPT, jinja::kept);
        counted::add_to(&mut environment);
        reads::add_to(&mut environment);
        deadline::add_to(&mut environment);
        compile(&mut environment, jinja::prepared(source)?)?;
        let guard = Guard::new(source, control_tokens);
        Ok(ChatTemplate {
            source: source.to_owned(),
            environment,
            tokens,
            guard,
            time_limit: deadline::DEFAULT,
        })
    }

    /// Stops the template's clock.
    pub(crate) fn set_time(&mut self, time: SystemTime) {
        self.environment.add_function("strftime_now", move |format: String| date(&format, time));
    }

    /// Sets how long a rendering may take.
    pub(crate) fn set_time_limit(&mut self, limit: Duration) {
        self.time_limit = limit;
    }

    /// Whether it may ask what day or time it is.
    pub fn reads_clock(&self) -> bool {
        self.source.contains("strftime_now")
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The chat as text, for people. It does not show which control tokens are the template's; to tokenise it,
    /// use [`Tokenizer::apply_chat_template`](crate::Tokenizer::apply_chat_template).
    ///
    /// # Errors
    /// If the template refuses these messages, or a role is not a word.
    pub fn render(&self, chat: &Chat<'_>) -> Result<String> {
        let rendered = self.render_guarded(chat)?;
        Ok(rendered.restore(rendered.guarded()).into_owned())
    }

    pub(crate) fn render_guarded(&self, chat: &Chat<'_>) -> Result<Rendered> {
        for (index, ChatMessage { role, .. }) in chat.messages.iter().enumerate() {
            // Templates write roles into control tokens (`<|user|>`), so they cannot be guarded like content.
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if role.is_empty() || !role.chars().all(is_word) {
                return Err(TokenizerError::Role { index, role: role.clone() });
            }
        }
        let stand_ins = self.guard.stand_ins(chat.texts().iter().map(String::as_str))?;
        let hide = |text: &str| self.guard.hide(text, &stand_ins);
        let hide_all = |fields: &Map<String, serde_json::Value>| hidden_fields(fields, &hide);
        let message = |ChatMessage { role, content, fields }: &ChatMessage| {
            let content = content.as_deref().map(hide);
            let said = [
                ("role".to_owned(), Value::from(role.as_str())),
                ("content".to_owned(), Value::from(content)),
            ];
            let others = hidden_pairs(fields, &hide).filter(|(name, _)| name != "role" && name != "content");
            Value::from_pairs(said.into_iter().chain(others))
        };
        let messages: Vec<Value> = chat.messages.iter().map(message).collect();
        let tools: Vec<Value> = chat.tools.iter().map(|tool| hidden(tool, &hide)).collect();
        let tools = if tools.is_empty() { Value::from(()) } else { Value::from(tools) };
        let variables = chat.variables.map_or_else(|| context! {}, hide_all);
        let TemplateTokens { bos, eos, unknown, padding } = &self.tokens;
        let variables = context! {
            messages,
            add_generation_prompt => chat.prompt == GenerationPrompt::Add,
            bos_token => bos.as_deref().unwrap_or_default(),
            eos_token => eos.as_deref().unwrap_or_default(),
            unk_token => unknown.as_deref().unwrap_or_default(),
            pad_token => padding.as_deref().unwrap_or_default(),
            tools,
            documents => (),
            ..variables
        };
        let deadline = Deadline::start(self.time_limit);
        let text = self.environment.get_template(NAME).and_then(|template| template.render(variables));
        drop(deadline);
        let failed = |error: minijinja::Error| {
            let message = error.to_string(); // may quote messages
            TokenizerError::ChatTemplateFailed(stand_ins.restore(&message).into_owned())
        };
        let mut text = text.map_err(failed)?;
        if chat.prompt == GenerationPrompt::Continue {
            let last = chat.messages.last().and_then(|message| message.content.as_deref());
            text.truncate(end_of_last(&text, &hide(last.unwrap_or_default()))?);
        }
        Ok(Rendered { text, stand_ins })
    }
}

/// Where the last message ends in a rendered chat, as `transformers` finds it: white space around it may be missing.
fn end_of_last(rendered: &str, last: &str) -> Result<usize> {
    let place = Some(last.trim()).filter(|text| !text.is_empty()).and_then(|text| rendered.rfind(text));
    let Some(start) = place else {
        let reason = "the last message, which is to be continued, has no text in the prompt";
        return Err(TokenizerError::ChatTemplateFailed(reason.into()));
    };
    let (with_space, without) = (last.trim_start(), last.trim());
    let is_whole = rendered[start..].starts_with(with_space);
    Ok(start + if is_whole { with_space.len() } else { without.len() })
}

/// Compiles the template on a thread of its own, whose stack is enough for the deepest tag that [`jinja::prepared`] lets pass.
fn compile(
    environment: &mut Environment<'static>,
    source: String,
) -> std::result::Result<(), minijinja::Error> {
    let thread = std::thread::Builder::new().name("template".to_owned()).stack_size(COMPILER_STACK);
    std::thread::scope(|scope| {
        let compiling = thread.spawn_scoped(scope, || environment.add_template_owned(NAME, source));
        let compiling = compiling.map_err(|error| refused(format!("no thread: {error}")))?;
        compiling.join().unwrap_or_else(|_| Err(refused("its compilation failed".to_owned())))
    })
}

/// A value whose texts are hidden, and names that are not words.
fn hidden(value: &serde_json::Value, hide: &impl Fn(&str) -> String) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => Value::from(hide(text)),
        serde_json::Value::Array(values) => {
            Value::from(values.iter().map(|value| hidden(value, hide)).collect::<Vec<_>>())
        }
        serde_json::Value::Object(fields) => hidden_fields(fields, hide),
    }
}

fn hidden_fields(fields: &Map<String, serde_json::Value>, hide: &impl Fn(&str) -> String) -> Value {
    Value::from_pairs(hidden_pairs(fields, hide))
}

fn hidden_pairs(
    fields: &Map<String, serde_json::Value>,
    hide: &impl Fn(&str) -> String,
) -> impl Iterator<Item = (String, Value)> {
    // Templates look for words such as `tool_call_id`, which must stay what they are.
    let is_word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let name = move |name: &str| if is_word(name) { name.to_owned() } else { hide(name) };
    fields.iter().map(move |(field, value)| (name(field), hidden(value, hide)))
}

impl Rendered {
    /// The text to look for control tokens in.
    pub(crate) fn guarded(&self) -> &str {
        &self.text
    }

    /// A part of it as it should read.
    pub(crate) fn restore<'t>(&self, part: &'t str) -> Cow<'t, str> {
        self.stand_ins.restore(part)
    }
}

fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(refused(message))
}

/// A date and time (UTC) in C's format.
fn date(format: &str, time: SystemTime) -> std::result::Result<String, minijinja::Error> {
    strftime_at(format, time).map_err(|specifier| {
        let message = format!("strftime_now: format {specifier:?} is not supported");
        refused(message)
    })
}
