//! `rustorch batch`: lines that are no requests, or ask for what cannot be done.

use serde_json::{Value, json};

use crate::batch_answers::{batch, batch_text, error_of, line_number};
use crate::harness::run;

/// A line, its custom id, the error's code, and the beginning of its message.
type Case<'a> = (&'a [u8], Option<&'a str>, Option<&'a str>, &'a str);

/// Refusals of lines: the line, its custom id, the error's code if it has one of its own, and what its message says after the
/// line's number.
fn check(cases: &[Case<'_>]) {
    // A good line before and after each bad one.
    let good =
        |index: usize| json!({"custom_id": format!("good {index}"), "prompt": "One day", "max_tokens": 2});
    let mut input = Vec::new();
    for (index, (line, ..)) in cases.iter().enumerate() {
        input.extend_from_slice(format!("{}\n", good(index)).as_bytes());
        // Each bad line has an id of its own, as long as that which the case has.
        for (place, byte) in line.iter().enumerate() {
            let is_id = [&b"\"custom_id\": \"a"[..], b"\"custom_id\":\"a"]
                .iter()
                .any(|id| line[..=place].ends_with(id));
            input.push(if is_id { id_of(index) } else { *byte });
        }
        input.push(b'\n');
    }
    let answers = batch_text(&input, &[]);
    assert_eq!(answers.len(), 2 * cases.len());

    let texts = |answers: &[Value]| -> Vec<Value> {
        answers.iter().map(|answer| answer["response"]["body"]["choices"].clone()).collect()
    };
    let (served, refused): (Vec<Value>, Vec<Value>) =
        answers.into_iter().partition(|answer| line_number(answer) % 2 == 1);
    let alone = batch(&(0..cases.len()).map(good).collect::<Vec<_>>(), &[]);
    assert_eq!(texts(&served), texts(&alone), "what is refused costs nobody else");

    for (index, (answer, (line, custom_id, code, says))) in refused.iter().zip(cases).enumerate() {
        let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
        let number = line_number(answer);
        let error = error_of(answer);
        assert_eq!(answer["error"], Value::Null, "{line}: {answer}");
        let status = match *code {
            Some("invalid_url") => 404,
            Some("invalid_method") => 405,
            // The chat template refuses it.
            _ if says.starts_with("message 0 has the role") => 422,
            _ => 400,
        };
        assert_eq!(answer["response"]["status_code"], status, "{line}: {answer}");
        assert_eq!(error["type"], "invalid_request_error", "{line}: {answer}");
        if let Some(code) = code {
            assert_eq!(error["code"], *code, "{line}: {answer}");
        }
        let custom_id = custom_id
            .map_or(format!("line-{number}"), |id| id.replace('a', &char::from(id_of(index)).to_string()));
        assert_eq!(answer["custom_id"], custom_id, "{line}");
        let message = error["message"].as_str().unwrap();
        let rest = message.strip_prefix(&format!("line {number}: ")).unwrap_or_else(|| panic!("{message}"));
        assert!(rest.starts_with(says), "{line}\n{rest}\nexpected: {says}");
    }
}

/// A letter for each case.
fn id_of(index: usize) -> u8 {
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[index]
}

#[test]
fn lines_that_are_not_json_objects() {
    let long = format!(r#"{{"custom_id": "a", "prompt": "{}"}}"#, "x".repeat(16 << 20));
    let json = Some("invalid_json");
    check(&[
        (b"once upon a time", None, json, "not JSON: expected value at column 1"),
        (br#"{"custom_id": "a", "prompt": }"#, None, json, "not JSON: expected value at column 30"),
        (
            br#"{"custom_id": "a", "prompt": "b"#,
            None,
            json,
            "not JSON: EOF while parsing a string at column 31",
        ),
        (
            br#"{"custom_id": "a", "prompt": "b"} {}"#,
            None,
            json,
            "not JSON: trailing characters at column 35",
        ),
        (br#"{"custom_id": "a\ud800", "prompt": "b"}"#, None, json, "not JSON: "),
        (b"[1, 2]", None, json, "expected a JSON object, found [1,2]"),
        (b"null", None, json, "expected a JSON object, found null"),
        (b"\"a\"", None, json, "expected a JSON object, found \"a\""),
        (b"{\"prompt\": \"\xff\"}", None, json, "expected UTF-8, found byte 0xff at offset 12"),
        (b"\xff\xfe{\0", None, json, "expected UTF-8, found byte 0xff at offset 0"),
        (&[b'['; 10_000], None, json, "not JSON: recursion limit exceeded"),
        (long.as_bytes(), None, json, "expected at most 16777216 bytes, found a longer line"),
    ]);
}

#[test]
fn objects_that_are_not_requests() {
    let request = None;
    let prompt = "prompt: expected a string, a list of token ids, or a list of either, found none";
    check(&[
        (b"{}", None, request, prompt),
        (br#"{"custom_id": "a"}"#, Some("a"), request, prompt),
        (br#"{"custom_id": 5, "prompt": "b"}"#, None, request, "custom_id: expected a string, found 5"),
        (
            br#"{"custom_id": "a", "url": "/v1/completions"}"#,
            Some("a"),
            request,
            "body: expected an object, found none",
        ),
        (
            br#"{"custom_id": "a", "url": "/v1/completions", "body": "b"}"#,
            Some("a"),
            request,
            "body: expected an object, found \"b\"",
        ),
        (br#"{"custom_id": "a", "url": "/v1/completions", "body": {}}"#, Some("a"), request, prompt),
        (
            br#"{"custom_id": "a", "body": {"prompt": "b"}}"#,
            Some("a"),
            Some("invalid_url"),
            "url: expected /v1/completions, /v1/chat/completions, /v1/embeddings, /v1/responses, /v1/messages, /v1/rerank, /v1/score, /completion, /infill, /api/chat, /api/generate or /api/embed, found none",
        ),
        (
            br#"{"custom_id": "a", "method": "POST", "url": "/v1/audio/speech", "body": {"input": "b"}}"#,
            Some("a"),
            Some("invalid_url"),
            "url: expected /v1/completions, /v1/chat/completions, /v1/embeddings, /v1/responses, /v1/messages, /v1/rerank, /v1/score, /completion, /infill, /api/chat, /api/generate or /api/embed, found \"/v1/audio/speech\"",
        ),
        (
            br#"{"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {"prompt": "b"}}"#,
            Some("a"),
            Some("invalid_method"),
            "method: expected \"POST\", found \"GET\"",
        ),
        (
            br#"{"custom_id": "a", "method": 1, "url": "/v1/completions", "body": {"prompt": "b"}}"#,
            Some("a"),
            Some("invalid_method"),
            "method: expected \"POST\", found 1",
        ),
    ]);
}

/// Refusals of a completion with one field changed, or of a chat if the field is one of its.
fn check_fields(cases: &[(&str, Value, &str)]) {
    let lines: Vec<Vec<u8>> = cases
        .iter()
        .map(|(field, value, _)| {
            let mut line = match *field {
                "messages" | "top_logprobs" => {
                    json!({"custom_id": "a", "messages": [{"role": "user", "content": "b"}], "max_tokens": 2})
                }
                _ => json!({"custom_id": "a", "prompt": "One day", "max_tokens": 2}),
            };
            line[*field] = value.clone();
            line.to_string().into_bytes()
        })
        .collect();
    let cases: Vec<_> = lines
        .iter()
        .zip(cases)
        .map(|(line, (_, _, says))| (line.as_slice(), Some("a"), None, *says))
        .collect();
    check(&cases);
}

#[test]
fn fields_of_the_wrong_type() {
    check_fields(&[
        ("prompt", json!(5), "prompt: expected a string, a list of token ids, or a list of either, found 5"),
        (
            "prompt",
            json!([1, "a"]),
            "prompt: expected a string, a list of token ids, or a list of either, found",
        ),
        (
            "prompt",
            json!([-1]),
            "prompt: expected a string, a list of token ids, or a list of either, found [-1]",
        ),
        (
            "prompt",
            json!([1.5]),
            "prompt: expected a string, a list of token ids, or a list of either, found [1.5]",
        ),
        (
            "prompt",
            json!({"text": "a"}),
            "prompt: expected a string, a list of token ids, or a list of either",
        ),
        ("temperature", json!("hot"), "temperature: expected a number, found \"hot\""),
        ("top_p", json!([1]), "top_p: expected a number, found [1]"),
        ("max_tokens", json!(-2), "max_tokens: expected a whole number, 0 or more, or -1, found -2"),
        ("max_tokens", json!(1.5), "max_tokens: expected a whole number, 0 or more, or -1, found 1.5"),
        ("max_tokens", json!("1"), "max_tokens: expected a whole number, 0 or more, or -1, found \"1\""),
        ("n", json!(-1), "n: expected a whole number, 0 or more, found -1"),
        ("stop", json!(5), "stop: expected a string or a list of strings, found 5"),
        ("stop", json!([1]), "stop: expected a string or a list of strings, found [1]"),
        ("seed", json!("a"), "seed: expected a whole number, found \"a\""),
        ("seed", json!(0.5), "seed: expected a whole number of 64 bits, found 0.5"),
        ("logit_bias", json!([1]), "logit_bias: expected an object of token ids and numbers, found [1]"),
        ("logit_bias", json!({"a": 1}), "logit_bias: expected token ids as keys, found \"a\""),
        ("logprobs", json!(true), "logprobs: expected a whole number, 0 or more, found true"),
        ("ignore_eos", json!(1), "ignore_eos: expected true or false, found 1"),
        ("stop_token_ids", json!("a"), "stop_token_ids: expected a list of token ids, found \"a\""),
        ("messages", json!("a"), "messages: expected a list of messages, found \"a\""),
        ("messages", json!([]), "messages: expected at least one, found none"),
        ("messages", json!(["a"]), "messages[0]: expected an object, found \"a\""),
        ("messages", json!([{"content": "a"}]), "messages[0].role: expected a string, found none"),
        ("messages", json!([{"role": 1}]), "messages[0].role: expected a string, found 1"),
        (
            "messages",
            json!([{"role": "user", "content": 5}]),
            "messages[0].content: expected a string or a list of parts",
        ),
        (
            "messages",
            json!([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "image_url"}]}]),
            "messages[1].content: expected parts of type text, found {\"type\":\"image_url\"}",
        ),
        ("messages", json!([{"role": "us er", "content": "a"}]), "message 0 has the role \"us er\""),
    ]);
}

#[test]
fn fields_out_of_range_or_not_supported() {
    let words = "word ".repeat(2000);
    check_fields(&[
        ("prompt", json!([]), "prompt: expected at least one, found an empty list"),
        ("prompt", json!([[]]), "prompt_token_ids: expected at least one token, found none"),
        (
            "prompt",
            json!([1, 2048]),
            "prompt_token_ids[1]: token id 2048 is out of range, expected less than 2048",
        ),
        (
            "prompt",
            json!([[1], [4_294_967_295_u32]]),
            "prompt_token_ids[0]: token id 4294967295 is out of range",
        ),
        (
            "prompt",
            json!(words),
            "This model's maximum context length is 1024 tokens. However, you requested 2006 tokens (2004 in the prompt",
        ),
        ("max_tokens", json!(-2), "max_tokens: expected a whole number, 0 or more, or -1, found -2"),
        (
            "max_tokens",
            json!(1022),
            "This model's maximum context length is 1024 tokens. However, you requested 1025 tokens (3 in the prompt",
        ),
        ("min_tokens", json!(3), "min_tokens: expected at most max_tokens, which is 2, found 3"),
        ("n", json!(0), "n: expected 1 to 128 choices over all prompts, found 0"),
        ("n", json!(129), "n: expected 1 to 128 choices over all prompts, found 129"),
        ("temperature", json!(-1), "temperature: expected a number of at least 0, found -1"),
        ("top_p", json!(1.5), "top_p: expected 0 to 1, found 1.5"),
        ("min_p", json!(-0.5), "min_p: expected 0 to 1, found -0.5"),
        ("repetition_penalty", json!(0), "repetition_penalty: expected a number above 0, found 0"),
        (
            "stop",
            json!(["a", ""]),
            "stop: expected strings that are not empty, found an empty one at index 1",
        ),
        ("logit_bias", json!({"2048": 1}), "logit_bias[0]: token id 2048 is out of range"),
        ("best_of", json!(0), "best_of: expected at least n, which is 1, found 0"),
        (
            "suffix",
            json!("a"),
            "suffix: expected none, as the model's vocabulary has no tokens to fill in with, found a text",
        ),
        ("stream", json!(true), "stream: expected none (not supported), found true"),
        ("tools", json!([{"type": "function"}]), "tools: expected none (not supported), found"),
        ("guided_json", json!({"type": "colour"}), "guided_json: schema"),
        (
            "response_format",
            json!({"type": "xml"}),
            "response_format: expected the type text, json_object or json_schema, found",
        ),
        ("logprobs", json!(21), "logprobs: expected at most 20, found 21"),
        ("top_logprobs", json!(21), "top_logprobs: expected at most 20, found 21"),
        ("top_logprobs", json!(2), "top_logprobs: expected \"logprobs\": true beside it, found 2 alone"),
    ]);
}

#[test]
fn one_prompt_refused_is_the_request_refused() {
    let request = |id: &str, prompt: Value| json!({"custom_id": id, "prompt": prompt, "max_tokens": 200});
    let requests = [request("a", json!([[1], [2], [5000]])), request("b", json!([1]))];
    let answers = batch(&requests, &["--batch-size", "1"]);
    assert_eq!(answers.len(), 2);
    let statuses = [0, 1].map(|index: usize| answers[index]["response"]["status_code"].clone());
    assert_eq!(statuses, [400, 200]);
    assert_eq!(error_of(&answers[0])["param"], "prompt");
}

#[test]
fn unknown_fields_are_named_once_or_refused() {
    let line = |id: &str, name: &str| {
        let mut body = json!({"prompt": "One day", "max_tokens": 1, "user": "someone"});
        body[name] = json!(1);
        json!({"custom_id": id, "url": "/v1/completions", "body": body})
    };
    let lines =
        [line("a", "unheard_of"), line("b", "unheard_of"), line("c", "top_k"), line("d", "temprature")];
    let input: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
    let run = run(&["batch", "-i", "-", "-o", "-"], &input);
    let warnings: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("warning: line")).collect();
    assert_eq!(
        warnings,
        [
            "warning: line 1: the field \"unheard_of\" is not known and has no effect",
            "warning: line 4: the field \"temprature\" is not known and has no effect"
        ]
    );
    let answers = batch(&lines, &["--strict-fields", "--ordered"]);
    let message = |index: usize| error_of(&answers[index])["message"].as_str().unwrap_or_default();
    assert!(message(0).contains("unheard_of: expected only fields that the server knows"), "{}", message(0));
    assert!(message(3).ends_with("hint: the nearest known field is temperature"), "{}", message(3));
    assert_eq!(answers[2]["response"]["status_code"], 200);
}

#[test]
fn a_line_names_the_model_that_runs() {
    let line = |id: &str, model: &str| json!({"custom_id": id, "model": model, "prompt": "One day", "max_tokens": 2});
    let lines = [line("a", "demo"), line("b", "gpt-4o"), line("c", "story")];
    let answers = batch(&lines, &[]);
    let statuses: Vec<_> = answers.iter().map(|answer| answer["response"]["status_code"].clone()).collect();
    assert_eq!(statuses, [200, 404, 404]);
    let error = error_of(&answers[1]);
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    // The first name is the one that answers have; the others are only understood.
    let answers = batch(&lines, &["--model-name", "story", "--alias", "gpt-4o"]);
    let statuses: Vec<_> = answers.iter().map(|answer| answer["response"]["status_code"].clone()).collect();
    assert_eq!(statuses, [404, 200, 200]);
    assert_eq!(answers[1]["response"]["body"]["model"], "story");
}

#[test]
fn errors_of_lines_make_a_run_fail_as_wanted() {
    let good = "{\"custom_id\": \"a\", \"prompt\": \"One day\", \"max_tokens\": 1}\n";
    let bad = "{\"custom_id\": \"b\"}\n";
    let code = |input: String, options: &[&str]| {
        run(&[&["batch", "-i", "-", "-o", "-"], options].concat(), input.as_bytes()).code
    };
    let cases: [(&[&str], [i32; 4]); 4] = [
        (&[], [0, 1, 1, 0]),
        (&["--fail-on", "all"], [0, 0, 1, 0]),
        (&["--fail-on", "any"], [0, 1, 1, 0]),
        (&["--fail-on", "never"], [0, 0, 0, 0]),
    ];
    for (options, expect) in cases {
        let inputs = [good.to_owned(), format!("{good}{bad}"), bad.to_owned(), String::new()];
        assert_eq!(inputs.map(|input| code(input, options)), expect.map(Some), "{options:?}");
    }
}

#[test]
fn the_first_errors_are_shown_at_the_end() {
    let input: String = (1..=5).map(|i| format!("{{\"custom_id\": \"bad \\u001b{i}\"}}\n")).collect();
    let stderr = run(&["batch", "-i", "-", "-o", "-"], input.as_bytes()).stderr;
    let shown: Vec<&str> =
        stderr.lines().skip_while(|line| !line.starts_with("5 requests, 5 errors")).collect();
    assert_eq!(shown.len(), 5, "{stderr}");
    for (i, line) in shown[1..4].iter().enumerate() {
        let i = i + 1;
        assert!(line.starts_with(&format!("error of bad \\u{{1b}}{i}: line {i}: prompt: ")), "{stderr}");
    }
    assert_eq!(shown[4], "and 2 more errors");
}

#[test]
fn a_misspelt_field_of_a_plain_line_is_refused() {
    let plain = json!({"custom_id": "a", "prompt": "One day", "max_tokens": 2, "temprature": 0});
    let envelope = json!({"custom_id": "b", "url": "/v1/completions", "body": plain});
    let answers = batch(&[plain, envelope], &[]);
    assert_eq!(answers[0]["response"]["status_code"], 400);
    let message = error_of(&answers[0])["message"].as_str().unwrap();
    assert!(message.contains("the nearest known field is temperature"), "{message}");
    assert_eq!(answers[1]["response"]["status_code"], 200, "it may be meant for another server");
}

#[test]
fn fields_of_no_consequence_are_passed_over() {
    let body = json!({
        "prompt": "One day",
        "max_tokens": 2,
        "user": "someone",
        "metadata": {"key": "value"},
        "tools": [],
        "echo": null,
        "service_tier": "auto",
        "unheard_of": 1
    });
    let request = json!({"custom_id": "a", "url": "/v1/completions", "body": body});
    let plain = json!({"custom_id": "a", "prompt": "One day", "max_tokens": 2});
    let answers = [request, plain].map(|line| batch(&[line], &[]).remove(0));
    assert_eq!(answers[0]["response"]["status_code"], 200);
    assert_eq!(answers[0]["response"]["body"]["choices"], answers[1]["response"]["body"]["choices"]);
}

#[test]
fn a_custom_id_that_was_there_before_is_refused() {
    let line = |id: &str| json!({"custom_id": id, "prompt": "One day", "max_tokens": 2});
    let answers = batch(&[line("a"), line("b"), line("a")], &[]);
    assert_eq!(answers[2]["custom_id"], "line-3");
    assert_eq!(error_of(&answers[2])["code"], "duplicate_custom_id");
    let says = "line 3: custom_id: expected one that no line before has, found \"a\"";
    assert_eq!(error_of(&answers[2])["message"], says);
    assert!(answers[..2].iter().all(|answer| answer["response"]["status_code"] == 200), "{answers:?}");
}
