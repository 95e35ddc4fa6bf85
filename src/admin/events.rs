//! The event gateway: 202 once the broker has confirmed, 503 with `Retry-After` when it has not.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;

use super::Admin;
use super::problem::Problem;
use crate::domain::event::TRACEPARENT;
use crate::publish::{Rejected, prepare};

/// `POST /v1/events` with one event in structured JSON. An event without an id is given one, which the answer tells:
/// a caller that wants to repeat a call safely sends its own.
pub(super) async fn publish(
    State(admin): State<Admin>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // A page in a browser can send an untyped body to loopback, but none of these types unasked.
    let content_type = Some(content_type.unwrap_or("no content type"));
    let trace = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let prepared = prepare(&body, content_type, trace, &admin.reading).map_err(|rejected| match rejected {
        Rejected::ContentType(detail) => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail),
        Rejected::Event(detail) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
    })?;
    let (id, source) = (prepared.event.id.clone(), prepared.event.source.clone());
    match admin.broker.publish(prepared.outgoing()).await {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "source": source }))).into_response()),
        Err(error) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{error}; send the same event again (id {id}): it is handled once"),
        )),
    }
}
