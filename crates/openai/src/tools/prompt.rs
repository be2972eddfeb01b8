//! A chat with tools as the template wants it.

use rustorch_llama::{Chat, ChatMessage, GenerationPrompt, Tokenizer, TokenizerError};
use serde_json::{Map, Value, json};

use super::request::Tool;
use crate::body::Message;
use crate::fields::Object;

/// What a template is to be given.
pub(crate) struct Given<'a> {
    pub messages: Vec<Message>,
    pub tools: &'a [Tool],
    /// Whether the template has a place for tools and calls.
    pub knows_tools: bool,
    pub variables: Option<&'a Object>,
    /// How the prompt ends.
    pub prompt: GenerationPrompt,
}

impl Given<'_> {
    /// The prompt's tokens.
    ///
    /// # Errors
    /// Those of the template.
    pub fn encode(self, tokenizer: &Tokenizer) -> Result<Vec<u32>, TokenizerError> {
        let Self { messages, tools, knows_tools, variables, prompt } = self;
        let has_calls = messages.iter().any(|message| !message.tool_calls.is_empty());
        let encode = |messages: &[ChatMessage], tools: &[Value]| {
            tokenizer.encode_chat(&Chat { messages, tools, variables, prompt })
        };
        if !knows_tools && (!tools.is_empty() || messages.iter().any(is_about_tools)) {
            let messages = plain(messages);
            let shown = |place| encode(&shown(&messages, tools, place), &[]);
            // Some templates know no system.
            return shown(Place::System).or_else(|error| shown(Place::User).map_err(|_| error));
        }
        let tools: Vec<Value> = tools.iter().map(|tool| tool.description.clone()).collect();
        let with = |arguments, absent| {
            let messages: Vec<_> =
                messages.iter().map(|message| chat_message(message, arguments, absent)).collect();
            encode(&messages, &tools)
        };
        let first = with(Arguments::Object, Absent::None);
        if first.is_ok() || !has_calls {
            return first;
        }
        // Templates differ in what they take, and say so by failing.
        let others = [
            (Arguments::Object, Absent::Empty),
            (Arguments::Text, Absent::None),
            (Arguments::Text, Absent::Empty),
        ];
        let mut others = others.into_iter().filter_map(|(arguments, absent)| with(arguments, absent).ok());
        others.next().map_or(first, Ok)
    }
}

fn is_about_tools(message: &Message) -> bool {
    !message.tool_calls.is_empty() || matches!(message.role.as_str(), "tool" | "function")
}

/// How a template is given the arguments of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arguments {
    /// As `transformers` has them.
    Object,
    /// As the API has them.
    Text,
}

/// What a template is given as the content of a message that has none but calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    None,
    Empty,
}

fn chat_message(message: &Message, arguments: Arguments, absent: Absent) -> ChatMessage {
    let mut fields = Map::new();
    let texts = [
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
        ("reasoning_content", &message.reasoning_content),
        // What gpt-oss's template calls them.
        ("thinking", &message.reasoning_content),
    ];
    for (name, text) in texts {
        fields.extend(text.iter().map(|text| (name.to_owned(), text.as_str().into())));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let mut call = call.clone();
            let found = &mut call["function"]["arguments"];
            *found = match arguments {
                Arguments::Object => object(found),
                Arguments::Text => text(found).into(),
            };
            call
        });
        fields.insert("tool_calls".to_owned(), calls.collect());
    }
    let is_absent = !message.tool_calls.is_empty() && absent == Absent::None;
    let content = if is_absent { message.content.clone() } else { Some(message.text().to_owned()) };
    ChatMessage { role: message.role.clone(), content, fields }
}

/// Arguments as an object, if they are the text of one.
fn object(arguments: &Value) -> Value {
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
    parsed.filter(Value::is_object).unwrap_or_else(|| arguments.clone())
}

/// Arguments as text.
fn text(arguments: &Value) -> String {
    arguments.as_str().map_or_else(|| arguments.to_string(), str::to_owned)
}

/// Messages for a template that knows no tools: calls and results become text.
fn plain(messages: Vec<Message>) -> Vec<Message> {
    let mut plain: Vec<Message> = Vec::new();
    let mut last_is_result = false;
    for mut message in messages {
        let is_result = matches!(message.role.as_str(), "tool" | "function");
        if is_result {
            let text = format!("<tool_response>\n{}\n</tool_response>", message.text());
            // Results of parallel calls are one message, so that user and assistant alternate.
            match plain.last_mut().filter(|_| last_is_result) {
                Some(last) => last.content = Some(format!("{}\n{text}", last.text())),
                None => plain.push(Message::new("user", text)),
            }
        } else {
            let mut parts: Vec<String> = message.content.take().into_iter().collect();
            parts.retain(|text| !text.is_empty());
            for call in &message.tool_calls {
                let function = &call["function"];
                let call = json!({"name": function["name"], "arguments": object(&function["arguments"])});
                parts.push(format!("<tool_call>\n{call}\n</tool_call>"));
            }
            plain.push(Message::new(message.role, parts.join("\n")));
        }
        last_is_result = is_result;
    }
    plain
}

