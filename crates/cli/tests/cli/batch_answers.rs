//! `rustorch batch`: what is answered, and that it depends on the request alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use serde_json::{Value, json};

use crate::harness::{arg, fail, folder, repository, succeed};

/// The output of a run, by line of the input.
#[track_caller]
pub fn batch(lines: &[Value], options: &[&str]) -> Vec<Value> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    batch_text(text.as_bytes(), options)
}

/// As [`batch`], of lines that may be anything.
#[track_caller]
pub fn batch_text(input: &[u8], options: &[&str]) -> Vec<Value> {
    let args = ["batch", "-i", "-", "-o", "-", "--fail-on", "never"];
    let output = succeed(&[&args[..], options].concat(), input);
    let mut answers: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    answers.sort_by_key(line_number);
    answers
}

/// The answers of runs of one line each, so that no id is repeated within a run.
#[track_caller]
fn one_by_one(lines: &[Value], options: &[&str]) -> Vec<Value> {
    lines.iter().flat_map(|line| batch(std::slice::from_ref(line), options)).collect()
}

/// The error in the body of an answer.
pub fn error_of(answer: &Value) -> &Value {
    &answer["response"]["body"]["error"]
}

/// The number of the input line that is answered.
pub fn line_number(answer: &Value) -> usize {
    answer["id"].as_str().unwrap().strip_prefix("batch_req_").unwrap().parse().unwrap()
}

/// An answer without the fields that differ between runs.
fn timeless(answer: &Value) -> Value {
    let mut answer = answer.clone();
    let hash = answer["request_hash"].take();
    assert!(hash.as_str().is_some_and(|hash| !hash.is_empty()), "{hash}");
    let body = &mut answer["response"]["body"];
    assert!(body["created"].take().as_u64().unwrap() > 1_700_000_000);
    // It differs between machines.
    let fingerprint = body["system_fingerprint"].take();
    assert!(fingerprint.as_str().is_some_and(|text| text.starts_with("fp_")), "{fingerprint}");
    answer
}

fn completion(custom_id: &str, body: Value) -> Value {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body})
}

fn chat(custom_id: &str, body: Value) -> Value {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})
}

/// The texts of an answer's choices.
#[track_caller]
fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["response"]["body"]["choices"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let text = |choice: &Value| {
        choice["text"].as_str().or(choice["message"]["content"].as_str()).map(str::to_owned).unwrap()
    };
    choices.iter().map(text).collect()
}

#[test]
fn an_answer_is_an_object_of_the_api() {
    let requests = [
        completion("a", json!({"model": "demo", "prompt": "Once upon a", "max_tokens": 2, "temperature": 0})),
        chat(
            "b",
            json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}),
        ),
    ];
    let answers: Vec<Value> = batch(&requests, &[]).iter().map(timeless).collect();
    let expect = json!([
        {
            "id": "batch_req_1",
            "custom_id": "a",
            "request_hash": null,
            "response": {
                "status_code": 200,
                "request_id": "req-1",
                "body": {
                    "id": "cmpl-1",
                    "object": "text_completion",
                    "created": null,
                    "model": "demo",
                    "system_fingerprint": null,
                    "choices": [
                        {"index": 0, "text": " time,", "logprobs": null, "finish_reason": "length"}
                    ],
                    "usage": {
                        "prompt_tokens": 4,
                        "completion_tokens": 2,
                        "total_tokens": 6,
                        "prompt_tokens_details": {"cached_tokens": 0}
                    }
                }
            },
            "error": null
        },
        {
            "id": "batch_req_2",
            "custom_id": "b",
            "request_hash": null,
            "response": {
                "status_code": 200,
                "request_id": "req-2",
                "body": {
                    "id": "chatcmpl-2",
                    "object": "chat.completion",
                    "created": null,
                    "model": "demo",
                    "system_fingerprint": null,
                    "choices": [{
                        "index": 0,
                        "message": {"role": "assistant", "content": "Hello", "refusal": null},
                        "logprobs": null,
                        "finish_reason": "length"
                    }],
                    "usage": {
                        "prompt_tokens": 10,
                        "completion_tokens": 1,
                        "total_tokens": 11,
                        "prompt_tokens_details": {"cached_tokens": 0}
                    }
                }
            },
            "error": null
        }
    ]);
    assert_eq!(json!(answers), expect);
}

