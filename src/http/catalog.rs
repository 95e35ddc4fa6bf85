//! The catalog over HTTP: what is in force, and for a fleet's shared one, changing it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::extract::Query;
use super::openapi;
use super::problem::{Details, Problem, Whole};
use crate::catalog::api_types::{HookView, ProblemView};
use crate::catalog::apply::{Applied, Done, Refused, Wish, apply as apply_wish};
use crate::catalog::consent::{Consent, Way};
use crate::catalog::diff::Changes;
use crate::catalog::revisions::{About, BYTES_MAX, Revisions};
use crate::catalog::watch::{Followed, Standing};
use crate::catalog::{Document, beside};
use crate::domain::access::Role;
use crate::domain::json::text_without_mark;
use crate::domain::revision::Revision;
use crate::flow::Flow;
use crate::telemetry::now_ms;

/// What the only document is called that is sent without a name.
const NAME: &str = "hooks.yaml";

/// What the handlers work with.
#[derive(Clone)]
pub struct Catalog {
    /// The catalog that this process follows.
    pub followed: Followed,
    /// The fleet's catalog, if that is what is followed.
    pub revisions: Option<Arc<Revisions>>,
    pub flow: Arc<dyn Flow>,
    /// Where the gates on a change of the catalog are asked.
    pub consent: Arc<dyn Consent>,
    /// Longest `Retry-After` that hooks honour.
    pub hint_max: Duration,
}

/// The routes of the catalog.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Catalog> {
    let reading = openapi::behind(Role::Read, OpenApiRouter::default().routes(routes!(show)), door);
    reading.merge(openapi::behind(Role::Operate, OpenApiRouter::default().routes(routes!(apply)), door))
}

/// The catalog in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Catalog)]
pub(super) struct CatalogView {
    revision: String,
    #[serde(flatten)]
    standing: Standing,
    hooks: Vec<HookView>,
}

/// The revision in force and every hook, without what nobody may see.
#[utoipa::path(
    get,
    path = "/v1/catalog",
    operation_id = "hooks",
    responses((status = 200, description = "The catalog in force in this process", body = CatalogView))
)]
pub(super) async fn show(State(catalog): State<Catalog>) -> Json<CatalogView> {
    let set = catalog.followed.hooks.borrow().clone();
    Json(CatalogView {
        revision: set.revision().to_string(),
        standing: catalog.followed.standing.borrow().clone(),
        hooks: set.hooks().iter().map(|hook| HookView::of(hook)).collect(),
    })
}

/// What is said about a change, in the query or beside the documents.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Said {
    /// The number of the revision that the change was made for; 0: there was none.
    expected_revision: Option<u64>,
    /// Why, for the history.
    message: Option<String>,
    /// Who, for the history.
    by: Option<String>,
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
    /// Do not ask the gates on `config_change`; the history says so.
    #[serde(default)]
    skip_hooks: bool,
}

/// Several documents, and what is said about them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Documents)]
pub(super) struct Sent {
    /// All hooks files of the catalog.
    documents: Vec<Document>,
    expected_revision: Option<u64>,
    message: Option<String>,
    by: Option<String>,
    #[serde(default)]
    dry_run: bool,
    /// Do not ask the gates on `config_change`.
    #[serde(default)]
    skip_hooks: bool,
}

