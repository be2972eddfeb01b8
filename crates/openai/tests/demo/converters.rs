//! llama.cpp's and Ollama's APIs: the texts of completions and chats in other forms.

use openai::{Endpoint, ModelNames};
use rustorch_llama::{Bos, Special};
use serde_json::{Value, json};

use crate::harness::{LINES, demo, no_blanks, read, reread, streamed_text, whole};

/// The parts of a streamed answer: lines of JSON, or the data of events.
fn parts(endpoint: Endpoint, body: &Value) -> Vec<Value> {
    let (text, content_type) = streamed_text(endpoint, body);
    let is_lines = content_type == LINES;
    let parts = text.split_terminator(if is_lines { "\n" } else { "\n\n" });
    let data =
        |part: &str| if is_lines { part.to_owned() } else { part.strip_prefix("data: ").unwrap().to_owned() };
    parts.map(|part| serde_json::from_str(&data(part)).unwrap()).collect()
}

fn joined(parts: &[Value], path: &str) -> String {
    parts.iter().filter_map(|part| part.pointer(path)?.as_str()).collect()
}

fn text_of_chat(body: &Value) -> String {
    let answer = whole(Endpoint::ChatCompletions, body);
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

fn messages() -> Value {
    json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A dog"}])
}

#[test]
fn llama_s_completion_is_the_text_of_a_completion() {
    let body = json!({"prompt": "Once upon a time", "n_predict": 30, "temperature": 0});
    let mut expect = json!({"prompt": "Once upon a time", "max_tokens": 30, "temperature": 0});
    let text = |expect: &Value| whole(Endpoint::Completions, expect)["choices"][0]["text"].clone();
    let found = whole(Endpoint::LlamaCompletion, &body);
    assert_eq!(found["content"], text(&expect));
    assert_eq!((&found["stop"], &found["stop_type"]), (&json!(true), &json!("limit")));
    assert_eq!((&found["tokens_predicted"], &found["timings"]["predicted_n"]), (&json!(30), &json!(30)));
    let chunks = parts(Endpoint::LlamaCompletion, &body);
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(joined(before, "/content"), found["content"].as_str().unwrap());
    assert!(before.iter().all(|chunk| chunk["stop"] == false && chunk.get("timings").is_none()));
    assert_eq!((&last["content"], &last["stop_type"]), (&json!(""), &json!("limit")));
    assert_eq!(last["tokens_evaluated"], found["tokens_evaluated"]);

    // Stop strings, grammars and token ids reach the completion too.
    let stopped =
        json!({"prompt": "Once upon a time", "temperature": 0, "stop": ["."], "timings_per_token": true});
    expect["stop"] = json!(".");
    let found = whole(Endpoint::LlamaCompletion, &stopped);
    assert_eq!(found["content"], text(&expect));
    assert_eq!((&found["stop_type"], &found["stopping_word"]), (&json!("word"), &json!(".")));
    assert!(parts(Endpoint::LlamaCompletion, &stopped)[0]["timings"]["predicted_n"].is_u64());
    let chosen = json!({"prompt": [5, 6], "grammar": "root ::= \"yes\" | \"no\""});
    let found = whole(Endpoint::LlamaCompletion, &chosen);
    assert!(["yes", "no"].contains(&found["content"].as_str().unwrap()), "{found}");
    assert_eq!((&found["tokens_evaluated"], &found["stop_type"]), (&json!(2), &json!("eos")));
}

#[test]
fn ollama_s_chat_is_a_chat() {
    let chat = json!({"messages": messages(), "max_tokens": 12, "seed": 3, "stop": "zebra"});
    let body = json!({"model": "demo:latest", "messages": messages(), "stream": false,
                      "options": {"num_predict": 12, "seed": 3, "stop": ["zebra"]}});
    let found = whole(Endpoint::OllamaChat, &body);
    let expect = text_of_chat(&chat);
    assert_eq!(found["message"], json!({"role": "assistant", "content": expect}));
    assert_eq!((&found["done"], &found["done_reason"]), (&json!(true), &json!("length")));
    assert_eq!((&found["eval_count"], &found["created_at"]), (&json!(12), &json!("1970-01-01T00:00:05Z")));
    assert!(found["prompt_eval_duration"].as_u64().unwrap() > 0);
    let lines = parts(Endpoint::OllamaChat, &body);
    let (last, before) = lines.split_last().unwrap();
    assert_eq!(joined(&lines, "/message/content"), expect);
    assert!(before.iter().all(|line| line["done"] == false));
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &json!(12)));
    // Without the field it is a stream.
    let streams = |stream: Option<bool>| {
        let mut body = body.clone();
        body.as_object_mut().unwrap().remove("stream");
        body.as_object_mut().unwrap().extend(stream.map(|stream| ("stream".to_owned(), json!(stream))));
        read(Endpoint::OllamaChat, &body, ModelNames::Any).unwrap().stream.is_some()
    };
    assert_eq!([None, Some(true), Some(false)].map(streams), [true, true, false]);
}

