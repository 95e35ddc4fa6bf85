//! Events and their single invocations over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::extract::{Path, Query};
use super::openapi;
use super::problem::{Details, Problem};
use crate::domain::access::Role;
use crate::domain::id::{EventDigest, HookId, InvocationKey};
use crate::operations::cancel::{Cancelled, cancel as cancel_invocation};
use crate::operations::events::{Asked, Events, Known};

/// What the handlers work with.
#[derive(Clone)]
pub struct Invocations {
    pub events: Events,
    /// How long an invocation is remembered that an operator cancelled.
    pub cancelled_for: Duration,
}

/// The routes of single invocations, and of the events that they are of.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Invocations> {
    let reading = openapi::behind(Role::Read, OpenApiRouter::default().routes(routes!(events)), door);
    reading.merge(openapi::behind(Role::Operate, OpenApiRouter::default().routes(routes!(cancel)), door))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfEvent {
    /// The event's id; or, without a source, as log lines name it: the 32 digits before the hook.
    id: String,
    /// Its source: with the id it names the event. Without it only letters, and the queues of a file, are searched.
    source: Option<String>,
}

/// Where an event is: what claims, letters and queues know of it, hook by hook.
///
/// Nothing is changed. What waits in RabbitMQ for its first run is not known.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "events",
    params(OfEvent),
    responses(
        (status = 200, description = "Each event of this id, with its state at every hook", body = Known),
        (status = 400, description = "It cannot be understood", body = Details,
         content_type = "application/problem+json"),
        (status = 404, description = "Nothing is known of it", body = Details,
         content_type = "application/problem+json"),
        (status = 503, description = "The claims or the letters cannot be read now", body = Details,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(state): State<Invocations>,
    Query(OfEvent { id, source }): Query<OfEvent>,
) -> Result<Json<Known>, Problem> {
    Ok(Json(state.events.look_up(&Asked::new(&id, source.as_deref())).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Cancel {
    /// As log lines name it: the 32 digits before the hook.
    #[param(pattern = "^[0-9a-f]{32}$")]
    event: String,
    /// Also what nothing is known of: should it come, it does not run.
    #[serde(default)]
    even_if_unknown: bool,
}

/// Ends what one hook has still to do for one event.
///
/// No letter is written, and doing it twice does it once. What nothing is known of is left alone, unless that is asked for.
#[utoipa::path(
    post,
    path = "/v1/catalog/hooks/{hook}/cancel",
    operation_id = "cancel",
    params(
        (
            "hook" = String, Path, description = "The hook's id", max_length = 128,
            pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
        ),
        Cancel
    ),
    responses(
        (status = 200, description = "What was found, and ended unless it was done", body = Cancelled),
        (status = 400, description = "The hook or the event is not named as it should be", body = Details,
         content_type = "application/problem+json"),
        (status = 404, description = "Nothing is known of it, and nothing was done", body = Details,
         content_type = "application/problem+json"),
        (status = 503, description = "The store of claims is away; cancelling again is safe", body = Details,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(
    State(state): State<Invocations>,
    Path(hook): Path<String>,
    Query(cancel): Query<Cancel>,
) -> Result<Json<Cancelled>, Problem> {
    let refuse = |sentence: String| Problem::new(StatusCode::BAD_REQUEST, sentence);
    let event: EventDigest = cancel.event.parse().map_err(refuse)?;
    let key = InvocationKey { event, hook: HookId::new(&hook).map_err(refuse)? };
    let (claims, keep) = (state.events.claims.as_ref(), state.cancelled_for);
    Ok(Json(cancel_invocation(claims, &key, keep, cancel.even_if_unknown).await?))
}
