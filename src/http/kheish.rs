//! Kheish's own paths, in its shapes and with its codes, so that its tools work here unchanged. Served where
//! `http.kheish_api` says so.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::catalog::Catalog;
use super::openapi;
use super::problem::{self, Whole};
use crate::catalog::apply::{self, Applied, Done, Refused, Wish};
use crate::catalog::consent::Way;
use crate::catalog::files::Files;
use crate::catalog::revisions::{About, BYTES_MAX, KEPT, Revisions};
use crate::catalog::{Document, beside, foreign};
use crate::dialect::import::Source;
use crate::dialect::kheish::request::{NotTaken, SetHooks};
use crate::dialect::kheish::settings::HookSettings;
use crate::domain::access::Role;
use crate::domain::dialect::Dialect;
use crate::operations::Operations;
use crate::telemetry::now_ms;
use crate::yaml::problem::Problem;

mod dead_letters;
pub(super) mod status;

const CONFLICT: &str = "runtime_revision_conflict";
/// How often a change that expects no revision is tried while others change the catalog.
const TRIES_MAX: u32 = 10;

/// What the handlers work with.
#[derive(Clone)]
pub struct Kheish {
    pub catalog: Catalog,
    /// The hooks files of this process, where it has no shared catalog.
    pub files: Files,
    pub operations: Operations,
}

/// The routes of Kheish's API.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Kheish> {
    let routes = OpenApiRouter::default().routes(routes!(hooks, set_hooks)).merge(dead_letters::router());
    openapi::behind(Role::Operate, routes, door)
}

/// The settings of Kheish's hooks as they were given, with all that is secret in them.
#[utoipa::path(
    get,
    path = "/v1/runtime/hooks",
    operation_id = "kheish_hooks",
    responses(
        (status = 200, description = "The bare settings: `{\"hooks\": {EVENT: [HOOK]}}`, without hooks `{}`", body = Object),
        (status = 500, description = "A fault of this program: its log says which", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 503, description = "The catalog cannot be read", body = OfKheish, content_type = "application/problem+json"),
    )
)]
async fn hooks(State(kheish): State<Kheish>) -> Result<Json<Value>, Failed> {
    let (documents, _) = kheish.current().await?;
    let settings = beside(move || settings(&documents)).await.ok_or(Refused::Panicked)??;
    Ok(Json(settings.to_value()))
}

/// New settings in place of all of Kheish's hooks. Hooks files of this project stay.
///
/// It takes a process that has its hooks from Redis.
#[utoipa::path(
    post,
    path = "/v1/runtime/hooks",
    operation_id = "set_kheish_hooks",
    request_body(
        description = "Bare settings, or `{settings, expected_revision, skip_hooks}`",
        content((Object = "application/json"))
    ),
    responses(
        (status = 200, description = "They count: the redacted settings, and the revision", body = RuntimeSettings),
        (status = 400, description = "`bad_request`, `invalid_hook_settings`: nothing was changed", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 409, description = "`runtime_revision_conflict`, `runtime_change_blocked`: nothing was changed",
         body = OfKheish, content_type = "application/problem+json"),
        (status = 413, description = "They are too large", body = OfKheish, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 422, description = "It is JSON of another shape", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 500, description = "A fault of this program: its log says which", body = OfKheish,
         content_type = "application/problem+json"),
        (status = 503, description = "Redis is away, or the gates on `config_change` cannot be asked", body = OfKheish, content_type = "application/problem+json"),
    )
)]
async fn set_hooks(
    State(kheish): State<Kheish>,
    headers: HeaderMap,
    body: Result<Whole<{ 2 * BYTES_MAX }>, problem::Problem>,
) -> Result<Json<RuntimeSettings>, Failed> {
    let Some(revisions) = kheish.catalog.revisions.clone() else {
        let file = kheish.files.path.display();
        let detail =
            format!("this process follows the hooks file {file}: change that one, or set catalog.from to redis");
        return Err(Failed::new(StatusCode::CONFLICT, "runtime_change_blocked", detail));
    };
    check_type(&headers)?;
    let Whole(body) = body?;
    let asked = beside(move || SetHooks::read(&body)).await.ok_or(Refused::Panicked)??;
    let mut tries = 1;
    let about = loop {
        match kheish.replace(&revisions, &asked).await {
            // Another change came between. Who expects no revision wants this one behind it.
            Err(failed) if failed.is_conflict() && asked.expected_revision.is_none() && tries < TRIES_MAX => tries += 1,
            done => break done?,
        }
    };
    RuntimeSettings::of(&asked.settings, &about, &revisions).await.map(Json)
}

