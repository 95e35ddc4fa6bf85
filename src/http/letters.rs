//! Dead letters over HTTP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Json, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::extract::{Path, Query};
use super::openapi;
use super::problem::{Away, Details, NoJob, NoLetter, Problem, Refused, TooLarge, Unclear, Whole, parsed};
use crate::domain::access::Role;
use crate::domain::escape::quoted;
use crate::domain::id::LetterId;
use crate::domain::redaction::Pointer;
use crate::domain::selection::Selection;
use crate::operations::api_types::{
    Asked, CloseAsked, EditAsked, Grouped, JobShown, Listed, OneAsked, PageAsked, Preview, ReplayAsked, ResolveAsked,
    Resolved, split,
};
use crate::operations::jobs::Jobs;
use crate::operations::replay::{Manner, Sorted};
use crate::operations::{Detail, Edited, Export, Hooks, OperationError, Operations, Replayed};
use crate::telemetry::now_ms;

/// A request about letters: an edit holds an event's data, of which RabbitMQ 4 takes 16 MiB, and its escapes.
type WholeAsked = Whole<{ 32 * 1024 * 1024 }>;
/// A query.
type Texts = BTreeMap<String, String>;

/// What the handlers work with.
#[derive(Clone)]
pub struct Letters {
    pub operations: Operations,
    pub jobs: Jobs,
    /// Places in the data of events that nobody is shown.
    pub redact: Arc<[Pointer]>,
    /// The catalog, which has to have the hook that a replay is sent to; or why it is not known here.
    pub hooks: Hooks,
}

impl FromRef<Letters> for Operations {
    fn from_ref(letters: &Letters) -> Self {
        letters.operations.clone()
    }
}

impl FromRef<Letters> for Jobs {
    fn from_ref(letters: &Letters) -> Self {
        letters.jobs.clone()
    }
}

/// The routes of dead letters.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Letters> {
    let reading = OpenApiRouter::default().routes(routes!(list)).routes(routes!(groups)).routes(routes!(export));
    let reading = reading.routes(routes!(show)).routes(routes!(job));
    let operating =
        OpenApiRouter::default().routes(routes!(replay_all)).routes(routes!(resolve_all)).routes(routes!(cancel));
    let operating = operating.routes(routes!(replay)).routes(routes!(resolve)).routes(routes!(edit));
    openapi::behind(Role::Read, reading, door).merge(openapi::behind(Role::Operate, operating, door))
}

/// A letter's place among paths.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfLetter {
    /// The letter's id.
    #[param(value_type = String)]
    id: LetterId,
}

/// A job's place among paths.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfJob {
    /// The job's id.
    id: String,
}

/// Who works at this API and does not say who.
const SOMEBODY: &str = "operator";

/// Letters, newest first, without bodies.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    operation_id = "letters",
    params(
        Asked,
        ("after" = Option<String>, Query, description = "The `next` of the page before"),
        ("limit" = Option<usize>, Query, description = "100 if nothing is said", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "Letters with their state, newest first", body = Listed),
        Unclear, Away,
    )
)]
pub(super) async fn list(
    State(operations): State<Operations>,
    Query(query): Query<Texts>,
) -> Result<Json<Listed>, Problem> {
    Ok(Json(operations.list(&PageAsked::of(query)?).await?))
}

/// Letters by cause.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/groups",
    operation_id = "groups",
    params(Asked),
    responses(
        (status = 200, description = "Letters by cause, those with most open ones first", body = Grouped),
        Unclear, Away,
    )
)]
pub(super) async fn groups(
    State(operations): State<Operations>,
    Query(query): Query<Texts>,
) -> Result<Json<Grouped>, Problem> {
    let (asked, []) = split(query, [])?;
    let items = operations.groups(&asked.filter(now_ms())?).await?;
    Ok(Json(Grouped { items }))
}

