//! Tools: functions that a model may call.
//!
//! `formats.rs` is a table of the ways in which models write calls. Of a row come the prompt (`prompt.rs`), the grammar that
//! makes calls valid (`grammar.rs`) and the reader that finds them in the answer (`reader.rs`).

mod formats;
mod gemma;
mod grammar;
mod harmony;
mod json;
mod prompt;
mod reader;
mod request;
mod xml;

use std::sync::Arc;

use rustorch_llama::{ControlTokens, GenerationPrompt, GrammarRule, GrammarSpec, Tokenizer, TokenizerError};
use serde_json::{Value, json};

use crate::body::Message;
use crate::error::ApiError;
use crate::fields::{Object, refused};
use crate::prepare::Context;
use crate::structured::{Demand, Form};

use formats::{Format, GENERIC, THOUGHTS};
use grammar::Calls;
use harmony::Harmony;
use prompt::Given;
pub(crate) use reader::Piece;
use reader::{Reader, Syntax};
pub(crate) use request::ToolFields;
use request::{ToolChoice, Toolbox};

/// A chat that is ready to be answered.
pub(crate) struct Conversation {
    pub prompt: Vec<u32>,
    /// How the answer is to be read; `None` if it is text alone.
    pub reading: Option<Reading>,
    /// What the answer must be.
    pub form: Option<Form>,
}

/// Finds the parts of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Parts {
    /// Thoughts and calls between markers in a text.
    Marked(Reader),
    /// A row of messages.
    Harmony(Harmony),
}

impl Parts {
    /// Takes more of the text; what it completes.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        match self {
            Self::Marked(reader) => reader.push(text),
            Self::Harmony(reader) => reader.push(text),
        }
    }

    /// Ends the text; what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        match self {
            Self::Marked(reader) => reader.finish(),
            Self::Harmony(reader) => reader.finish(),
        }
    }
}

/// How a model writes an answer that is more than text.
#[derive(Debug, Clone, Copy)]
enum Style<'a> {
    /// Calls as a row of the table has them.
    Marked(&'a Format, Begins<'a>),
    Harmony,
}

/// Where an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins<'a> {
    /// With text or a call.
    Anew,
    /// In thoughts, which this text ends.
    InThoughts(&'a str),
    /// Behind the opening of a call, or of text for this user.
    Opened(&'a str),
}

/// How an answer is read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub reader: Parts,
    /// Control tokens that show in the text that is read.
    shown: Vec<(u32, &'static str)>,
}

impl Reading {
    /// How text is read in which control tokens show anyway.
    pub fn of_shown_text(self) -> Self {
        Self { shown: Vec::new(), ..self }
    }

    /// The text of a token that is read: control tokens have none of their own.
    pub fn text<'t>(&self, token_id: u32, text: &'t str) -> std::borrow::Cow<'t, str> {
        match self.shown.iter().find(|(id, _)| *id == token_id) {
            Some((_, shown)) => format!("{text}{shown}").into(),
            None => text.into(),
        }
    }
}

/// Whether thoughts are told apart from the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thoughts {
    Apart,
    InContent,
}