#[test]
fn ollama_s_texts_are_chats_unless_they_are_raw() {
    let options = json!({"num_predict": 9, "temperature": 0});
    let generate = |mut body: Value| {
        (body["options"], body["stream"]) = (options.clone(), json!(false));
        let text = whole(Endpoint::OllamaGenerate, &body)["response"].clone();
        assert_eq!(joined(&parts(Endpoint::OllamaGenerate, &body), "/response"), text.as_str().unwrap());
        text
    };
    let chat = json!({"messages": messages(), "max_tokens": 9, "temperature": 0});
    assert_eq!(generate(json!({"system": "Be brief.", "prompt": "A dog"})), json!(text_of_chat(&chat)));
    let completion =
        whole(Endpoint::Completions, &json!({"prompt": "A dog", "max_tokens": 9, "temperature": 0}));
    assert_eq!(generate(json!({"prompt": "A dog", "raw": true})), completion["choices"][0]["text"]);
}

#[test]
fn llama_s_prompts_may_be_lists() {
    let ids = |text: &str| json!(demo().tokenizer.encode(text, Special::Parse, Bos::Add));
    let ask = |prompt: Value| json!({"prompt": prompt, "n_predict": 12, "temperature": 0});
    let one = |prompt: Value| whole(Endpoint::LlamaCompletion, &ask(prompt))["content"].clone();
    let (dog, cat) = (one(json!("A dog")), one(json!("A cat")));
    assert_eq!(one(ids("A dog")), dog);
    let mut mixed = ids("A");
    mixed.as_array_mut().unwrap().push(json!(" dog"));
    assert_eq!(one(mixed.clone()), dog);
    for prompts in [json!(["A dog", "A cat"]), json!([ids("A dog"), ids("A cat")]), json!([mixed, "A cat"])] {
        let found = whole(Endpoint::LlamaCompletion, &ask(prompts.clone()));
        assert_eq!((&found[0]["content"], &found[1]["content"]), (&dog, &cat), "{prompts}");
        assert_eq!((&found[0]["index"], &found[1]["index"]), (&json!(0), &json!(1)));
        let chunks = parts(Endpoint::LlamaCompletion, &ask(prompts));
        for (index, expect) in [&dog, &cat].into_iter().enumerate() {
            let of_choice: Vec<_> = chunks.iter().filter(|chunk| chunk["index"] == index).cloned().collect();
            assert_eq!(joined(&of_choice, "/content"), expect.as_str().unwrap());
            assert_eq!(of_choice.iter().filter(|chunk| chunk["stop"] == true).count(), 1);
        }
    }
}

