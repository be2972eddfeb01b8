//! Files: uploaded, listed, read, deleted, and still there after a restart.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::{Response, get, post, send};
use crate::served::{Served, data};

pub fn folder(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("server").join(test);
    // Of an earlier run, if there was one.
    let _ = fs::remove_dir_all(&path);
    path
}

pub fn upload(served: &Served, purpose: &str, content: &[u8]) -> Response {
    let mut body = format!(
        "--X\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--X\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"in.jsonl\"\r\ncontent-type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--X--\r\n");
    send(served.address, "POST /v1/files", &[("content-type", "multipart/form-data; boundary=X")], &body)
}

#[test]
fn a_file_is_kept_until_it_is_deleted() {
    let folder = folder("kept");
    let with_folder = || Served::with(|config| config.data = Some(data(folder.clone())));
    let served = with_folder();
    let content = [&b"{}\n\xff\0"[..], &[b'x'; 200_000]].concat();
    let file = upload(&served, "batch", &content).json();
    let id = file["id"].as_str().unwrap();
    assert_eq!(
        [&file["object"], &file["purpose"], &file["filename"], &file["bytes"]],
        [&json!("file"), &json!("batch"), &json!("in.jsonl"), &json!(content.len())]
    );
    drop(served);

    let served = with_folder();
    let path = format!("/v1/files/{id}");
    assert_eq!(get(served.address, &path).json(), file);
    assert_eq!(get(served.address, &format!("{path}/content")).body, content);
    assert_eq!(get(served.address, "/v1/files?purpose=batch").json()["data"], json!([file]));
    assert_eq!(get(served.address, "/v1/files?purpose=other").json()["data"], json!([]));
    let delete = || send(served.address, &format!("DELETE {path}"), &[], b"");
    assert_eq!(delete().json(), json!({"id": id, "object": "file", "deleted": true}));
    assert_eq!(delete().status, 404);
    assert_eq!(get(served.address, &format!("{path}/content")).status, 404);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_until_it_can() {
    let folder = folder("unwritable");
    let served = Served::with(|config| config.data = Some(data(folder.clone())));
    let file = upload(&served, "batch", b"{}\n").json();
    assert_eq!(get(served.address, "/health").json(), json!({"status": "ok"}));
    // A disk that fails, of files and of batches.
    let away = folder.join("away");
    for name in ["files", "batches"] {
        fs::rename(folder.join(name), &away).unwrap();
        let body =
            json!({"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"});
        let refused = match name {
            "files" => upload(&served, "batch", b"{}\n"),
            _ => post(served.address, "/v1/batches", &body),
        };
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (500, &json!("internal_error")),
            "{name}"
        );
        let health = get(served.address, "/health");
        assert_eq!((health.status, &health.json()["files"]["status"]), (200, &json!("failing")), "{name}");
        assert_eq!(health.json()["files"]["reason"], "No such file or directory (os error 2)");
        fs::rename(&away, folder.join(name)).unwrap();
        // It looks again by itself, now and then.
        while get(served.address, "/health").json() != json!({"status": "ok"}) {}
        assert_eq!(upload(&served, "batch", b"{}\n").status, 200);
    }
    assert_eq!(
        fs::read_dir(folder.join("batches")).unwrap().count(),
        0,
        "a batch that was refused left something"
    );
}

#[test]
fn a_wrong_upload_is_refused_and_leaves_nothing() {
    let folder = folder("refused");
    let served = Served::with(|config| {
        config.data = Some(data(folder.clone()));
        config.file_limit = 1000;
    });
    let check = |response: Response, status: u16, param: Value| {
        assert_eq!((response.status, &response.json()["error"]["param"]), (status, &param));
    };
    check(upload(&served, "fine-tune", b"{}"), 400, json!("purpose"));
    check(upload(&served, "batch", &[b'x'; 1001]), 413, Value::Null);
    // More than the sockets hold: the client is still sending when it is refused, and reads the answer afterwards.
    check(upload(&served, "batch", &vec![b'x'; 32 << 20]), 413, Value::Null);
    let multipart = |body: &[u8]| {
        send(served.address, "POST /v1/files", &[("content-type", "multipart/form-data; boundary=X")], body)
    };
    check(multipart(b"--X--\r\n"), 400, json!("purpose"));
    check(multipart(b"rubbish"), 400, Value::Null);
    let endless = [b"--X\r\nx: ".as_slice(), &vec![b'a'; 66 << 20], b"\r\n\r\na\r\n--X--\r\n"].concat();
    check(multipart(&endless), 400, Value::Null);
    let part = b"--X\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--X--\r\n";
    check(multipart(part), 400, json!("file"));
    check(send(served.address, "POST /v1/files", &[], b""), 415, Value::Null);
    for id in ["..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "file-%00", "file-1"] {
        assert_eq!(get(served.address, &format!("/v1/files/{id}/content")).status, 404, "{id}");
    }
    assert_eq!(fs::read_dir(folder.join("files")).unwrap().count(), 0);
}

#[test]
fn a_folder_serves_one_server_at_a_time() {
    let folder = folder("locked");
    let with_folder = || Served::try_with(|config| config.data = Some(data(folder.clone())));
    let served = with_folder().unwrap();
    let error = with_folder().err().unwrap().to_string();
    assert!(error.contains("locked by another server"), "{error}");
    drop(served);
    assert!(with_folder().is_ok());
}