/// The whole catalog, as a hooks file in YAML or JSON, or as `{"documents": [{"name", "text"}]}`.
///
/// Checked as a whole before it counts. It takes a process that has its hooks from Redis.
#[utoipa::path(
    post,
    path = "/v1/catalog",
    operation_id = "apply",
    params(Said),
    request_body(
        description = "A hooks file, or several",
        content((String = "application/yaml"), (Sent = "application/json"))
    ),
    responses(
        (status = 200, description = "It counts, or would, or does already", body = Answer),
        (status = 400, description = "Nothing was changed; `problems` lists what is wrong (Mistake), each with its place",
         body = Details, content_type = "application/problem+json"),
        (status = 409, description = "Another revision is the current one (`current`, `changes`); or workers cannot read \
         it (`workers`); or a gate on `config_change` is against it; or the hooks come from a file", body = Details, content_type = "application/problem+json"),
        (status = 413, description = "It is too large", body = Details, content_type = "application/problem+json"),
        (status = 415, description = "It is neither YAML nor JSON", body = Details,
         content_type = "application/problem+json"),
        (status = 503, description = "Redis is away, or the gates on `config_change` cannot be asked", body = Details,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn apply(
    State(catalog): State<Catalog>,
    Query(said): Query<Said>,
    headers: HeaderMap,
    Whole(body): Whole<{ 2 * BYTES_MAX }>,
) -> Result<Json<Answer>, Problem> {
    let Some(revisions) = &catalog.revisions else {
        let detail = "this process takes its hooks from a file: change that one, or set catalog.from to redis";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    let refuse = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let body = String::from_utf8(body.into()).map_err(|error| refuse(format!("expected a text in UTF-8: {error}")))?;
    let read = beside(move || read(&headers, body, said)).await;
    let (documents, said) = read.ok_or(Refused::Panicked)??;
    let wish = Wish {
        documents,
        expected: said.expected_revision,
        by: said.by.unwrap_or_else(|| "http".to_owned()),
        message: said.message,
        dry_run: said.dry_run,
        at_ms: now_ms(),
        hint_max: catalog.hint_max,
        way: Way::CatalogApi,
        skip_hooks: said.skip_hooks,
    };
    let applied = apply_wish(revisions, catalog.flow.as_ref(), catalog.consent.as_ref(), wish).await?;
    Ok(Json(Answer::of(applied)))
}

/// Pages in a browser may send other types than these to loopback unasked.
fn read(headers: &HeaderMap, body: String, said: Said) -> Result<(Vec<Document>, Said), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    match media_type {
        "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml" => {}
        _ => {
            let found = if media_type.is_empty() { "none" } else { media_type };
            let detail = format!("expected the content type application/yaml or application/json, found {found}");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
    }
    // A hooks file has no `documents`; what is wrong with it is told with its place.
    let json = text_without_mark(&body);
    let has_documents = serde_json::from_str::<Value>(json).is_ok_and(|body| body.get("documents").is_some());
    if !has_documents {
        return Ok((vec![Document::native(NAME, body)], said));
    }
    let refuse = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let sent: Sent = serde_json::from_str(json).map_err(|error| refuse(format!("the body: {error}")))?;
    let expected_revision = match (sent.expected_revision, said.expected_revision) {
        (Some(body), Some(query)) if body != query => {
            return Err(refuse(format!(
                "expected one expected_revision, found {body} in the body and {query} in the query"
            )));
        }
        (body, query) => body.or(query),
    };
    let merged = Said {
        expected_revision,
        message: sent.message.or(said.message),
        by: sent.by.or(said.by),
        dry_run: sent.dry_run || said.dry_run,
        skip_hooks: sent.skip_hooks || said.skip_hooks,
    };
    Ok((sent.documents, merged))
}

/// What became of a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Applied)]
pub(super) struct Answer {
    /// The current one, unless this was only tried.
    revision: Option<String>,
    /// Whether there is a new revision.
    changed: bool,
    applied: Option<About>,
    changes: Changes,
    warnings: Vec<ProblemView>,
}

impl Answer {
    fn of(applied: Applied) -> Self {
        let (about, changed) = match applied.done {
            Done::New(about) => (Some(about), true),
            Done::Same(about) => (Some(about), false),
            Done::Tried => (None, false),
        };
        Self {
            revision: about.as_ref().map(|about| Revision::Numbered(about.number).to_string()),
            changed,
            applied: about,
            changes: applied.changes,
            warnings: applied.warnings.iter().map(ProblemView::of).collect(),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Invalid(problems) => {
                let list = problems.list().iter().map(ProblemView::of).collect::<Vec<_>>();
                let detail = format!("nothing was changed: {} problems", list.len());
                Self::new(StatusCode::BAD_REQUEST, detail).with("problems", json!(list))
            }
            Refused::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            Refused::Stale { current, since, .. } => {
                Self::new(StatusCode::CONFLICT, detail).with("current", json!(current)).with("changes", json!(since))
            }
            Refused::Unreadable(workers) => Self::new(StatusCode::CONFLICT, detail).with("workers", workers.into()),
            Refused::Blocked(_) => Self::new(StatusCode::CONFLICT, detail),
            Refused::Panicked => Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail),
            Refused::Revisions(_) | Refused::Fleet(_) | Refused::Unasked(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
        }
    }
}
