//! The contract of Aether, a workflow engine in Go (`aether-go`, packages `hook` and `wire`).
//!
//! The engine hands an event to its notifier when a workflow or a task reaches a phase for which its document names a hook.
//! A hook there is the name of a template, and the event says that name.
//!
//! | what | here |
//! |---|---|
//! | an event | `aether.{scope}.{HookType}`, as Go writes the struct or in lower camel case; the subject is the name of the workflow or the task |
//! | its id | the message's; else that of the run and the hook, for hooks that one run fires once |
//! | a target gets | the event as it came, with our `Idempotency-Key`; of another system's event the whole event |
//! | it answers | a status or an exit code, read as of our own targets: the engine waits for no answer |
//! | tries | one, unless the hook says `retry` |
//! | a failure | a letter, and the event `aether.errsink.warning`; the run is not touched |

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::to_raw_value;

use super::{data, native};
use crate::domain::contract::{Exchange, Question};
use crate::domain::escape::quoted;
use crate::domain::event::{CLOUDEVENTS_JSON, ForeignEvent, HOPS, Written};
use crate::domain::hook::{Action, Format, Hook};
use crate::domain::invocation::Invocation;
use crate::domain::message::{Message, Properties};
use crate::domain::pattern::Pattern;
use crate::domain::publication::HOPS_MAX;
use crate::domain::retry::RetryPolicy;
use crate::domain::trace::TraceContext;
use event::HookEvent;

mod event;
pub(super) mod import;

/// What the types of its events begin with.
pub(super) const TYPE_PREFIX: &str = "aether.";
/// The type of the event that says that a hook has failed, as the engine's error sink would be given it.
const WARNING: &str = "aether.errsink.warning";
const JSON: (&str, Cow<'_, str>) = ("content-type", Cow::Borrowed("application/json"));

pub(super) fn decode(json: &[u8]) -> Result<ForeignEvent, String> {
    let event = HookEvent::read(json)?;
    let subject = event.name();
    let named = [
        ("hooktemplate", &event.template),
        ("workflowrunid", &event.workflow_run_id),
        ("taskrunid", &event.task_run_id),
    ];
    let attributes = named.into_iter().filter(|(_, value)| !value.is_empty());
    Ok(ForeignEvent {
        kind: format!("{TYPE_PREFIX}{}.{}", event.scope.name(), event.hook_type.name()),
        subject: (!subject.is_empty()).then(|| subject.to_owned()),
        id: event.id(),
        attributes: attributes.map(|(name, value)| (name, value.to_string())).collect(),
    })
}

pub(super) fn encode<'a>(
    hook: &'a Hook,
    invocation: &'a Invocation,
    key: &'a str,
    question: Option<&Question<'_>>,
) -> Result<Exchange<'a>, String> {
    let event = &invocation.event;
    let payload = || match data(&event.body).filter(|_| is_of_aether(&event.kind)) {
        Some(data) => event.body.slice_ref(data.get().as_bytes()),
        None => event.body.clone(),
    };
    let exchange = Exchange { reads_body: question.is_some(), ..Exchange::default() };
    Ok(match &hook.action {
        Action::Http(action) if action.body.is_none() && action.format == Format::Native => {
            let headers = native::headers(invocation, key);
            Exchange { body: payload(), default_headers: vec![JSON], headers, ..exchange }
        }
        Action::Command(_) => Exchange { body: payload(), env: native::variables(hook, invocation, key), ..exchange },
        Action::Callback(_) => Exchange { body: payload(), ..exchange },
        // A body of its own, or the event in CloudEvents: as of hooks of ours.
        Action::Http(_) | Action::Publish(_) | Action::Model(_) => native::encode(hook, invocation, key, question)?,
    })
}

fn is_of_aether(kind: &str) -> bool {
    kind.starts_with(TYPE_PREFIX) && kind != WARNING
}

/// Such as `workflow.onExit "notify", http`.
pub(super) fn words(hook: &Hook) -> String {
    let short = |kind: &'_ Pattern| kind.as_str().strip_prefix(TYPE_PREFIX).unwrap_or_else(|| kind.as_str()).to_owned();
    let events: Vec<String> = hook.on.iter().map(short).collect();
    let name = hook.name.as_deref().unwrap_or_else(|| hook.id.as_str());
    format!("{} {}, {}", events.join(" and "), quoted(name), hook.action.kind())
}

/// One try, as there. A hook that says more waits between them as hooks of ours do.
pub(super) fn retry() -> RetryPolicy {
    RetryPolicy { attempts: 1, ..RetryPolicy::default() }
}

/// What the engine's error sink would be given: which run, in which operation, and why.
pub(super) fn warning(hook: &Hook, invocation: &Invocation, error: &str) -> Option<Message> {
    #[derive(Serialize)]
    struct Data<'a> {
        #[serde(rename = "workflowRunID")]
        workflow_run_id: &'a str,
        #[serde(rename = "taskRunID")]
        task_run_id: &'a str,
        operation: &'a str,
        error: &'a str,
    }
    let event = &invocation.event;
    if !is_of_aether(&event.kind) || event.hops >= HOPS_MAX {
        return None;
    }
    let about = HookEvent::read(data(&event.body)?.get().as_bytes()).ok()?;
    let id = format!("{}.{}", invocation.idempotency_key(), invocation.at.generation);
    let data = Data {
        workflow_run_id: &about.workflow_run_id,
        task_run_id: &about.task_run_id,
        operation: &format!("hook.{}", about.hook_type.name()),
        error,
    };
    let (source, data) = (format!("/hookfleet/hooks/{}", hook.id), to_raw_value(&data).ok()?);
    let body = Written { subject: Some(about.name()), ..Written::new(&id, &source, WARNING, &data) }.json();
    let properties = Properties {
        content_type: Some(CLOUDEVENTS_JSON.to_owned()),
        message_id: Some(id),
        kind: Some(WARNING.to_owned()),
        ..Properties::default()
    };
    let message = TraceContext::onto(event.trace.as_ref(), Message { body, properties, ..Message::default() });
    Some(message.with(HOPS, i64::from(event.hops.saturating_add(1))))
}

#[cfg(test)]
mod tests;
