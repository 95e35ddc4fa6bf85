//! Events of other hook systems over HTTP, in their own words: asked about, and answered as those systems read answers.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{self, Door};
use super::extract::Query;
use super::gates::{Asked, Gates};
use super::intake::pairs;
use super::openapi;
use super::problem::{Details, Problem, whole};
use crate::dialect;
use crate::domain::access::Role;
use crate::domain::dialect::Dialect;
use crate::publish;

/// The id of the event: a client's own, and the one that it was given.
pub(super) const EVENT_ID: HeaderName = HeaderName::from_static("hook-event-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// As long as an id may be that is a property of a message.
const ID_BYTES_MAX: usize = 255;

/// The routes by the name of a dialect. One takes its token from the path, for systems whose hooks send no headers.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Gates> {
    let by_header = OpenApiRouter::default().routes(routes!(hook));
    let by_path = OpenApiRouter::default().routes(routes!(hook_of_kheish));
    let by_path = match door {
        Some(door) => by_path.layer(from_fn_with_state((Arc::clone(door), Role::Decide), access::guard_by_path)),
        None => by_path,
    };
    openapi::behind(Role::Decide, by_header, door).merge(by_path)
}

/// Asks the gates about an event of another hook system, in its own words, and answers in them.
///
/// The event is published for those who observe it. `Hook-Event-Id` is its id: of the request, or a new one, and in the answer.
/// Without it, requests of one `Idempotency-Key` are one event for as long as none of them was answered.
#[utoipa::path(
    post,
    path = "/v1/hooks/{dialect}",
    operation_id = "hook",
    params(
        ("dialect" = String, Path, description = "Whose words the body is in: `kheish`"),
        Asked
    ),
    request_body(description = "What the system sends to its hooks", content((Object = "application/json"))),
    responses(
        (status = 200, description = "What the hooks have decided, as the system reads it", body = Object),
        (status = 400, description = "The deadline or the event's id is none", body = Details, content_type = "application/problem+json"),
        (status = 404, description = "No dialect has this name", body = Details, content_type = "application/problem+json"),
        (status = 409, description = "Other data were decided under this id before", body = Details,
         content_type = "application/problem+json"),
        (status = 413, description = "The event is too large", body = Details, content_type = "application/problem+json"),
        (status = 415, description = "The body has a content coding that is not known", body = Details,
         content_type = "application/problem+json"),
        (status = 422, description = "It is no event of that system", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "Gates cannot be asked now", body = Details, content_type = "application/problem+json"),
        (status = 504, description = "There is no decision by the deadline", body = Details,
         content_type = "application/problem+json"),
    )
)]
async fn hook(
    State(gates): State<Gates>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, Problem> {
    let dialect = Dialect::named(&name).map_err(|error| Problem::new(StatusCode::NOT_FOUND, error))?;
    if dialect == Dialect::Native {
        let detail = "events of this project's own are asked about at /v1/gates, and published at /v1/events";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    answered(&gates, dialect, &asked, request).await
}

/// The same for Kheish, whose http hooks send no headers: the last part of the path is a token of role decide.
#[utoipa::path(
    post,
    path = "/v1/hooks/kheish/{token}",
    operation_id = "hook_of_kheish",
    params(("token" = String, Path, description = "A token of role decide"), Asked),
    request_body(description = "An invocation of a hook of Kheish", content((Object = "application/json"))),
    responses(
        (status = 200, description = "An outcome of Kheish", body = Object),
        (status = 400, description = "The deadline or the event's id is none", body = Details, content_type = "application/problem+json"),
        (status = 401, description = "It is no token that is known", body = Details, content_type = "application/problem+json"),
        (status = 403, description = "The token's role is not enough; or there are no tokens, and the address is not loopback",
         body = Details, content_type = "application/problem+json"),
        (status = 409, description = "Other data were decided under this id before", body = Details,
         content_type = "application/problem+json"),
        (status = 413, description = "The event is too large", body = Details, content_type = "application/problem+json"),
        (status = 415, description = "The body has a content coding that is not known", body = Details,
         content_type = "application/problem+json"),
        (status = 422, description = "It is no event of Kheish", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "Gates cannot be asked now", body = Details, content_type = "application/problem+json"),
        (status = 504, description = "There is no decision by the deadline", body = Details,
         content_type = "application/problem+json"),
    )
)]
async fn hook_of_kheish(
    State(gates): State<Gates>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, Problem> {
    answered(&gates, Dialect::Kheish, &asked, request).await
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The id that a client gives its event.
pub(super) fn own_id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let own = text(headers, &EVENT_ID);
    if let Some(own) = own.as_ref().filter(|own| own.is_empty() || own.len() > ID_BYTES_MAX) {
        let detail = format!("Hook-Event-Id: expected 1 to {ID_BYTES_MAX} bytes, found {}", own.len());
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    Ok(own)
}

async fn answered(gates: &Gates, dialect: Dialect, asked: &Asked, mut request: Request) -> Result<Response, Problem> {
    let deadline = gates.begin(asked)?;
    let until = Instant::now() + deadline;
    let headers = std::mem::take(request.headers_mut());
    let (own, key) = (own_id(&headers)?, text(&headers, &IDEMPOTENCY_KEY));
    let reading = &gates.intake.reading;
    let body = whole(request, reading.body_bytes_max, ", the limit (events.body_bytes_max)").await?;
    let key = key.filter(|_| own.is_none());
    let id = match (own, &key) {
        (Some(own), _) => Some(own),
        (None, Some(key)) => Some(gates.repeats.id(key, publish::random_id(), Instant::now())),
        (None, None) => None,
    };
    let event = publish::foreign(dialect, &pairs(&headers), &body, id.as_deref(), reading)?;
    let decision = gates.decision(&event, until, deadline).await?;
    if let Some(key) = &key {
        gates.repeats.answered(key, event.id());
    }
    let headers = [(header::CONTENT_TYPE, "application/json"), (EVENT_ID, event.id())];
    Ok((headers, dialect::answer(dialect, &decision)).into_response())
}
