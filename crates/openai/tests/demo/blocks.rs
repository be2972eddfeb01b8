//! The Responses API and Anthropic's: the text of a chat as blocks, and streams that add up to the whole answer.

use openai::{Answer, Context, Endpoint, ModelNames, Prepared, UnknownFields, count_tokens, parse_object};
use serde_json::{Value, json};

use crate::harness::{IDENTITY, demo, no_blanks, read, reread, streamed_text, whole};

/// The events of a streamed answer.
fn events(endpoint: Endpoint, body: &Value) -> Vec<Value> {
    let (text, _) = streamed_text(endpoint, body);
    let event = |text: &str| {
        let (name, data) = text.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    text.split_terminator("\n\n").map(event).collect()
}

/// The deltas of one type, joined.
fn joined(events: &[Value], kind: &str, path: &str) -> String {
    let deltas = events.iter().filter(|event| event["type"] == kind);
    deltas.filter_map(|event| event.pointer(path)?.as_str()).collect()
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["type"] == kind).count()
}

fn chat_text(body: &Value) -> Value {
    whole(Endpoint::ChatCompletions, body)["choices"][0]["message"]["content"].clone()
}

fn weather() -> Value {
    json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
           "additionalProperties": false})
}

#[test]
fn a_response_is_the_text_of_a_chat() {
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A dog"}]);
    let expect = chat_text(&json!({"messages": messages, "max_tokens": 12, "seed": 3}));
    let body = json!({
        "instructions": "Be brief.", "input": "A dog", "max_output_tokens": 12, "seed": 3, "metadata": {"a": "b"}
    });
    let found = whole(Endpoint::Responses, &body);
    assert_eq!(
        (&found["id"], &found["object"], &found["metadata"]),
        (&json!("resp_1"), &json!("response"), &json!({"a": "b"}))
    );
    assert_eq!(found["output"][0]["content"][0]["text"], expect);
    assert_eq!(
        (&found["status"], &found["output"][0]["status"]),
        (&json!("incomplete"), &json!("incomplete"))
    );
    assert_eq!(found["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(found["usage"]["output_tokens"], 12);

    let events = events(Endpoint::Responses, &body);
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..events.len() as u64));
    assert_eq!(joined(&events, "response.output_text.delta", "/delta"), expect.as_str().unwrap());
    let types: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    let (first, last) = (&types[..4], &types[types.len() - 4..]);
    assert_eq!(
        first,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(
        last,
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete"
        ]
    );
    let mut end = events.last().unwrap()["response"].clone();
    end["usage"] = found["usage"].clone();
    assert_eq!(end, found, "the last event has the whole answer, but for the tokens found in the cache");
}

#[test]
fn a_response_calls_functions() {
    let body = json!({
        "input": "Weather?", "max_output_tokens": 300, "seed": 1, "logit_bias": no_blanks(), "parallel_tool_calls": false,
        "tools": [{"type": "function", "name": "weather", "parameters": weather()}], "tool_choice": "required",
    });
    let found = whole(Endpoint::Responses, &body);
    let call = &found["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &found["status"]),
        (&json!("function_call"), &json!("weather"), &json!("completed"))
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()));
    let events = events(Endpoint::Responses, &body);
    assert_eq!(
        joined(&events, "response.function_call_arguments.delta", "/delta"),
        call["arguments"].as_str().unwrap()
    );
    assert_eq!(count(&events, "response.output_item.done"), found["output"].as_array().unwrap().len());
    // Calls and results go back.
    let input = json!([
        {"role": "user", "content": "Weather?"}, call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"},
    ]);
    let again = whole(Endpoint::Responses, &json!({"input": input, "max_output_tokens": 4}));
    assert_eq!(again["output"][0]["type"], "message");
}