/// Pages in a browser may send other types than this to loopback unasked.
fn check_type(headers: &HeaderMap) -> Result<(), Failed> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match named.split(';').next().unwrap_or_default().trim() {
        "application/json" => Ok(()),
        other => {
            let found = if other.is_empty() { "none" } else { other };
            let detail = format!("expected the content type application/json, found {found}");
            Err(Failed::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "daemon_error", detail))
        }
    }
}

impl Kheish {
    /// Puts settings in place of those of Kheish. Fails with a conflict if the catalog changes meanwhile.
    async fn replace(&self, revisions: &Revisions, asked: &SetHooks) -> Result<About, Failed> {
        let (documents, about) = self.current().await?;
        let current = about.map_or(0, |about| about.number);
        if let Some(expected) = asked.expected_revision.filter(|expected| *expected != current) {
            return Err(conflict(expected, current));
        }
        let wish = Wish {
            documents: with(&asked.settings, documents),
            expected: Some(current),
            by: "kheish".to_owned(),
            message: None,
            dry_run: false,
            at_ms: now_ms(),
            hint_max: self.catalog.hint_max,
            way: Way::RuntimeApi,
            skip_hooks: asked.skip_hooks,
        };
        let Catalog { flow, consent, .. } = &self.catalog;
        let Applied { done, .. } = apply::apply(revisions, flow.as_ref(), consent.as_ref(), wish).await?;
        match done {
            Done::New(about) | Done::Same(about) => Ok(about),
            Done::Tried => Err(Failed::new(StatusCode::INTERNAL_SERVER_ERROR, "daemon_error", "nothing was changed")),
        }
    }

    /// The documents of the current catalog, and which revision it is, if it has one.
    async fn current(&self) -> Result<(Vec<Document>, Option<About>), Failed> {
        if let Some(revisions) = &self.catalog.revisions {
            let stored = apply::current(revisions).await.map_err(Refused::from)?;
            return Ok(stored.map_or_else(Default::default, |stored| (stored.documents, Some(stored.about))));
        }
        let files = self.files.clone();
        let read = beside(move || files.open()).await.ok_or(Refused::Panicked)?;
        let read = read.map_err(|problems| {
            let detail = problems.list().first().map(Problem::sentence).unwrap_or_default();
            Failed::new(StatusCode::SERVICE_UNAVAILABLE, "daemon_error", detail)
        });
        Ok((read?, None))
    }
}

/// All settings of Kheish among documents.
fn settings(documents: &[Document]) -> Result<HookSettings, Failed> {
    foreign::kheish(documents).map_err(|faults| {
        let detail = faults.first().map(ToString::to_string).unwrap_or_default();
        Failed::new(StatusCode::SERVICE_UNAVAILABLE, "daemon_error", format!("the file in use is wrong now: {detail}"))
    })
}

/// The documents with these settings in place of those of Kheish.
fn with(settings: &HookSettings, documents: Vec<Document>) -> Vec<Document> {
    let text = serde_json::to_string_pretty(&settings.to_file()).unwrap_or_default(); // JSON always has a text
    let name = Source::Kheish.file().to_owned();
    let new = Document { name, text: text + "\n", dialect: Dialect::Kheish };
    let others = documents.into_iter().filter(|document| document.dialect != Dialect::Kheish);
    std::iter::once(new).chain(others).collect()
}

/// What a change of settings is answered with: of Kheish's answer the parts that are about hooks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KheishRuntimeSettings)]
struct RuntimeSettings {
    /// Without commands, templates and the paths of URLs.
    hooks: Value,
    config: Config,
}

