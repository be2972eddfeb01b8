//! The state of the server: for people, for load balancers and for Prometheus.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::AppState;
use crate::batches::Trouble;
use crate::metrics;
use crate::refusal::Refusal;

/// The page. It is complete in itself and may load nothing else.
const PAGE: &str = include_str!("../page.html");
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

pub(crate) async fn page() -> Response {
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE)).into_response()
}

/// 200 while requests are accepted, 503 while the server drains. Says why batches pause, if they do.
pub(crate) async fn health(State(app): State<AppState>) -> Response {
    if app.drain.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "shutting down"}))).into_response();
    }
    match app.batches.as_ref().and_then(|batches| batches.trouble()) {
        // Live requests are answered as ever.
        Some(Trouble { since, reason, .. }) => {
            Json(json!({"status": "ok", "batches": {"status": "paused", "since": since, "reason": reason}}))
                .into_response()
        }
        None => Json(json!({"status": "ok"})).into_response(),
    }
}

/// The version of the program.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

pub(crate) async fn metrics(State(app): State<AppState>) -> Result<Response, Refusal> {
    let text = metrics::text(&app.registry).map_err(|error| Refusal::internal("metrics", &error))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