#[test]
fn plain_lines_ask_the_same() {
    let body = json!({"prompt": "One day", "max_tokens": 12});
    let mut plain = body.clone();
    plain["custom_id"] = json!("a");
    let messages = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12});
    let mut plain_chat = messages.clone();
    plain_chat["custom_id"] = json!("b");
    let requests = [completion("a", body), plain, chat("b", messages), plain_chat];
    let answers: Vec<_> = one_by_one(&requests, &[]).iter().map(texts).collect();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[2], answers[3]);
}

#[test]
fn the_defaults_are_the_api_s() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let requests = [
        completion("a", json!({"prompt": "One day", "ignore_eos": true})),
        completion(
            "a",
            json!({"prompt": "One day", "ignore_eos": true, "max_tokens": 16, "temperature": 1,
                               "top_p": 1, "n": 1, "frequency_penalty": 0, "presence_penalty": 0, "stop": null,
                               "seed": null, "logit_bias": {}, "best_of": 1, "echo": false, "suffix": ""}),
        ),
        completion("a", json!({"prompt": "One day", "ignore_eos": true, "temperature": 0})),
        chat("a", json!({"messages": messages, "ignore_eos": true})),
        chat(
            "a",
            json!({"messages": messages, "ignore_eos": true, "max_tokens": 9, "max_completion_tokens": 5}),
        ),
    ];
    let answers = one_by_one(&requests, &["--ctx", "64"]);
    let usage = |index: usize, field: &str| answers[index]["response"]["body"]["usage"][field].clone();
    assert_eq!(usage(0, "completion_tokens"), 16);
    assert_eq!(texts(&answers[0]), texts(&answers[1]));
    assert_ne!(texts(&answers[0]), texts(&answers[2]));
    assert_eq!(usage(3, "total_tokens"), 64, "a chat goes on to the context");
    assert_eq!(answers[3]["response"]["body"]["choices"][0]["finish_reason"], "length");
    assert_eq!(usage(4, "completion_tokens"), 5);
}

#[test]
fn a_request_may_ask_for_several_choices() {
    let one = |id: &str, prompt: Value| completion(id, json!({"prompt": prompt, "max_tokens": 8, "seed": 3}));
    let requests = [
        completion("n", json!({"prompt": "One day", "max_tokens": 8, "n": 3, "seed": 3})),
        one("list", json!(["One day", "The bird"])),
        one("tokens", json!([0, 581, 624])),
        one("token lists", json!([[0, 581, 624], [0, 581]])),
        one("alone", json!("One day")),
        completion("next seed", json!({"prompt": "One day", "max_tokens": 8, "seed": 4})),
        completion("both", json!({"prompt": ["One day", "The bird"], "max_tokens": 8, "n": 2, "seed": 3})),
        one("spelled", json!("Once upon")),
    ];
    let answers = batch(&requests, &[]);
    let texts: Vec<_> = answers.iter().map(texts).collect();
    assert_eq!((texts[0].len(), texts[1].len(), texts[3].len(), texts[6].len()), (3, 2, 2, 4));
    assert_eq!(texts[0][0], texts[4][0], "the first choice has the request's seed");
    assert_eq!(texts[0][1], texts[5][0], "the next one the seed after it");
    assert_eq!(texts[1][0], texts[4][0]);
    assert_eq!(texts[2], texts[7], "ids are taken as they are");
    assert_eq!(texts[3][0], texts[7][0]);
    assert_eq!(texts[6][..2], texts[0][..2], "prompts come one after the other");
    for (answer, tokens) in [(0, (3, 24)), (1, (6, 16)), (6, (6, 32))] {
        let usage = &answers[answer]["response"]["body"]["usage"];
        assert_eq!(usage["prompt_tokens"], tokens.0, "a prompt counts once: {usage}");
        assert_eq!(usage["completion_tokens"], tokens.1, "{usage}");
    }
    let indices = answers[6]["response"]["body"]["choices"].as_array().unwrap().iter().map(|c| &c["index"]);
    assert!(indices.eq([0, 1, 2, 3].map(Value::from).iter()));
}

