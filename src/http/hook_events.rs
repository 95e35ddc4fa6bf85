//! Events of hook systems that wait for no answer, in their own words: published, and confirmed as soon as the broker has them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::dialects::{EVENT_ID, own_id};
use super::gateway::{Gateway, Published, one};
use super::intake::{Intake, pairs};
use super::openapi;
use super::problem::{Details, Problem, whole};
use crate::domain::access::Role;
use crate::domain::dialect::Dialect;
use crate::publish::{self, Event, Publisher};

/// The routes, one a system.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Gateway> {
    openapi::behind(Role::Publish, OpenApiRouter::default().routes(routes!(of_aether)), door)
}

/// Publishes a hook event of Aether, answered once the broker has confirmed.
///
/// `Hook-Event-Id` is its id: of the request, else that of the run and the hook where one run fires it once, else a new one. It is
/// in the answer.
#[utoipa::path(
    post,
    path = "/v1/hooks/aether",
    operation_id = "hook_of_aether",
    params(("hook-event-id" = Option<String>, Header, description = "The event's id, of 1 to 255 bytes")),
    request_body(description = "A hook event, as Go writes it", content((Object = "application/json"))),
    responses(
        (status = 202, description = "The broker has confirmed the event", body = Published),
        (status = 400, description = "The event's id is none", body = Details, content_type = "application/problem+json"),
        (status = 413, description = "The event is too large", body = Details, content_type = "application/problem+json"),
        (status = 415, description = "The body has a content coding that is not known", body = Details,
         content_type = "application/problem+json"),
        (status = 422, description = "It is no hook event of Aether", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "Not confirmed within 10 s. Send it again with the same id", body = Details,
         content_type = "application/problem+json"),
    )
)]
async fn of_aether(
    State(intake): State<Intake>,
    State(publisher): State<Arc<Publisher>>,
    request: Request,
) -> Result<Response, Problem> {
    published(Dialect::Aether, &intake, &publisher, request).await
}

/// Publishes what a request holds, in the words of this dialect.
pub(super) async fn published(
    dialect: Dialect,
    intake: &Intake,
    publisher: &Publisher,
    mut request: Request,
) -> Result<Response, Problem> {
    let headers = std::mem::take(request.headers_mut());
    let body = whole(request, intake.reading.body_bytes_max, ", the limit (events.body_bytes_max)").await?;
    of_body(dialect, intake, publisher, &headers, &body).await
}

/// The same, of a body that was read before.
pub(super) async fn of_body(
    dialect: Dialect,
    intake: &Intake,
    publisher: &Publisher,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let own = own_id(headers)?;
    let event = publish::foreign(dialect, &pairs(headers), body, own.as_deref(), &intake.reading)?;
    confirmed(intake, publisher, &event).await
}

/// Publishes an event, and says under which id.
pub(super) async fn confirmed(intake: &Intake, publisher: &Publisher, event: &Event) -> Result<Response, Problem> {
    intake.refuse_misfits(std::slice::from_ref(event))?;
    let mut response = one(publisher, event).await?;
    if let Ok(id) = HeaderValue::from_str(event.id()) {
        response.headers_mut().insert(EVENT_ID, id);
    }
    Ok(response)
}
