//! Batches: answered, cancelled, and gone on with after a restart.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Response, get, post, send};
use crate::files::{folder, upload};
use crate::served::{Served, data};

fn serve(folder: &Path) -> Served {
    Served::with(|config| config.data = Some(data(folder.to_owned())))
}

/// Requests for `tokens` tokens each.
fn lines(count: usize, tokens: usize) -> Vec<u8> {
    let line = |index: usize| {
        let body = json!({"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": true});
        let line = json!({"custom_id": format!("r{index}"), "method": "POST", "url": "/v1/completions", "body": body});
        format!("{line}\n")
    };
    (0..count).map(line).collect::<String>().into_bytes()
}

/// One request that is soon done, and so many long ones that no machine is through with them before a test has cancelled
/// them.
fn endless() -> Vec<u8> {
    let body = json!({"prompt": "a", "max_tokens": 1});
    let first = json!({"custom_id": "first", "method": "POST", "url": "/v1/completions", "body": body});
    [format!("{first}\n").into_bytes(), lines(5000, 900)].concat()
}

fn create(served: &Served, content: &[u8]) -> Value {
    let file = upload(served, "batch", content).json();
    let body = json!({
        "input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h",
        "metadata": {"who": "test"},
    });
    let response = post(served.address, "/v1/batches", &body);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn batch(served: &Served, id: &Value) -> Value {
    get(served.address, &format!("/v1/batches/{}", id.as_str().unwrap())).json()
}

fn cancel(served: &Served, id: &Value) -> Response {
    send(served.address, &format!("POST /v1/batches/{}/cancel", id.as_str().unwrap()), &[], b"")
}

/// The batch, once it is as `reached` wants it.
fn wait(served: &Served, id: &Value, reached: impl Fn(&Value) -> bool) -> Value {
    loop {
        let batch = batch(served, id);
        if reached(&batch) {
            return batch;
        }
        std::thread::yield_now();
    }
}

fn is_final(batch: &Value) -> bool {
    ["completed", "failed", "cancelled"].contains(&batch["status"].as_str().unwrap())
}

/// The lines of a file by `custom_id`, without what names them.
fn results(served: &Served, file: &Value) -> Vec<Value> {
    let text = get(served.address, &format!("/v1/files/{}/content", file.as_str().unwrap())).text();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        line["response"]["body"]["created"] = Value::Null;
    }
    lines.sort_by_key(|line| line["custom_id"].as_str().unwrap().to_owned());
    lines
}

#[test]
fn a_batch_becomes_results_and_errors() {
    let served = serve(&folder("batch"));
    let mut content = lines(5, 3);
    content.extend_from_slice(
        b"{\"custom_id\": \"wrong\", \"method\": \"POST\", \"url\": \"/v1/nowhere\", \"body\": {}}\n",
    );
    let created = create(&served, &content);
    assert_eq!((&created["object"], &created["status"]), (&json!("batch"), &json!("validating")));
    let done = wait(&served, &created["id"], is_final);
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["request_counts"], json!({"total": 6, "completed": 5, "failed": 1}));
    assert_eq!(done["metadata"], json!({"who": "test"}));
    let ids: Vec<_> =
        results(&served, &done["output_file_id"]).iter().map(|line| line["custom_id"].clone()).collect();
    assert_eq!(ids, ["r0", "r1", "r2", "r3", "r4"]);
    let errors = results(&served, &done["error_file_id"]);
    assert_eq!((errors.len(), &errors[0]["custom_id"]), (1, &json!("wrong")));
    let response = &errors[0]["response"];
    assert_eq!((&response["status_code"], &errors[0]["error"]), (&json!(404), &Value::Null));
    assert_eq!(response["body"]["error"]["code"], "invalid_url");
    assert_eq!(get(served.address, "/v1/batches").json()["data"], json!([done]));
    assert_eq!(cancel(&served, &created["id"]).status, 409);
}

#[test]
fn a_batch_goes_on_after_a_restart() {
    let (whole, broken) = (folder("whole"), folder("broken"));
    let content = lines(60, 40);
    let served = serve(&whole);
    let created = create(&served, &content);
    let expect = results(&served, &wait(&served, &created["id"], is_final)["output_file_id"]);
    drop(served);

    let mut served = serve(&broken);
    let id = create(&served, &content)["id"].clone();
    let (mut restarts, mut had) = (0, 0);
    while !is_final(&batch(&served, &id)) {
        // Let it get a little further, then take the server down in the midst of it.
        let reached = wait(&served, &id, |batch| {
            is_final(batch) || batch["request_counts"]["completed"].as_u64().unwrap() > had + 5
        });
        had = reached["request_counts"]["completed"].as_u64().unwrap();
        drop(served);
        served = serve(&broken);
        restarts += 1;
    }
    assert!(restarts > 1, "it was done before it could be interrupted");
    let done = batch(&served, &id);
    assert_eq!(done["request_counts"], json!({"total": 60, "completed": 60, "failed": 0}));
    assert_eq!(results(&served, &done["output_file_id"]), expect);
}

