//! What answers tell of their prompts: their text, and log-probabilities of their tokens.

use std::sync::mpsc;

use openai::{Endpoint, ModelNames, Prepared};
use rustorch_llama::{Bos, ControlTokens, Special};
use serde_json::{Value, json};

use crate::harness::{IDENTITY, Sink, demo, join, read, streamed, whole};

const STORY: &str = "Once upon a time there was a small dog.";

fn completion(body: &Value) -> Value {
    whole(Endpoint::Completions, body)
}

#[test]
fn an_echo_scores_tokens_as_their_generation_did() {
    let body = json!({"prompt": STORY, "max_tokens": 8, "temperature": 0, "logprobs": 2, "ignore_eos": true});
    let generated = &completion(&body)["choices"][0];
    let mut echoed = body.clone();
    echoed["echo"] = json!(true);
    let said = completion(&echoed);
    let said = &said["choices"][0];
    assert_eq!(said["text"], format!("{STORY}{}", generated["text"].as_str().unwrap()));
    let prompt = demo().tokenizer.encode(STORY, Special::Parse, Bos::Add);
    let list = |choice: &Value, name: &str| choice["logprobs"][name].as_array().unwrap().clone();
    for name in ["tokens", "token_logprobs", "top_logprobs"] {
        let (all, new) = (list(said, name), list(generated, name));
        assert_eq!(all.len(), prompt.len() + new.len());
        assert_eq!(all[prompt.len()..], new, "{name}");
    }
    // Every token is where its offset says, but the one that begins every prompt.
    let text: Vec<char> = said["text"].as_str().unwrap().chars().collect();
    for (token, offset) in list(said, "tokens").iter().zip(list(said, "text_offset")).skip(1) {
        let token: Vec<char> = token.as_str().unwrap().chars().collect();
        let offset = offset.as_u64().unwrap() as usize;
        let found = &text[offset..];
        // The vocabulary's space before every text is not in it.
        assert!(
            found.starts_with(&token) || (offset == 0 && found.starts_with(&token[1..])),
            "{token:?} at {offset}"
        );
    }
    assert!(list(said, "token_logprobs")[0].is_null() && list(said, "top_logprobs")[0].is_null());

    // The same tokens as a prompt, in tokens, with nothing generated, although the prefix cache holds them all by now.
    let ids = |text: &Value| demo().tokenizer.encode(text.as_str().unwrap(), Special::Text, Bos::Skip);
    let keys = list(said, "tokens");
    let prompt: Vec<u32> = prompt.into_iter().chain(ids(&generated["text"])).collect();
    assert_eq!(prompt.len(), keys.len(), "the demo model writes tokens as the tokenizer does");
    let scored = completion(&json!({"prompt": prompt, "max_tokens": 0, "logprobs": 2, "echo": true}));
    assert_eq!(
        (&scored["choices"][0]["finish_reason"], &scored["usage"]["completion_tokens"]),
        (&json!("length"), &json!(0))
    );
    for name in ["tokens", "token_logprobs", "top_logprobs"] {
        assert_eq!(list(&scored["choices"][0], name), list(said, name), "{name}");
    }
    assert_eq!(scored["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn streamed_echoes_add_up() {
    for (logprobs, n) in [(json!(null), 1), (json!(1), 1), (json!(0), 2)] {
        let body = json!({
            "prompt": [STORY, "One day"], "n": n, "max_tokens": 5, "seed": 2, "logprobs": logprobs, "echo": true
        });
        let whole = completion(&body);
        let mut joined = join(&streamed(Endpoint::Completions, &body), &whole);
        joined["usage"] = whole["usage"].clone();
        assert_eq!(joined, whole, "{body}");
    }
}

#[test]
fn prompt_logprobs_are_listed_by_token() {
    let body = json!({"prompt": STORY, "max_tokens": 1, "prompt_logprobs": 3});
    let listed = completion(&body)["choices"][0]["prompt_logprobs"].clone();
    let echo = json!({"prompt": STORY, "max_tokens": 1, "logprobs": 3, "echo": true});
    let echo = completion(&echo)["choices"][0]["logprobs"]["token_logprobs"].clone();
    let prompt = demo().tokenizer.encode(STORY, Special::Parse, Bos::Add);
    assert_eq!(listed.as_array().unwrap().len(), prompt.len());
    assert!(listed[0].is_null());
    for (index, token_id) in prompt.iter().enumerate().skip(1) {
        let entries = listed[index].as_object().unwrap();
        assert!((3..=4).contains(&entries.len()));
        let entry = &entries[&token_id.to_string()];
        assert_eq!(entry["logprob"], echo[index]);
        let rank = |entry: &Value| entry["rank"].as_u64().unwrap();
        let more_likely =
            entries.values().filter(|other| other["logprob"].as_f64() > entry["logprob"].as_f64());
        assert!(rank(entry) > 3 || rank(entry) == 1 + more_likely.count() as u64, "{entries:?}");
        let text = demo().tokenizer.decode(&[prompt[0], *token_id], ControlTokens::Hide);
        assert!(entry["decoded_token"].as_str().unwrap().trim().ends_with(text.trim()));
    }
    let chat =
        json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "prompt_logprobs": 0});
    let answer = whole(Endpoint::ChatCompletions, &chat);
    let listed = answer["prompt_logprobs"].as_array().unwrap();
    assert_eq!(listed.len() as u64, answer["usage"]["prompt_tokens"].as_u64().unwrap());
    assert_eq!(answer["choices"][0]["prompt_logprobs"], json!(null));
}

