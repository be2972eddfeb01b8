//! Chats with tools: calls are valid by construction, and a stream adds up to the whole answer.

use std::sync::{Arc, mpsc};

use openai::{ApiError, Context, Endpoint, ModelNames, Prepared, UnknownFields, parse_object, prepare};
use rustorch_llama::{Bos, Grammars, Special, Tokenizer};
use serde_json::{Value, json};

use crate::harness::{IDENTITY, Sink, demo, no_blanks};

/// The demo model with another template.
struct Model {
    tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
}

/// A template that knows tools and has this text, by which a format is recognised.
fn template(mark: &str) -> String {
    format!(
        "{{% for tool in tools or [] %}}{{{{ tool | tojson }}}}\n{{% endfor %}}{{% for message in messages %}}\
         {{{{ message.role }}}}: {{{{ message.content or '' }}}}{{% for call in message.tool_calls or [] %}}\
         {{{{ call.function.name }}}} {{{{ call.function.arguments | tojson }}}}{{% endfor %}}\n{{% endfor %}}\
         {{% set mark = '{mark}' %}}assistant:"
    )
}

const HERMES: &str = "<tool_call>\"arguments";
/// The marks of the formats.
const MARKS: [&str; 9] = [
    HERMES,
    "<tool_call><function=<parameter=",
    "[TOOL_CALLS]",
    "[TOOL_CALLS][ARGS]",
    "<|tool_call>call:",
    "<function=</function>",
    ">>>all",
    "<|start_header_id|>\"parameters\": ",
    "<|channel|><|message|><|call|>",
];

impl Model {
    fn new(template: &str) -> Self {
        let tokenizer = Tokenizer::from_gguf(&rustorch_llama::demo::gguf()).unwrap();
        let tokenizer = Arc::new(tokenizer.with_chat_template(template).unwrap());
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        Self { tokenizer, grammars }
    }

    /// With the demo model's own template, which knows no tools.
    fn plain() -> Self {
        let tokenizer = Arc::clone(&demo().tokenizer);
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        Self { tokenizer, grammars }
    }

    fn read(&self, body: &Value) -> Result<Prepared, ApiError> {
        self.read_at(Endpoint::ChatCompletions, body)
    }

    fn read_at(&self, endpoint: Endpoint, body: &Value) -> Result<Prepared, ApiError> {
        let context = Context {
            tokenizer: &self.tokenizer,
            grammars: &self.grammars,
            model: "demo",
            names: ModelNames::Any,
            hidden_size: demo().hidden_size,
            pooling: Default::default(),
            fingerprint: Some("fp_1"),
            seed: 7,
            unknown_fields: UnknownFields::Refuse,
        };
        let body = parse_object(body.to_string().as_bytes())?;
        prepare(endpoint, &body, &context)
    }

    /// The id of the last token of a text, as a key.
    fn last_token(&self, text: &str) -> String {
        self.tokenizer.encode(text, Special::Text, Bos::Skip).last().unwrap().to_string()
    }

    /// The whole answer's only choice.
    fn whole(&self, body: &Value) -> Value {
        let Prepared { work, mut answer, .. } = self.read(body).unwrap();
        let (events, received) = mpsc::channel();
        work.submit(&demo().engine, |choice| Sink(choice, events.clone())).unwrap();
        while !answer.is_complete() {
            let (choice, event) = received.recv().unwrap();
            answer.add(choice, event).unwrap();
        }
        json!(answer.body(&IDENTITY, &self.tokenizer))["choices"][0].clone()
    }

    /// The same, put together from a stream as a client does.
    fn streamed(&self, body: &Value) -> Value {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let Prepared { work, answer, stream, .. } = self.read(&body).unwrap();
        let (events, received) = mpsc::channel();
        work.submit(&demo().engine, |choice| Sink(choice, events.clone())).unwrap();
        let mut chunks = answer.into_chunks(&IDENTITY, stream.unwrap());
        let mut message = json!({"role": "assistant", "content": null, "refusal": null});
        let mut finish_reason = Value::Null;
        while !chunks.is_complete() {
            let (choice, event) = received.recv().unwrap();
            let Some(chunk) = chunks.add(choice, event, &self.tokenizer).unwrap() else { continue };
            let chunk = json!(chunk)["choices"][0].clone();
            assert_eq!(finish_reason, Value::Null, "nothing comes after the end");
            finish_reason = chunk["finish_reason"].clone();
            add(&mut message, &chunk["delta"]);
        }
        if message["tool_calls"].is_null() && message["content"].is_null() {
            message["content"] = json!("");
        }
        json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason})
    }
}