#[test]
fn a_cancelled_batch_keeps_what_it_has() {
    let served = serve(&folder("cancelled"));
    let id = create(&served, &endless())["id"].clone();
    let waiting = create(&served, &lines(1, 1))["id"].clone();
    let begun = wait(&served, &id, |batch| batch["request_counts"]["completed"].as_u64().unwrap() > 0);
    // Its input is needed until then.
    let input = format!("DELETE /v1/files/{}", begun["input_file_id"].as_str().unwrap());
    assert_eq!(send(served.address, &input, &[], b"").status, 409);
    assert_eq!(cancel(&served, &waiting).json()["status"], "cancelling");
    assert_eq!(cancel(&served, &id).json()["status"], "cancelling");
    let done = wait(&served, &id, is_final);
    assert_eq!(done["status"], "cancelled");
    let completed = done["request_counts"]["completed"].as_u64().unwrap();
    assert!((1..5001).contains(&completed), "{done}");
    assert_eq!(results(&served, &done["output_file_id"]).len() as u64, completed);
    let other = wait(&served, &waiting, is_final);
    assert_eq!((&other["status"], &other["output_file_id"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(send(served.address, &input, &[], b"").status, 200);
}

#[test]
fn live_requests_go_before_a_batch() {
    let served = serve(&folder("beside"));
    let id = create(&served, &endless())["id"].clone();
    wait(&served, &id, |batch| batch["request_counts"]["completed"].as_u64().unwrap() > 0);
    let live = post(served.address, "/v1/completions", &json!({"prompt": "a", "max_tokens": 5}));
    assert_eq!(live.status, 200);
    assert!(!is_final(&batch(&served, &id)), "the live request did not wait for the batch");
    assert_eq!(cancel(&served, &id).status, 200);
}

#[test]
fn a_wrong_batch_is_refused_or_fails() {
    let served = serve(&folder("wrong"));
    let file = upload(&served, "batch", b"{}").json();
    let right =
        json!({"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"});
    for (param, value) in [
        ("input_file_id", json!("file-1")),
        ("input_file_id", Value::Null),
        ("endpoint", json!("/v1/images")),
        ("completion_window", json!("1h")),
        ("metadata", json!({"a": 1})),
    ] {
        let mut body = right.clone();
        body[param] = value;
        let response = post(served.address, "/v1/batches", &body);
        assert_eq!((response.status, &response.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
    assert_eq!(get(served.address, "/v1/batches/batch_1").status, 404);
    let twice = [lines(1, 1), lines(1, 1)].concat();
    for (content, code) in [(&b"\n"[..], "empty_file"), (&twice, "duplicate_custom_id")] {
        let id = create(&served, content)["id"].clone();
        let failed = wait(&served, &id, is_final);
        assert_eq!(
            (&failed["status"], &failed["errors"]["data"][0]["code"]),
            (&json!("failed"), &json!(code))
        );
    }
}

#[test]
fn a_batch_waits_for_a_disk_that_fails() {
    let folder = folder("disk");
    let served = serve(&folder);
    let first = create(&served, &endless())["id"].clone();
    let id = create(&served, &lines(2, 2))["id"].clone();
    let metrics = || get(served.address, "/metrics").text();
    assert_eq!(get(served.address, "/health").json(), json!({"status": "ok"}));
    assert!(metrics().contains("rustorch_data_folder_failing 0\n"));
    // A folder in the place of its journal stands for a disk that cannot be written.
    let journal = folder.join("batches").join(id.as_str().unwrap()).join("results.jsonl");
    std::fs::create_dir(&journal).unwrap();
    assert_eq!(cancel(&served, &first).status, 200);
    let waiting = wait(&served, &id, |batch| !batch["errors"].is_null());
    assert_eq!(waiting["status"], "in_progress", "{waiting}");
    assert_eq!(waiting["errors"]["data"][0]["code"], "disk_error");
    let health = get(served.address, "/health");
    assert_eq!((health.status, &health.json()["batches"]["status"]), (200, &json!("paused")));
    assert!(health.json()["batches"]["reason"].is_string(), "{}", health.text());
    assert!(metrics().contains("rustorch_data_folder_failing 1\n"));
    std::fs::remove_dir(&journal).unwrap();
    let done = wait(&served, &id, is_final);
    assert_eq!((&done["status"], &done["errors"]), (&json!("completed"), &Value::Null), "{done}");
    assert_eq!(results(&served, &done["output_file_id"]).len(), 2);
    while get(served.address, "/health").json() != json!({"status": "ok"}) {
        std::thread::yield_now();
    }
    assert!(metrics().contains("rustorch_data_folder_failing 0\n"));
    assert!(!metrics().contains("rustorch_data_folder_failures_total 0\n"));
}

#[test]
fn a_folder_that_is_not_a_server_s_is_refused_and_left_alone() {
    let check = |test: &str, foreign: &str| {
        let folder = folder(test);
        let path = folder.join(foreign);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let started = Served::try_with(|config| config.data = Some(data(folder.clone())));
        let error = started.err().expect("the folder is refused").to_string();
        assert!(error.contains("hint: choose another --data-dir"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        let top = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(top, 1, "nothing is added");
    };
    check("foreign_top", "notes.txt");
    check("foreign_file", "files/notes.txt");
    check("foreign_batch", "batches/notes/notes.txt");
    check("foreign_kind", "batches");
    // In a folder that is a server's, it leaves what it has not made.
    let folder = folder("mixed");
    drop(serve(&folder));
    let path = folder.join("files/notes.tmp");
    std::fs::write(&path, "mine").unwrap();
    drop(serve(&folder));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}