#[test]
fn a_response_has_a_form() {
    let format = json!({"type": "json_schema", "name": "w", "schema": weather(), "strict": true});
    let body = json!({"input": "x", "text": {"format": format}, "max_output_tokens": 200, "logit_bias": no_blanks()});
    let found = whole(Endpoint::Responses, &body);
    let text: Value =
        serde_json::from_str(found["output"][0]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(text["city"].is_string());
    assert_eq!(found["text"]["format"], format);
}

#[test]
fn a_response_has_the_log_probabilities_of_a_chat() {
    let messages = json!([{"role": "user", "content": "A dog"}]);
    let chat =
        json!({"messages": messages, "max_tokens": 12, "seed": 3, "logprobs": true, "top_logprobs": 2});
    let expect = whole(Endpoint::ChatCompletions, &chat)["choices"][0]["logprobs"]["content"].clone();
    assert_eq!(expect.as_array().unwrap().len(), 12);
    let body = json!({
        "input": "A dog", "max_output_tokens": 12, "seed": 3, "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
    });
    let found = whole(Endpoint::Responses, &body);
    assert_eq!(found["output"][0]["content"][0]["logprobs"], expect);
    assert_eq!(found["top_logprobs"], 2);
    let events = events(Endpoint::Responses, &body);
    let of = |kind: &str| {
        let events = events.iter().filter(|event| event["type"] == format!("response.output_text.{kind}"));
        Value::from_iter(events.flat_map(|event| event["logprobs"].as_array().unwrap().clone()))
    };
    let expect = reread(&expect);
    assert_eq!(of("done"), expect);
    // Tokens that complete no text before the end come with that.
    let deltas = of("delta");
    assert!(expect.as_array().unwrap().starts_with(deltas.as_array().unwrap()) && deltas[8].is_object());
    let last = &events.last().unwrap()["response"]["output"][0]["content"][0]["logprobs"];
    assert_eq!(last, &expect);
    // What a stop string cuts away is not listed.
    let text = found["output"][0]["content"][0]["text"].as_str().unwrap();
    let stop = &text[text.len() / 2..][..3];
    let chat = json!({"messages": messages, "max_tokens": 12, "seed": 3, "logprobs": true, "stop": stop});
    let ollama = json!({"messages": messages, "logprobs": true, "stream": false,
        "options": {"num_predict": 12, "seed": 3, "stop": [stop]}});
    let expect = whole(Endpoint::ChatCompletions, &chat)["choices"][0]["logprobs"]["content"].clone();
    assert!(expect.as_array().unwrap().len() < 12);
    assert_eq!(whole(Endpoint::OllamaChat, &ollama)["logprobs"], expect);
    let found = whole(Endpoint::Responses, &json!({"input": "A dog", "max_output_tokens": 1, "seed": 3}));
    assert_eq!(found["output"][0]["content"][0]["logprobs"], json!([]));
}

#[test]
fn errors_name_the_fields_of_their_api() {
    let check = |endpoint, body: Value, param: &str| {
        let error = read(endpoint, &body, ModelNames::Any).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{error}");
        assert!(error.message.starts_with(param), "{error}");
    };
    let schema = json!({"not": {"type": "string"}});
    for (field, value, param) in [
        ("previous_response_id", json!("resp_1"), "previous_response_id"),
        ("conversation", json!("a"), "conversation"),
        ("background", json!(true), "background"),
        ("truncation", json!("auto"), "truncation"),
        ("include", json!("message.output_text.logprobs"), "include"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("reasoning", json!({"effort": "a lot"}), "reasoning.effort"),
        ("tools", json!([{"type": "web_search"}]), "tools[0].type"),
        ("tools", json!([{"type": "function", "name": "a b"}]), "tools[0].name"),
        (
            "tools",
            json!([{"type": "function", "name": "f", "strict": true, "parameters": schema}]),
            "tools[0].parameters",
        ),
        ("text", json!({"format": {"type": "json_schema", "schema": schema}}), "text.format.schema"),
        ("text", json!({"verbosity": "low"}), "text.verbosity"),
        ("max_output_tokens", json!(-2), "max_output_tokens"),
        ("temperature", json!("a"), "temperature"),
    ] {
        let mut body = json!({"input": "a"});
        body[field] = value;
        check(Endpoint::Responses, body, param);
    }
    for (field, value, param) in [
        ("max_tokens", json!(null), "max_tokens"),
        ("container", json!("a"), "container"),
        ("tools", json!([{"type": "bash_20250124", "name": "bash"}]), "tools[0].type"),
        ("tools", json!([{"name": "a b", "input_schema": {}}]), "tools[0].name"),
        ("tools", json!([{"name": "f", "strict": true, "input_schema": schema}]), "tools[0].input_schema"),
        ("tool_choice", json!({"type": "tool"}), "tool_choice"),
        ("stop_sequences", json!("a"), "stop_sequences"),
        ("thinking", json!({"type": "deep"}), "thinking"),
        ("output_config", json!({"format": {"type": "xml"}}), "output_config.format"),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1});
        body[field] = value;
        check(Endpoint::Messages, body, param);
    }
}

