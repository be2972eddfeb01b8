//! `/v1/files`: the files that batches read and write.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::app::{App, AppState, blocking};
use crate::body::{MAX_DISCARDED, too_large_body};
use crate::files::{FileStore, NewFile, StoredFile};
use crate::refusal::Refusal;
use crate::routes::parts::{Id, Paged};

/// The only supported purpose of a file.
pub(crate) const PURPOSE: &str = "batch";
/// Bytes of content read at a time.
const PIECE: usize = 64 << 10;
/// Longest file name and purpose.
const MAX_WORD: usize = 512;

pub(crate) async fn upload(State(app): State<AppState>, request: Request) -> Result<Json<Value>, Refusal> {
    let store = store(&app)?;
    let is_sent = !request.headers().contains_key(EXPECT);
    let allowance = Allowance::default();
    let request = request.map(|body| allowance.limit(body));
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| {
        let message = format!("body: expected multipart/form-data, {error}");
        Refusal::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    })?;
    let stored = store_form(&app, store, &mut form, &allowance).await;
    if stored.is_err() && is_sent {
        discard(&mut form, &allowance).await;
    }
    Ok(Json(body(&stored?)))
}

/// Reads the rest of a form that was refused: a client that is still sending it would see a reset connection instead of the answer.
async fn discard(form: &mut Multipart, allowance: &Allowance) {
    let mut num_read = 0;
    while let Ok(Some(mut field)) = form.next_field().await {
        while let Ok(Some(data)) = field.chunk().await {
            allowance.renew();
            num_read += data.len();
            if num_read > MAX_DISCARDED {
                return;
            }
        }
    }
}

async fn store_form(
    app: &App,
    store: Arc<FileStore>,
    form: &mut Multipart,
    allowance: &Allowance,
) -> Result<StoredFile, Refusal> {
    let (mut content, mut purpose) = (None, None);
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        allowance.renew();
        match field.name() {
            Some("purpose") => purpose = Some(word(field).await?),
            Some("file") => {
                let name = field.file_name().unwrap_or("upload.jsonl").chars().take(MAX_WORD).collect();
                content = Some((receive(app, Arc::clone(&store), field, allowance).await?, name));
            }
            Some("expires_after[anchor]" | "expires_after[seconds]") => {
                return Err(Refusal::field("expires_after", "expected none (not supported)"));
            }
            _ => {}
        }
    }
    let purpose: String =
        purpose.ok_or_else(|| Refusal::field("purpose", "expected \"batch\", found none"))?;
    if purpose != PURPOSE {
        return Err(Refusal::field("purpose", format!("expected \"batch\", found {purpose:?}")));
    }
    let (file, name): (NewFile, String) =
        content.ok_or_else(|| Refusal::field("file", "expected a file, found none"))?;
    blocking(move || {
        let stored = store.add(file, name, PURPOSE).map_err(|error| not_stored(&store, &error))?;
        store.works();
        Ok(stored)
    })
    .await
}

pub(crate) async fn list(State(app): State<AppState>, Paged(query): Paged) -> Result<Json<Value>, Refusal> {
    let mut files = store(&app)?.list();
    if let Some(purpose) = &query.purpose {
        files.retain(|file| file.purpose == *purpose);
    }
    query.page(files, |file| &file.id, body).map(Json)
}

pub(crate) async fn get(State(app): State<AppState>, Id(id): Id) -> Result<Json<Value>, Refusal> {
    Ok(Json(body(&find(&*store(&app)?, &id)?)))
}

pub(crate) async fn delete(State(app): State<AppState>, Id(id): Id) -> Result<Json<Value>, Refusal> {
    let store = store(&app)?;
    find(&store, &id)?;
    if app.batches.as_ref().is_some_and(|batches| batches.reads(&id)) {
        let message = format!("{id} is the input of a batch that is not finished");
        return Err(Refusal::invalid(StatusCode::CONFLICT, "file_in_use", message));
    }
    blocking(move || {
        store.remove(&id).map_err(|error| Refusal::disk("removing a file", &error))?;
        Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
    })
    .await
}

