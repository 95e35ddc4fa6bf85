//! Dead letters over HTTP; the paths are Kheish's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Admin;
use super::problem::{Details, Problem, parsed};
use crate::desk::replay::Manner;
use crate::desk::wire::{
    Asked, CloseAsked, EditAsked, Grouped, JobShown, Listed, OneAsked, PageAsked, Preview, ReplayAsked, ResolveAsked,
    Resolved, split,
};
use crate::desk::{Desk, DeskError, Detail, Export, Replayed};
use crate::domain::dead_letter::LetterId;
use crate::domain::redaction::Pointer;
use crate::domain::selection::Selection;
use crate::telemetry::now_ms;

/// A query.
type Texts = BTreeMap<String, String>;

/// The routes that change nothing.
pub(super) fn reading() -> OpenApiRouter<Admin> {
    let listed = OpenApiRouter::default().routes(routes!(list)).routes(routes!(groups)).routes(routes!(export));
    listed.routes(routes!(show)).routes(routes!(job))
}

/// The routes that change something.
pub(super) fn operating() -> OpenApiRouter<Admin> {
    let many =
        OpenApiRouter::default().routes(routes!(replay_all)).routes(routes!(resolve_all)).routes(routes!(cancel));
    many.routes(routes!(replay)).routes(routes!(resolve)).routes(routes!(edit))
}

/// Who works at this API and does not say who.
const SOMEBODY: &str = "operator";

/// Letters, newest first, without bodies.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter",
    operation_id = "letters",
    params(Asked, ("after" = Option<String>, Query, description = "The `next` of the page before"), ("limit" = Option<usize>, Query, description = "1 to 1000; 100 if nothing is said")),
    responses(
        (status = 200, description = "Letters with their state, newest first", body = Listed),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(admin): State<Admin>, Query(query): Query<Texts>) -> Result<Json<Listed>, Problem> {
    Ok(Json(admin.desk.list(&PageAsked::of(query)?).await?))
}

