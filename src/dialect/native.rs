//! This project's own contract.
//!
//! A target gets the wire payload: one JSON object with `contract_version`, the key of the invocation, hook, attempt,
//! generation and the event, for observers of a decided event the `decision`, for gates the `updated_input` of gates before.
//! An http hook may ask for the event itself in place of that: see [`Format`]. HTTP requests say the key in `Idempotency-Key`, programs get it in `HOOKFLEET_INVOCATION_KEY`.
//!
//! An HTTP status of 2xx is done; 408, 425, 429 and 5xx may pass by themselves; any other is final. The exit code of a
//! program says the same, as the hook maps it. A gate answers with JSON: see [`Answer`]. A program that exits with 2 refuses.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::contract::{About, Body, Exchange, Question, Raw, Reply};
use crate::domain::decision::{Answer, Json};
use crate::domain::excerpt::{excerpt, with_excerpt};
use crate::domain::failure::Class;
use crate::domain::hook::{Action, CommandAction, Exit, Format, Hook};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::domain::redaction::Secrets;
use crate::domain::trace::TraceContext;

mod cloudevents;

/// Room for what stands before the event in a payload: more than most need.
const PAYLOAD_HEAD: usize = 256;
/// Version of the wire payload.
const CONTRACT_VERSION: u32 = 1;
/// The header of the wire payload, which a hook may set to another value.
const JSON: (&str, Cow<'_, str>) = ("content-type", Cow::Borrowed("application/json"));
/// The exit code of a program that refuses.
const REFUSES: i32 = 2;

/// Names and values of environment variables.
type Variables<'a> = Vec<(Cow<'static, str>, Cow<'a, str>)>;

pub(super) fn encode<'a>(
    hook: &'a Hook,
    invocation: &'a Invocation,
    key: &'a str,
    question: Option<&Question<'_>>,
) -> Result<Exchange<'a>, String> {
    let input = question.and_then(|question| question.input);
    let payload = || payload(hook, invocation, key, input);
    let exchange = Exchange { reads_body: question.is_some(), ..Exchange::default() };
    Ok(match &hook.action {
        Action::Http(action) => {
            let exchange = Exchange { headers: headers(invocation, key), ..exchange };
            match (&action.body, action.format) {
                (Some(_), _) => Exchange { default_headers: vec![JSON], ..exchange },
                (None, Format::Native | Format::Envelope) => {
                    Exchange { body: payload(), default_headers: vec![JSON], ..exchange }
                }
                (None, Format::CloudEvents) => cloudevents::structured(exchange, &invocation.event.body, input)?,
                (None, Format::CloudEventsBinary) => cloudevents::binary(exchange, &invocation.event.body, input)?,
            }
        }
        Action::Command(_) => Exchange { body: payload(), env: variables(hook, invocation, key), ..exchange },
        Action::Callback(_) => Exchange { body: payload(), ..exchange },
        Action::Publish(_) | Action::Model(_) => exchange,
    })
}

/// The wire payload.
///
/// The event goes in byte for byte: it was checked to be a JSON object when it was decoded. Hook ids and keys are made of
/// letters, digits and `._-/`, so that they need no escaping.
fn payload(hook: &Hook, invocation: &Invocation, key: &str, input: Option<&Json>) -> Bytes {
    let event = &invocation.event.body;
    let mut whole = Vec::with_capacity(event.len() + PAYLOAD_HEAD);
    // Writing to memory does not fail.
    let _ = write!(
        whole,
        r#"{{"contract_version":{CONTRACT_VERSION},"invocation_key":"{}","hook":"{}","attempt":{},"generation":{},"event":"#,
        key, hook.id, invocation.at.attempt, invocation.at.generation,
    );
    whole.extend_from_slice(event);
    if let Some(decision) = &invocation.decision {
        let _ = write!(whole, r#","decision":{}"#, decision.as_json());
    }
    if let Some(input) = input {
        let _ = write!(whole, r#","updated_input":{}"#, input.as_str());
    }
    whole.push(b'}');
    whole.into()
}

pub(super) fn headers<'a>(invocation: &'a Invocation, key: &'a str) -> Vec<(Cow<'static, str>, Cow<'a, str>)> {
    let mut headers = Vec::with_capacity(4);
    headers.push((Cow::Borrowed("idempotency-key"), Cow::Borrowed(key)));
    headers.push((Cow::Borrowed("hookfleet-attempt"), Cow::Owned(invocation.at.attempt.to_string())));
    let trace = invocation.event.trace.iter().flat_map(TraceContext::headers);
    headers.extend(trace.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))));
    headers
}