#[test]
fn log_probabilities_are_those_of_a_chat_or_completion() {
    let completion = json!({"prompt": "A dog", "max_tokens": 8, "temperature": 0, "logprobs": 3});
    let expect = whole(Endpoint::Completions, &completion)["choices"][0]["logprobs"].clone();
    let body = json!({"prompt": "A dog", "n_predict": 8, "temperature": 0, "n_probs": 3});
    let found = whole(Endpoint::LlamaCompletion, &body)["completion_probabilities"].clone();
    let field =
        |name: &str| Value::from_iter(found.as_array().unwrap().iter().map(|entry| entry[name].clone()));
    assert_eq!(
        (field("token"), field("logprob")),
        (expect["tokens"].clone(), expect["token_logprobs"].clone())
    );
    // The greedy choice is the first of its alternatives.
    assert_eq!(found[0]["top_logprobs"].as_array().unwrap().len(), 3);
    assert!(found[0]["id"].is_u64() && found[0]["top_logprobs"][0]["id"] == found[0]["id"], "{found}");
    let chunks = parts(Endpoint::LlamaCompletion, &body);
    let listed = |chunks: &[Value], name: &str| {
        Value::from_iter(chunks.iter().filter_map(|chunk| chunk[name].as_array()).flatten().cloned())
    };
    let found = reread(&found);
    assert_eq!(listed(&chunks, "completion_probabilities"), found);
    let none = whole(Endpoint::LlamaCompletion, &json!({"prompt": "A dog", "n_predict": 1, "n_probs": 0}));
    assert_eq!(none.get("completion_probabilities"), None);

    let raw = json!({"prompt": "A dog", "raw": true, "logprobs": true, "top_logprobs": 3,
                     "options": {"num_predict": 8, "temperature": 0}});
    let lines = listed(&parts(Endpoint::OllamaGenerate, &raw), "logprobs");
    let without_ids = |entry: &Value| {
        let mut entry = entry.clone();
        entry.as_object_mut().unwrap().remove("id");
        entry["top_logprobs"].as_array_mut().unwrap().iter_mut().for_each(|top| {
            top.as_object_mut().unwrap().remove("id");
        });
        entry
    };
    assert_eq!(lines, Value::from_iter(found.as_array().unwrap().iter().map(without_ids)));
    let mut chat = json!({"messages": messages(), "logprobs": true, "top_logprobs": 1, "stream": false,
                          "options": {"num_predict": 8, "temperature": 0}});
    let found = whole(Endpoint::OllamaChat, &chat);
    let expect = json!({"messages": messages(), "max_tokens": 8, "temperature": 0, "logprobs": true, "top_logprobs": 1});
    let expect = whole(Endpoint::ChatCompletions, &expect)["choices"][0]["logprobs"]["content"].clone();
    assert_eq!(found["logprobs"], expect);
    chat["logprobs"] = json!(false);
    chat["top_logprobs"] = json!(null);
    assert_eq!(whole(Endpoint::OllamaChat, &chat).get("logprobs"), None);
}

#[test]
fn ollama_s_forms_and_tools_are_enforced() {
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
                        "additionalProperties": false});
    let options = json!({"num_predict": 300, "seed": 1, "logit_bias": no_blanks()});
    let body = json!({"messages": messages(), "format": schema, "options": options, "stream": false});
    let found = whole(Endpoint::OllamaChat, &body)["message"]["content"].clone();
    let found: Value = serde_json::from_str(found.as_str().unwrap()).unwrap();
    assert!(found["city"].is_string(), "{found}");
    let body =
        json!({"prompt": "Where?", "format": "json", "options": options, "stream": false, "raw": true});
    let found = whole(Endpoint::OllamaGenerate, &body)["response"].clone();
    assert!(serde_json::from_str::<Value>(found.as_str().unwrap()).is_ok_and(|found| found.is_object()));

    // Its tools are always a matter of the model's choice, so this one is led to its call.
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    let call = json!({"function": {"name": "weather", "arguments": {"city": "Rome"}}});
    let begun = json!([{"role": "user", "content": "Weather?"}, {"role": "assistant", "tool_calls": [call]},
                       {"role": "tool", "tool_name": "weather", "content": "rain"}]);
    let body = json!({"messages": begun, "tools": tools, "options": options, "stream": false});
    let without = json!({"messages": begun, "options": options, "stream": false});
    let tokens = |body: &Value| whole(Endpoint::OllamaChat, body)["prompt_eval_count"].as_u64().unwrap();
    assert!(tokens(&body) > tokens(&without), "the tools are in the prompt");
}

