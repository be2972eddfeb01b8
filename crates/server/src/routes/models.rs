//! `/v1/models`: the one model under all of its names.

use axum::Json;
use axum::extract::State;
use openai::ApiError;
use serde_json::{Value, json};

use crate::app::{App, AppState};
use crate::refusal::Refusal;
use crate::routes::parts::Id;

pub(crate) async fn list(State(app): State<AppState>) -> Json<Value> {
    let models: Vec<_> = app.model.names.iter().map(|name| model(&app, name)).collect();
    Json(json!({"object": "list", "data": models}))
}

pub(crate) async fn get(State(app): State<AppState>, Id(id): Id) -> Result<Json<Value>, Refusal> {
    match app.model.names.iter().find(|name| **name == id) {
        Some(name) => Ok(Json(model(&app, name))),
        None => Err(Refusal(ApiError::unknown_model(&id, &app.model.names))),
    }
}

fn model(app: &App, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.started,
        "owned_by": "rustorch",
        "max_model_len": app.model.engine.max_seq_tokens(),
        "max_num_seqs": app.model.config.batch_size,
    })
}
