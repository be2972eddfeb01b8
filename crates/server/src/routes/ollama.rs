//! What sets Ollama's API apart: the form of errors, and what is told of models.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use openai::{ApiError, rfc3339};
use serde_json::{Value, json};

use crate::app::{App, AppState, blocking};
use crate::body::JsonBytes;
use crate::config::ModelFile;
use crate::refusal::Refusal;

/// Whether a route is one of that API.
pub(crate) fn is_route(route: &str) -> bool {
    route.starts_with("/api/")
}

/// A response, its error written as that API writes errors.
pub(crate) fn in_its_form(mut response: Response) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        *response.body_mut() = openai::ollama_error(&error).to_string().into();
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// The one model under all of its names.
pub(crate) async fn tags(State(app): State<AppState>) -> Json<Value> {
    Json(json!({"models": app.model.names.iter().map(|name| model(&app, name)).collect::<Vec<_>>()}))
}

/// The same: the model is always loaded.
pub(crate) async fn running(State(app): State<AppState>) -> Json<Value> {
    let loaded = |name: &String| {
        let mut model = model(&app, name);
        // It is not unloaded, ever.
        model["expires_at"] = "9999-12-31T23:59:59Z".into();
        model["size_vram"] = 0.into();
        model["context_length"] = app.model.engine.max_seq_tokens().into();
        model
    };
    Json(json!({"models": app.model.names.iter().map(loaded).collect::<Vec<_>>()}))
}

/// What is known of a model.
pub(crate) async fn show(
    State(app): State<AppState>,
    JsonBytes(body): JsonBytes,
) -> Result<Json<Value>, Refusal> {
    blocking(move || {
        let body = openai::parse_object(&body)?;
        let name = ["model", "name"].into_iter().find_map(|field| body.get(field)?.as_str());
        let Some(name) = name else { return Err(Refusal::field("model", "expected a name, found none")) };
        let names = &app.model.names;
        let plain = name.strip_suffix(":latest").unwrap_or(name);
        if !names.iter().any(|known| known == name || known == plain) {
            return Err(Refusal(ApiError::unknown_model(name, names)));
        }
        Ok(Json(shown(&app)))
    })
    .await
}

fn shown(app: &App) -> Value {
    let (tokenizer, ModelFile { architecture, num_parameters, .. }) = (&app.model.tokenizer, &app.model.file);
    let template = tokenizer.chat_template().ok().map(|template| template.source()).unwrap_or_default();
    let capabilities = [
        ("completion", true),
        ("embedding", true),
        ("tools", !template.is_empty()),
        ("insert", tokenizer.fills_in()),
        ("thinking", template.contains("</think>")),
    ];
    let capabilities: Vec<_> =
        capabilities.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
    json!({
        "modified_at": rfc3339(app.started),
        "modelfile": "",
        "parameters": "",
        "template": template,
        "details": details(&app.model.file),
        "model_info": {
            "general.architecture": architecture,
            "general.parameter_count": num_parameters,
            format!("{architecture}.context_length"): app.model.engine.max_seq_tokens(),
            format!("{architecture}.embedding_length"): app.model.config.hidden_size(),
            format!("{architecture}.block_count"): app.model.config.num_layers(),
        },
        "capabilities": capabilities,
    })
}

fn model(app: &App, name: &str) -> Value {
    json!({
        "name": name,
        "model": name,
        "modified_at": rfc3339(app.started),
        "size": app.model.file.num_bytes,
        "digest": app.model.fingerprint.as_deref().map_or("", |fingerprint| fingerprint.trim_start_matches("fp_")),
        "details": details(&app.model.file),
    })
}

fn details(file: &ModelFile) -> Value {
    let ModelFile { architecture, num_parameters, format, .. } = file;
    let size = match *num_parameters {
        billions @ 1_000_000_000.. => format!("{:.1}B", billions as f64 / 1e9),
        millions => format!("{:.0}M", millions as f64 / 1e6),
    };
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": architecture,
        "families": [architecture],
        "parameter_size": size,
        "quantization_level": format,
    })
}
