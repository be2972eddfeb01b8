//! Bodies against the demo model: a stream adds up to the whole answer, and refusals name their field.

mod blocks;
mod comparisons;
mod converters;
mod extras;
mod harness;
mod prompts;
mod structured;
mod tools;

use std::sync::mpsc;

use openai::{Endpoint, ModelNames, Prepared, parse_object};
use rustorch_llama::{Bos, Special};
use serde_json::{Value, json};

use harness::{Sink, demo, join, read, streamed, whole};

#[test]
fn chunks_joined_are_the_whole_answer() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let check = |endpoint: Endpoint, body: Value, object: &str| {
        let whole = whole(endpoint, &body);
        let chunks = streamed(endpoint, &body);
        assert_eq!(join(&chunks, &whole), whole, "{body}");
        for (index, chunk) in chunks.iter().enumerate() {
            let last = index + 1 == chunks.len();
            assert_eq!((&chunk["object"], &chunk["id"]), (&json!(object), &whole["id"]));
            assert_eq!(chunk["usage"].is_null(), !last, "{chunk}");
            assert_eq!(chunk["choices"].as_array().unwrap().len(), usize::from(!last), "{chunk}");
        }
    };
    let (text, chat) = (Endpoint::Completions, Endpoint::ChatCompletions);
    check(text, json!({"prompt": "Once upon a time"}), "text_completion");
    check(text, json!({"prompt": ["One day", "The"], "n": 2, "logprobs": 2, "seed": 1}), "text_completion");
    check(text, json!({"prompt": "Once", "stop": [" a ", "."], "temperature": 0}), "text_completion");
    let chunk = "chat.completion.chunk";
    check(chat, json!({"messages": messages, "max_tokens": 20, "n": 3}), chunk);
    check(chat, json!({"messages": messages, "logprobs": true, "top_logprobs": 3, "max_tokens": 9}), chunk);
    // Token 3 ends a text, here before it began.
    check(text, json!({"prompt": "One day", "logit_bias": {"3": 100}, "logprobs": 1}), "text_completion");
}

#[test]
fn an_answer_of_no_given_length_ends_with_the_context() {
    let max_seq_tokens = demo().engine.max_seq_tokens();
    let ask = |prompt: usize| {
        let body = json!({"prompt": vec![5; prompt], "ignore_eos": true, "temperature": 0});
        let answer = whole(Endpoint::Completions, &body);
        (answer["usage"]["completion_tokens"].clone(), answer["choices"][0]["finish_reason"].clone())
    };
    assert_eq!(ask(max_seq_tokens - 16), (json!(16), json!("length")));
    assert_eq!(ask(max_seq_tokens - 3), (json!(3), json!("length")), "16 are the default");
}

/// The log-probabilities of a completion, which are the same streamed.
fn completion_logprobs(body: Value) -> (String, Value) {
    let whole = whole(Endpoint::Completions, &body);
    assert_eq!(join(&streamed(Endpoint::Completions, &body), &whole), whole, "{body}");
    let choice = &whole["choices"][0];
    (choice["text"].as_str().unwrap().to_owned(), choice["logprobs"].clone())
}

#[test]
fn tokens_are_listed_that_have_a_part_in_the_text() {
    let count = |logprobs: &Value| logprobs["tokens"].as_array().unwrap().len();
    // Token 3 ends a text, unless it is told not to.
    let ends = json!({"prompt": "One day", "logit_bias": {"3": 100}, "logprobs": 1, "max_tokens": 8});
    assert_eq!(count(&completion_logprobs(ends.clone()).1), 0);
    let mut goes_on = ends;
    goes_on["ignore_eos"] = json!(true);
    assert_eq!(count(&completion_logprobs(goes_on).1), 8);

    let body = json!({"prompt": "Once upon a time", "temperature": 0, "logprobs": 1, "max_tokens": 40});
    let (text, _) = completion_logprobs(body.clone());
    // A stop string for each place that it may begin at.
    for (start, _) in text.char_indices().take(30) {
        let stop: String = text[start..].chars().take(9).collect();
        let mut body = body.clone();
        body["stop"] = json!([stop]);
        let (cut, logprobs) = completion_logprobs(body);
        let length = cut.chars().count() as u64;
        let offsets: Vec<u64> =
            logprobs["text_offset"].as_array().unwrap().iter().map(|o| o.as_u64().unwrap()).collect();
        assert!(offsets.iter().all(|&offset| offset < length), "{stop:?}: {offsets:?} of {length}");
        let tokens: String =
            logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        assert!(tokens.starts_with(&cut), "{stop:?}: {tokens:?} is not {cut:?}");
    }
}

