//! What answers tell beside their text, and prompts with a gap.

use gguf::{Gguf, GgufWriter, Value as Meta};
use openai::{Context, Endpoint, ModelNames, Prepared, UnknownFields, prepare};
use rustorch_llama::{ControlTokens, Infill, Pooling, Tokenizer, demo as model};
use serde_json::{Value, json};

use crate::harness::{IDENTITY, Sink, demo, join, streamed, whole};

/// The demo's vocabulary with tokens to fill in with.
pub fn infill_tokenizer() -> Tokenizer {
    let gguf = model::gguf();
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata().iter() {
        writer.metadata(key, value.clone());
    }
    for (key, id) in [("fim_pre", 300), ("fim_suf", 301), ("fim_mid", 302)] {
        writer.metadata(&format!("tokenizer.ggml.{key}_token_id"), Meta::U32(id));
    }
    Tokenizer::from_gguf(&Gguf::from_vec(writer.write()).unwrap()).unwrap()
}

/// As `whole`, with another vocabulary or pooling than the demo's.
pub fn whole_with(endpoint: Endpoint, body: &Value, tokenizer: &Tokenizer, pooling: Pooling) -> Value {
    let context = Context {
        tokenizer,
        grammars: &demo().grammars,
        model: "demo",
        names: ModelNames::Any,
        hidden_size: demo().hidden_size,
        pooling,
        fingerprint: None,
        seed: 7,
        unknown_fields: UnknownFields::Refuse,
    };
    let Prepared { work, mut answer, .. } = prepare(endpoint, body.as_object().unwrap(), &context).unwrap();
    let (events, received) = std::sync::mpsc::channel();
    work.submit(&demo().engine, |choice| Sink(choice, events.clone())).unwrap();
    while !answer.is_complete() {
        let (choice, event) = received.recv().unwrap();
        answer.add(choice, event).unwrap();
    }
    json!(answer.body(&IDENTITY, tokenizer))
}

#[test]
fn the_best_of_several_are_told() {
    let body = |n: u32, best_of: u32| {
        json!({"prompt": ["Once upon", "One day"], "n": n, "best_of": best_of, "logprobs": 0, "max_tokens": 9,
               "ignore_eos": true, "seed": 4})
    };
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).sum::<f64>() / logprobs.len() as f64
    };
    let all = whole(Endpoint::Completions, &body(4, 4));
    let best = whole(Endpoint::Completions, &body(2, 4));
    for prompt in 0..2 {
        let mut expect = all["choices"].as_array().unwrap()[4 * prompt..][..4].to_vec();
        expect.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        for place in 0..2 {
            let found = &best["choices"][2 * prompt + place];
            assert_eq!(found["text"], expect[place]["text"]);
            assert_eq!(found["index"], json!(2 * prompt + place));
        }
    }
    assert_eq!(best["usage"]["completion_tokens"], all["usage"]["completion_tokens"]);
    let mut plain = body(1, 4);
    plain.as_object_mut().unwrap().remove("logprobs");
    let plain = whole(Endpoint::Completions, &plain);
    assert_eq!(plain["choices"][0]["text"], best["choices"][0]["text"]);
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn control_tokens_show_where_that_is_wanted() {
    let eos = demo().tokenizer.eos().unwrap();
    let spelled = demo().tokenizer.decode(&[eos], ControlTokens::Show);
    let mut body = json!({"prompt": "One day", "logit_bias": {eos.to_string(): 100}, "logprobs": 0, "max_tokens": 2,
                          "ignore_eos": true, "skip_special_tokens": false});
    let shown = whole(Endpoint::Completions, &body);
    assert_eq!(join(&streamed(Endpoint::Completions, &body), &shown), shown);
    assert_eq!(shown["choices"][0]["text"], json!(spelled.repeat(2)));
    assert_eq!(shown["choices"][0]["logprobs"]["text_offset"], json!([0, spelled.len()]));
    body["skip_special_tokens"] = json!(true);
    assert_eq!(whole(Endpoint::Completions, &body)["choices"][0]["text"], json!(""));
    // One that ends the text is no part of it.
    (body["skip_special_tokens"], body["ignore_eos"]) = (json!(false), json!(false));
    assert_eq!(whole(Endpoint::Completions, &body)["choices"][0]["text"], json!(""));
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "logit_bias": {eos.to_string(): 100}, "max_tokens": 2,
                      "ignore_eos": true, "skip_special_tokens": false});
    let chat = whole(Endpoint::ChatCompletions, &chat);
    assert_eq!(chat["choices"][0]["message"]["content"], json!(spelled.repeat(2)));
}

