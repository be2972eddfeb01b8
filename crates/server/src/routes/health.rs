//! The state of the server: for people, for load balancers and for Prometheus.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use crate::app::AppState;
use crate::metrics;
use crate::refusal::Refusal;
use crate::trouble::Trouble;

/// The page. It is complete in itself and may load nothing else.
const PAGE: &str = include_str!("../page.html");
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

pub(crate) async fn page() -> Response {
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE)).into_response()
}

/// 200 while requests are accepted, 503 while the server drains. Says why batches pause and files are not stored, if it is so.
pub(crate) async fn health(State(app): State<AppState>) -> Response {
    if app.drain.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "shutting down"}))).into_response();
    }
    // Live requests are answered as ever.
    let mut told = Map::from_iter([("status".to_owned(), json!("ok"))]);
    let mut tell = |what: &str, status: &str, trouble: Option<Trouble>| {
        if let Some(Trouble { since, reason, .. }) = trouble {
            told.insert(what.to_owned(), json!({"status": status, "since": since, "reason": reason}));
        }
    };
    tell("batches", "paused", app.batches.as_ref().and_then(|batches| batches.trouble()));
    if let Some(files) = app.files.clone() {
        // It may look at the disk.
        let files = spawn_blocking(move || files.trouble()).await.ok().flatten();
        tell("files", "failing", files);
    }
    Json(Value::Object(told)).into_response()
}

/// The version of the program.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

pub(crate) async fn metrics(State(app): State<AppState>) -> Result<Response, Refusal> {
    let text = metrics::text(&app.registry).map_err(|error| Refusal::internal("metrics", &error))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