/// Makes a prompt of a chat and a grammar of what its answer must be.
///
/// # Errors
/// 422 for a chat that the template refuses, 400 for a form that cannot be enforced.
pub(crate) fn converse(
    messages: Vec<Message>,
    tools: ToolFields,
    thoughts: Thoughts,
    (variables, ending): (Option<&Object>, GenerationPrompt),
    demand: Option<Demand>,
    context: &Context<'_>,
) -> Result<Conversation, ApiError> {
    let toolbox = tools.check()?;
    let tokenizer = context.tokenizer;
    let failed = |error: TokenizerError| ApiError::unprocessable("messages", error.to_string());
    let has_tools = !toolbox.tools.is_empty();
    let template = if has_tools { tokenizer.tool_template() } else { tokenizer.chat_template() };
    let source = template.map_err(failed)?.source();
    let is_harmony = harmony::is_of_template(source);
    let format = Format::of_template(source);
    let pair = THOUGHTS.iter().copied().find(|(_, end)| source.contains(end));
    let messages = known_roles(messages, source);
    let knows_tools = is_harmony || format.is_some();
    let given = Given { messages, tools: &toolbox.tools, knows_tools, variables, prompt: ending };
    let prompt = given.encode(tokenizer).map_err(failed)?;
    if is_harmony {
        // What is continued is a message for the user.
        let is_new = ending != GenerationPrompt::Continue;
        let reader = Harmony::new(is_new, thoughts == Thoughts::Apart, has_tools);
        let form = match (has_tools, demand) {
            (true, demand) => Some(toolbox.form(Style::Harmony, demand, context)?),
            (false, Some(demand)) if is_new => Some(harmony_form(demand, context)?),
            (false, demand) => demand.map(|demand| plain_form(demand, Begins::Anew, context)).transpose()?,
        };
        let shown = shown(harmony::MARKERS, tokenizer);
        return Ok(Conversation {
            prompt,
            reading: Some(Reading { reader: Parts::Harmony(reader), shown }),
            form,
        });
    }
    // Where text is addressed too, it has to be read without tools as well.
    let read_format = match has_tools {
        true => Some(format.unwrap_or(&GENERIC)),
        false => format.filter(|format| format.user.is_some()),
    };
    let begins_in_thoughts = pair.filter(|(begin, _)| ends_with(&prompt, begin, tokenizer));
    let user = read_format.and_then(|format| Some((format.opening, format.user?)));
    let begins = match (begins_in_thoughts, user) {
        (Some((_, end)), _) => Begins::InThoughts(end),
        (None, Some((opening, user))) if ends_with(&prompt, opening, tokenizer) => Begins::Opened(user),
        _ => Begins::Anew,
    };

    let schemas = toolbox.tools.iter().map(|tool| (tool.name.clone(), tool.parameters.clone()));
    let syntax = Syntax {
        format: read_format,
        thoughts: pair.filter(|_| thoughts == Thoughts::Apart),
        begins_in_thoughts: begins_in_thoughts.is_some() && thoughts == Thoughts::Apart,
        begins_opened: matches!(begins, Begins::Opened(_)),
        schemas: Arc::new(schemas.collect()),
    };
    let form = match syntax.format.filter(|_| has_tools) {
        Some(format) => Some(toolbox.form(Style::Marked(format, begins), demand, context)?),
        None => demand.map(|demand| plain_form(demand, begins, context)).transpose()?,
    };
    let markers = syntax.format.into_iter().flat_map(Format::markers);
    let shown =
        shown(markers.chain(syntax.thoughts.into_iter().flat_map(|(begin, end)| [begin, end])), tokenizer);
    let is_read = syntax.format.is_some() || syntax.thoughts.is_some();
    let reading = is_read.then(|| Reading { reader: Parts::Marked(Reader::new(syntax)), shown });
    Ok(Conversation { prompt, reading, form })
}

/// The markers that are control tokens.
fn shown(markers: impl IntoIterator<Item = &'static str>, tokenizer: &Tokenizer) -> Vec<(u32, &'static str)> {
    let control = |marker: &'static str| {
        // A marker may be a control token with text after it.
        let head = marker.find('>').map_or(marker, |end| &marker[..=end]);
        [marker, head].into_iter().find_map(|text| Some((tokenizer.control_token(text)?, text)))
    };
    markers.into_iter().filter_map(control).collect()
}

/// The grammar of a form that is demanded of the message for the user.
fn harmony_form(demand: Demand, context: &Context<'_>) -> Result<Form, ApiError> {
    let Demand { field, spec } = demand;
    let messages = harmony::Messages { tokenizer: context.tokenizer };
    let spec = match rule(&spec) {
        Some(content) => GrammarSpec::Rule(messages.then(messages.last(content))),
        None => spec,
    };
    Demand { field, spec }.compile(context.grammars)
}

/// The newer name of the role `system` means nothing to templates that do not have it.
fn known_roles(mut messages: Vec<Message>, template: &str) -> Vec<Message> {
    if !template.contains("developer") {
        let newer = messages.iter_mut().filter(|message| message.role == "developer");
        newer.for_each(|message| "system".clone_into(&mut message.role));
    }
    messages
}

/// Whether a prompt ends with this text, but for white space.
fn ends_with(prompt: &[u32], text: &str, tokenizer: &Tokenizer) -> bool {
    // A token has at least one byte.
    let end = &prompt[prompt.len().saturating_sub(text.len() + 4)..];
    tokenizer.decode(end, ControlTokens::Show).trim_end().ends_with(text)
}

/// The grammar of a form that is demanded of an answer without tools. If the answer begins in thoughts, it is that of what
/// comes after them; if behind an opening, of what is for the user.
fn plain_form(demand: Demand, begins: Begins<'_>, context: &Context<'_>) -> Result<Form, ApiError> {
    let Demand { field, spec } = demand;
    let spec = match (begins, rule(&spec)) {
        (Begins::Opened(user), Some(rule)) => GrammarSpec::Rule(to_user(user, rule)),
        (Begins::InThoughts(end), Some(rule)) => {
            GrammarSpec::After(vec![end.to_owned()], after_thoughts(rule))
        }
        _ => spec,
    };
    Demand { field, spec }.compile(context.grammars)
}

/// A rule for text that is addressed to the user.
fn to_user(user: &str, rule: GrammarRule) -> GrammarRule {
    GrammarRule::Seq(vec![GrammarRule::text(format!("{user}\n")), rule])
}

/// A rule after the end of thoughts and white space.
fn after_thoughts(rule: GrammarRule) -> GrammarRule {
    GrammarRule::Seq(vec![GrammarRule::Regex("[ \\n]{1,4}".to_owned()).optional(), rule])
}

