//! Dead letters over HTTP; the paths are Kheish's.

use axum::extract::{Path, Query, State};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::problem::Problem;
use crate::desk::Replayed;
use crate::domain::dead_letter::LetterId;

/// `GET …/dead-letter`: every letter, oldest first, without bodies.
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Value>, Problem> {
    let entries = admin.desk.entries().await?;
    let items: Vec<Value> = entries.iter().map(|entry| entry.view(false)).collect();
    Ok(Json(json!({ "items": items })))
}

#[derive(Deserialize)]
pub(super) struct Show {
    #[serde(default)]
    body: bool,
}

/// `GET …/dead-letter/{id}`, with `?body=true` the event itself too.
pub(super) async fn show(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(show): Query<Show>,
) -> Result<Json<Value>, Problem> {
    let entry = admin.desk.find(&LetterId::from(id.as_str())).await?;
    Ok(Json(entry.view(show.body)))
}

#[derive(Deserialize)]
pub(super) struct Replay {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    by: Option<String>,
}

/// `POST …/dead-letter/{id}/replay`.
pub(super) async fn replay(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(replay): Query<Replay>,
) -> Result<Json<Replayed>, Problem> {
    let by = replay.by.as_deref().unwrap_or("operator");
    Ok(Json(admin.desk.replay(&LetterId::from(id.as_str()), replay.force, by).await?))
}