fn add(message: &mut Value, delta: &Value) {
    for name in ["content", "reasoning_content"] {
        if let Some(text) = delta[name].as_str() {
            message[name] = json!(message[name].as_str().unwrap_or_default().to_owned() + text);
        }
    }
    for part in delta["tool_calls"].as_array().into_iter().flatten() {
        if message["tool_calls"].is_null() {
            message["tool_calls"] = json!([]);
        }
        let calls = message["tool_calls"].as_array_mut().unwrap();
        let index = part["index"].as_u64().unwrap() as usize;
        if index == calls.len() {
            let mut call = part.clone();
            call.as_object_mut().unwrap().remove("index");
            calls.push(call);
        } else {
            assert_eq!(index + 1, calls.len(), "pieces belong to the last call");
            assert_eq!((&part["id"], &part["function"]["name"]), (&Value::Null, &Value::Null));
            let so_far = calls[index]["function"]["arguments"].as_str().unwrap().to_owned();
            let piece = part["function"]["arguments"].as_str().unwrap();
            calls[index]["function"]["arguments"] = json!(so_far + piece);
        }
    }
}

fn tool(name: &str) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Rome"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    json!({"type": "function", "function": {"name": name, "description": "The weather.", "parameters": parameters}})
}

fn body() -> Value {
    json!({
        "messages": [{"role": "user", "content": "How is it?"}],
        "tools": [tool("weather"), tool("climate")],
        "max_tokens": 120,
        "logit_bias": no_blanks(),
        "seed": 5,
    })
}

#[track_caller]
fn assert_valid(call: &Value, names: &[&str]) {
    assert_eq!(call["type"], "function", "{call}");
    assert_eq!(call["id"].as_str().unwrap().len(), 9, "{call}");
    let name = call["function"]["name"].as_str().unwrap();
    assert!(names.contains(&name), "{call}");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments.as_object().unwrap().len(), 2, "{call}");
    assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()), "{call}");
    assert!((1..10).contains(&arguments["days"].as_u64().unwrap()), "{call}");
}

#[test]
fn a_required_call_is_valid_in_every_format() {
    let models = MARKS.iter().map(|mark| Model::new(&template(mark))).chain([Model::plain()]);
    for (model, mark) in models.zip(MARKS.iter().chain(&["generic"])) {
        let mut body = body();
        body["parallel_tool_calls"] = json!(false);
        for (choice, names) in [
            (json!("required"), ["weather", "climate"]),
            (json!({"type": "function", "function": {"name": "climate"}}), ["climate", "climate"]),
        ] {
            body["tool_choice"] = choice;
            let whole = model.whole(&body);
            let calls =
                whole["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{mark}: {whole}"));
            assert_eq!(calls.len(), 1, "{mark}: {whole}");
            assert_valid(&calls[0], &names);
            assert_eq!(whole["finish_reason"], "tool_calls", "{mark}: {whole}");
            assert_eq!(whole["message"]["content"], Value::Null, "{mark}: {whole}");
            assert_eq!(model.streamed(&body), whole, "{mark}");
        }
    }
}

#[test]
fn several_calls_have_their_own_ids() {
    let model = Model::new(&template(HERMES));
    let mut body = body();
    body["tool_choice"] = json!("required");
    // So that the model goes on with calls where it may.
    body["logit_bias"][model.last_token("<")] = json!(30);
    let whole = model.whole(&body);
    assert_eq!(model.streamed(&body), whole);
    let calls = whole["message"]["tool_calls"].as_array().unwrap();
    assert!(calls.len() > 1, "{whole}");
    assert_valid(&calls[0], &["weather", "climate"]);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
}

#[test]
fn auto_leaves_it_to_the_model() {
    for mark in MARKS {
        let model = Model::new(&template(mark));
        for choice in ["auto", "none"] {
            let mut body = body();
            (body["tool_choice"], body["max_tokens"]) = (json!(choice), json!(20));
            let whole = model.whole(&body);
            assert_eq!(model.streamed(&body), whole, "{mark}");
            assert!(whole["message"]["content"].is_string(), "{mark}: the demo model tells a story: {whole}");
        }
    }
}

/// Once the model has begun a call, it is valid.
#[test]
fn a_call_that_the_model_begins_is_valid() {
    let model = Model::new(&template("<|start_header_id|>\"parameters\": "));
    let mut body = body();
    body["logit_bias"][model.last_token("{")] = json!(15);
    let whole = model.whole(&body);
    let calls = whole["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{whole}"));
    assert_valid(&calls[0], &["weather", "climate"]);
    assert_eq!(model.streamed(&body), whole);
}

