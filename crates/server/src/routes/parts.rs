//! Parts of a request's address. What cannot be read is refused as JSON, like everything else.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use openai::ApiError;

use crate::app::AppState;
use crate::refusal::Refusal;
use crate::routes::pages::PageQuery;

/// The `{id}` of a route.
pub(crate) struct Id(pub String);

impl FromRequestParts<AppState> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Refusal> {
        let Path(id) = Path::from_request_parts(parts, app)
            .await
            .map_err(|error| Refusal(ApiError::malformed(format!("path: {}", error.body_text()))))?;
        Ok(Self(id))
    }
}

/// The query of a list.
pub(crate) struct Paged(pub PageQuery);

impl FromRequestParts<AppState> for Paged {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Refusal> {
        let Query(query) = Query::from_request_parts(parts, app)
            .await
            .map_err(|error| Refusal(ApiError::malformed(format!("query: {}", error.body_text()))))?;
        Ok(Self(query))
    }
}