#[test]
fn a_prompt_has_one_beginning() {
    let bos = demo().tokenizer.bos().unwrap();
    let begin = demo().tokenizer.decode(&[bos], ControlTokens::Show);
    let answer = |prompt: &str| {
        let body = json!({"prompt": prompt, "max_tokens": 4, "temperature": 0});
        let answer = completion(&body);
        (answer["choices"].clone(), answer["usage"]["prompt_tokens"].clone())
    };
    assert_eq!(answer(&format!("{begin}Once upon")), answer("Once upon"));
}

#[test]
fn nothing_is_generated_if_that_is_wanted() {
    let body = json!({"prompt": STORY, "max_tokens": 0});
    let answer = completion(&body);
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]),
        (&json!(""), &json!("length"))
    );
    let error = read(
        Endpoint::Completions,
        &json!({"prompt": "a", "stream": true, "prompt_logprobs": 1}),
        ModelNames::Any,
    );
    assert_eq!(error.unwrap_err().message, "prompt_logprobs: expected none beside stream, found 1");
}

#[test]
fn a_prompt_is_cut_to_its_end() {
    let tokens = demo().tokenizer.encode(STORY, Special::Parse, Bos::Add);
    let end = tokens[tokens.len() - 3..].to_vec();
    let text = |body: Value| completion(&body)["choices"].clone();
    let parameters = json!({"max_tokens": 5, "temperature": 0, "echo": true});
    let with = |fields: Value| {
        let mut body = parameters.clone();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        text(body)
    };
    assert_eq!(with(json!({"prompt": STORY, "truncate_prompt_tokens": 3})), with(json!({"prompt": end})));
    assert_eq!(
        with(json!({"prompt": STORY, "truncate_prompt_tokens": 3000})),
        with(json!({"prompt": STORY}))
    );
    let embed = |body: Value| whole(Endpoint::Embeddings, &body)["data"].clone();
    assert_eq!(embed(json!({"input": STORY, "truncate_prompt_tokens": 3})), embed(json!({"input": [end]})));
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "truncate_prompt_tokens": 2, "max_tokens": 1});
    assert_eq!(whole(Endpoint::ChatCompletions, &chat)["usage"]["prompt_tokens"], 2);
}

#[test]
fn a_stop_string_may_stay() {
    let body = json!({"prompt": STORY, "max_tokens": 200, "temperature": 0, "stop": ["."]});
    let (without, mut keeping) = (completion(&body), body);
    keeping["include_stop_str_in_output"] = json!(true);
    let with = completion(&keeping);
    let text = without["choices"][0]["text"].as_str().unwrap();
    assert_eq!(with["choices"][0]["text"], format!("{text}."));
    let joined = join(&streamed(Endpoint::Completions, &keeping), &with);
    assert_eq!(joined["choices"], with["choices"]);
    let chat = json!({
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200, "temperature": 0, "stop": ["."],
        "include_stop_str_in_output": true
    });
    let with = whole(Endpoint::ChatCompletions, &chat);
    assert!(with["choices"][0]["message"]["content"].as_str().unwrap().ends_with('.'));
    assert_eq!(join(&streamed(Endpoint::ChatCompletions, &chat), &with)["choices"], with["choices"]);
}