/// Where the model is told of tools.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    System,
    User,
}

/// The messages, with the tools in the system message or the first one of the user.
fn shown(messages: &[Message], tools: &[Tool], place: Place) -> Vec<ChatMessage> {
    let mut messages: Vec<ChatMessage> =
        messages.iter().map(|message| ChatMessage::new(message.role.as_str(), message.text())).collect();
    if tools.is_empty() {
        return messages;
    }
    let text = instructions(tools);
    let is_system = |message: &ChatMessage| matches!(message.role.as_str(), "system" | "developer");
    match place {
        Place::System => match messages.first_mut().filter(|message| is_system(message)) {
            Some(system) => append(system, &text),
            None => messages.insert(0, ChatMessage::new("system", text)),
        },
        Place::User => {
            let system: Vec<String> = messages
                .iter()
                .filter(|message| is_system(message))
                .filter_map(|m| m.content.clone())
                .collect();
            messages.retain(|message| !is_system(message));
            let text = [system, vec![text]].concat().join("\n\n");
            match messages.iter_mut().find(|message| message.role == "user") {
                Some(user) => {
                    let said = user.content.take().unwrap_or_default();
                    user.content = Some(format!("{text}\n\n{said}"));
                }
                None => messages.insert(0, ChatMessage::new("user", text)),
            }
        }
    }
    messages
}

fn append(message: &mut ChatMessage, text: &str) {
    let said = message.content.take().unwrap_or_default();
    message.content = Some(format!("{said}\n\n{text}"));
}

fn instructions(tools: &[Tool]) -> String {
    let functions: Vec<String> = tools.iter().map(|tool| tool.description["function"].to_string()).collect();
    format!(
        "You can call these functions, one JSON object in each line:\n{}\n\nTo call a function, write:\n<tool_call>\n\
         {{\"name\": \"<name>\", \"arguments\": <arguments as a JSON object>}}\n</tool_call>\nYou will be given its result \
         between <tool_response> and </tool_response>.",
        functions.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use rustorch_llama::{ControlTokens, demo};

    use super::*;
    use crate::tools::formats::Format;
    use crate::tools::request::ToolFields;

    const KNOWING: &str = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}{% for m in messages %}\
        {{ m.role }}{% if m.tool_call_id %} {{ m.tool_call_id }}{% endif %}: {{ 'nothing' if m.content is none else m.content }}\
        {% for call in m.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}{{ '\\n' }}\
        {% endfor %}<tool_call>{# \"arguments #}";

    /// The prompt as text.
    fn prompt(template: &str, messages: &Value, tools: &Value) -> String {
        let tokenizer = Tokenizer::from_gguf(&demo::gguf()).unwrap().with_chat_template(template).unwrap();
        let read = |message: &Value| Message::read(message.as_object().unwrap()).unwrap();
        let messages = messages.as_array().unwrap().iter().map(read).collect();
        let tools =
            ToolFields::read(json!({"tools": tools}).as_object().unwrap()).unwrap().check().unwrap().tools;
        let knows_tools = Format::of_template(template).is_some();
        let given =
            Given { messages, tools: &tools, knows_tools, variables: None, prompt: GenerationPrompt::Add };
        let text = tokenizer.decode(&given.encode(&tokenizer).unwrap(), ControlTokens::Hide);
        text.trim_start().to_owned()
    }

    fn history() -> Value {
        let call =
            json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
        json!([
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ])
    }

    fn tools() -> Value {
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])
    }

    #[test]
    fn templates_are_given_calls_and_results() {
        let text = prompt(KNOWING, &history(), &tools());
        assert_eq!(text, "f;user: go\nassistant: nothingf {\"a\": 1}\ntool c1: done\n<tool_call>");
    }

    #[test]
    fn a_template_that_fails_is_given_the_other_form() {
        // It adds to the content and to the arguments as to strings.
        let template = KNOWING.replace("call.function.arguments | tojson", "'=' + call.function.arguments");
        let template = template.replace("'nothing' if m.content is none else m.content", "'' + m.content");
        let text = prompt(&template, &history(), &tools());
        assert_eq!(text, "f;user: go\nassistant: f ={\"a\": 1}\ntool c1: done\n<tool_call>");
    }

    #[test]
    fn templates_without_tools_get_them_as_text() {
        let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        let text = prompt(plain, &history(), &tools());
        let (system, chat) = text.split_once("\nuser: ").unwrap();
        assert!(system.starts_with("system: You can call these functions"), "{system}");
        assert!(system.contains("\n{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}\n"), "{system}");
        assert_eq!(
            chat,
            "go\nassistant: <tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>\nuser: \
             <tool_response>\ndone\n</tool_response>\n"
        );
        let strict = format!(
            "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no') }}}}{{% endif %}}{plain}"
        );
        let text = prompt(&strict, &history(), &tools());
        assert!(
            text.starts_with("user: You can call these functions") && text.contains("\n\ngo\n"),
            "{text}"
        );
        assert_eq!(prompt(plain, &json!([{"role": "user", "content": "go"}]), &json!([])), "user: go\n");
    }
}