#[test]
fn samplers_have_their_effect() {
    let text = |fields: &[(&str, Value)]| {
        let mut body = json!({"prompt": "Once upon a time, there was a little fox", "max_tokens": 40});
        fields.iter().for_each(|(name, value)| body[*name] = value.clone());
        whole(Endpoint::Completions, &body)["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let (drawn, greedy) = (text(&[]), text(&[("temperature", json!(0))]));
    assert_eq!(text(&[("top_n_sigma", json!(0.001))]), greedy);
    assert_eq!(text(&[("top_n_sigma", json!(-1))]), drawn);
    let typical = |seed| text(&[("typical_p", json!(0)), ("seed", json!(seed))]);
    assert_eq!(typical(1), typical(2));
    let xtc = |threshold| text(&[("xtc_probability", json!(1)), ("xtc_threshold", json!(threshold))]);
    assert_eq!(xtc(0.6), xtc(0.9));
    assert_ne!(xtc(0.05), xtc(0.9));
    let mirostat = |version: u32, tau: u32, eta: u32| {
        text(&[("mirostat", json!(version)), ("mirostat_tau", json!(tau)), ("mirostat_eta", json!(eta))])
    };
    assert_eq!(mirostat(0, 0, 0), drawn);
    assert_eq!(mirostat(2, 0, 0), greedy);
    assert_ne!(mirostat(2, 1, 0), mirostat(2, 1, 1));

    // Says the same again and again.
    let loops = [("temperature", json!(0)), ("frequency_penalty", json!(-20))];
    let repeating = text(&loops);
    let dry = |fields: &[(&'static str, Value)]| {
        text(&[&loops[..], &[("dry_multiplier", json!(100))], fields].concat())
    };
    let penalised = dry(&[]);
    assert_ne!(penalised, repeating);
    assert_ne!(dry(&[("dry_base", json!(1))]), penalised);
    assert_eq!(dry(&[("dry_allowed_length", json!(100))]), repeating);
    assert_eq!(dry(&[("dry_penalty_last_n", json!(0))]), repeating);
    assert_eq!(dry(&[("dry_penalty_last_n", json!(-1))]), penalised);
    let word = repeating.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(dry(&[("dry_sequence_breakers", json!([word]))]), repeating);

    let refused = |name: &str, value: Value, expect: &str| {
        let mut body = json!({"prompt": "a"});
        body[name] = value;
        let error = read(Endpoint::Completions, &body, ModelNames::Any).map(|_| ()).unwrap_err();
        assert_eq!(error.message, format!("{name}: {expect}"));
    };
    refused("mirostat", json!(1), "expected 0 or 2 (1 is not supported), found 1");
    refused("dry_penalty_last_n", json!(-2), "expected a whole number, 0 or more, or -1, found -2");
}

#[test]
fn tokens_that_are_no_whole_character_have_keys_of_their_own() {
    let tokenizer = &demo().tokenizer;
    let is_partial = |&id: &u32| str::from_utf8(tokenizer.token_bytes(id)).is_err();
    let id = (0..tokenizer.vocab_size() as u32).find(is_partial).unwrap();
    let body =
        json!({"prompt": "One day", "logit_bias": {id.to_string(): 100}, "logprobs": 0, "max_tokens": 2});
    let key = format!("bytes:\\x{:02x}", tokenizer.token_bytes(id)[0]);
    let (_, logprobs) = completion_logprobs(body);
    assert_eq!(logprobs["tokens"], json!([key, key]));
    assert!(logprobs["top_logprobs"][0].get(&key).is_some(), "{logprobs}");
}

#[test]
fn refusals_name_the_field() {
    let served = ["demo".to_owned()];
    let check = |endpoint: Endpoint, body: Value, status: u16, param: Option<&str>, says: &str| {
        let error = read(endpoint, &body, ModelNames::OneOf(&served)).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (status, param), "{body}: {error}");
        assert!(error.message.contains(says), "{body}: {error}");
    };
    let (text, chat) = (Endpoint::Completions, Endpoint::ChatCompletions);
    check(text, json!({}), 400, Some("prompt"), "prompt: expected a string");
    check(text, json!({"prompt": "a", "n": 0}), 400, Some("n"), "n: expected 1 to 128");
    check(text, json!({"prompt": "a", "best_of": 129}), 400, Some("best_of"), "best_of: expected 1 to 128");
    let fewer = json!({"prompt": "a", "n": 2, "best_of": 1});
    check(text, fewer, 400, Some("best_of"), "best_of: expected at least n, which is 2, found 1");
    let streamed = json!({"prompt": "a", "best_of": 2, "stream": true});
    check(text, streamed, 400, Some("best_of"), "best_of: expected n, which is 1, beside stream, found 2");
    check(
        text,
        json!({"prompt": "a", "suffix": "b"}),
        400,
        Some("suffix"),
        "suffix: expected none, as the model's",
    );
    let echo = json!({"prompt": "a", "suffix": "b", "echo": true});
    check(text, echo, 400, Some("echo"), "echo: expected false beside suffix");
    check(text, json!({"prompt": "a", "model": "b"}), 404, Some("model"), "expected demo, found \"b\"");
    check(text, json!({"prompt": "a", "model": 5}), 400, Some("model"), "model: expected a string, found 5");
    check(text, json!({"prompt": "a", "stream": 1}), 400, Some("stream"), "expected true or false, found 1");
    let alone = json!({"prompt": "a", "stream_options": {}});
    check(text, alone, 400, Some("stream_options"), "expected \"stream\": true beside it");
    let usage = json!({"prompt": "a", "stream": true, "stream_options": {"include_usage": 1}});
    check(
        text,
        usage,
        400,
        Some("stream_options.include_usage"),
        "stream_options.include_usage: expected true",
    );
    let role = json!({"messages": [{"role": "user", "content": "a"}, {"role": 1}]});
    check(chat, role, 400, Some("messages[1].role"), "messages[1].role: expected a string, found 1");
    check(chat, json!({"messages": [{"role": "us er"}]}), 422, Some("messages"), "has the role \"us er\"");
    let embed = Endpoint::Embeddings;
    check(embed, json!({}), 400, Some("input"), "input: expected a string, a list of token ids");
    check(embed, json!({"input": []}), 400, Some("input"), "input: expected 1 to 2048 texts, found 0");
    check(embed, json!({"input": vec!["a"; 2049]}), 400, Some("input"), "found 2049");
    for found in [0, 100_000] {
        let dimensions = json!({"input": "a", "dimensions": found});
        let says = format!("all that the model has, found {found}");
        check(embed, dimensions, 400, Some("dimensions"), &says);
    }
    let format = json!({"input": "a", "encoding_format": "hex"});
    check(embed, format, 400, Some("encoding_format"), "expected \"float\" or \"base64\", found \"hex\"");
    let pooling = json!({"input": "a", "pooling": 1});
    check(embed, pooling, 400, Some("pooling"), "expected \"last\" or \"mean\", found 1");
    assert!(read(text, &json!({"prompt": "a", "model": "demo"}), ModelNames::OneOf(&served)).is_ok());
    assert!(read(text, &json!({"prompt": "a", "model": "gpt"}), ModelNames::Any).is_ok());
}

#[test]
fn embeddings_are_vectors_of_length_one() {
    let ask = |body: Value| whole(Endpoint::Embeddings, &body);
    let list = ask(json!({"input": ["One day", "The bird sang"], "dimensions": demo().hidden_size}));
    assert_eq!((&list["object"], &list["model"]), (&json!("list"), &json!("demo")));
    let values = |body: &Value, index: usize| -> Vec<f32> {
        assert_eq!(body["data"][index]["index"], index);
        let values = body["data"][index]["embedding"].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap() as f32).collect()
    };
    for index in [0, 1] {
        let length: f32 = values(&list, index).iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5 && values(&list, index).len() == demo().hidden_size, "{length}");
    }
    assert_ne!(values(&list, 0), values(&list, 1));
    let short = values(&ask(json!({"input": ["One day", "The bird sang"], "dimensions": 3})), 0);
    let length = values(&list, 0)[..3].iter().map(|value| value * value).sum::<f32>().sqrt();
    assert_eq!(short.len(), 3);
    for (short, whole) in short.iter().zip(values(&list, 0)) {
        assert!((short - whole / length).abs() < 1e-6, "{short} {whole} {length}");
    }
    let tokens = |text: &str| demo().tokenizer.encode(text, Special::Parse, Bos::Add);
    let (first, second) = (tokens("One day"), tokens("The bird sang"));
    let prompt_tokens = first.len() + second.len();
    assert_eq!(list["usage"], json!({"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}));

    assert_eq!(values(&ask(json!({"input": "One day"})), 0), values(&list, 0));
    assert_eq!(values(&ask(json!({"input": first})), 0), values(&list, 0));
    assert_eq!(ask(json!({"input": [first, second], "pooling": "last"})), list);
    assert_ne!(ask(json!({"input": ["One day", "The bird sang"], "pooling": "mean"})), list);
    // 4 bytes of a number take 16/3 digits; the first number's are in the first six.
    let base64 = ask(json!({"input": "One day", "encoding_format": "base64"}));
    let text = base64["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(text.len(), (4 * demo().hidden_size).div_ceil(3) * 4);
    let digit = |c: char| match c {
        'A'..='Z' => c as u32 - 65,
        'a'..='z' => c as u32 - 71,
        '0'..='9' => c as u32 + 4,
        '+' => 62,
        _ => 63,
    };
    let bits = text.chars().take(6).fold(0u64, |bits, c| bits << 6 | u64::from(digit(c)));
    let value = f32::from_le_bytes(((bits >> 4) as u32).to_be_bytes());
    assert_eq!(value, values(&list, 0)[0]);
}

#[test]
fn what_is_no_object_is_told_apart() {
    let check = |body: &[u8], says: &str| {
        let error = parse_object(body).unwrap_err();
        assert_eq!((error.status, error.param, error.message.as_str()), (400, None, says));
    };
    check(b"[1]", "expected a JSON object, found [1]");
    check(b"{\"a\": }", "not JSON: expected value at column 7");
    check(b"{\n\"a\": }", "not JSON: expected value at line 2 column 6");
    check(b"{\"\xff\"}", "expected UTF-8, found byte 0xff at offset 2");
}

#[test]
fn the_engine_s_refusal_is_the_api_s() {
    let refusal = |body: Value| {
        let Prepared { work, .. } = read(Endpoint::Completions, &body, ModelNames::Any).unwrap();
        let (events, received) = mpsc::channel();
        let error = work.submit(&demo().engine, |choice| Sink(choice, events.clone())).unwrap_err();
        drop(events);
        assert!(received.recv().is_err(), "nothing is sent");
        error
    };
    let error = refusal(json!({"prompt": "a", "top_p": 2}));
    assert_eq!((error.status, error.param.as_deref()), (400, Some("top_p")));
    let error = refusal(json!({"prompt": [[1], [2], [5000]]}));
    assert_eq!((error.status, error.param.as_deref()), (400, Some("prompt")));
    let error = refusal(json!({"prompt": "a", "max_tokens": 1000}));
    assert_eq!((error.status, error.code), (400, Some("context_length_exceeded")));
}

#[test]
fn no_field_is_silently_ignored() {
    let read = |endpoint: Endpoint, body: Value| read(endpoint, &body, ModelNames::Any);
    let (text, chat, embed) = (Endpoint::Completions, Endpoint::ChatCompletions, Endpoint::Embeddings);
    let refused = |endpoint: Endpoint, mut body: Value, name: &str, value: Value| {
        body[name] = value;
        let error = read(endpoint, body).map(|_| ()).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some(name)), "{error}");
        assert!(error.message.starts_with(&format!("{name}: expected ")), "{error}");
    };
    let prompt = json!({"prompt": "a"});
    let messages = json!({"messages": [{"role": "user", "content": "a"}]});
    for (name, value) in [
        ("mirostat", json!(1)),
        ("use_beam_search", json!(true)),
        ("t_max_predict_ms", json!(5)),
        ("n_keep", json!(4)),
    ] {
        refused(text, prompt.clone(), name, value);
    }
    for (name, value) in [
        ("tool_choice", json!("required")),
        ("documents", json!([{"text": "a"}])),
        ("chat_template", json!("{{ messages }}")),
        ("modalities", json!(["text", "audio"])),
        ("reasoning_effort", json!("high")),
    ] {
        refused(chat, messages.clone(), name, value);
    }
    refused(embed, json!({"input": "a"}), "normalize", json!(false));
    refused(embed, json!({"input": "a"}), "truncate", json!(true));

    let ignored =
        |endpoint, body: Value| read(endpoint, body).unwrap().ignored.into_iter().collect::<Vec<_>>();
    let none: [&str; 0] = [];
    assert_eq!(ignored(text, json!({"prompt": "a", "mirostat": 0, "user": "b", "store": true})), none);
    let mut body = messages.clone();
    (body["tool_choice"], body["parallel_tool_calls"]) = (json!("none"), json!(true));
    body["response_format"] = json!({"type": "text"});
    assert_eq!(ignored(chat, body), none);
    assert_eq!(
        ignored(text, json!({"prompt": "a", "nonsense": 0, "temprature": 0})),
        ["nonsense", "temprature"]
    );
}

#[test]
fn aliases_have_the_effect_of_the_field() {
    let ask = |body: Value| whole(Endpoint::Completions, &body)["choices"].clone();
    let prompt = "Once upon a time";
    assert_eq!(
        ask(json!({"prompt": prompt, "n_predict": 3, "seed": 1})),
        ask(json!({"prompt": prompt, "max_tokens": 3, "seed": 1}))
    );
    let penalised = ask(json!({"prompt": prompt, "repeat_penalty": 2, "temperature": 0}));
    assert_eq!(penalised, ask(json!({"prompt": prompt, "repetition_penalty": 2, "temperature": 0})));
    assert_ne!(penalised, ask(json!({"prompt": prompt, "temperature": 0})));
    let both = json!({"prompt": prompt, "repetition_penalty": 1, "repeat_penalty": 1.5});
    let error = read(Endpoint::Completions, &both, ModelNames::Any).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("repeat_penalty"));
    assert_eq!(
        error.message,
        "repeat_penalty: expected the same as repetition_penalty, which is 1, found 1.5"
    );
}

#[test]
fn the_newer_name_of_the_system_role_is_known() {
    let text = |role: &str| {
        let messages = json!([{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
        let body = json!({"messages": messages, "max_tokens": 4, "temperature": 0});
        let answer = whole(Endpoint::ChatCompletions, &body);
        (answer["choices"].clone(), answer["usage"]["prompt_tokens"].clone())
    };
    assert_eq!(text("developer"), text("system"));
}
