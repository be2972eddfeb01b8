//! `/props` and `/slots`: the server as llama.cpp's clients want to know it.

use axum::Json;
use axum::extract::State;
use rustorch_llama::ControlTokens;
use serde_json::{Value, json};

use crate::app::{App, AppState};

/// The model and the server's limits.
pub(crate) async fn props(State(app): State<AppState>) -> Json<Value> {
    let tokenizer = &app.model.tokenizer;
    let text =
        |id: Option<u32>| id.map(|id| tokenizer.decode(&[id], ControlTokens::Show)).unwrap_or_default();
    let template = tokenizer.chat_template().ok().map(|template| template.source());
    Json(json!({
        "default_generation_settings": {"n_ctx": app.model.engine.max_seq_tokens()},
        "total_slots": app.model.config.batch_size,
        "model_alias": app.model.names[0],
        "chat_template": template.unwrap_or_default(),
        "bos_token": text(tokenizer.bos()),
        "eos_token": text(tokenizer.eos()),
        "modalities": {"vision": false, "audio": false},
        "build_info": concat!("rustorch-", env!("CARGO_PKG_VERSION")),
    }))
}

/// The places in the batch. A sequence has none of its own, so those that are in use come first.
pub(crate) async fn slots(State(app): State<AppState>) -> Json<Value> {
    let running = app.model.engine.stats().running;
    Json((0..app.model.config.batch_size).map(|id| slot(&app, id, id < running)).collect())
}

fn slot(app: &App, id: usize, is_processing: bool) -> Value {
    json!({"id": id, "n_ctx": app.model.engine.max_seq_tokens(), "is_processing": is_processing})
}