pub(crate) async fn content(State(app): State<AppState>, Id(id): Id) -> Result<Response, Refusal> {
    let store = store(&app)?;
    let stored = find(&store, &id)?;
    let file = tokio::fs::File::open(store.content(&stored)).await;
    let file = file.map_err(|error| Refusal::internal("reading a file", &error))?;
    let pieces = stream::try_unfold(file, |mut file| async {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, io::Error>((read > 0).then(|| (piece.freeze(), file)))
    });
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, stored.bytes.to_string())];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Bytes of a form that may arrive without a part or a piece of one. The headers of a part have no bound of their own, are held in memory,
/// and are searched again with each piece that arrives.
#[derive(Debug)]
struct Allowance(Arc<AtomicUsize>);

/// Much more than arrives at once: all of that is taken in before parts are looked for.
const ALLOWED: usize = 64 << 20;

impl Default for Allowance {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(ALLOWED)))
    }
}

impl Allowance {
    fn renew(&self) {
        self.0.store(ALLOWED, Ordering::Relaxed);
    }

    /// A body that ends with an error beyond the allowance.
    fn limit(&self, body: Body) -> Body {
        let left = Arc::clone(&self.0);
        Body::from_stream(body.into_data_stream().map(move |piece| {
            let piece = piece.map_err(axum::BoxError::from)?;
            let rest = left.load(Ordering::Relaxed).checked_sub(piece.len());
            let rest = rest.ok_or("expected a part's headers to be shorter than 64 MiB, found more")?;
            left.store(rest, Ordering::Relaxed);
            Ok::<_, axum::BoxError>(piece)
        }))
    }
}

/// The store, if the server has one.
pub(crate) fn store(app: &App) -> Result<Arc<FileStore>, Refusal> {
    app.files.clone().ok_or_else(no_data)
}

/// 404: the server has no folder for files and batches.
pub(crate) fn no_data() -> Refusal {
    let message = "this server keeps no files and batches\nhint: start it with --data-dir";
    Refusal::invalid(StatusCode::NOT_FOUND, "no_data_dir", message)
}

fn find(store: &FileStore, id: &str) -> Result<StoredFile, Refusal> {
    store.get(id).ok_or_else(|| Refusal::no_such("file", id))
}

/// Writes a field to disk as it arrives.
async fn receive(
    app: &App,
    store: Arc<FileStore>,
    mut field: Field<'_>,
    allowance: &Allowance,
) -> Result<NewFile, Refusal> {
    let beginning = Arc::clone(&store);
    let mut file =
        blocking(move || beginning.begin().map_err(|error| not_stored(&beginning, &error))).await?;
    while let Some(data) = field.chunk().await.map_err(malformed)? {
        allowance.renew();
        if file.len() + data.len() as u64 > app.config.file_limit {
            return Err(too_large_body(app.config.file_limit));
        }
        let store = Arc::clone(&store);
        let write = move || match file.write_all(&data) {
            Ok(()) => Ok(file),
            Err(error) => Err(not_stored(&store, &error)),
        };
        file = blocking(write).await?;
    }
    Ok(file)
}

/// A file that the disk refuses.
fn not_stored(store: &FileStore, error: &io::Error) -> Refusal {
    store.fails(error);
    Refusal::disk("storing a file", error)
}

async fn word(mut field: Field<'_>) -> Result<String, Refusal> {
    let name = field.name().unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    while let Some(data) = field.chunk().await.map_err(malformed)? {
        bytes.extend_from_slice(&data);
        if bytes.len() > MAX_WORD {
            return Err(Refusal::field(&name, format!("expected at most {MAX_WORD} bytes, found more")));
        }
    }
    String::from_utf8(bytes).map_err(|_| Refusal::field(&name, "expected UTF-8"))
}

#[allow(clippy::needless_pass_by_value)] // As `map_err` gives it.
fn malformed(error: MultipartError) -> Refusal {
    Refusal(openai::ApiError::malformed(format!("body: {}", error.body_text())))
}

fn body(file: &StoredFile) -> Value {
    let StoredFile { id, filename, bytes, created_at, purpose } = file;
    json!({
        "id": id, "object": "file", "bytes": bytes, "created_at": created_at, "filename": filename,
        "purpose": purpose, "status": "processed",
    })
}