/// One letter in full, with `?body=true` the event itself too.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{id}",
    operation_id = "letter",
    params(OfLetter, ("body" = Option<bool>, Query, description = "The event itself too")),
    responses(
        (status = 200, description = "The letter with its state", body = Detail),
        Unclear, NoLetter, Away,
    )
)]
pub(super) async fn show(
    State(letters): State<Letters>,
    Path(OfLetter { id }): Path<OfLetter>,
    Query(mut query): Query<Texts>,
) -> Result<Json<Value>, Problem> {
    let body = flag("body", query.remove("body").as_deref())?;
    if let Some(name) = query.keys().next() {
        return Err(OperationError::Invalid(format!("expected `body` alone, found {}", quoted(name))).into());
    }
    Ok(Json(letters.operations.find(&id).await?.view(body, &letters.redact)))
}

/// Letters in full as NDJSON, oldest first.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/export",
    operation_id = "export",
    params(Asked, ("body" = Option<bool>, Query, description = "The events themselves too")),
    responses(
        (status = 200, description = "A letter in JSON a line; a last line with `error` says that it broke off",
         body = String, content_type = "application/x-ndjson"),
        Unclear, Away,
    )
)]
pub(super) async fn export(State(letters): State<Letters>, Query(query): Query<Texts>) -> Result<Response, Problem> {
    let (which, [body]) = split(query, ["body"])?;
    let body = flag("body", body.as_deref())?;
    let export = letters.operations.export(&which.filter(now_ms())?).await?;
    let lines = stream::unfold(Some(export), move |export| lines(export, body, Arc::clone(&letters.redact)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, OperationError> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(OperationError::Invalid(format!("{name}: expected true or false, found {}", quoted(other)))),
    }
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

/// Sends a letter's work out again. Doing it twice does it once.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/replay",
    operation_id = "replay",
    params(OfLetter),
    request_body = OneAsked,
    responses(
        (status = 200, description = "It is out, as this generation", body = Replayed),
        Unclear, NoLetter, Refused, TooLarge, Away,
    )
)]
pub(super) async fn replay(
    State(letters): State<Letters>,
    Path(OfLetter { id }): Path<OfLetter>,
    Whole(body): WholeAsked,
) -> Result<Json<Replayed>, Problem> {
    let asked: OneAsked = if body.is_empty() { OneAsked::default() } else { parsed(&body)? };
    let manner = Manner::new(asked.by.as_deref().unwrap_or(SOMEBODY), asked.to_hook.as_deref(), None)?;
    manner.check(&letters.hooks)?;
    Ok(Json(letters.operations.replay(&id, asked.force, &manner).await?))
}

/// Sends many letters out again, as a job; with `dry_run` it says what it would send, and what it cannot send and why.
///
/// With `wait` the job goes on until all have ended, and says what has become of each.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/replay",
    operation_id = "replay_all",
    request_body = ReplayAsked,
    responses(
        (status = 200, description = "With `dry_run`: what would be sent", body = Preview),
        (status = 202, description = "They are being sent", body = JobShown),
        Unclear, NoLetter, Refused, TooLarge,
        (status = 429, description = "Too many replays go on", body = Details,
         content_type = "application/problem+json"),
        Away,
    )
)]
pub(super) async fn replay_all(State(letters): State<Letters>, Whole(body): WholeAsked) -> Result<Response, Problem> {
    let asked: ReplayAsked = parsed(&body)?;
    let (manner, selection, limit) = (manner(&asked)?, asked.chosen().selection(now_ms())?, asked.limit()?);
    let operations = &letters.operations;
    manner.check(&letters.hooks)?;
    let plan = operations.plan(&selection, manner.purpose(asked.force)?).await?;
    if asked.dry_run {
        let sorted = operations.sort(plan, &manner, limit).await?;
        let groups = operations.groups_of(&sorted.plan).await?;
        return Ok(Json(Preview::new(sorted, groups)).into_response());
    }
    if let Some(unknown) = plan.unknown.first() {
        return Err(OperationError::Unknown(unknown.clone()).into()); // nothing is sent of what was not meant
    }
    let sorted = match limit {
        Some(_) => operations.sort(plan, &manner, limit).await?,
        None => Sorted { matching: plan.picked.len(), plan, ..Sorted::default() }, // each is looked at in its turn
    };
    let job = letters.jobs.start(operations, sorted, manner);
    let job = job.ok_or_else(|| Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many replays go on: wait for one"))?;
    Ok((StatusCode::ACCEPTED, Json(job)).into_response())
}

fn manner(asked: &ReplayAsked) -> Result<Manner, OperationError> {
    let manner = Manner::new(asked.by.as_deref().unwrap_or(SOMEBODY), asked.to_hook.as_deref(), asked.rate)?;
    Ok(Manner { wait: asked.wait, ..manner })
}

fn no_job(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no job {id}: a process that ended has forgotten its jobs"))
}

/// How far a replay of many is.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/jobs/{id}",
    operation_id = "job",
    params(OfJob),
    responses(
        (status = 200, description = "How far it is", body = JobShown),
        NoJob,
    )
)]
pub(super) async fn job(State(jobs): State<Jobs>, Path(OfJob { id }): Path<OfJob>) -> Result<Json<JobShown>, Problem> {
    jobs.get(&id).map(Json).ok_or_else(|| no_job(&id))
}

