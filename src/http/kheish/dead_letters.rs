//! Dead letters of Kheish's hooks, as its tools read and resolve them.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Json;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Failed, Kheish, OfKheish, check_type};
use crate::dialect::kheish::record::{self, DeadLetterRecord, Resolution};
use crate::domain::browse::Filter;
use crate::domain::dialect::Dialect;
use crate::domain::escape::quoted;
use crate::domain::fold::State as LetterState;
use crate::domain::selection::Selection;
use crate::http::extract::Path;
use crate::http::problem::{self, Whole};
use crate::operations::{Detail, OperationError, Operations};

/// The newest records, which an answer lists.
const LISTED_MAX: usize = 1_000;
/// The newest records, which can be resolved. Older letters stay in the log, and `/v1/dead-letters` has them.
pub(in crate::http) const KEPT_MAX: usize = 5_000;
/// Bytes of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The operator in the log.
const BY: &str = "kheish";
/// A letter that no operator has closed.
const FINISHED: &str = "a replay of it has succeeded";

pub(super) fn router() -> OpenApiRouter<Kheish> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(resolve))
}

fn of_kheish() -> Filter {
    Filter { dialect: Some(Dialect::Kheish), ..Filter::default() }
}

/// The newest 1,000 dead letters of Kheish's hooks, oldest first, with those that are resolved.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter",
    operation_id = "kheish_dead_letters",
    responses(
        (status = 200, description = "Without payloads, commands and paths of URLs", body = Vec<DeadLetterRecord>),
        (status = 503, description = "The log of letters cannot be read", body = OfKheish,
         content_type = "application/problem+json"),
    )
)]
async fn list(State(kheish): State<Kheish>) -> Result<Json<Vec<DeadLetterRecord>>, Failed> {
    let mut export = kheish.operations.export_newest(&of_kheish(), LISTED_MAX).await?;
    let mut records = Vec::new();
    while let Some(details) = export.next().await? {
        records.extend(details.iter().filter_map(record_of));
    }
    records.sort_by(|one: &DeadLetterRecord, other| (one.at_ms, &one.id).cmp(&(other.at_ms, &other.id)));
    Ok(Json(records))
}

/// Closes a dead letter of a hook of Kheish. Of two reasons the first stays.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/{id}/resolve",
    operation_id = "resolve_kheish_dead_letter",
    params(("id" = String, Path, description = "The id of the record")),
    request_body(description = "`{\"reason\": \"…\"}`; without a reason `{}`", content((Object = "application/json"))),
    responses(
        (status = 200, description = "The record, resolved", body = DeadLetterRecord),
        (status = 400, description = "`bad_request`: it is no JSON", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 404, description = "`unknown_hook_dead_letter`: no record has this id", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 413, description = "It is too large", body = OfKheish, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 422, description = "It is JSON of another shape", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 503, description = "The log of letters cannot be read or written", body = OfKheish,
         content_type = "application/problem+json"),
    )
)]
async fn resolve(
    State(kheish): State<Kheish>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Whole<BODY_BYTES_MAX>, problem::Problem>,
) -> Result<Json<DeadLetterRecord>, Failed> {
    check_type(&headers)?;
    let reason = reason(&body?.0)?;
    let operations = &kheish.operations;
    let found = find(operations, &id).await?.ok_or_else(|| unknown(&id))?;
    let letter = found.letter.id;
    operations.resolve(&Selection::Ids(vec![letter.clone()]), &reason, BY).await?;
    let resolved = operations.find(&letter).await?;
    record_of(&resolved).map(Json).ok_or_else(|| unknown(&id))
}

fn reason(body: &[u8]) -> Result<String, Failed> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Failed::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string()))?;
    let shape = |detail: &str| Failed::new(StatusCode::UNPROCESSABLE_ENTITY, "daemon_error", detail);
    let body = body.as_object().ok_or_else(|| shape("expected an object with a `reason`"))?;
    match body.get("reason") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(reason)) => Ok(reason.clone()),
        Some(_) => Err(shape("`reason`: expected a text")),
    }
}

/// The letter whose record has this id.
async fn find(operations: &Operations, id: &str) -> Result<Option<Detail>, Failed> {
    let Some(beginning) = record::letter_of(id) else { return Ok(None) };
    for letter in operations.newest(&of_kheish(), KEPT_MAX).await? {
        if !letter.as_str().starts_with(beginning) {
            continue;
        }
        match operations.find(&letter).await {
            Ok(detail) if record_of(&detail).is_some_and(|record| record.id == id) => return Ok(Some(detail)),
            Ok(_) | Err(OperationError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn record_of(detail: &Detail) -> Option<DeadLetterRecord> {
    let resolution = detail.mark.as_ref().filter(|_| detail.state == LetterState::Resolved);
    let resolution =
        resolution.map(|mark| Resolution { at_ms: mark.at_ms, reason: mark.reason.as_deref().unwrap_or(FINISHED) });
    DeadLetterRecord::of(&detail.letter, resolution)
}

fn unknown(id: &str) -> Failed {
    let id = quoted(id);
    let detail = format!("unknown hook dead-letter record {}", id.trim_matches('"'));
    Failed::new(StatusCode::NOT_FOUND, "unknown_hook_dead_letter", detail)
}

impl From<OperationError> for Failed {
    fn from(error: OperationError) -> Self {
        let status = match error {
            OperationError::Unknown(ref id) => return unknown(id.as_str()),
            OperationError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, "daemon_error", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let check = |body: &str, expected: Result<&str, (u16, &str)>| {
            let found = reason(body.as_bytes()).map_err(|failed| (failed.status.as_u16(), failed.code));
            assert_eq!(found.as_deref().map_err(Clone::clone), expected, "{body}");
        };
        check(r#"{"reason":"fixed"}"#, Ok("fixed"));
        check("{}", Ok(""));
        check(r#"{"reason":null,"other":1}"#, Ok(""));
        check("", Err((400, "bad_request")));
        check("{", Err((400, "bad_request")));
        check(r#"{"reason":7}"#, Err((422, "daemon_error")));
        check("[]", Err((422, "daemon_error")));
    }
}
