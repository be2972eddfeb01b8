//! `/v1/batches`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use openai::{Endpoint, Object};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::{App, AppState, blocking};
use crate::batches::{Batch, Batches, NewBatch, Status};
use crate::body::JsonBytes;
use crate::refusal::Refusal;
use crate::routes::files::{PURPOSE, no_data};
use crate::routes::parts::{Id, Paged};

/// The only window of the API. A batch does not expire when it is over.
const WINDOW: &str = "24h";
const MAX_METADATA: usize = 16;

pub(crate) async fn create(
    State(app): State<AppState>,
    JsonBytes(body): JsonBytes,
) -> Result<Json<Value>, Refusal> {
    let batches = batches(&app)?;
    blocking(move || {
        let new = read(&app, &openai::parse_object(&body)?)?;
        let batch = batches.create(new).map_err(|error| Refusal::disk("storing a batch", &error))?;
        Ok(Json(json!(batch)))
    })
    .await
}

pub(crate) async fn list(State(app): State<AppState>, Paged(query): Paged) -> Result<Json<Value>, Refusal> {
    query.page(batches(&app)?.list(), |batch| &batch.id, |batch| json!(batch)).map(Json)
}

pub(crate) async fn get(State(app): State<AppState>, Id(id): Id) -> Result<Json<Value>, Refusal> {
    let batch: Option<Batch> = batches(&app)?.get(&id);
    batch.map(|batch| Json(json!(batch))).ok_or_else(|| Refusal::no_such("batch", &id))
}

pub(crate) async fn cancel(State(app): State<AppState>, Id(id): Id) -> Result<Json<Value>, Refusal> {
    let batches = batches(&app)?;
    blocking(move || {
        let cancelled = batches.cancel(&id).map_err(|error| Refusal::disk("storing a batch", &error))?;
        let batch = cancelled.ok_or_else(|| Refusal::no_such("batch", &id))?;
        if matches!(batch.status, Status::Completed | Status::Failed) {
            let message = "the batch is finished and cannot be cancelled";
            return Err(Refusal::invalid(StatusCode::CONFLICT, "batch_finished", message));
        }
        Ok(Json(json!(batch)))
    })
    .await
}

fn batches(app: &App) -> Result<Arc<Batches>, Refusal> {
    app.batches.clone().ok_or_else(no_data)
}

fn read(app: &App, body: &Object) -> Result<NewBatch, Refusal> {
    let text = |name: &str, expected: &str| match body.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        found => {
            let found = found.map_or("none".to_owned(), openai::shown);
            Err(Refusal::field(name, format!("expected {expected}, found {found}")))
        }
    };
    let endpoint = text("endpoint", "a path")?;
    if Endpoint::from_path(&endpoint).is_none() {
        let paths = Endpoint::ALL.map(Endpoint::path).join(" or ");
        return Err(Refusal::field("endpoint", format!("expected {paths}, found {endpoint:?}")));
    }
    let completion_window = text("completion_window", WINDOW)?;
    if completion_window != WINDOW {
        let rest = format!("expected \"{WINDOW}\", found {completion_window:?}");
        return Err(Refusal::field("completion_window", rest));
    }
    let metadata = match body.get("metadata") {
        None | Some(Value::Null) => None,
        Some(value) => match BTreeMap::<String, String>::deserialize(value) {
            Ok(metadata) if metadata.len() <= MAX_METADATA => Some(metadata),
            _ => {
                let rest = format!("expected an object of at most {MAX_METADATA} strings");
                return Err(Refusal::field("metadata", rest));
            }
        },
    };
    let id = text("input_file_id", "the id of a file")?;
    let input = app.files.as_ref().and_then(|files| files.get(&id)).filter(|file| file.purpose == PURPOSE);
    let input = input.ok_or_else(|| {
        Refusal::field("input_file_id", format!("expected the id of an uploaded file, found {id:?}"))
    })?;
    Ok(NewBatch { input, endpoint, completion_window, metadata })
}
