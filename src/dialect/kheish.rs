//! The contract of Kheish, an agent daemon.
//!
//! | | |
//! |---|---|
//! | an event | the invocation that its dispatcher hands to a hook: [`HookInvocation`]; its type here is `kheish.` and the name of the event, its subject that of the invocation |
//! | a program gets | the invocation with `contract_version` and `invocation_key` as compact JSON on stdin, without a line break behind it |
//! | an http target gets | the same as body, and `Idempotency-Key`, made from the invocation and the name of the hook |
//! | both answer | nothing, or an outcome in JSON, in a code fence or other text or not; text alone is a failure, also of a hook that only observes |
//! | the end | of a program is when nothing writes to its outputs any more; what it has left behind counts |
//! | exit 2 | with nothing on stdout it blocks; with something, and any other but 0, it is a failure that may pass |
//! | HTTP status | 408, 429 and 5xx may pass; other 4xx and redirects are final |
//! | tries | within one run, after 50, 100, 200 ms and up to 25 ms more, or as `Retry-After` says, up to 30 s; the timeout is over all of them |
//! | a panic | of a callback is one try that has failed for good |
//! | at a time | a worker runs up to 64 commands, 64 http calls and 128 callbacks; waiting for a place counts against the timeout |
//! | a prompt | the template of the hook with the invocation in it |
//! | answers | of 13 events one after the other up to the first that blocks; of the others all at once. Merged in declaration order |
//!
//! Events of other systems reach its hooks as a `notification`: see [`HookInvocation::of_event`].

use std::borrow::Cow;
use std::time::Duration;

pub use event_name::{EventName, TYPE_PREFIX};
pub use invocation::HookInvocation;

use crate::domain::aggregation::{Aggregation, Order, StopAt};
use crate::domain::contract::{Body, Exchange, Raw, Reply};
use crate::domain::decision::Answer;
use crate::domain::escape::quoted;
use crate::domain::event::{Event, ForeignEvent};
use crate::domain::excerpt::{excerpt, with_excerpt};
use crate::domain::failure::Class;
use crate::domain::hook::{Action, Hook, ModelAction};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::domain::pattern::Pattern;
use crate::domain::redaction::Secrets;
use crate::domain::retry::{InRun, RetryPolicy};

mod event_name;
pub(super) mod import;
mod invocation;
mod outcome;
pub mod record;
pub mod request;
pub mod settings;
mod template;

pub(super) use outcome::outcome;