/// A form as a rule; `None` for whole grammars.
fn rule(spec: &GrammarSpec) -> Option<GrammarRule> {
    match spec {
        GrammarSpec::JsonObject => Some(GrammarRule::Json(json!({"type": "object"}))),
        GrammarSpec::JsonSchema(schema) => Some(GrammarRule::Json(schema.clone())),
        GrammarSpec::Regex(regex) => Some(GrammarRule::Regex(regex.clone())),
        GrammarSpec::Choice(choices) => {
            Some(GrammarRule::Any(choices.iter().map(GrammarRule::text).collect()))
        }
        _ => None,
    }
}

/// Most bytes of all schemas of a request.
const MAX_SCHEMAS: usize = 256 << 10;

impl Toolbox {
    /// The grammar of an answer that may or must have calls.
    fn form(
        &self,
        style: Style<'_>,
        demand: Option<Demand>,
        context: &Context<'_>,
    ) -> Result<Form, ApiError> {
        let size: usize = self.tools.iter().map(|tool| tool.parameters.to_string().len()).sum();
        if size > MAX_SCHEMAS {
            let rest = format_args!("expected at most {MAX_SCHEMAS} bytes of schemas, found {size}");
            return Err(refused("tools", rest));
        }
        let is_callable = |name: &str| match &self.choice {
            ToolChoice::Named(named) => named == name,
            _ => true,
        };
        let callable = self.tools.iter().filter(|tool| is_callable(&tool.name));
        let mut functions: Vec<(String, Value)> =
            callable.map(|tool| (tool.name.clone(), tool.parameters.clone())).collect();
        let content = match (&self.choice, &demand) {
            (ToolChoice::Auto, Some(Demand { field, spec })) => match rule(spec) {
                None => return Err(refused(field, "expected none beside tools, found a grammar")),
                rule => rule,
            },
            _ => None,
        };
        let field = demand.map_or_else(|| "tools".to_owned(), |demand| demand.field);
        let spec = |functions: &[(String, Value)]| self.spec(style, functions, content.clone(), context);
        if let Ok(grammar) = context.grammars.compile(&spec(&functions)) {
            return Ok(Form { field, grammar });
        }
        self.loosen(&mut functions, context)?;
        Demand { field, spec: spec(&functions) }.compile(context.grammars)
    }

    fn spec(
        &self,
        style: Style<'_>,
        functions: &[(String, Value)],
        content: Option<GrammarRule>,
        context: &Context<'_>,
    ) -> GrammarSpec {
        let Style::Marked(format, begins) = style else {
            let messages = harmony::Messages { tokenizer: context.tokenizer };
            let call = || messages.call(functions);
            return match (&self.choice, content) {
                (ToolChoice::Auto, Some(content)) => {
                    let last = GrammarRule::Any(vec![call(), messages.last(content)]);
                    GrammarSpec::Rule(messages.then(last))
                }
                (ToolChoice::Auto, None) => {
                    let opening = vec![harmony::RECIPIENT.to_owned()];
                    GrammarSpec::After(opening, messages.after_the_recipient(functions))
                }
                _ => GrammarSpec::Rule(messages.then(call())),
            };
        };
        let is_parallel = self.is_parallel && !matches!(self.choice, ToolChoice::Named(_));
        let begins_opened = matches!(begins, Begins::Opened(_));
        let calls = Calls { format, functions, is_parallel, begins_opened, tokenizer: context.tokenizer };
        let rule = match (&self.choice, content) {
            (ToolChoice::Auto, Some(content)) => {
                let content =
                    if let Begins::Opened(user) = begins { to_user(user, content) } else { content };
                GrammarRule::Any(vec![calls.whole_answer(), content])
            }
            (ToolChoice::Auto, None) => match begins {
                Begins::Opened(user) => calls.addressed(user),
                Begins::Anew if format.starts_bare => {
                    GrammarRule::Any(vec![calls.whole_answer(), Calls::free_text()])
                }
                _ => return GrammarSpec::After(vec![format.opening.to_owned()], calls.after_the_opening()),
            },
            _ => calls.whole_answer(),
        };
        match begins {
            Begins::InThoughts(end) => GrammarSpec::After(vec![end.to_owned()], after_thoughts(rule)),
            Begins::Anew | Begins::Opened(_) => GrammarSpec::Rule(rule),
        }
    }

    /// Lets functions have any arguments whose schema cannot be enforced.
    ///
    /// # Errors
    /// 400 that names the schema, if its function is strict.
    fn loosen(&self, functions: &mut [(String, Value)], context: &Context<'_>) -> Result<(), ApiError> {
        for (name, schema) in functions {
            let Err(error) = context.grammars.compile(&GrammarSpec::JsonSchema(schema.clone())) else {
                continue;
            };
            let found = self.tools.iter().enumerate().find(|(_, tool)| tool.name == *name);
            if let Some((index, _)) = found.filter(|(_, tool)| tool.is_strict) {
                return Err(refused(&format!("tools[{index}].function.parameters"), error));
            }
            *schema = json!({"type": "object"});
        }
        Ok(())
    }
}