/// The prompt ends with the opening, so that an answer begins with a name: that of a function, or `all`.
#[test]
fn an_answer_may_begin_with_whom_it_is_for() {
    let model = Model::new(&template(">>>all").replace("assistant:", "assistant>>>"));
    let mut body = body();
    for choice in ["required", "auto"] {
        (body["tool_choice"], body["parallel_tool_calls"]) = (json!(choice), json!(false));
        body["logit_bias"][model.last_token("w")] = json!(30);
        let whole = model.whole(&body);
        let calls = whole["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{choice}: {whole}"));
        assert_valid(&calls[0], &["weather", "climate"]);
        assert_eq!(model.streamed(&body), whole, "{choice}");
    }
    // To the user, if it begins so; in this vocabulary `all` may be several tokens.
    body["logit_bias"] = no_blanks();
    for text in ["a", "all"] {
        body["logit_bias"][model.last_token(text)] = json!(30);
    }
    (body["max_tokens"], body["tool_choice"]) = (json!(20), json!("auto"));
    let whole = model.whole(&body);
    let content = whole["message"]["content"].as_str().unwrap_or_else(|| panic!("{whole}"));
    assert!(!content.starts_with("all\n") && !content.is_empty(), "{whole}");
    assert_eq!(model.streamed(&body), whole);
    // A form without tools is addressed too, and none of that shows.
    let plain = json!({"messages": body["messages"], "max_tokens": 40, "guided_regex": "[0-9]{3}"});
    let whole = model.whole(&plain);
    let content = whole["message"]["content"].as_str().unwrap();
    assert!(content.len() == 3 && content.bytes().all(|c| c.is_ascii_digit()), "{whole}");
}

#[test]
fn a_form_of_the_content_stands_beside_tools() {
    let model = Model::new(&template(HERMES));
    let mut body = body();
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": {"type": "integer", "minimum": 0, "maximum": 99}}});
    for seed in 0..4 {
        body["seed"] = json!(seed);
        let whole = model.whole(&body);
        let message = &whole["message"];
        match message["tool_calls"].as_array() {
            Some(calls) => assert_valid(&calls[0], &["weather", "climate"]),
            None => assert!(message["content"].as_str().unwrap().trim().parse::<i64>().is_ok(), "{message}"),
        }
    }
    let mut grammar = self::body();
    grammar["grammar"] = json!("root ::= \"a\"");
    let error = model.read(&grammar).map(|_| ()).unwrap_err();
    assert_eq!((error.status, error.param.as_deref()), (400, Some("grammar")), "{error}");
}

#[test]
fn thoughts_are_apart() {
    // The prompt ends inside thoughts, which this answer does not leave.
    let model = Model::new(&format!("{}<think>\n{{# </think> #}}", template(HERMES)));
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "seed": 1});
    let apart = model.whole(&body);
    assert_eq!(model.streamed(&body), apart);
    assert_eq!(apart["message"]["content"], "");
    body["reasoning_format"] = json!("none");
    let together = model.whole(&body);
    let thoughts = apart["message"]["reasoning_content"].as_str().unwrap();
    assert_eq!(together["message"]["content"].as_str().unwrap().trim(), thoughts);
    assert_eq!(together["message"].get("reasoning_content"), None);

    // A form is that of what comes after the thoughts.
    body["reasoning_format"] = json!("auto");
    body["guided_choice"] = json!(["red"]);
    body["tools"] = json!([]);
    body["logit_bias"] = json!({});
    let whole = model.whole(&body);
    assert_eq!(whole["message"]["reasoning_content"], apart["message"]["reasoning_content"]);
}

