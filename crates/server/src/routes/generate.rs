//! The endpoints that the engine answers: whole answers and streams.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use openai::{Answer, ApiError, Context, Endpoint, Identity, ModelNames, StreamOptions};
use rustorch_llama::Event;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::app::{App, AppState, Call, blocking, blocking_while_awaited};
use crate::body::JsonBytes;
use crate::events::{self, Events};
use crate::refusal::Refusal;
use crate::{clock, memory, random};

/// The prompt that a chat would make, as llama.cpp's server tells it.
pub(crate) async fn apply_template(
    State(app): State<AppState>,
    body: JsonBytes,
) -> Result<Response, Refusal> {
    told_of(app, body, "prompt", openai::render).await
}

/// Tokens of the prompt that a body of `/v1/messages` would make.
pub(crate) async fn count_tokens(State(app): State<AppState>, body: JsonBytes) -> Result<Response, Refusal> {
    told_of(app, body, "input_tokens", openai::count_tokens).await
}

/// What a body tells, and its fields that had no effect.
type Told<T> = Result<(T, BTreeSet<String>), ApiError>;

/// What can be told of a body that is not run, as the field `name` of an object.
async fn told_of<T: Serialize + 'static>(
    app: AppState,
    JsonBytes(body): JsonBytes,
    name: &'static str,
    tell: fn(&openai::Object, &Context<'_>) -> Told<T>,
) -> Result<Response, Refusal> {
    blocking(move || {
        let object = openai::parse_object(&body)?;
        let (told, ignored) = tell(&object, &context(&app))?;
        let mut response = json(&BTreeMap::from([(name, told)]))?;
        name_ignored(&mut response, &ignored);
        Ok(response)
    })
    .await
}

/// How long a stream may be silent before it sends a comment to keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A request that was submitted to the engine.
struct Started {
    answer: Answer,
    stream: Option<StreamOptions>,
    events: Events,
    ignored: BTreeSet<String>,
}

/// Answers a body of `endpoint`.
pub(crate) async fn generate(
    app: AppState,
    endpoint: Endpoint,
    call: Call,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Refusal> {
    app.queue.check()?;
    let (shared, caller) = (Arc::clone(&app), call.clone());
    // The connection drops this future when its client leaves.
    let start = move |is_waiting: &Weak<()>| start(&shared, endpoint, &body, &caller, is_waiting);
    let started = blocking_while_awaited(start).await?;
    let created = clock::unix_seconds();
    let identity = Identity { suffix: &call.id, created };
    let mut response = match started.stream {
        None => whole(&app, started.answer, started.events, &identity).await?,
        Some(options) => {
            let answer = started.answer.into_stream(&identity, options);
            streamed(app, call, answer, started.events)
        }
    };
    name_ignored(&mut response, &started.ignored);
    Ok(response)
}

/// The header that names the fields that had no effect.
pub(crate) const IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-ignored-fields");
/// Most names in it.
const MAX_NAMES: usize = 20;
/// Most characters of a name in it.
const MAX_NAME: usize = 60;

/// Names fields that nobody knows in a header. What headers cannot hold becomes `?`.
fn name_ignored(response: &mut Response, ignored: &BTreeSet<String>) {
    if ignored.is_empty() {
        return;
    }
    let visible = |c: char| if c.is_ascii_graphic() && c != ',' { c } else { '?' };
    let name = |name: &String| name.chars().take(MAX_NAME).map(visible).collect::<String>();
    let names: Vec<_> = ignored.iter().take(MAX_NAMES).map(name).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(IGNORED_FIELDS, value);
    }
}

/// What bodies are read with.
fn context(app: &App) -> Context<'_> {
    Context {
        tokenizer: &app.model.tokenizer,
        grammars: &app.model.grammars,
        model: &app.model.names[0],
        names: ModelNames::OneOf(&app.model.names),
        hidden_size: app.model.config.hidden_size(),
        pooling: app.model.pooling,
        fingerprint: app.model.fingerprint.as_deref(),
        seed: random::u64(),
        unknown_fields: app.config.unknown_fields,
    }
}

