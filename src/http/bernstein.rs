//! What Bernstein sends, by its three ways to sign: payloads, hooks of its agents, and tasks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use bytes::Bytes;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{self, Door};
use super::dialects::own_id;
use super::gateway::{Gateway, Published};
use super::hook_events::{confirmed, of_body};
use super::problem::{Details, Problem, whole};
use crate::config::BernsteinSecrets;
use crate::dialect::bernstein::signed::{is_recent, is_signed, seconds};
use crate::domain::access::Role;
use crate::domain::dialect::Dialect;
use crate::domain::secret::Secret;
use crate::publish::Event;

/// Signs a payload: its body.
const SIGNATURE: &str = "x-bernstein-signature";
/// Signs the report of a hook: its body.
const HOOK_SIGNATURE: &str = "x-bernstein-hook-signature-256";
/// Signs a task: the timestamp, a point, and the body.
const WEBHOOK_SIGNATURE: &str = "x-bernstein-webhook-signature-256";
const TIMESTAMP: &str = "x-bernstein-timestamp";
/// Headers by which a caller tells repeats of a task, the first that is there.
const TRIGGER_IDS: [&str; 3] = ["x-bernstein-trigger-id", "webhook-id", "x-request-id"];
const SESSION_CHARS_MAX: usize = 128;
const NAME_CHARS_MAX: usize = 64;

/// Payloads, signed or with a token of this role.
pub(super) fn payloads(door: Option<&Arc<Door>>, secrets: &BernsteinSecrets) -> OpenApiRouter<Gateway> {
    let routes = super::openapi::behind(Role::Publish, OpenApiRouter::default().routes(routes!(of_bernstein)), None);
    let header = secrets.payloads.as_ref().map(|_| SIGNATURE);
    match door {
        Some(door) => {
            let state = (Arc::clone(door), Role::Publish, header);
            routes.route_layer(from_fn_with_state(state, access::guard_or_signature))
        }
        None => routes,
    }
}

/// What is taken by its signature alone.
pub(super) fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(of_agent)).routes(routes!(task))
}

/// Publishes what Bernstein sends: the body of a webhook, of a notification sink, or of a script, answered once the broker has
/// confirmed.
///
/// `Hook-Event` names the hook of a plugin, whose arguments do not say it. `Hook-Event-Id` is the event's id: of the request, else
/// the `event_id` of a notification, else a new one. It is in the answer. With the setting `http.bernstein_secret` a request that
/// is signed with it (`X-Bernstein-Signature`) needs no token.
#[utoipa::path(
    post,
    path = "/v1/hooks/bernstein",
    operation_id = "hook_of_bernstein",
    params(
        ("x-bernstein-signature" = Option<String>, Header, description = "`sha256=` and the HMAC of the body"),
        ("hook-event" = Option<String>, Header, description = "The hook of a plugin, such as `on_task_created`"),
        ("hook-event-id" = Option<String>, Header, description = "The event's id, of 1 to 255 bytes")
    ),
    request_body(description = "A payload of Bernstein", content((Object = "application/json"))),
    responses(
        (status = 202, description = "The broker has confirmed the event", body = Published),
        (status = 400, description = "The event's id is none", body = Details, content_type = "application/problem+json"),
        (status = 413, description = "The event is too large", body = Details, content_type = "application/problem+json"),
        (status = 415, description = "The body has a content coding that is not known", body = Details,
         content_type = "application/problem+json"),
        (status = 422, description = "It is no payload of Bernstein", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "Not confirmed within 10 s. Send it again with the same id", body = Details,
         content_type = "application/problem+json"),
    )
)]
async fn of_bernstein(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let (headers, body) = parts(&gateway, request).await?;
    // The header alone has let the request in, so that its value counts whatever bytes it has.
    if let Some(secret) = gateway.bernstein.payloads.as_ref().filter(|_| headers.contains_key(SIGNATURE)) {
        check(secret, text(&headers, SIGNATURE).unwrap_or_default(), &[&body], SIGNATURE)?;
    }
    of_body(Dialect::Bernstein, &gateway.intake, &gateway.publisher, &headers, &body).await
}

