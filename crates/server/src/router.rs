//! The routes, and what is done around every request: its id, key, deadline and count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use openai::{ApiError, Endpoint};
use rustorch_llama::Client;
use tokio::time::timeout_at;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::access::{Access, CLIENT_LEFT};
use crate::app::{App, AppState, Call};
use crate::body::JsonBytes;
use crate::connections::Admitted;
use crate::proxies::{Peer, client_of};
use crate::refusal::Refusal;
use crate::routes::{anthropic, batches, files, generate, health, llamacpp, models, ollama, tokens};

/// Routes that need no key and are served while the server drains. They tell its state and nothing of the model.
const OPEN: [&str; 4] = ["/", "/health", "/v1/health", "/ping"];

/// The service: all routes, wrapped by [`surround`], and by the rules for other origins if there are any.
pub(crate) fn router(app: AppState) -> Router {
    let origins = cors(&app.config.cors_origins);
    let mut router = state_routes()
        .route("/", get(health::page))
        .route("/tokenize", post(tokens::tokenize))
        .route("/apply-template", post(generate::apply_template))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route("/props", get(llamacpp::props))
        .route("/slots", get(llamacpp::slots))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::running))
        .route("/api/show", post(ollama::show))
        .route("/api/version", get(health::version));
    // Some clients are given the server's address without a path.
    for prefix in ["/v1", ""] {
        let route = |path: &str| format!("{prefix}{path}");
        router = router
            .route(&route("/models"), get(models::list))
            .route(&route("/models/{id}"), get(models::get))
            .route(&route("/messages/count_tokens"), post(generate::count_tokens))
            .route(&route("/files"), get(files::list).post(files::upload).layer(DefaultBodyLimit::disable()))
            .route(&route("/files/{id}"), get(files::get).delete(files::delete))
            .route(&route("/files/{id}/content"), get(files::content))
            .route(&route("/batches"), get(batches::list).post(batches::create))
            .route(&route("/batches/{id}"), get(batches::get))
            .route(&route("/batches/{id}/cancel"), post(batches::cancel));
        for endpoint in Endpoint::ALL {
            let answer =
                move |State(app): State<AppState>, Extension(call): Extension<Call>, body: JsonBytes| {
                    generate::generate(app, endpoint, call, body)
                };
            // Those of other APIs have one path.
            let path = match endpoint.path().strip_prefix("/v1") {
                Some(path) => route(path),
                None if prefix.is_empty() => endpoint.path().to_owned(),
                None => continue,
            };
            router = router.route(&path, post(answer));
        }
    }
    let router = router
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), surround))
        .with_state(app);
    // Outermost: a preflight request has no key, and a page must be able to read a refusal.
    match origins {
        Some(origins) => router.layer(origins),
        None => router,
    }
}

/// What tells the server's state.
fn state_routes() -> Router<AppState> {
    Router::new()
        .route("/health", get(health::health))
        .route("/v1/health", get(health::health))
        .route("/ping", get(health::health).post(health::health))
        .route("/version", get(health::version))
        .route("/metrics", get(health::metrics))
}

/// The service of a listener for the server's state alone.
pub(crate) fn state_router(app: AppState) -> Router {
    state_routes()
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), surround))
        .with_state(app)
}

/// Which pages of other origins may use the server. `None`: none may.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let exposed = [RETRY_AFTER, REQUEST_ID, generate::IGNORED_FIELDS];
    let layer = CorsLayer::new().allow_origin(allowed).allow_methods(AllowMethods::mirror_request());
    // Not `*`, which does not cover `authorization`.
    Some(layer.allow_headers(AllowHeaders::mirror_request()).expose_headers(exposed).max_age(PREFLIGHT_AGE))
}

/// How long a browser may remember the answer to a preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

async fn unknown_route(request: Request) -> Refusal {
    let path: String = request.uri().path().chars().take(80).collect();
    let message = format!("no such route: {} {path}", request.method());
    Refusal::invalid(StatusCode::NOT_FOUND, "unknown_route", message)
}

async fn wrong_method(request: Request) -> Refusal {
    let message = format!("{}: expected another method, found {}", request.uri().path(), request.method());
    Refusal::invalid(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Gives a request its id, checks its key, limits its time and counts it.
async fn surround(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let endpoint = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let id: Arc<str> = crate::random::id().into();
    let access: Arc<Access> = request.extensions().get().cloned().unwrap_or_default();
    access.set_id(&id);
    let arrived = Instant::now();
    let deadline = tokio::time::Instant::from_std(arrived) + app.config.request_timeout;
    let ticket = Arc::new(app.drain.enter());
    let mut counted = Counted { app: &app, endpoint: &endpoint, status: CLIENT_LEFT };
    let answered = match admit(&app, &endpoint, &request) {
        Ok(client) => {
            let access = Arc::clone(&access);
            let call = Call { id: Arc::clone(&id), client, arrived, deadline, access, _ticket: ticket };
            request.extensions_mut().insert(call);
            timeout_at(deadline, next.run(request)).await
        }
        Err(refusal) => Ok(refusal.into_response()),
    };
    let timeout = || Refusal::timed_out(app.config.request_timeout.as_secs()).into_response();
    let mut response = answered.unwrap_or_else(|_elapsed| timeout());
    if let Some(error) = response.extensions().get::<ApiError>() {
        access.set_error(error.code.unwrap_or(error.kind));
    }
    if anthropic::is_route(&endpoint) {
        response = anthropic::in_its_form(response, &id);
    } else if ollama::is_route(&endpoint) {
        response = ollama::in_its_form(response);
    }
    counted.status = response.status().as_u16();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Whether a request may be served, and whose it is.
fn admit(app: &App, endpoint: &str, request: &Request) -> Result<Client, Refusal> {
    if OPEN.contains(&endpoint) {
        return Ok(Client::default());
    }
    let of_key = app.keys.check(request.headers())?;
    let of_address = || {
        let peer = request.extensions().get().map(|Peer(peer)| app.proxies.client(*peer, request.headers()));
        peer.map(|address| client_of(address).into())
    };
    if request.extensions().get() == Some(&Admitted::ForState) && endpoint != "/metrics" {
        return Err(Refusal::too_many_connections());
    }
    if app.drain.is_draining() && endpoint != "/metrics" {
        return Err(Refusal::draining());
    }
    Ok(of_key.or_else(of_address).unwrap_or_default())
}

/// Counts a request when it is answered, or when its future is dropped because the client has gone.
struct Counted<'a> {
    app: &'a App,
    endpoint: &'a str,
    status: u16,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.app.metrics.request(self.endpoint, self.status);
    }
}