pub(super) fn variables<'a>(hook: &'a Hook, invocation: &'a Invocation, key: &'a str) -> Variables<'a> {
    let variables = [
        ("HOOKFLEET_EVENT_TYPE", variable(&invocation.event.kind)),
        ("HOOKFLEET_EVENT_ID", variable(&invocation.event.id)),
        ("HOOKFLEET_HOOK", Cow::Borrowed(hook.id.as_str())),
        ("HOOKFLEET_ATTEMPT", Cow::Owned(invocation.at.attempt.to_string())),
        ("HOOKFLEET_INVOCATION_KEY", Cow::Borrowed(key)),
    ];
    variables.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// A variable ends at a NUL, which an event's JSON may well hold.
pub(super) fn variable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

pub(super) fn read(
    hook: &Hook,
    about: &About<'_>,
    raw: Raw,
    secrets: impl FnOnce() -> Vec<String>,
) -> Result<Reply, Outcome> {
    let asks = about.question.is_some();
    match raw {
        Raw::Http { status, reason, retry_after, body, sent } => match again(status, retry_after) {
            None if asks => answer(&body, secrets),
            None => Ok(None),
            Some(again) => Err(refused((status, reason), again, sent, body.beginning(), secrets())),
        },
        Raw::Exit { code, stdout, stderr } => {
            let Action::Command(action) = &hook.action else { return Ok(None) };
            exited(action, asks, code, &stdout, &stderr, secrets)
        }
        Raw::Value(answer) => Ok(answer),
        Raw::Panic => Err(Outcome::later("the callback panicked")),
    }
}

/// What can pass by itself is tried again; any other refusal will be repeated however often we ask. `None` is done.
const fn again(status: u16, retry_after: Option<Duration>) -> Option<Again> {
    match status {
        200..=299 => None,
        408 | 425 | 429 => Some(Again::Later(retry_after)),
        300..=499 => Some(Again::Never(Class::Rejected)),
        _ => Some(Again::Later(retry_after)), // 5xx, and what is no final answer at all
    }
}

pub(super) fn refused(
    (status, reason): (u16, Option<&str>),
    again: Again,
    sent: usize,
    said: &[u8],
    secrets: Vec<String>,
) -> Outcome {
    let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
    let note = match status {
        300..400 => " (redirects are not followed)".to_owned(),
        413 => format!(" ({sent} bytes were sent)"),
        _ => String::new(),
    };
    let error = with_excerpt(format!("{status}{reason}{note}"), &excerpt(said, secrets));
    Outcome::Failed(Failure::new(again, Some(status.into()), error))
}

/// What the end of a program says: of one that decides, with exit 2 that it refuses, and why; else what it wrote.
fn exited(
    action: &CommandAction,
    asks: bool,
    code: i32,
    stdout: &Body,
    stderr: &[u8],
    secrets: impl FnOnce() -> Vec<String>,
) -> Result<Reply, Outcome> {
    let is_silent = stderr.trim_ascii().is_empty();
    let explains = if is_silent { stdout.beginning() } else { stderr };
    if asks && code == REFUSES && !action.exit_codes.names(code) {
        let secrets = secrets();
        let is_unexplained = excerpt(explains, secrets.clone()).is_empty();
        let reason = String::from_utf8_lossy(explains);
        let reason = if is_unexplained { "the hook's program refused" } else { reason.trim() };
        return Ok(Some(Box::new(Answer::refusal(reason).redacted(&Secrets::new(secrets)))));
    }
    let again = match action.exit_codes.meaning(code) {
        Exit::Done if asks => return answer(stdout, secrets),
        Exit::Done => return Ok(None),
        Exit::Retry => Again::Later(None),
        Exit::Fail => Again::Never(Class::Rejected),
    };
    let error = with_excerpt(format!("exit {code}"), &excerpt(explains, secrets()));
    Err(Outcome::Failed(Failure::new(again, Some(code), error)))
}

/// Reads what a target wrote to be merged into a decision. What its action knows as secret is not shown where it gives a
/// reason.
fn answer(said: &Body, secrets: impl FnOnce() -> Vec<String>) -> Result<Reply, Outcome> {
    let said = match said {
        Body::Whole(said) | Body::Beginning(said) => said,
        Body::TooLarge { bytes_max, .. } => {
            return Err(Outcome::never(Class::Rejected, format!("the answer has more than {bytes_max} bytes")));
        }
    };
    let read = std::str::from_utf8(said).map_err(|_| "expected an answer in UTF-8".to_owned()).and_then(Answer::read);
    match read {
        Ok(answer) if answer.has_reason() => Ok(Some(Box::new(answer.redacted(&Secrets::new(secrets()))))),
        Ok(answer) => Ok(Some(Box::new(answer))),
        // It would be the same the next time.
        Err(error) => Err(Outcome::never(Class::Rejected, excerpt(error.as_bytes(), secrets()))),
    }
}

#[cfg(test)]
mod tests;