#[test]
fn stop_strings_and_tokens_end_a_text() {
    let ask = |id: &str, field: &str, value: Value| {
        let mut body = json!({"prompt": "Once upon a time", "max_tokens": 30, "temperature": 0});
        body[field] = value;
        completion(id, body)
    };
    let requests = [
        ask("none", "stop", json!(null)),
        ask("one", "stop", json!(" a ")),
        ask("list", "stop", json!(["never", " a ", "."])),
        ask("tokens", "stop_token_ids", json!([15])),
        ask("min", "min_tokens", json!(30)),
        ask("bias", "logit_bias", json!({"15": -100})),
    ];
    let answers = batch(&requests, &[]);
    let texts: Vec<String> = answers.iter().map(|answer| texts(answer)[0].clone()).collect();
    let reasons: Vec<_> = answers
        .iter()
        .map(|answer| answer["response"]["body"]["choices"][0]["finish_reason"].clone())
        .collect();
    assert_eq!(reasons[..4], ["length", "stop", "stop", "stop"]);
    assert_eq!(Some(texts[1].as_str()), texts[0].split(" a ").next());
    assert_eq!(texts[2], texts[1]);
    assert_eq!(texts[3], "", "token 15 is the comma after the prompt");
    assert_eq!(texts[4], texts[0]);
    assert!(texts[0].starts_with(',') && !texts[5].starts_with(','), "{}", texts[5]);
}