#[test]
fn a_message_is_the_text_of_a_chat() {
    let messages = json!([{"role": "user", "content": "Tell me about a dog."}]);
    let chat = json!({"messages": messages, "max_tokens": 200, "temperature": 0, "stop": ["zebra", "."]});
    let expect = chat_text(&chat);
    let body =
        json!({"messages": messages, "max_tokens": 200, "temperature": 0, "stop_sequences": ["zebra", "."]});
    let found = whole(Endpoint::Messages, &body);
    assert_eq!((&found["content"][0]["text"], &found["role"]), (&expect, &json!("assistant")));
    assert_eq!((&found["stop_reason"], &found["stop_sequence"]), (&json!("stop_sequence"), &json!(".")));
    let events = events(Endpoint::Messages, &body);
    let types: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(types[types.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(joined(&events, "content_block_delta", "/delta/text"), expect.as_str().unwrap());
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": "."}));
    let tokens = |usage: &Value| {
        usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap()
    };
    assert_eq!(tokens(&events[0]["message"]["usage"]), tokens(&end["usage"]));
    let context = Context {
        tokenizer: &demo().tokenizer,
        grammars: &demo().grammars,
        model: "demo",
        names: ModelNames::Any,
        hidden_size: demo().hidden_size,
        pooling: Default::default(),
        fingerprint: Some("fp_1"),
        seed: 0,
        unknown_fields: UnknownFields::Report,
    };
    let counted = parse_object(json!({"messages": messages, "mood": 1}).to_string().as_bytes()).unwrap();
    let (count, ignored) = count_tokens(&counted, &context).unwrap();
    assert_eq!((count as u64, ignored.len()), (tokens(&found["usage"]), 1));
    let cut = whole(Endpoint::Messages, &json!({"messages": messages, "max_tokens": 2}));
    assert_eq!((&cut["stop_reason"], &cut["stop_sequence"]), (&json!("max_tokens"), &json!(null)));
}

#[test]
fn a_message_calls_functions() {
    let body = json!({
        "messages": [{"role": "user", "content": "Weather?"}], "max_tokens": 300, "seed": 1, "logit_bias": no_blanks(),
        "tools": [{"name": "weather", "input_schema": weather()}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": true},
    });
    let found = whole(Endpoint::Messages, &body);
    let call = &found["content"][0];
    assert_eq!(
        (&call["type"], &call["name"], &found["stop_reason"]),
        (&json!("tool_use"), &json!("weather"), &json!("tool_use"))
    );
    assert!(call["input"]["city"].is_string());
    let events = events(Endpoint::Messages, &body);
    let input: Value =
        serde_json::from_str(&joined(&events, "content_block_delta", "/delta/partial_json")).unwrap();
    assert_eq!(input, call["input"]);
    let start = events.iter().find(|event| event["type"] == "content_block_start").unwrap();
    assert_eq!((&start["content_block"]["id"], &start["content_block"]["input"]), (&call["id"], &json!({})));
}

#[test]
fn failures_have_the_form_of_their_api() {
    let fail = |endpoint, body: &Value| {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let Prepared { answer, stream, .. } = read(endpoint, &body, ModelNames::Any).unwrap();
        let mut stream = Answer::into_stream(answer, &IDENTITY, stream.unwrap());
        let mut out = Vec::new();
        stream.fail(&openai::ApiError { status: 503, ..openai::ApiError::malformed("gone") }, &mut out);
        String::from_utf8(out).unwrap()
    };
    let found = fail(Endpoint::Responses, &json!({"input": "a"}));
    assert!(
        found.starts_with("event: response.failed\ndata: ") && found.contains(r#""message":"gone""#),
        "{found}"
    );
    let found =
        fail(Endpoint::Messages, &json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}));
    assert_eq!(
        found,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"gone\"},\"request_id\":\"1\"}\n\n"
    );
}
