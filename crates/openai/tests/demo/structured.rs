//! Fields that demand a form of the answer: what it is, and that the request alone decides.

use std::sync::mpsc;

use openai::{Endpoint, ModelNames, StreamOptions};
use rustorch_llama::{EngineError, Event};
use serde_json::{Value, json};

use crate::harness::{IDENTITY, Sink, demo, join, no_blanks, read, streamed, whole};

/// A body for an endpoint with enough tokens for what these tests demand.
fn body(endpoint: Endpoint, field: &str, value: Value) -> Value {
    let mut body = json!({"max_tokens": 120, "seed": 3, "temperature": 0.8, "logit_bias": no_blanks()});
    match endpoint {
        Endpoint::ChatCompletions => body["messages"] = json!([{"role": "user", "content": "A story"}]),
        _ => body["prompt"] = json!("Once upon a time"),
    }
    body[field] = value;
    body
}

fn text(choice: &Value) -> &str {
    choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap()
}

/// An object of a name of one word and an age.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,8}$"},
            "age": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": false,
    })
}

fn is_person(text: &str) -> bool {
    let Ok(Value::Object(person)) = serde_json::from_str(text) else { return false };
    let name = person["name"].as_str().unwrap_or_default();
    let is_word = name.starts_with(|c: char| c.is_ascii_uppercase()) && (2..=9).contains(&name.len());
    is_word && person.len() == 2 && person["age"].as_u64().is_some_and(|age| (1..100).contains(&age))
}

type HasForm<'a> = &'a dyn Fn(&str) -> bool;

#[test]
fn every_field_gives_the_answer_its_form() {
    let gbnf = "root ::= \"the \" (\"cat\" | \"dog\") \"s\"?";
    let animals = |text: &str| ["the cat", "the cats", "the dog", "the dogs"].contains(&text);
    let colour = |text: &str| ["red", "green"].contains(&text);
    let code = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let object = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
    let format = json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema()}});
    let mut strict = format.clone();
    strict["json_schema"]["strict"] = json!(true);
    // So that an object ends within the tokens.
    let small = json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "boolean"}});
    let fields: [(&str, Value, HasForm<'_>); 17] = [
        ("response_format", format, &is_person),
        ("response_format", strict, &is_person),
        ("response_format", json!({"type": "json_schema", "schema": schema()}), &is_person),
        ("response_format", json!({"type": "json_object", "schema": schema()}), &is_person),
        ("structured_outputs", json!({"json": schema()}), &is_person),
        ("structured_outputs", json!({"json": schema().to_string()}), &is_person),
        ("structured_outputs", json!({"regex": "[0-9]{4}"}), &code),
        ("structured_outputs", json!({"choice": ["red", "green"]}), &colour),
        ("structured_outputs", json!({"grammar": gbnf}), &animals),
        ("guided_json", schema(), &is_person),
        ("guided_json", small, &object),
        ("guided_regex", json!("^[0-9]{4}$"), &code),
        ("guided_choice", json!(["red", "green"]), &colour),
        ("guided_grammar", json!("start: \"the \" (\"cat\" | \"dog\") \"s\"?"), &animals),
        ("json_schema", schema(), &is_person),
        ("grammar", json!(gbnf), &animals),
        ("grammar", json!("root ::= [0-9]{4}"), &code),
    ];
    for endpoint in [Endpoint::Completions, Endpoint::ChatCompletions] {
        for (field, value, has_form) in &fields {
            let body = body(endpoint, field, value.clone());
            let whole = whole(endpoint, &body);
            let choice = &whole["choices"][0];
            assert!(has_form(text(choice)), "{field} {value}: {choice}");
            assert_eq!(choice["finish_reason"], "stop", "{field} {value}: {choice}");
            assert_eq!(join(&streamed(endpoint, &body), &whole), whole, "{field} {value}");
        }
    }
}

#[test]
fn any_object_begins_as_one_and_may_be_cut_off() {
    for (field, value) in [
        ("response_format", json!({"type": "json_object"})),
        ("structured_outputs", json!({"json_object": true})),
    ] {
        let mut body = body(Endpoint::ChatCompletions, field, value);
        (body["max_tokens"], body["n"]) = (json!(4), json!(3));
        for choice in whole(Endpoint::ChatCompletions, &body)["choices"].as_array().unwrap() {
            assert!(text(choice).starts_with('{'), "{choice}");
            let complete = serde_json::from_str::<Value>(text(choice)).is_ok();
            assert_eq!(choice["finish_reason"], if complete { "stop" } else { "length" }, "{choice}");
        }
    }
}

#[test]
fn fields_that_demand_nothing_change_nothing() {
    let mut plain = body(Endpoint::Completions, "user", json!("a"));
    plain["max_tokens"] = json!(10);
    let expect = whole(Endpoint::Completions, &plain)["choices"].clone();
    for (field, value) in [
        ("response_format", json!({"type": "text"})),
        ("response_format", Value::Null),
        ("grammar", json!("")),
        ("structured_outputs", json!({})),
        ("structured_outputs", json!({"json_object": false, "_backend": "xgrammar"})),
    ] {
        let mut body = plain.clone();
        body[field] = value.clone();
        assert_eq!(whole(Endpoint::Completions, &body)["choices"], expect, "{field} {value}");
    }
}