#[test]
fn times_and_fingerprint_are_told() {
    let body = json!({"prompt": ["One day", "The sun"], "max_tokens": 5, "ignore_eos": true, "timings_per_token": true});
    let answer = whole(Endpoint::Completions, &body);
    let timings = &answer["timings"];
    assert_eq!(timings["predicted_n"], answer["usage"]["completion_tokens"]);
    let prompt = timings["prompt_n"].as_u64().unwrap() + timings["cache_n"].as_u64().unwrap();
    assert_eq!(answer["usage"]["prompt_tokens"], json!(prompt));
    for name in ["prompt_ms", "predicted_ms", "prompt_per_second", "predicted_per_second"] {
        assert!(timings[name].as_f64().unwrap() > 0.0, "{name}: {timings}");
    }
    assert_eq!(answer["system_fingerprint"], json!("fp_1"));
    let mut last = 0;
    for chunk in streamed(Endpoint::Completions, &body) {
        let count = chunk["timings"]["predicted_n"].as_u64().unwrap();
        assert!(count >= last, "{chunk}");
        assert_eq!(chunk["system_fingerprint"], json!("fp_1"));
        last = count;
    }
    assert_eq!(last, 10);
    let plain = whole(Endpoint::Completions, &json!({"prompt": "One day", "max_tokens": 1}));
    assert!(plain.get("timings").is_none(), "{plain}");
}

#[test]
fn a_suffix_is_part_of_the_prompt() {
    let tokenizer = infill_tokenizer();
    let ask = |endpoint, body: &Value| whole_with(endpoint, body, &tokenizer, Pooling::Last);
    let completion = json!({"prompt": "One", "suffix": " a dog", "max_tokens": 6, "temperature": 0});
    let found = ask(Endpoint::Completions, &completion);
    let prompt = tokenizer.encode_infill(&Infill { prefix: "One", suffix: " a dog", files: &[] }).unwrap();
    let expect = json!({"prompt": prompt, "max_tokens": 6, "temperature": 0});
    assert_eq!(found["choices"], whole(Endpoint::Completions, &expect)["choices"]);
    assert_eq!(found["usage"]["prompt_tokens"], json!(prompt.len()));
    let text = &found["choices"][0]["text"];
    let infill = json!({"input_prefix": "O", "prompt": "ne", "input_suffix": " a dog", "n_predict": 6, "temperature": 0});
    assert_eq!(&ask(Endpoint::LlamaInfill, &infill)["content"], text);
    let generate = json!({"prompt": "One", "suffix": " a dog", "stream": false, "options": {"num_predict": 6, "temperature": 0}});
    assert_eq!(&ask(Endpoint::OllamaGenerate, &generate)["response"], text);
    // Without its file the prompt is shorter.
    let tokens = |body: &Value| ask(Endpoint::LlamaInfill, body)["tokens_evaluated"].as_u64().unwrap();
    let mut with_file = infill.clone();
    with_file["input_extra"] = json!([{"filename": "a.rs", "text": "fn a() {}"}]);
    assert!(tokens(&with_file) > tokens(&infill));
}

#[test]
fn embeddings_are_pooled_as_the_file_says() {
    let tokenizer = &demo().tokenizer;
    let ask = |body: Value, pooling| {
        whole_with(Endpoint::Embeddings, &body, tokenizer, pooling)["data"][0]["embedding"].clone()
    };
    let mean = ask(json!({"input": "One day", "pooling": "mean"}), Pooling::Last);
    assert_eq!(ask(json!({"input": "One day"}), Pooling::Mean), mean);
    assert_ne!(ask(json!({"input": "One day"}), Pooling::Last), mean);
    assert_ne!(ask(json!({"input": "One day", "pooling": "last"}), Pooling::Mean), mean);
    let score = |pooling| {
        let body = json!({"text_1": "One day", "text_2": "A dog"});
        whole_with(Endpoint::Score, &body, tokenizer, pooling)["data"][0]["score"].clone()
    };
    assert_ne!(score(Pooling::Mean), score(Pooling::Last));
}