#[test]
fn every_chunk_may_count_the_tokens_so_far() {
    let body = json!({
        "prompt": [STORY, "One day"], "max_tokens": 6, "stream": true, "ignore_eos": true,
        "stream_options": {"continuous_usage_stats": true}
    });
    let Prepared { work, answer, stream, .. } = read(Endpoint::Completions, &body, ModelNames::Any).unwrap();
    let (events, received) = mpsc::channel();
    work.submit(&demo().engine, |choice| Sink(choice, events.clone())).unwrap();
    let mut chunks = answer.into_chunks(&IDENTITY, stream.unwrap());
    let mut counts = [Vec::new(), Vec::new()];
    while !chunks.is_complete() {
        let (choice, event) = received.recv().unwrap();
        let Some(chunk) = chunks.add(choice, event, &demo().tokenizer).unwrap() else { continue };
        let usage = json!(chunk)["usage"].clone();
        counts[choice].push((usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64().unwrap()));
    }
    for (prompt, counts) in [STORY, "One day"].iter().zip(counts) {
        let len = demo().tokenizer.encode(prompt, Special::Parse, Bos::Add).len() as u64;
        assert!(counts.iter().all(|(prompt, _)| *prompt == Some(len)), "{counts:?}");
        assert!(counts.is_sorted() && counts[0].1 >= 1 && counts.last().unwrap().1 == 6, "{counts:?}");
    }
}

#[test]
fn a_chat_may_end_as_it_does_or_go_on() {
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once upon a"}]);
    let prompt = |fields: Value| {
        let mut body = json!({"messages": messages, "max_tokens": 6, "temperature": 0, "prompt_logprobs": 0});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = whole(Endpoint::ChatCompletions, &body);
        let text = |entry: &Value| {
            let entries = entry.as_object().into_iter().flatten();
            entries
                .filter_map(|(_, entry)| entry["decoded_token"].as_str().map(str::to_owned))
                .collect::<String>()
        };
        let prompt: String = answer["prompt_logprobs"].as_array().unwrap().iter().map(text).collect();
        (prompt, answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned())
    };
    let (usual, _) = prompt(json!({}));
    let (as_it_ends, _) = prompt(json!({"add_generation_prompt": false}));
    let (going_on, answer) = prompt(json!({"continue_final_message": true}));
    assert!(usual.starts_with(&as_it_ends) && usual.len() > as_it_ends.len(), "{usual:?} {as_it_ends:?}");
    assert!(going_on.ends_with("Once upon a") && as_it_ends.starts_with(&going_on), "{going_on:?}");
    assert!(answer.starts_with(" time"), "{answer}");
    let message = json!({"messages": messages, "max_tokens": 6, "temperature": 0});
    assert_eq!(whole(Endpoint::Messages, &message)["content"][0]["text"], answer);
    let both = json!({"messages": messages, "continue_final_message": true, "add_generation_prompt": true});
    let error = read(Endpoint::ChatCompletions, &both, ModelNames::Any).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("continue_final_message"));
}

#[test]
fn the_ids_of_tokens_are_told() {
    let prompts = [STORY, "One day"].map(|text| demo().tokenizer.encode(text, Special::Parse, Bos::Add));
    let body =
        json!({"prompt": [STORY, "One day"], "max_tokens": 7, "temperature": 0, "return_token_ids": true});
    let answer = completion(&body);
    let chunks = streamed(Endpoint::Completions, &body);
    for (index, prompt) in prompts.iter().enumerate() {
        let choice = &answer["choices"][index];
        assert_eq!(choice["prompt_token_ids"], json!(prompt));
        let ids: Vec<u32> = serde_json::from_value(choice["token_ids"].clone()).unwrap();
        assert_eq!(ids.len(), 7);
        // The text of the answer, after the prompt's.
        let all = demo().tokenizer.decode(&[&prompt[..], &ids].concat(), ControlTokens::Hide);
        assert!(all.ends_with(choice["text"].as_str().unwrap()));
        let of_choice: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|choice| choice["index"] == index)
            .collect();
        let told = of_choice.iter().filter_map(|choice| choice["token_ids"].as_array()).flatten();
        assert_eq!(told.cloned().collect::<Value>(), choice["token_ids"]);
        let prompts: Vec<_> = of_choice.iter().filter_map(|choice| choice.get("prompt_token_ids")).collect();
        assert_eq!(prompts, [&json!(prompt)]);
    }
    let chat =
        json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "return_token_ids": true});
    let answer = whole(Endpoint::ChatCompletions, &chat);
    let count = |ids: &Value| json!(ids.as_array().unwrap().len());
    assert_eq!(count(&answer["prompt_token_ids"]), answer["usage"]["prompt_tokens"]);
    assert_eq!(count(&answer["choices"][0]["token_ids"]), answer["usage"]["completion_tokens"]);
    let chunks = streamed(Endpoint::ChatCompletions, &chat);
    assert_eq!(chunks[0]["prompt_token_ids"], answer["prompt_token_ids"]);
}
