//! Dead letters over HTTP; the paths are Kheish's.

use axum::extract::{Path, Query, State};
use axum::response::Json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Admin;
use super::problem::{Details, Problem};
use crate::desk::Replayed;
use crate::domain::dead_letter::LetterId;
use crate::domain::fold::Entry;

/// The routes that change nothing.
pub(super) fn reading() -> OpenApiRouter<Admin> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(show))
}

/// The routes that change something.
pub(super) fn operating() -> OpenApiRouter<Admin> {
    OpenApiRouter::default().routes(routes!(replay))
}

/// Letters, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Letters {
    /// Without bodies.
    #[schema(value_type = Vec<Entry>)]
    items: Vec<Value>,
}

/// Every letter, oldest first, without bodies.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter",
    operation_id = "letters",
    responses(
        (status = 200, description = "Every letter with its state", body = Letters),
        (status = 503, description = "The log cannot be read", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Letters>, Problem> {
    let entries = admin.desk.entries().await?;
    Ok(Json(Letters { items: entries.iter().map(|entry| entry.view(false)).collect() }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Show {
    /// The event itself too.
    #[serde(default)]
    body: bool,
}

/// One letter, with `?body=true` the event itself too.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter/{id}",
    operation_id = "letter",
    params(("id" = String, Path, description = "The letter's id"), Show),
    responses(
        (status = 200, description = "The letter with its state", body = Entry),
        (status = 404, description = "No letter has this id", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(show): Query<Show>,
) -> Result<Json<Value>, Problem> {
    let entry = admin.desk.find(&LetterId::from(id.as_str())).await?;
    Ok(Json(entry.view_without(show.body, &admin.redact)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Replay {
    /// Run it although it was finished, under an Idempotency-Key of its own.
    #[serde(default)]
    force: bool,
    /// Who wants it, for the letter's history.
    #[serde(default)]
    by: Option<String>,
}

/// Sends a letter's work out again. Doing it twice does it once.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/{id}/replay",
    operation_id = "replay",
    params(("id" = String, Path, description = "The letter's id"), Replay),
    responses(
        (status = 200, description = "It is out, as this generation", body = Replayed),
        (status = 404, description = "No letter has this id", body = Details, content_type = "application/problem+json"),
        (status = 409, description = "It is resolved, or of a kind that cannot be replayed as it is", body = Details,
         content_type = "application/problem+json"),
        (status = 503, description = "The broker is away; replaying again is safe", body = Details,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn replay(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(replay): Query<Replay>,
) -> Result<Json<Replayed>, Problem> {
    let by = replay.by.as_deref().unwrap_or("operator");
    Ok(Json(admin.desk.replay(&LetterId::from(id.as_str()), replay.force, by).await?))
}
