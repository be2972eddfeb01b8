//! What all handlers share, the routes, and what surrounds every request.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use crate::auth::ApiKey;
use crate::batches::Batches;
use crate::config::{ServedModel, ServerConfig};
use crate::drain::{Drain, Ticket};
use crate::files::FileStore;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::refusal::Refusal;
use crate::routes::{batches, files, generate, health, models, tokens};

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub model: ServedModel,
    pub config: ServerConfig,
    /// Seconds since 1970 when the server started.
    pub started: u64,
    pub queue: Queue,
    pub metrics: Arc<Metrics>,
    pub registry: Registry,
    pub drain: Drain,
    /// None without a folder for it.
    pub files: Option<Arc<FileStore>>,
    pub batches: Option<Arc<Batches>>,
    api_key: Option<ApiKey>,
    /// The data folder's, locked.
    lock: Option<File>,
}

pub(crate) type AppState = Arc<App>;

/// What a handler is told of its request beside the request itself.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Random, as 32 hexadecimal digits.
    pub id: Arc<str>,
    pub arrived: Instant,
    pub deadline: tokio::time::Instant,
    /// Held until the answer has been handed over: it keeps the server from going down.
    pub _ticket: Arc<Ticket>,
}

/// Routes that are served without a key and while the server goes down: they tell how it is and nothing of the model.
const OPEN: [&str; 2] = ["/", "/health"];

impl App {
    /// Opens what the data folder holds, if there is to be one.
    pub fn new(model: ServedModel, config: ServerConfig, drain: Drain) -> io::Result<Self> {
        let lock = config.data.as_ref().map(|data| lock(&data.folder)).transpose()?;
        let files = config.data.as_ref().map(|data| FileStore::open(data.folder.join("files")));
        let files = files.transpose().map_err(io::Error::other)?.map(Arc::new);
        let batches = match (&config.data, &files) {
            (Some(data), Some(files)) => {
                Some(Arc::new(Batches::open(data.folder.join("batches"), Arc::clone(files))?))
            }
            _ => None,
        };
        let metrics = Arc::new(Metrics::default());
        let batch_size = model.config.batch_size;
        Ok(Self {
            started: crate::clock::unix_seconds(),
            queue: Queue::new(batch_size, config.max_queue),
            registry: metrics.registry(model.engine.clone()),
            metrics,
            drain,
            api_key: config.api_key.as_deref().map(ApiKey::new),
            lock,
            files,
            batches,
            model,
            config,
        })
    }
}

impl App {
    /// Lets another server use the data folder, even if a connection still holds this.
    pub fn release_data(&self) {
        if let Some(Err(error)) = self.lock.as_ref().map(File::unlock) {
            tracing::warn!(%error, "the data folder stays locked");
        }
    }
}

/// Makes a data folder this server's alone. The system gives it back when the process ends, however it does.
fn lock(folder: &Path) -> io::Result<File> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(named)?;
    let file = File::create(folder.join("lock")).map_err(named)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(named(io::Error::other("expected to be its only user, found it locked by another server")))
        }
        Err(TryLockError::Error(error)) => Err(named(error)),
    }
}

/// The whole service.
pub(crate) fn router(app: AppState) -> Router {
    Router::new()
        .route("/", get(health::page))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::get))
        .route("/v1/completions", post(generate::completions))
        .route("/v1/chat/completions", post(generate::chat_completions))
        .route("/v1/embeddings", post(generate::embeddings))
        .route("/v1/files", get(files::list).post(files::upload).layer(DefaultBodyLimit::disable()))
        .route("/v1/files/{id}", get(files::get).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", get(batches::list).post(batches::create))
        .route("/v1/batches/{id}", get(batches::get))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), surround))
        .with_state(app)
}

/// Runs work that takes its time, such as tokenising, where it holds up no other request.
///
/// # Errors
/// Its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Refusal::internal("the request", &error)))
}

async fn unknown_route(request: Request) -> Refusal {
    let path: String = request.uri().path().chars().take(80).collect();
    let message = format!("no such route: {} {path}", request.method());
    Refusal::invalid(StatusCode::NOT_FOUND, "unknown_route", message)
}

async fn wrong_method(request: Request) -> Refusal {
    let message = format!("{}: expected another method, found {}", request.uri().path(), request.method());
    Refusal::invalid(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Around every request: its id, its key, its time, its count.
async fn surround(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let endpoint = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let id: Arc<str> = crate::random::id().into();
    let arrived = Instant::now();
    let deadline = tokio::time::Instant::from_std(arrived) + app.config.request_timeout;
    let ticket = Arc::new(app.drain.enter());
    request.extensions_mut().insert(Call { id: Arc::clone(&id), arrived, deadline, _ticket: ticket });

    let mut counted = Counted { app: &app, endpoint: &endpoint, status: CLIENT_LEFT };
    let answered = match admit(&app, &endpoint, &request) {
        Ok(()) => timeout_at(deadline, next.run(request)).await,
        Err(refusal) => Ok(refusal.into_response()),
    };
    let timeout = || Refusal::timed_out(app.config.request_timeout.as_secs()).into_response();
    let mut response = answered.unwrap_or_else(|_elapsed| timeout());
    counted.status = response.status().as_u16();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
    }
    response
}

fn admit(app: &App, endpoint: &str, request: &Request) -> Result<(), Refusal> {
    if OPEN.contains(&endpoint) {
        return Ok(());
    }
    if let Some(key) = &app.api_key {
        key.check(request.headers())?;
    }
    if app.drain.is_draining() && endpoint != "/metrics" {
        return Err(Refusal::draining());
    }
    Ok(())
}

/// As the status of a request whose client went before it was answered.
const CLIENT_LEFT: u16 = 499;

/// Counts a request when it is answered, or when its future is dropped because nobody waits for it any more.
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

/// How long a quiet stream waits before it shows that it is alive.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