/// Which revision is in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KheishRuntimeConfig)]
struct Config {
    revision: u64,
    /// Milliseconds since 1970.
    updated_at_ms: u64,
    persisted: bool,
    /// How many revisions are kept.
    history_len: usize,
    history_limit: u64,
}

impl RuntimeSettings {
    async fn of(settings: &HookSettings, about: &About, revisions: &Revisions) -> Result<Self, Failed> {
        let history_len = revisions.history().await.map_err(Refused::from)?.len();
        let (revision, updated_at_ms) = (about.number, about.at_ms);
        let config = Config { revision, updated_at_ms, persisted: true, history_len, history_limit: KEPT };
        Ok(Self { hooks: settings.redacted(), config })
    }
}

/// A problem as Kheish words it: RFC 9457 with a code, and what it is about.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KheishProblem)]
struct OfKheish {
    /// `urn:kheish:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'static str>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Failed {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    fn is_conflict(&self) -> bool {
        self.code == CONFLICT
    }
}

fn conflict(expected: u64, current: u64) -> Failed {
    let detail = format!("runtime config revision conflict: expected {expected}, current {current}");
    Failed::new(StatusCode::CONFLICT, CONFLICT, detail)
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self { status, code, detail } = self;
        let body = OfKheish {
            kind: format!("urn:kheish:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Daemon Error"),
            status: status.as_u16(),
            detail,
            code,
            domain: (!matches!(code, "bad_request" | "daemon_error")).then_some("runtime"),
        };
        let mut response = (status, Json(body)).into_response();
        let problem = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        response
    }
}

impl From<problem::Problem> for Failed {
    fn from(problem: problem::Problem) -> Self {
        let (status, detail) = problem.into_parts();
        let code = if status == StatusCode::BAD_REQUEST { "bad_request" } else { "daemon_error" };
        Self { status, code, detail }
    }
}

impl From<NotTaken> for Failed {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::Syntax(detail) => Self::new(StatusCode::BAD_REQUEST, "bad_request", detail),
            NotTaken::Shape(detail) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "daemon_error", detail),
            NotTaken::Invalid(fault) => Self::new(StatusCode::BAD_REQUEST, "invalid_hook_settings", fault.message),
        }
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Invalid(problems) => {
                let first = problems.list().first().map(Problem::sentence).unwrap_or_default();
                Self::new(StatusCode::BAD_REQUEST, "invalid_hook_settings", first)
            }
            Refused::Stale { expected, current, .. } => conflict(expected, current.map_or(0, |about| about.number)),
            Refused::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "daemon_error", detail),
            Refused::Unreadable(_) | Refused::Blocked(_) => {
                Self::new(StatusCode::CONFLICT, "runtime_change_blocked", detail)
            }
            Refused::Panicked => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "daemon_error", detail),
            Refused::Revisions(_) | Refused::Fleet(_) | Refused::Unasked(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "daemon_error", detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_kheish(name: &str, hook: &str) -> Document {
        let hook = json!({ "name": hook, "executor": { "type": "callback", "name": "c" } });
        let text = json!({ "hooks": { "stop": [hook] } }).to_string();
        Document { name: name.to_owned(), text, dialect: Dialect::Kheish }
    }

    #[test]
    fn settings_are_those_of_all_documents_of_kheish() {
        let ours = Document::native("hooks.yaml", "version: 1");
        let documents = [of_kheish("hooks.json", "a"), ours.clone(), of_kheish("more.json", "b")];
        let found = settings(&documents).unwrap();
        let shown = found.to_value();
        let hooks = shown["hooks"]["stop"].as_array().unwrap();
        assert_eq!(hooks.iter().map(|hook| hook["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        let replaced = with(&found, documents.to_vec());
        assert_eq!(
            replaced.iter().map(|document| document.name.as_str()).collect::<Vec<_>>(),
            ["hooks.json", "hooks.yaml"]
        );
        assert_eq!((settings(&replaced), &replaced[1]), (Ok(found), &ours));
        assert_eq!(settings(&[ours]).unwrap().to_value(), json!({}));
    }
}