#[test]
fn what_is_wrong_with_tools_is_named() {
    let model = Model::new(&template(HERMES));
    let check = |field: &str, value: Value, param: &str, says: &str| {
        let mut body = body();
        body[field] = value;
        let error = model.read(&body).map(|_| ()).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error}");
        assert!(error.message.starts_with(&format!("{param}: ")) && error.message.contains(says), "{error}");
    };
    check("tools", json!("a"), "tools", "expected a list of tools");
    check("tools", json!([{"type": "web_search"}]), "tools[0].type", "expected \"function\"");
    check("tools", json!([{"type": "function"}]), "tools[0].function", "expected an object");
    let named = |name: &str| json!([{"type": "function", "function": {"name": name}}]);
    check("tools", named("a b"), "tools[0].function.name", "letters");
    check("tools", json!([tool("a"), tool("a")]), "tools[1].function.name", "found \"a\" again");
    let mut odd = tool("a");
    odd["function"]["parameters"] = json!({"type": "object", "not": {}});
    odd["function"]["strict"] = json!(true);
    check("tools", json!([odd]), "tools[0].function.parameters", "not");
    odd["function"]["strict"] = json!(false);
    let mut loose = body();
    loose["tools"] = json!([odd]);
    assert!(model.read(&loose).is_ok(), "a schema that is not strict may be more than can be enforced");
    check("tool_choice", json!("maybe"), "tool_choice", "\"required\"");
    let other = json!({"type": "function", "function": {"name": "other"}});
    check("tool_choice", other, "tool_choice", "found \"other\"");
    check("chat_template_kwargs", json!({"messages": []}), "chat_template_kwargs.messages", "sets");
    let call = json!([{"role": "assistant", "tool_calls": [{"function": {"name": "a"}}]}]);
    check("messages", call, "messages[0].tool_calls[0].function.arguments", "JSON as a string");
    let alone = json!({"messages": [{"role": "user", "content": "a"}], "tool_choice": "required"});
    let error = model.read(&alone).map(|_| ()).unwrap_err();
    assert_eq!((error.status, error.param.as_deref()), (400, Some("tool_choice")), "{error}");
}

#[test]
fn variables_reach_the_template() {
    let model = Model::new("{% for m in messages %}{{ m.content }}{% endfor %}{% if loud %} LOUD{% endif %}");
    let prompt_tokens = |variables: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
        body["chat_template_kwargs"] = variables;
        format!("{:?}", model.read(&body).unwrap().work)
    };
    assert_eq!(prompt_tokens(Value::Null), prompt_tokens(json!({"loud": false})));
    assert_ne!(prompt_tokens(Value::Null), prompt_tokens(json!({"loud": true})));
}

#[test]
fn an_effort_of_another_api_reaches_the_template() {
    let template =
        "{% for m in messages %}{{ m.content }}{% endfor %} {{ reasoning_effort }} {{ enable_thinking }}";
    let (model, deaf) =
        (Model::new(template), Model::new("{% for m in messages %}{{ m.content }}{% endfor %}"));
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let response = |effort: &str| json!({"input": "Hi", "reasoning": {"effort": effort, "summary": "auto"}});
    let ollama = |think: Value| json!({"messages": messages, "think": think});
    for (endpoint, body, says) in [
        (Endpoint::Responses, response("low"), "Hi low"),
        (Endpoint::Responses, response("none"), "Hi none False"),
        (Endpoint::OllamaChat, ollama(json!("high")), "Hi high True"),
        (Endpoint::OllamaChat, ollama(json!(false)), "Hi  False"),
    ] {
        let tokens = model.tokenizer.encode(says.trim_end(), Special::Parse, Bos::Add);
        let found = format!("{:?}", model.read_at(endpoint, &body).unwrap().work);
        let listed = format!("{tokens:?}");
        assert!(found.contains(listed.trim_end_matches(']')), "{body}: {found}");
        // Clients send it to any model.
        assert!(deaf.read_at(endpoint, &body).is_ok(), "{body}");
    }
}

#[test]
fn an_effort_reaches_the_template_that_knows_it() {
    let check = |template: &str, effort: &str, says: Result<&str, &str>| {
        let model =
            Model::new(&format!("{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}{template}"));
        let body = json!({"messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": effort, "max_tokens": 1});
        match (model.read(&body), says) {
            (Ok(prepared), Ok(says)) => {
                let tokens = model.tokenizer.encode(&format!("Hi{says}"), Special::Parse, Bos::Add);
                assert!(
                    format!("{:?}", prepared.work).contains(&format!("{tokens:?}")),
                    "{template}, {effort}"
                );
            }
            (Err(error), Err(says)) => assert!(error.message.starts_with(says), "{error}"),
            (found, _) => panic!("{template}, {effort}: {:?}", found.map(|_| ())),
        }
    };
    check("{{ reasoning_effort }}", "high", Ok("high"));
    check("{{ reasoning_effort }}", "none", Ok("none"));
    check("{% if enable_thinking is false %} no{% endif %}", "none", Ok(" no"));
    check("!", "none", Ok("!"));
    check(
        "!",
        "high",
        Err("reasoning_effort: expected \"none\", as the model's template knows no other, found \"high\""),
    );
    check("{{ reasoning_effort }}", "max", Err("reasoning_effort: expected one of none, minimal,"));
}
