//! Single invocations over HTTP.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;

use super::Admin;
use super::problem::Problem;
use crate::desk::cancel::{Cancelled, cancel as cancel_invocation};
use crate::domain::event::EventDigest;
use crate::domain::hook::HookId;
use crate::domain::invocation::InvocationKey;

#[derive(Deserialize)]
pub(super) struct Cancel {
    /// As log lines name it: the 32 digits before the hook.
    event: String,
}

/// `POST /v1/runtime/hooks/{hook}/cancel?event=…`.
pub(super) async fn cancel(
    State(admin): State<Admin>,
    Path(hook): Path<String>,
    Query(cancel): Query<Cancel>,
) -> Result<Json<Cancelled>, Problem> {
    let refuse = |sentence: String| Problem::new(StatusCode::BAD_REQUEST, sentence);
    let event: EventDigest = cancel.event.parse().map_err(refuse)?;
    let key = InvocationKey { event, hook: HookId::new(&hook).map_err(refuse)? };
    Ok(Json(cancel_invocation(admin.claims.as_ref(), &key, admin.cancelled_for).await?))
}