#[test]
fn log_probabilities_have_the_shape_of_each_api() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let requests = [
        completion("a", json!({"prompt": "One day", "max_tokens": 4, "seed": 1, "logprobs": 2})),
        completion("b", json!({"prompt": "One day", "max_tokens": 4, "seed": 1, "logprobs": 0})),
        chat("c", json!({"messages": messages, "max_tokens": 3, "logprobs": true, "top_logprobs": 2})),
        chat("d", json!({"messages": messages, "max_tokens": 3, "logprobs": true})),
        completion(
            "e",
            json!({"prompt": "One day", "max_tokens": 4, "logprobs": 1, "logit_bias": {"3": 100}}),
        ),
    ];
    let answers = batch(&requests, &[]);
    let choice = |index: usize| &answers[index]["response"]["body"]["choices"][0];
    let list = |value: &Value| value.as_array().unwrap_or_else(|| panic!("{value}")).clone();

    for (index, alternatives) in [(0, 2..=3), (1, 1..=1)] {
        let logprobs = &choice(index)["logprobs"];
        let tokens: Vec<String> =
            list(&logprobs["tokens"]).iter().map(|token| token.as_str().unwrap().to_owned()).collect();
        assert_eq!(json!(tokens.concat()), choice(index)["text"]);
        let mut offset = 0;
        for (position, token) in tokens.iter().enumerate() {
            assert_eq!(logprobs["text_offset"][position], offset);
            offset += token.chars().count();
            let logprob = &logprobs["token_logprobs"][position];
            assert!(logprob.as_f64().is_some_and(|p| p <= 0.0), "{logprob}");
            let top = logprobs["top_logprobs"][position].as_object().unwrap();
            assert_eq!(&top[token], logprob, "the sampled token is listed");
            assert!(alternatives.contains(&top.len()), "{top:?}");
        }
        assert_eq!(tokens.len(), 4);
    }

    for (index, alternatives) in [(2, 2), (3, 0)] {
        let content = list(&choice(index)["logprobs"]["content"]);
        let bytes: Vec<u8> = content
            .iter()
            .flat_map(|token| list(&token["bytes"]))
            .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
            .collect();
        assert_eq!(json!(String::from_utf8(bytes).unwrap()), choice(index)["message"]["content"]);
        for token in &content {
            let top = list(&token["top_logprobs"]);
            assert_eq!(top.len(), alternatives);
            let logprobs: Vec<f64> = top.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
            assert!(logprobs.is_sorted_by(|a, b| a >= b), "{logprobs:?}");
        }
        assert_eq!(content.len(), 3);
    }

    // Token 3 ends a text, here before it began.
    let empty = json!({"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []});
    assert_eq!(choice(4)["text"], "");
    assert_eq!(choice(4)["logprobs"], empty);
}

/// Requests of many kinds, none with a seed.
fn mixture() -> Vec<Value> {
    let prompts = ["Once upon a time", "One day, Lily", "The bird", "", "\"Hello!\" said"];
    let mut requests = Vec::new();
    for (index, prompt) in prompts.iter().cycle().take(20).enumerate() {
        let id = format!("request {index}");
        requests.push(match index % 4 {
            0 => completion(&id, json!({"prompt": prompt, "max_tokens": 5 + index})),
            1 => completion(
                &id,
                json!({"prompt": prompt, "max_tokens": 20, "n": 2, "top_p": 0.9, "top_k": 50}),
            ),
            2 => chat(&id, json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": 25})),
            _ => completion(
                &id,
                json!({"prompt": prompt.repeat(index), "max_tokens": 10,
                                        "frequency_penalty": 0.5, "repetition_penalty": 1.1, "logprobs": 1}),
            ),
        });
    }
    requests
}

/// The choices of each answer, by custom id.
fn by_id(answers: &[Value]) -> Vec<(String, Value)> {
    let mut choices: Vec<_> = answers
        .iter()
        .map(|answer| {
            let id = answer["custom_id"].as_str().unwrap().to_owned();
            (id, answer["response"]["body"]["choices"].clone())
        })
        .collect();
    choices.sort_by(|a, b| a.0.cmp(&b.0));
    choices
}

#[test]
fn the_batch_does_not_show() {
    let mut requests = mixture();
    // Some that must have a form.
    requests.extend((0..6).map(|index| {
        let mut body = json!({"prompt": "One day", "max_tokens": 25, "seed": index});
        match index % 2 {
            0 => body["guided_regex"] = json!("[a-z]+( [a-z]+){2,5}\\."),
            _ => body["json_schema"] = json!({"type": "object", "maxProperties": 2}),
        }
        completion(&format!("formed {index}"), body)
    }));
    let expect = by_id(&batch(&requests, &[]));
    let options: [&[&str]; 5] = [
        &["--batch-size", "1"],
        &["--batch-size", "3", "--threads", "1"],
        &["--chunk", "3", "--page-size", "5"],
        // Pages for one of the longest: the others wait and are preempted.
        &["--kv-memory", "600K", "--page-size", "4"],
        &["--batch-size", "64"],
    ];
    for options in options {
        assert_eq!(by_id(&batch(&requests, options)), expect, "{options:?}");
    }
}

#[test]
fn a_line_may_demand_the_form_of_its_answer() {
    let schema = json!({"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"],
                        "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": true}});
    let messages = json!([{"role": "user", "content": "Is the dog good?"}]);
    let requests = [
        chat("a", json!({"messages": messages, "response_format": format, "max_tokens": 200})),
        completion("b", json!({"prompt": "One day", "guided_choice": ["red", "green"], "n": 3})),
        completion("c", json!({"prompt": "One day", "grammar": "root ::= [0-9]{3}"})),
        completion("d", json!({"prompt": "One day", "guided_json": {"type": "colour"}})),
    ];
    let answers = batch(&requests, &[]);
    let good: Value = serde_json::from_str(&texts(&answers[0])[0]).unwrap();
    assert!(good["good"].is_boolean(), "{good}");
    assert!(texts(&answers[1]).iter().all(|text| ["red", "green"].contains(&text.as_str())));
    let digits = &texts(&answers[2])[0];
    assert!(digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
    let refusal = answers[3].to_string();
    assert!(refusal.contains("guided_json: schema") && refusal.contains("colour"), "{refusal}");
}

#[test]
fn a_line_may_have_tools() {
    let parameters = json!({"type": "object", "properties": {"days": {"enum": [1, 2]}}, "required": ["days"],
                            "additionalProperties": false});
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": parameters}});
    let line = |seed: usize| {
        let messages = json!([{"role": "user", "content": "How is the weather?"}]);
        let body = json!({"messages": messages, "tools": [tool], "tool_choice": "required", "seed": seed,
                          "parallel_tool_calls": false, "max_tokens": 200});
        chat(&seed.to_string(), body)
    };
    let lines: Vec<Value> = (0..4).map(line).collect();
    let answers = batch(&lines, &[]);
    for answer in &answers {
        let choice = &answer["response"]["body"]["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
        let function = &choice["message"]["tool_calls"][0]["function"];
        let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(function["name"], "weather");
        assert!(arguments == json!({"days": 1}) || arguments == json!({"days": 2}), "{answer}");
    }
    let ids: BTreeSet<_> = answers
        .iter()
        .map(|answer| answer.pointer("/response/body/choices/0/message/tool_calls/0/id").unwrap().to_string())
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(by_id(&batch(&lines, &["--batch-size", "1"])), by_id(&answers));
}

#[test]
fn a_chat_template_can_be_replaced() {
    let template = folder("template").join("plain.jinja");
    fs::write(&template, "{{ messages[0].content }}").unwrap();
    let requests = [
        chat("a", json!({"messages": [{"role": "user", "content": "One day"}], "max_tokens": 8, "seed": 1})),
        completion("b", json!({"prompt": "One day", "max_tokens": 8, "seed": 1})),
    ];
    let own: Vec<_> = batch(&requests, &[]).iter().map(texts).collect();
    let replaced: Vec<_> = batch(&requests, &["--chat-template", arg(&template)]).iter().map(texts).collect();
    assert_ne!(own[0], own[1]);
    assert_eq!((&replaced[0], &replaced[1]), (&own[1], &own[1]));
}

#[test]
fn a_seed_follows_from_the_custom_id_and_the_run_s_seed() {
    let requests = mixture();
    let expect = by_id(&batch(&requests, &[]));
    // In another order, among others.
    let mut others: Vec<Value> = requests.iter().rev().cloned().collect();
    others.insert(3, completion("another", json!({"prompt": "Far away"})));
    let found = by_id(&batch(&others, &[]));
    for answer in &expect {
        assert_eq!(found.iter().find(|found| found.0 == answer.0), Some(answer));
    }
    assert_eq!(found.len(), expect.len() + 1);
    assert_eq!(by_id(&batch(&requests, &["--seed", "0"])), expect);

    let other = by_id(&batch(&requests, &["--seed", "1"]));
    let equal = other.iter().zip(&expect).filter(|(a, b)| a == b).count();
    assert!(equal < 3, "{equal} of {} answers are the same with another seed", expect.len());

    let unseeded =
        |id: &str| completion(id, json!({"prompt": "Once upon a time, there was", "max_tokens": 12}));
    let answers = batch(&["a", "b", "c"].map(unseeded), &[]);
    let different: BTreeSet<_> = answers.iter().map(texts).collect();
    assert_eq!(different.len(), 3, "{different:?}");

    let seeded =
        |id: &str, seed: i64| completion(id, json!({"prompt": "One day", "max_tokens": 12, "seed": seed}));
    let requests = [seeded("a", 5), seeded("b", 5), seeded("c", -5), seeded("d", i64::MAX)];
    let answers = |options: &[&str]| batch(&requests, options).iter().map(texts).collect::<Vec<_>>();
    let texts = answers(&[]);
    assert_eq!(texts[0], texts[1], "the request's own seed counts alone");
    assert_eq!(answers(&["--seed", "9"]), texts);
    assert!(texts[0] != texts[2] && texts[2] != texts[3]);
}

#[test]
fn the_shipped_prompts_are_all_answered() {
    let output = folder("shipped_prompts").join("out.jsonl");
    let input = repository("examples/prompts.jsonl");
    assert_eq!(succeed(&["batch", "-i", arg(&input), "-o", arg(&output)], b""), "");
    let read = |path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let (requests, answers) = (read(input), read(output));
    assert_eq!(requests.len(), answers.len());
    for request in &requests {
        let answer = answers.iter().find(|answer| answer["custom_id"] == request["custom_id"]).unwrap();
        assert_eq!(answer["error"], Value::Null);
        assert!(texts(answer)[0].split(' ').count() > 10, "{answer}");
    }
}

/// One after the other, so that the second prompt finds the pages of the first.
#[test]
fn a_prompt_is_found_in_the_prefix_cache_unless_that_is_off() {
    let prompt: Vec<u32> = (10..50).collect();
    let lines = ["a", "b"].map(|id| completion(id, json!({"prompt": prompt, "max_tokens": 1})));
    for (options, expect) in [(&[][..], 36), (&["--no-prefix-cache"], 0)] {
        let answers = batch(&lines, &[&["--batch-size", "1", "--page-size", "4"], options].concat());
        let cached = |answer: &Value| {
            answer.pointer("/response/body/usage/prompt_tokens_details/cached_tokens").unwrap().as_u64()
        };
        assert_eq!(answers.iter().map(cached).collect::<Vec<_>>(), [Some(0), Some(expect)], "{options:?}");
    }
}

/// The answers of a run over a file of this name, in the order of its lines.
#[track_caller]
fn batch_file(test: &str, name: &str, content: &[u8], options: &[&str]) -> Vec<Value> {
    let folder = folder(test);
    let (input, output) = (folder.join(name), folder.join("out.jsonl"));
    fs::write(&input, content).unwrap();
    let args = ["batch", "--fail-on", "never", "-i", arg(&input), "-o", arg(&output), "--ordered"];
    succeed(&[&args[..], options].concat(), b"");
    let text = fs::read_to_string(output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn prompts_may_be_lines_of_text_or_rows() {
    let options = ["--temperature", "0", "-n", "5"];
    let answer = |prompt: &str| {
        let line = json!({"prompt": prompt, "temperature": 0, "max_tokens": 5});
        texts(&batch(&[line], &[]).remove(0)).remove(0)
    };
    let expect = ["One day", "The \"bird\""].map(answer);
    let ids =
        |answers: &[Value]| answers.iter().map(|answer| answer["custom_id"].clone()).collect::<Vec<_>>();
    let said = |answers: &[Value]| answers.iter().flat_map(texts).collect::<Vec<_>>();

    let text = b"One day\r\n\nThe \"bird\"\n";
    let answers = batch_file("text", "in.txt", text, &options);
    assert_eq!((ids(&answers), said(&answers)), (vec![json!("line-1"), json!("line-3")], expect.to_vec()));
    let csv = b"custom_id,text\nday,One day\n,\"The \"\"bird\"\"\"\n";
    let answers = batch_file("csv", "in.csv", csv, &[&options[..], &["--prompt-column", "text"]].concat());
    assert_eq!((ids(&answers), said(&answers)), (vec![json!("day"), json!("line-2")], expect.to_vec()));
    let named = batch_file("named", "in", text, &[&options[..], &["--input-format", "text"]].concat());
    assert_eq!(said(&named), expect);

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv).unwrap();
    let gzip = gzip.finish().unwrap();
    let answers =
        batch_file("gzip", "in.csv.gz", &gzip, &[&options[..], &["--prompt-column", "text"]].concat());
    assert_eq!(said(&answers), expect);
    let lacks = folder("csv_lacks").join("in.csv");
    fs::write(&lacks, csv).unwrap();
    fail(
        &["batch", "-i", arg(&lacks), "-o", "-"],
        b"",
        1,
        "expected a column \"prompt\", found \"custom_id\", \"text\"",
    );
}

#[test]
fn lines_are_given_what_they_do_not_say() {
    let plain = |fields: Value| {
        let mut line = json!({"prompt": "One day", "seed": 1});
        line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        line
    };
    let same = |options: &[&str], fields: Value| {
        let given = texts(&batch(&[plain(json!({}))], options).remove(0));
        assert_eq!(given, texts(&batch(&[plain(fields)], &[]).remove(0)), "{options:?}");
        given
    };
    let short = json!({"max_tokens": 8});
    let free = same(&["-n", "8"], short.clone());
    for (options, name, value) in [
        (["--temp", "0"], "temperature", json!(0)),
        (["--top-k", "1"], "top_k", json!(1)),
        (["--top-p", "0.01"], "top_p", json!(0.01)),
        (["--min-p", "1"], "min_p", json!(1)),
        (["--stop", ","], "stop", json!([","])),
    ] {
        let mut fields = short.clone();
        fields[name] = value;
        assert_ne!(same(&[&["-n", "8"], &options[..]].concat(), fields), free, "{name} has an effect");
    }
    // What a line says is left alone.
    let said = [plain(json!({"max_tokens": 2, "temperature": 0}))];
    let alone = texts(&batch(&said, &[]).remove(0));
    assert_eq!(texts(&batch(&said, &["-n", "8", "--temp", "1.5"]).remove(0)), alone);
    // A plain line without a length has what the context holds; in OpenAI's format it has 16 tokens.
    let lines = [plain(json!({"ignore_eos": true})), completion("b", plain(json!({"ignore_eos": true})))];
    let used = batch(&lines, &["--ctx", "64"]);
    let totals: Vec<_> =
        used.iter().map(|answer| &answer["response"]["body"]["usage"]["total_tokens"]).collect();
    assert_eq!(totals, [64, 19]);
}

#[test]
fn prompts_may_become_chats() {
    let (prompt, length) = ("Tell me a story", json!(6));
    let line = json!({"prompt": prompt, "max_tokens": length, "seed": 1});
    let chats = |system: &[&str]| {
        let system = system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<_> = system.chain([json!({"role": "user", "content": prompt})]).collect();
        json!({"messages": messages, "max_tokens": length, "seed": 1})
    };
    let asked = |line: &Value, options: &[&str]| {
        let answer = batch(std::slice::from_ref(line), options).remove(0);
        (texts(&answer), answer["response"]["body"]["usage"]["prompt_tokens"].clone())
    };
    let (plain, briefly) = (asked(&chats(&[]), &[]), asked(&chats(&["Be brief."]), &[]));
    assert_ne!(plain, briefly);
    assert_ne!(asked(&line, &[]), plain);
    assert_eq!(asked(&line, &["--chat"]), plain);
    assert_eq!(asked(&line, &["--chat", "--system", "Be brief."]), briefly);
    assert_eq!(asked(&chats(&["Be brief."]), &["--system", "Be long."]), briefly, "it has one");
    let answer = batch(&[json!({"prompt": [1, 2]})], &["--chat"]).remove(0);
    assert_eq!(
        error_of(&answer)["message"],
        "line 1: prompt: expected a text, to be a user's message, found [1,2]"
    );
}

/// Replicas, their number and what runs where never show.
#[test]
fn several_devices_answer_as_one() {
    let lines: Vec<Value> = (0..60)
        .map(|line| {
            let prompt = format!("Once upon a time {}", "there was a fox and ".repeat(line % 7));
            let body = json!({
                "prompt": prompt, "max_tokens": 1 + line % 23, "temperature": line % 3, "n": 1 + line % 3, "logprobs": 2,
            });
            completion(&line.to_string(), body)
        })
        .collect();
    let answers = |options: &[&str]| {
        let answers = batch(&lines, options);
        answers
            .iter()
            .map(|answer| {
                let mut answer = timeless(answer);
                // What was found in a cache does show.
                answer["response"]["body"]["usage"]["prompt_tokens_details"].take();
                answer
            })
            .collect::<Vec<_>>()
    };
    let alone = answers(&["--device", "cpu", "--batch-size", "4"]);
    assert_eq!(alone.len(), 60);
    for devices in ["cpu:0,cpu:1", "cpu:0,1,2"] {
        for batch_size in ["1", "5"] {
            let found = answers(&["--device", devices, "--batch-size", batch_size]);
            assert!(found == alone, "{devices}, batch size {batch_size}");
        }
    }
}

/// A run may go on with more devices, and its results do not depend on how many there were.
#[test]
fn a_run_goes_on_with_other_devices() {
    let (input, output) =
        (folder("replicas_resume").join("in.jsonl"), folder("replicas_resume_out").join("out.jsonl"));
    let line =
        |id: usize| format!("{}\n", completion(&id.to_string(), json!({"prompt": "a", "max_tokens": 4})));
    fs::write(&input, (0..10).map(line).collect::<String>()).unwrap();
    let args = ["batch", "-i", arg(&input), "-o", arg(&output), "--device"];
    succeed(&[&args[..], &["cpu"]].concat(), b"");
    fs::write(&input, (0..20).map(line).collect::<String>()).unwrap();
    succeed(&[&args[..], &["cpu:0,1"]].concat(), b"");
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 20);
}