/// Letters by cause.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter/groups",
    operation_id = "groups",
    params(Asked),
    responses(
        (status = 200, description = "Letters by cause, those with most open ones first", body = Grouped),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn groups(State(admin): State<Admin>, Query(query): Query<Texts>) -> Result<Json<Grouped>, Problem> {
    let (asked, []) = split(query, [])?;
    let items = admin.desk.groups(&asked.filter(now_ms())?).await?;
    Ok(Json(Grouped { items }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Show {
    /// The event itself too.
    #[serde(default)]
    body: bool,
}

/// With `?body=true` the event itself too.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter/{id}",
    operation_id = "letter",
    params(("id" = String, Path, description = "The letter's id"), Show),
    responses(
        (status = 200, description = "The letter with its state", body = Detail),
        (status = 404, description = "No letter has this id", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(show): Query<Show>,
) -> Result<Json<Value>, Problem> {
    let detail = admin.desk.find(&LetterId::from(id.as_str())).await?;
    Ok(Json(detail.view(show.body, &admin.redact)))
}

/// Letters in full as NDJSON, oldest first.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter/export",
    operation_id = "export",
    params(Asked, ("body" = Option<bool>, Query, description = "The events themselves too")),
    responses(
        (status = 200, description = "Letters in full, one in JSON a line, oldest first; a last line with `error` says that it broke off", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn export(State(admin): State<Admin>, Query(query): Query<Texts>) -> Result<Response, Problem> {
    let (which, [body]) = split(query, ["body"])?;
    let export = admin.desk.export(&which.filter(now_ms())?).await?;
    let body = body.as_deref() == Some("true");
    let lines = stream::unfold(Some(export), move |export| lines(export, body, Arc::clone(&admin.redact)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// A stream that breaks off says so on its last line.
async fn lines(
    export: Option<Export>,
    body: bool,
    without: Arc<[Pointer]>,
) -> Option<(Result<Bytes, Infallible>, Option<Export>)> {
    let mut export = export?;
    match export.next().await {
        Ok(Some(details)) => {
            let mut lines = String::new();
            for detail in details {
                lines.push_str(&detail.view(body, &without).to_string());
                lines.push('\n');
            }
            Some((Ok(lines.into()), Some(export)))
        }
        Ok(None) => None,
        Err(error) => Some((Ok(format!("{}\n", serde_json::json!({ "error": error.to_string() })).into()), None)),
    }
}

/// `POST …/dead-letter/{id}/replay`.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/{id}/replay",
    operation_id = "replay",
    params(("id" = String, Path, description = "The letter's id")),
    request_body = OneAsked,
    responses(
        (status = 200, description = "It is out, as this generation", body = Replayed),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 404, description = "No letter has this id", body = Details, content_type = "application/problem+json"),
        (status = 409, description = "It is resolved, or of a kind with which this cannot be done", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replay(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Replayed>, Problem> {
    let asked: OneAsked = if body.is_empty() { OneAsked::default() } else { parsed(&body)? };
    let manner = Manner::new(asked.by.as_deref().unwrap_or(SOMEBODY), asked.to_hook.as_deref(), None)?;
    known(&admin, &manner)?;
    Ok(Json(admin.desk.replay(&LetterId::from(id.as_str()), asked.force, &manner).await?))
}

/// Many at once, as a job; with `dry_run` what it would send.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/replay",
    operation_id = "replay_all",
    request_body = ReplayAsked,
    responses(
        (status = 200, description = "With `dry_run`: what would be sent", body = Preview),
        (status = 202, description = "They are being sent", body = JobShown),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 404, description = "No letter has one of the ids; nothing is sent", body = Details, content_type = "application/problem+json"),
        (status = 429, description = "Too many replays go on", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replay_all(State(admin): State<Admin>, body: Bytes) -> Result<Response, Problem> {
    let asked: ReplayAsked = parsed(&body)?;
    let (manner, selection) = (manner(&asked)?, asked.chosen().selection(now_ms())?);
    let plan = admin.desk.plan(&selection, manner.purpose(asked.force)?).await?;
    if asked.dry_run {
        return Ok(Json(Preview::from(&plan)).into_response());
    }
    known(&admin, &manner)?;
    if let Some(unknown) = plan.unknown.first() {
        return Err(DeskError::Unknown(unknown.clone()).into()); // nothing is sent of what was not meant
    }
    let job = admin.jobs.start(&admin.desk, plan, manner);
    let job = job.ok_or_else(|| Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many replays go on: wait for one"))?;
    Ok((StatusCode::ACCEPTED, Json(job)).into_response())
}

fn manner(asked: &ReplayAsked) -> Result<Manner, DeskError> {
    Manner::new(asked.by.as_deref().unwrap_or(SOMEBODY), asked.to_hook.as_deref(), asked.rate)
}

/// Another hook has to be there: what it cannot do would be letters again.
fn known(admin: &Admin, manner: &Manner) -> Result<(), DeskError> {
    match &manner.to_hook {
        Some(hook) if admin.catalog.hooks.borrow().get(hook.as_str()).is_none() => {
            Err(DeskError::Invalid(format!("to_hook: the catalog has no hook {hook}")))
        }
        _ => Ok(()),
    }
}

fn no_job(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no job {id}: a process that ended has forgotten its jobs"))
}

/// `GET …/dead-letter/jobs/{id}`.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks/dead-letter/jobs/{id}",
    operation_id = "job",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "How far it is", body = JobShown),
        (status = 404, description = "No job has this id", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn job(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Json<JobShown>, Problem> {
    admin.jobs.get(&id).map(Json).ok_or_else(|| no_job(&id))
}

/// `POST …/dead-letter/jobs/{id}/cancel`.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/jobs/{id}/cancel",
    operation_id = "cancel_job",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 200, description = "It is being stopped; what is under way is finished", body = JobShown),
        (status = 404, description = "No job has this id", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Json<JobShown>, Problem> {
    admin.jobs.cancel(&id).map(Json).ok_or_else(|| no_job(&id))
}

/// Answers the letter.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/{id}/resolve",
    operation_id = "resolve",
    params(("id" = String, Path, description = "The letter's id")),
    request_body = CloseAsked,
    responses(
        (status = 200, description = "The letter, closed", body = Detail),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 404, description = "No letter has this id", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn resolve(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let asked: CloseAsked = if body.is_empty() { CloseAsked::default() } else { parsed(&body)? };
    let id = LetterId::from(id.as_str());
    close(&admin.desk, &Selection::Ids(vec![id.clone()]), &asked.reason, asked.by.as_deref()).await?;
    Ok(Json(admin.desk.find(&id).await?.view(false, &[])))
}

/// Many at once.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/resolve",
    operation_id = "resolve_all",
    request_body = ResolveAsked,
    responses(
        (status = 200, description = "How many were closed", body = Resolved),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 404, description = "No letter has this id", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn resolve_all(State(admin): State<Admin>, body: Bytes) -> Result<Json<Resolved>, Problem> {
    let asked: ResolveAsked = parsed(&body)?;
    let selection = asked.chosen().selection(now_ms())?;
    Ok(Json(Resolved { resolved: close(&admin.desk, &selection, &asked.reason, asked.by.as_deref()).await? }))
}

async fn close(desk: &Desk, selection: &Selection, reason: &str, by: Option<&str>) -> Result<usize, DeskError> {
    desk.resolve(selection, reason, by.unwrap_or(SOMEBODY)).await
}

/// `POST …/dead-letter/{id}/edit`.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks/dead-letter/{id}/edit",
    operation_id = "edit",
    params(("id" = String, Path, description = "The letter's id")),
    request_body = EditAsked,
    responses(
        (status = 200, description = "It is out, as this generation", body = Replayed),
        (status = 400, description = "What is asked for cannot be understood", body = Details, content_type = "application/problem+json"),
        (status = 404, description = "No letter has this id", body = Details, content_type = "application/problem+json"),
        (status = 409, description = "It is resolved, or of a kind with which this cannot be done", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read, or the broker is away: asking again is safe", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn edit(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Replayed>, Problem> {
    let asked: EditAsked = parsed(&body)?;
    let by = asked.by.clone().unwrap_or_else(|| SOMEBODY.to_owned());
    Ok(Json(admin.desk.edit(&LetterId::from(id.as_str()), &asked.edit()?, &by).await?))
}