#[test]
fn ollama_s_embeddings_are_cut_to_the_context() {
    let texts = json!(["One day", "The bird sang"]);
    let expect = whole(Endpoint::Embeddings, &json!({"input": texts, "dimensions": 8}));
    let found = whole(Endpoint::OllamaEmbed, &json!({"input": texts, "dimensions": 8}));
    for index in 0..2 {
        assert_eq!(found["embeddings"][index], expect["data"][index]["embedding"]);
    }
    assert_eq!(found["prompt_eval_count"], expect["usage"]["prompt_tokens"]);
    let long = json!({"input": "day ".repeat(3000)});
    let found = whole(Endpoint::OllamaEmbed, &long);
    assert_eq!(found["prompt_eval_count"], json!(demo().engine.max_seq_tokens()));
    let whole_text = json!({"input": "day ".repeat(3000), "truncate": false});
    let work = read(Endpoint::OllamaEmbed, &whole_text, ModelNames::Any).unwrap().work;
    let (events, _received) = std::sync::mpsc::channel();
    let refused = work.submit(&demo().engine, |choice| crate::harness::Sink(choice, events.clone()));
    assert_eq!(refused.unwrap_err().code, Some("context_length_exceeded"));
}

#[test]
fn refusals_have_the_names_of_their_api() {
    let served = ["demo".to_owned()];
    let check = |endpoint: Endpoint, body: Value, status: u16, param: &str| {
        let error = read(endpoint, &body, ModelNames::OneOf(&served)).map(|_| ()).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (status, Some(param)), "{error}");
        assert!(error.message.starts_with(param), "{error}");
    };
    let chat = |options: Value| json!({"messages": [{"role": "user", "content": "a"}], "options": options});
    check(Endpoint::OllamaChat, chat(json!({"temperature": "warm"})), 400, "options.temperature");
    check(Endpoint::OllamaChat, chat(json!({"num_predict": "all"})), 400, "options.num_predict");
    check(Endpoint::OllamaChat, chat(json!({"tfs_z": 0.5})), 400, "options.tfs_z");
    check(Endpoint::OllamaChat, chat(json!({"stop": vec!["x"; 65]})), 400, "options.stop");
    check(Endpoint::OllamaChat, json!({"messages": [], "model": "demo"}), 400, "messages");
    check(
        Endpoint::OllamaChat,
        json!({"messages": [{"role": "user", "images": ["a"]}]}),
        400,
        "messages[0].images",
    );
    check(Endpoint::OllamaGenerate, json!({"prompt": "a", "format": 1}), 400, "format");
    check(Endpoint::OllamaGenerate, json!({"prompt": "a", "raw": true, "system": "b"}), 400, "system");
    check(Endpoint::OllamaGenerate, json!({"prompt": "a", "suffix": "b"}), 400, "suffix");
    check(Endpoint::OllamaGenerate, json!({"prompt": "a", "context": [1]}), 400, "context");
    check(Endpoint::OllamaGenerate, json!({"prompt": "a", "model": "b:latest"}), 404, "model");
    check(Endpoint::OllamaEmbed, json!({"input": [1]}), 400, "input");
    check(Endpoint::LlamaCompletion, json!({"prompt": ["a", ["b", {}]]}), 400, "prompt");
    check(Endpoint::LlamaCompletion, json!({"prompt": [5, [6]]}), 400, "prompt");
    check(
        Endpoint::OllamaChat,
        json!({"messages": [{"role": "user"}], "top_logprobs": 2}),
        400,
        "top_logprobs",
    );
    check(Endpoint::OllamaChat, json!({"messages": [{"role": "user"}], "think": "a lot"}), 400, "think");
    check(Endpoint::LlamaCompletion, json!({"prompt": "a", "n_predict": "b"}), 400, "n_predict");
    check(Endpoint::LlamaCompletion, json!({"prompt": "a", "n_probs": 99}), 400, "n_probs");
    check(Endpoint::LlamaInfill, json!({"input_prefix": "a"}), 400, "input_prefix");
    check(Endpoint::LlamaInfill, json!({"input_extra": [{}]}), 400, "input_extra[0].text");
    assert!(read(Endpoint::OllamaChat, &chat(json!({"num_ctx": 9})), ModelNames::OneOf(&served)).is_ok());
}