const JSON: (&str, Cow<'_, str>) = ("content-type", Cow::Borrowed("application/json"));
/// The exit code of a program that blocks.
const BLOCKS: i32 = 2;

pub(super) fn decode(json: &[u8]) -> Result<ForeignEvent, String> {
    let invocation = HookInvocation::read(json)?;
    let kind = format!("{TYPE_PREFIX}{}", invocation.event.snake);
    Ok(ForeignEvent { kind, subject: invocation.subject.map(Cow::into_owned), ..ForeignEvent::default() })
}

pub(super) fn encode<'a>(hook: &'a Hook, invocation: &'a Invocation) -> Result<Exchange<'a>, String> {
    let called = HookInvocation::of_event(&invocation.event)?;
    let exchange = Exchange { reads_body: true, ..Exchange::default() };
    Ok(match &hook.action {
        Action::Http(action) => {
            let key = called.execution_key(name(hook));
            let body = if action.body.is_some() { String::new() } else { called.wire() };
            let headers = vec![(Cow::Borrowed("idempotency-key"), Cow::Owned(key))];
            Exchange { body: body.into(), default_headers: vec![JSON], headers, ..exchange }
        }
        Action::Command(_) => Exchange { body: called.wire().into(), ends_with_output: true, ..exchange },
        Action::Callback(_) => Exchange { body: called.wire().into(), ..exchange },
        Action::Model(model) => {
            let text = model.prompt().map(|prompt| template::render(&prompt.template, &called));
            Exchange { body: text.unwrap_or_default().into(), ..exchange }
        }
        Action::Publish(_) => exchange,
    })
}

/// Such as `PreToolUse "bash guard", matcher bash*, command`.
pub(super) fn words(hook: &Hook) -> String {
    let pascal = |kind| EventName::of_type(kind).map_or(kind, |name| name.pascal);
    let events: Vec<&str> = hook.on.iter().map(Pattern::as_str).map(pascal).collect();
    let matcher = hook.matcher.as_ref().map(|matcher| format!(", matcher {}", matcher.as_str())).unwrap_or_default();
    format!("{} {}{matcher}, {}", events.join(" and "), quoted(name(hook)), hook.action.kind())
}

/// What the hook is called there.
fn name(hook: &Hook) -> &str {
    hook.name.as_deref().unwrap_or_else(|| hook.id.as_str())
}

pub(super) fn read(raw: Raw, secrets: impl FnOnce() -> Vec<String>) -> Result<Reply, Outcome> {
    match raw {
        Raw::Http { status, reason, retry_after, body, .. } => match status {
            200..=299 => match &body {
                // It may be text the next time, as there.
                Body::Whole(said) if std::str::from_utf8(said).is_err() => {
                    Err(Outcome::later("expected a hook outcome in UTF-8"))
                }
                _ => answer(&body, secrets()),
            },
            300..=399 => Err(Outcome::never(Class::Rejected, "hook HTTP redirects are not allowed")),
            status => {
                let again = match status {
                    408 | 429 | 500.. => Again::Later(retry_after),
                    _ => Again::Never(Class::Rejected),
                };
                let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
                let error = with_excerpt(format!("{status}{reason}"), &excerpt(body.beginning(), secrets()));
                Err(Outcome::Failed(Failure::new(again, Some(status.into()), error)))
            }
        },
        Raw::Exit { code, stdout, stderr } => exited(code, &stdout, &stderr, secrets()),
        Raw::Value(answer) => Ok(answer),
        Raw::Panic => Err(Outcome::never(Class::Exhausted, "hook task panicked")), // one try, whatever `retry` says
    }
}

fn exited(code: i32, stdout: &Body, stderr: &[u8], secrets: Vec<String>) -> Result<Reply, Outcome> {
    if code == 0 {
        return answer(stdout, secrets);
    }
    if code == BLOCKS && stdout.beginning().trim_ascii().is_empty() {
        let said = String::from_utf8_lossy(stderr);
        let reason = match said.trim() {
            "" => "hook command blocked execution".to_owned(),
            said => format!("hook command blocked execution: {said}"),
        };
        return Ok(Some(Box::new(Answer::refusal(&reason).redacted(&Secrets::new(secrets)))));
    }
    let error = with_excerpt(format!("hook command exited with status {code}"), &excerpt(stderr, secrets));
    Err(Outcome::Failed(Failure::new(Again::Later(None), Some(code), error)))
}

/// An answer that cannot be read is final. One that is too large may be smaller the next time, as there.
fn answer(said: &Body, secrets: Vec<String>) -> Result<Reply, Outcome> {
    let said = match said {
        Body::Whole(said) | Body::Beginning(said) => said,
        Body::TooLarge { bytes_max, .. } => {
            return Err(Outcome::later(format!("the answer has more than {bytes_max} bytes")));
        }
    };
    // What a program wrote is read with replacement characters in place of what is no text.
    match outcome::read(&String::from_utf8_lossy(said)) {
        Ok(answer) => Ok(Some(Box::new(answer.redacted(&Secrets::new(secrets))))),
        Err(error) => Err(Outcome::never(Class::Rejected, excerpt(error.as_bytes(), secrets))),
    }
}

pub(super) fn aggregation(event: &Event) -> Aggregation {
    let order = match EventName::of_type(&event.kind) {
        Some(EventName { snake: "permission_request", .. }) => Order::InTurn(StopAt::Denial),
        Some(EventName { is_in_turn: false, .. }) => Order::AtOnce,
        Some(_) | None => Order::InTurn(StopAt::Block),
    };
    Aggregation { order, passes_input: false }
}

/// How many hooks that do such a thing run at a time in one process. `None`: as many as may.
pub(super) fn concurrency(action: &Action) -> Option<usize> {
    match action {
        Action::Command(_) | Action::Http(_) => Some(64),
        Action::Callback(_) => Some(128),
        Action::Model(model) if matches!(**model, ModelAction::Prompt(_)) => Some(16),
        Action::Model(_) => Some(8),
        Action::Publish(_) => None, // hooks of Kheish publish nothing
    }
}

/// How long a hook may take that does not say so, over all its tries.
pub(super) fn timeout(action: &Action) -> Duration {
    match action {
        Action::Http(_) | Action::Command(_) | Action::Publish(_) => Duration::from_secs(5),
        Action::Model(model) if matches!(**model, ModelAction::Agent(_)) => Duration::from_secs(30),
        Action::Callback(_) | Action::Model(_) => Duration::from_secs(15),
    }
}

/// One try, unless the hook says more.
pub(super) fn retry() -> RetryPolicy {
    RetryPolicy {
        attempts: 1,
        initial: Duration::from_millis(50),
        factor: 2.0,
        max: Duration::from_millis(200),
        jitter: 0.0,
        hint_max: Duration::from_secs(30),
        in_run: Some(InRun { added_below: Duration::from_millis(25) }),
        ..RetryPolicy::default()
    }
}

#[cfg(test)]
mod tests;
