//! The catalog over HTTP: what is in force, and for a fleet's shared one, changing it.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::problem::Problem;
use crate::catalog::Document;
use crate::catalog::apply::{Applied, Done, Refused, Wish, apply as apply_wish};
use crate::catalog::revisions::About;
use crate::catalog::{beside, view};
use crate::domain::revision::Revision;
use crate::telemetry::now_ms;

/// What the only document is called that is sent without a name.
const NAME: &str = "hooks.yaml";

/// `GET …/hooks`: the revision in force and every hook, without what nobody may see.
pub(super) async fn show(State(admin): State<Admin>) -> Json<Value> {
    let set = admin.catalog.hooks.borrow().clone();
    let standing = admin.catalog.standing.borrow().clone();
    Json(json!({
        "revision": set.revision().to_string(),
        "from": standing.from,
        "applied": standing.applied,
        "refused": standing.refused,
        "hooks": set.hooks().iter().map(|hook| view::hook(hook)).collect::<Vec<_>>(),
    }))
}

/// What is said about a change, in the query or beside the documents.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    expected_revision: Option<u64>,
    message: Option<String>,
    by: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// Several documents, and what is said about them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    documents: Vec<Document>,
    expected_revision: Option<u64>,
    message: Option<String>,
    by: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// `POST …/hooks`: the whole catalog, as a hooks file in YAML or JSON, or as `{"documents": [{"name", "text"}]}`.
pub(super) async fn apply(
    State(admin): State<Admin>,
    Query(said): Query<Said>,
    headers: HeaderMap,
    body: String,
) -> Result<Json<Value>, Problem> {
    let Some(revisions) = &admin.revisions else {
        let detail = "this process takes its hooks from a file: change that one, or set catalog.from to redis";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    let read = beside(move || read(&headers, body, said)).await;
    let (documents, said) = read.ok_or(Refused::Panicked)??;
    let wish = Wish {
        documents,
        expected: said.expected_revision,
        by: said.by.unwrap_or_else(|| "http".to_owned()),
        message: said.message,
        dry_run: said.dry_run,
        at_ms: now_ms(),
        hint_max: admin.hint_max,
    };
    let applied = apply_wish(revisions, admin.flow.as_ref(), wish).await?;
    Ok(Json(answer(&applied)))
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
    let has_documents = serde_json::from_str::<Value>(&body).is_ok_and(|body| body.get("documents").is_some());
    if !has_documents {
        return Ok((vec![Document { name: NAME.to_owned(), text: body }], said));
    }
    let refuse = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let sent: Sent = serde_json::from_str(&body).map_err(|error| refuse(format!("the body: {error}")))?;
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
    };
    Ok((sent.documents, merged))
}

/// What became of a change, for programs.
fn answer(applied: &Applied) -> Value {
    let (about, changed): (Option<&About>, bool) = match &applied.done {
        Done::New(about) => (Some(about), true),
        Done::Same(about) => (Some(about), false),
        Done::Tried => (None, false),
    };
    json!({
        "revision": about.map(|about| Revision::Numbered(about.number).to_string()),
        "changed": changed,
        "applied": about,
        "changes": applied.changes,
        "warnings": applied.warnings.iter().map(view::problem).collect::<Vec<_>>(),
    })
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Invalid(problems) => {
                let list = problems.list().iter().map(view::problem).collect::<Vec<_>>();
                let detail = format!("nothing was changed: {} problems", list.len());
                Self::new(StatusCode::BAD_REQUEST, detail).with("problems", list.into())
            }
            Refused::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            Refused::Stale { current, since, .. } => {
                Self::new(StatusCode::CONFLICT, detail).with("current", json!(current)).with("changes", json!(since))
            }
            Refused::Unreadable(workers) => Self::new(StatusCode::CONFLICT, detail).with("workers", workers.into()),
            Refused::Panicked => Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail),
            Refused::Revisions(_) | Refused::Fleet(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
        }
    }
}