#[test]
fn a_wrong_form_is_refused_by_the_field_s_name() {
    let check = |field: &str, value: Value, param: &str, says: &str| {
        for endpoint in [Endpoint::Completions, Endpoint::ChatCompletions] {
            let body = body(endpoint, field, value.clone());
            let error = read(endpoint, &body, ModelNames::Any).map(|_| ()).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{value}: {error}");
            assert!(error.message.starts_with(&format!("{param}: ")), "{error}");
            assert!(error.message.contains(says), "{value}: {error}");
        }
    };
    check(
        "response_format",
        json!({"type": "xml"}),
        "response_format",
        "expected the type text, json_object",
    );
    check("response_format", json!("json"), "response_format", "found \"json\"");
    let inner = "response_format.json_schema.schema";
    check("response_format", json!({"type": "json_schema"}), inner, "expected a JSON schema, found none");
    let schema =
        |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    check("response_format", schema(json!({"not": {}})), inner, "not");
    check("response_format", schema(json!({"type": "colour"})), inner, "colour");
    let deep = (0..100).fold(json!({}), |inner, _| json!({"type": "array", "items": inner}));
    check("guided_json", deep, "guided_json", "64");
    check("guided_json", json!("{"), "guided_json", "expected a JSON schema, found \"{\"");
    check("guided_regex", json!("(a"), "guided_regex", "regex: ");
    check("guided_regex", json!(5), "guided_regex", "expected a string, found 5");
    check("guided_choice", json!([]), "guided_choice", "expected strings that are not empty, found none");
    check("guided_choice", json!("a"), "guided_choice", "expected a list of strings");
    check("grammar", json!("root ::= x"), "grammar", "x");
    check("grammar", json!("root ::= \"a\"\nroot"), "grammar", "line 2");
    check("guided_grammar", json!("%llguidance {}\nstart: \"a\""), "guided_grammar", "%llguidance");
    check("structured_outputs", json!([]), "structured_outputs", "expected an object");
    check("structured_outputs", json!({"regex": "(a"}), "structured_outputs.regex", "regex: ");
    check(
        "structured_outputs",
        json!({"regex": "a", "choice": ["a"]}),
        "structured_outputs.choice",
        "beside",
    );
    check("structured_outputs", json!({"structural_tag": "a"}), "structured_outputs.structural_tag", "none");
}

#[test]
fn two_forms_are_refused() {
    let mut body = body(Endpoint::Completions, "guided_regex", json!("a"));
    body["response_format"] = json!({"type": "json_object"});
    let error = read(Endpoint::Completions, &body, ModelNames::Any).map(|_| ()).unwrap_err();
    assert_eq!((error.status, error.param.as_deref()), (400, Some("guided_regex")));
    assert_eq!(error.message, "guided_regex: expected none beside response_format, found both");
    body["response_format"] = json!({"type": "text"});
    assert!(read(Endpoint::Completions, &body, ModelNames::Any).is_ok());
}

/// A form that the vocabulary cannot write, or that becomes too complex, shows when the answer has begun.
#[test]
fn a_form_without_a_way_on_is_a_400() {
    for body in [
        body(Endpoint::Completions, "guided_regex", json!("a")),
        body(Endpoint::Completions, "structured_outputs", json!({"regex": "a"})),
    ] {
        let stuck = || Event::Error(EngineError::Constraint("it is too complex".to_owned()));
        let read = || read(Endpoint::Completions, &body, ModelNames::Any).unwrap();
        let whole = read().answer.add(0, stuck()).unwrap_err();
        let mut chunks = read().answer.into_chunks(&IDENTITY, StreamOptions::default());
        let streamed = chunks.add(0, stuck(), &demo().tokenizer).map(|_| ()).unwrap_err();
        assert_eq!(whole, streamed);
        let param = whole.param.as_deref().unwrap();
        assert_eq!(
            (whole.status, body.pointer(&format!("/{}", param.replace('.', "/")))),
            (400, Some(&json!("a")))
        );
    }
}

#[test]
fn an_answer_does_not_depend_on_its_neighbours() {
    let endpoint = Endpoint::Completions;
    let bodies: Vec<Value> = (0..12)
        .map(|index| {
            let mut body = match index % 4 {
                0 => body(endpoint, "guided_json", schema()),
                1 => body(endpoint, "guided_regex", json!("[a-z ]{5,30}!")),
                2 => body(endpoint, "guided_choice", json!(["red and blue", "green", "red"])),
                _ => body(endpoint, "user", json!("nobody")),
            };
            (body["seed"], body["max_tokens"]) = (json!(index), json!(100));
            body
        })
        .collect();
    let alone: Vec<Value> = bodies.iter().map(|body| whole(endpoint, body)["choices"].clone()).collect();
    let (events, received) = mpsc::channel();
    let mut answers = Vec::new();
    for (index, body) in bodies.iter().enumerate() {
        let prepared = read(endpoint, body, ModelNames::Any).unwrap();
        prepared.work.submit(&demo().engine, |_| Sink(index, events.clone())).unwrap();
        answers.push(prepared.answer);
    }
    while !answers.iter().all(openai::Answer::is_complete) {
        let (index, event) = received.recv().unwrap();
        answers[index].add(0, event).unwrap();
    }
    for (index, answer) in answers.into_iter().enumerate() {
        let together = json!(answer.body(&IDENTITY, &demo().tokenizer));
        assert_eq!(together["choices"], alone[index], "{}", bodies[index]);
    }
}