fn start(
    app: &App,
    endpoint: Endpoint,
    body: &[u8],
    call: &Call,
    is_waiting: &Weak<()>,
) -> Result<Started, Refusal> {
    let object = openai::parse_object(body)?;
    let prepared = openai::prepare(endpoint, &object, &context(app))?;
    if is_waiting.strong_count() == 0 {
        // While it was parsed and tokenised.
        return Err(Refusal::client_left());
    }
    let num_prompt_tokens = prepared.num_prompt_tokens();
    let openai::Prepared { work, answer, stream, ignored } = prepared;
    let count = match endpoint {
        // One request may have far more inputs than there are places. Each takes part of one pass.
        _ if endpoint.embeds() => work.len().min(app.model.config.batch_size).min(app.queue.most()),
        _ => work.len(),
    };
    let places = app.queue.reserve(call.client.id, count)?;
    call.access.runs(&app.model.names[0], num_prompt_tokens);
    let (metrics, access) = (Arc::clone(&app.metrics), Arc::clone(&call.access));
    let (mut sinks, events) = events::channel(places, metrics, call.arrived, access);
    work.with_client(call.client).submit(&app.model.engine, |choice| sinks.sink(choice))?;
    app.metrics.ignored_fields(endpoint.path(), ignored.len());
    Ok(Started { answer, stream, events, ignored })
}

async fn whole(
    app: &App,
    mut answer: Answer,
    mut events: Events,
    identity: &Identity<'_>,
) -> Result<Response, Refusal> {
    while !answer.is_complete() {
        // The engine sends every sequence's end before it drops its sink.
        let Some((choice, event)) = events.next().await else { return Err(Refusal::draining()) };
        answer.add(choice, event)?;
    }
    let body = answer.body(identity, &app.model.tokenizer);
    json(&body)
}

/// A body as a response.
///
/// # Errors
/// 503 if the system has no memory for it.
pub(crate) fn json(body: &impl Serialize) -> Result<Response, Refusal> {
    let content_type = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(([content_type], memory::to_json(body)?).into_response())
}

/// Most events in one write to the connection, so that a slow reader gets its backlog in few pieces.
const MAX_EVENTS_PER_WRITE: usize = 64;

/// A stream of events to a client.
struct Streaming {
    app: AppState,
    call: Call,
    answer: openai::Stream,
    events: Events,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Running,
    Ended,
}

fn streamed(app: AppState, call: Call, answer: openai::Stream, events: Events) -> Response {
    let content_type = answer.content_type();
    let streaming = Streaming { app, call, answer, events, phase: Phase::Opening };
    let frames = stream::unfold(streaming, |mut streaming| async {
        let frame = streaming.next_frame().await?;
        Some((Ok::<_, Infallible>(frame), streaming))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A proxy must not buffer the response, or it would arrive all at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Streaming {
    async fn next_frame(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Ended => None,
            Phase::Opening => {
                self.phase = Phase::Running;
                let mut frame = Vec::new();
                self.answer.open(&mut frame);
                // A completion has no opening chunk, and an empty frame would end the body.
                if frame.is_empty() { self.events_frame().await } else { Some(frame.into()) }
            }
            Phase::Running => self.events_frame().await,
        }
    }

    /// Waits until there is something to write.
    async fn events_frame(&mut self) -> Option<Bytes> {
        let mut frame = Vec::new();
        while frame.is_empty() {
            let alive_until = Instant::now() + KEEP_ALIVE;
            match timeout_at(alive_until.min(self.call.deadline), self.events.next()).await {
                Ok(Some((choice, event))) => self.write(&mut frame, choice, event),
                Ok(None) => self.fail(&mut frame, &Refusal::draining().0),
                Err(_) if Instant::now() >= self.call.deadline => {
                    let seconds = self.app.config.request_timeout.as_secs();
                    self.fail(&mut frame, &Refusal::timed_out(seconds).0);
                }
                // A comment, because proxies may close silent connections.
                Err(_) => frame.extend_from_slice(self.answer.comment().unwrap_or_default()),
            }
        }
        for _ in 1..MAX_EVENTS_PER_WRITE {
            if self.phase == Phase::Ended {
                break;
            }
            let Some((choice, event)) = self.events.try_next() else { break };
            self.write(&mut frame, choice, event);
        }
        Some(frame.into())
    }

    fn write(&mut self, frame: &mut Vec<u8>, choice: usize, event: Event) {
        match self.answer.add(choice, event, &self.app.model.tokenizer, frame) {
            Ok(()) if self.answer.is_complete() => self.phase = Phase::Ended,
            Ok(()) => {}
            Err(_) if self.events.has_overflowed() => self.fail(frame, &too_slow()),
            Err(error) => self.fail(frame, &error),
        }
    }

    /// Writes an error and ends the stream, without `[DONE]`.
    fn fail(&mut self, frame: &mut Vec<u8>, error: &ApiError) {
        self.call.access.set_error(error.code.unwrap_or(error.kind));
        self.answer.fail(error, frame);
        self.phase = Phase::Ended;
    }
}

fn too_slow() -> ApiError {
    ApiError {
        status: 408,
        kind: ApiError::INVALID_REQUEST,
        code: Some("reader_too_slow"),
        param: None,
        message: format!(
            "the stream was cancelled: expected a reader at most {} events behind",
            events::MAX_BACKLOG
        ),
    }
}