/// Stops a replay of many in order.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/jobs/{id}/cancel",
    operation_id = "cancel_job",
    params(OfJob),
    responses(
        (status = 200, description = "It is being stopped; what is under way is finished", body = JobShown),
        NoJob,
    )
)]
pub(super) async fn cancel(
    State(jobs): State<Jobs>,
    Path(OfJob { id }): Path<OfJob>,
) -> Result<Json<JobShown>, Problem> {
    jobs.cancel(&id).map(Json).ok_or_else(|| no_job(&id))
}

/// Closes a letter. Of two reasons the first stays.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/resolve",
    operation_id = "resolve",
    params(OfLetter),
    request_body = CloseAsked,
    responses(
        (status = 200, description = "The letter, closed", body = Detail),
        Unclear, NoLetter, TooLarge, Away,
    )
)]
pub(super) async fn resolve(
    State(operations): State<Operations>,
    Path(OfLetter { id }): Path<OfLetter>,
    Whole(body): WholeAsked,
) -> Result<Json<Value>, Problem> {
    let asked: CloseAsked = if body.is_empty() { CloseAsked::default() } else { parsed(&body)? };
    close(&operations, &Selection::Ids(vec![id.clone()]), &asked.reason, asked.by.as_deref()).await?;
    Ok(Json(operations.find(&id).await?.view(false, &[])))
}

/// Closes many letters.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/resolve",
    operation_id = "resolve_all",
    request_body = ResolveAsked,
    responses(
        (status = 200, description = "How many were closed", body = Resolved),
        Unclear, NoLetter, TooLarge, Away,
    )
)]
pub(super) async fn resolve_all(
    State(operations): State<Operations>,
    Whole(body): WholeAsked,
) -> Result<Json<Resolved>, Problem> {
    let asked: ResolveAsked = parsed(&body)?;
    let selection = asked.chosen().selection(now_ms())?;
    Ok(Json(Resolved { resolved: close(&operations, &selection, &asked.reason, asked.by.as_deref()).await? }))
}

async fn close(
    operations: &Operations,
    selection: &Selection,
    reason: &str,
    by: Option<&str>,
) -> Result<usize, OperationError> {
    operations.resolve(selection, reason, by.unwrap_or(SOMEBODY)).await
}

/// Sends a letter's event out with other data, as a new event.
///
/// The letter is resolved when that is done.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/edit",
    operation_id = "edit",
    params(OfLetter),
    request_body = EditAsked,
    responses(
        (status = 200, description = "It is out, as this generation", body = Edited),
        Unclear, NoLetter, Refused, TooLarge, Away,
    )
)]
pub(super) async fn edit(
    State(operations): State<Operations>,
    Path(OfLetter { id }): Path<OfLetter>,
    Whole(body): WholeAsked,
) -> Result<Json<Edited>, Problem> {
    let asked: EditAsked = parsed(&body)?;
    let by = asked.by.clone().unwrap_or_else(|| SOMEBODY.to_owned());
    Ok(Json(operations.edit(&id, &asked.edit()?, &by).await?))
}