/// Publishes what a hook of Claude Code reports that runs within an agent of Bernstein.
///
/// Served with the setting `http.bernstein_hook_secret`, which signs the body. The event has the type `claude-code.` and the name
/// of the hook, and the session as its subject. Use of a tool is told by the session, the hook and `tool_use_id`: reported twice it
/// is one event.
#[utoipa::path(
    post,
    path = "/hooks/{session_id}",
    operation_id = "hook_of_bernstein_agent",
    params(
        ("session_id" = String, Path, description = "1 to 128 letters, digits, `_` or `-`"),
        ("x-bernstein-hook-signature-256" = String, Header, description = "`sha256=` and the HMAC of the body"),
        ("hook-event-id" = Option<String>, Header, description = "The event's id, of 1 to 255 bytes")
    ),
    request_body(description = "What the hook was given", content((Object = "application/json"))),
    responses(
        (status = 202, description = "The broker has confirmed the event", body = Published),
        (status = 400, description = "The session or the event's id is none", body = Details,
         content_type = "application/problem+json"),
        (status = 401, description = "It is not signed", body = Details, content_type = "application/problem+json"),
        (status = 404, description = "The setting is not there", body = Details, content_type = "application/problem+json"),
        (status = 413, description = "The event is too large", body = Details, content_type = "application/problem+json"),
        (status = 422, description = "It is no JSON object", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "Not confirmed within 10 s", body = Details, content_type = "application/problem+json"),
    )
)]
async fn of_agent(
    State(gateway): State<Gateway>,
    Path(session): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (headers, body) = parts(&gateway, request).await?;
    let secret = served(gateway.bernstein.hooks.as_ref(), "http.bernstein_hook_secret")?;
    check(secret, text(&headers, HOOK_SIGNATURE).unwrap_or_default(), &[&body], HOOK_SIGNATURE)?;
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if session.is_empty() || session.len() > SESSION_CHARS_MAX || !session.chars().all(is_legal) {
        let detail = format!("expected a session of 1 to {SESSION_CHARS_MAX} letters, digits, `_` or `-`");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let data = object(if body.is_empty() { b"{}" } else { &body })?;
    let member = |name: &str| -> Option<String> {
        let members: std::collections::BTreeMap<&str, &RawValue> = serde_json::from_str(data.get()).ok()?;
        serde_json::from_str(members.get(name)?.get()).ok()
    };
    let is_name = |name: &String| {
        (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let name = member("hook_event_name").or_else(|| member("event")).filter(is_name);
    let name = name.unwrap_or_else(|| "Unknown".to_owned());
    let event = Event::builder(&format!("claude-code.{name}")).source("/bernstein/hooks").subject(&session).data(data);
    let own = own_id(&headers)?.or_else(|| Some(format!("{session}:{name}:{}", member("tool_use_id")?)));
    let event = own.filter(|id| !id.contains(char::is_control)).into_iter().fold(event, |event, id| event.id(&id));
    published(&gateway, event.build()).await
}

/// Publishes a task that Bernstein is asked for, as the event `bernstein.webhook`.
///
/// Served with the setting `http.bernstein_webhook_secret`, which signs the timestamp, a point, and the body. A timestamp is
/// good for 300 s. `X-Bernstein-Trigger-Id`, `webhook-id` or `X-Request-Id` is the event's id: sent twice it is one event.
#[utoipa::path(
    post,
    path = "/webhook",
    operation_id = "task_for_bernstein",
    params(
        ("x-bernstein-timestamp" = String, Header, description = "Seconds since 1970"),
        ("x-bernstein-webhook-signature-256" = String, Header, description = "`sha256=` and the HMAC"),
        ("x-bernstein-trigger-id" = Option<String>, Header, description = "The event's id")
    ),
    request_body(description = "The task", content((Object = "application/json"))),
    responses(
        (status = 202, description = "The broker has confirmed the event", body = Published),
        (status = 401, description = "The timestamp or the signature is missing, old or wrong", body = Details,
         content_type = "application/problem+json"),
        (status = 404, description = "The setting is not there", body = Details, content_type = "application/problem+json"),
        (status = 413, description = "The event is too large", body = Details, content_type = "application/problem+json"),
        (status = 422, description = "It is no JSON object", body = Details, content_type = "application/problem+json"),
        (status = 503, description = "Not confirmed within 10 s. Send it again with the same id", body = Details,
         content_type = "application/problem+json"),
    )
)]
async fn task(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let (headers, body) = parts(&gateway, request).await?;
    let secret = served(gateway.bernstein.webhook.as_ref(), "http.bernstein_webhook_secret")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let timestamp = text(&headers, TIMESTAMP).and_then(seconds).filter(|timestamp| is_recent(*timestamp, now));
    let timestamp = timestamp.ok_or_else(|| {
        let detail = format!("{TIMESTAMP}: expected whole seconds since 1970, at most 300 from now");
        Problem::new(StatusCode::UNAUTHORIZED, detail)
    })?;
    let signed = format!("{timestamp}.");
    let signature = text(&headers, WEBHOOK_SIGNATURE).unwrap_or_default();
    check(secret, signature, &[signed.as_bytes(), &body], WEBHOOK_SIGNATURE)?;
    let event = Event::builder("bernstein.webhook").source("/bernstein/webhook").data(object(&body)?);
    let id = TRIGGER_IDS.iter().find_map(|name| text(&headers, name)).filter(|id| !id.trim().is_empty());
    let event = id.into_iter().fold(event, |event, id| event.id(id.trim()));
    published(&gateway, event.build()).await
}

async fn parts(gateway: &Gateway, mut request: Request) -> Result<(HeaderMap, Bytes), Problem> {
    let headers = std::mem::take(request.headers_mut());
    let max = gateway.intake.reading.body_bytes_max;
    Ok((headers, whole(request, max, ", the limit (events.body_bytes_max)").await?))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The secret of a path.
fn served<'s>(secret: Option<&'s Secret<String>>, setting: &str) -> Result<&'s Secret<String>, Problem> {
    let detail = || format!("this path of Bernstein is served with the setting `{setting}`");
    secret.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, detail()))
}

fn check(secret: &Secret<String>, signature: &str, parts: &[&[u8]], header: &str) -> Result<(), Problem> {
    if is_signed(secret.expose(), signature, parts) {
        return Ok(());
    }
    let found = if signature.is_empty() { "none" } else { "another" };
    let detail = format!("{header}: expected the signature of this request, `sha256=` and 64 digits; found {found}");
    Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
}

fn object(body: &[u8]) -> Result<&RawValue, Problem> {
    let data = serde_json::from_slice::<&RawValue>(body).ok().filter(|data| data.get().starts_with('{'));
    data.ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "expected a JSON object as the body"))
}

async fn published(gateway: &Gateway, event: Result<Event, crate::publish::InvalidEvent>) -> Result<Response, Problem> {
    let event = event.map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    confirmed(&gateway.intake, &gateway.publisher, &event).await
}
