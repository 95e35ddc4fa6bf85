//! A dead letter as Kheish shows it: who failed, where and how often, without what it was given or what it runs.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

use super::invocation::{CONTRACT_VERSION, HookInvocation};
use super::settings::{Executor, FailureMode, FailurePolicy, HookDefinition, SHELL};
use super::timeout;
use crate::domain::dead_letter::{ForeignHook, Letter};
use crate::domain::dialect::Dialect;
use crate::domain::hook::{Action, Hook, Mode, OnFailure};

/// Longest error.
const ERROR_CHARS_MAX: usize = 2_048;
/// Longest reason of who has resolved it.
const REASON_CHARS_MAX: usize = 512;
/// Longest name in a target.
const NAME_CHARS_MAX: usize = 160;
/// Digits of a digest in an id.
const DIGEST_CHARS: usize = 8;
/// Digits of ours in an id, by which the letter is found again.
const LETTER_CHARS: usize = 16;
/// What a key of a secret has in it.
const SECRET_KEYS: [&str; 6] = ["token", "secret", "api_key", "apikey", "password", "authorization"];

/// A dead letter of a hook of Kheish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = KheishDeadLetter)]
pub struct DeadLetterRecord {
    pub id: String,
    pub at_ms: u64,
    pub hook_name: String,
    #[schema(value_type = String)]
    pub event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    pub target: String,
    pub attempt_count: u32,
    /// `open` or `closed`.
    #[schema(value_type = String)]
    pub failure_mode: FailureMode,
    pub contract_version: u64,
    pub invocation_digest: String,
    pub definition_digest: String,
    pub error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution_reason: Option<String>,
}

/// When a letter was resolved, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution<'a> {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Blank: an operator gave no reason.
    pub reason: &'a str,
}

impl DeadLetterRecord {
    /// The record of a letter. `None`: it is of no hook of Kheish, or its event cannot be read.
    #[must_use]
    pub fn of(letter: &Letter, resolution: Option<Resolution<'_>>) -> Option<Self> {
        let hook = letter.foreign.as_deref().filter(|hook| hook.dialect == Dialect::Kheish)?;
        let (event, body) = (letter.event.as_ref()?, letter.body.bytes().ok()?);
        let called = HookInvocation::of(&event.kind, &body).ok()?;
        let invocation = called.digest();
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Some(Self {
            id: id(letter, &invocation, &hook.definition),
            at_ms: letter.at_ms,
            hook_name: hook.name.clone(),
            event: called.event.snake,
            subject: text(&called.subject),
            session_id: text(&called.session_id),
            run_id: text(&called.run_id),
            target: hook.target.clone(),
            attempt_count: letter.attempts.last().map_or(1, |report| report.tries),
            failure_mode: if hook.fails_closed { FailureMode::Closed } else { FailureMode::Open },
            contract_version: CONTRACT_VERSION,
            invocation_digest: invocation,
            definition_digest: hook.definition.clone(),
            error: cut(&without_secrets(&letter.error), ERROR_CHARS_MAX),
            resolved_at_ms: resolution.map(|resolution| resolution.at_ms),
            resolution_reason: resolution.map(|resolution| reason(resolution.reason)),
        })
    }
}

/// A hook as the letter of its failure has it.
pub(in crate::dialect) fn foreign_hook(hook: &Hook) -> ForeignHook {
    let fails_closed = hook.mode == Mode::Gate(OnFailure::Closed);
    let definition = definition(hook, fails_closed);
    ForeignHook {
        dialect: Dialect::Kheish,
        name: definition.name.clone(),
        fails_closed,
        target: target(hook, &definition),
        definition: definition.digest(),
    }
}

/// The definition that the hook was imported from. What has its default is unsaid in it.
fn definition(hook: &Hook, fails_closed: bool) -> HookDefinition {
    let own = u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX);
    let timeout_ms = (hook.timeout != timeout(&hook.action)).then_some(own);
    let executor = match &hook.action {
        Action::Http(http) => Executor::Http { url: http.url.expose().to_string(), timeout_ms },
        Action::Command(command) => match command.argv.as_slice() {
            [shell, flag, command] if flag == "-lc" => {
                let shell = Some(shell.clone()).filter(|shell| shell != SHELL);
                Executor::Command { command: command.clone(), shell, timeout_ms }
            }
            argv => Executor::Command { command: argv.join(" "), shell: None, timeout_ms },
        },
        Action::Callback(name) => Executor::Callback { name: name.clone(), timeout_ms },
        // No version runs these two as hooks of Kheish, so that none of them fails.
        Action::Model(_) | Action::Publish(_) => Executor::Callback { name: hook.action.target(), timeout_ms },
    };
    let mode = if fails_closed { FailureMode::Closed } else { FailureMode::Open };
    let max_retries = u8::try_from(hook.retry.attempts.saturating_sub(1)).unwrap_or(u8::MAX);
    let name = hook.name.as_deref().unwrap_or_else(|| hook.id.as_str()).to_owned();
    HookDefinition { name, matcher: None, failure_policy: FailurePolicy { mode, max_retries }, executor }
}

/// The letter that a record of this id is of: how the letter's id begins. `None`: no record has such an id.
#[must_use]
pub fn letter_of(id: &str) -> Option<&str> {
    let mut parts = id.strip_prefix("hook-dlq-")?.split('-');
    let [Some(_), Some(_), Some(_), Some(letter), None] = std::array::from_fn(|_| parts.next()) else { return None };
    let is_letter = letter.len() == LETTER_CHARS && letter.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_letter.then_some(letter)
}

fn id(letter: &Letter, invocation: &str, definition: &str) -> String {
    let of_letter: String = letter.id.as_str().chars().take(LETTER_CHARS).collect();
    format!("hook-dlq-{}-{}-{}-{of_letter}", letter.at_ms, &invocation[..DIGEST_CHARS], &definition[..DIGEST_CHARS])
}

/// What the hook calls, without what is secret in it.
fn target(hook: &Hook, HookDefinition { name, executor, .. }: &HookDefinition) -> String {
    let (kind, name) = (executor.kind(), short(name));
    match executor {
        Executor::Command { .. } | Executor::Prompt { .. } | Executor::Agent { .. } => format!("{kind}:{name}"),
        Executor::Http { .. } => format!("{kind}:{name}:{}", hook.action.target()),
        Executor::Callback { name: callback, .. } => format!("{kind}:{name}:{}", short(callback)),
    }
}

/// A name on one line, cut to a bearable length.
fn short(name: &str) -> String {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    if name.chars().count() <= NAME_CHARS_MAX {
        return name;
    }
    cut(&name, NAME_CHARS_MAX) + "…"
}

fn reason(text: &str) -> String {
    match text.trim() {
        "" => "operator resolved".to_owned(),
        text => cut(&without_secrets(text), REASON_CHARS_MAX),
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// A text without the values of words such as `api_key=x` and `password:x`.
fn without_secrets(text: &str) -> String {
    let pieces = text.split_inclusive(char::is_whitespace);
    let mut safe = String::with_capacity(text.len());
    for piece in pieces {
        let word = piece.trim_end();
        let parts = word.find(['=', ':']).map(|at| (&word[..at], &word[at..=at], &word[at + 1..]));
        match parts.filter(|(key, _, value)| !value.is_empty() && is_secret(key)) {
            Some((key, separator, _)) => {
                safe += key;
                safe += separator;
                safe += "[REDACTED]";
                safe += &piece[word.len()..];
            }
            None => safe += piece,
        }
    }
    safe
}

fn is_secret(key: &str) -> bool {
    let is_around = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-';
    let key = key.trim_matches(is_around).to_ascii_lowercase();
    key == "auth" || SECRET_KEYS.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_covered() {
        for (text, expected) in [
            ("refused api_key=sk-1 there", "refused api_key=[REDACTED] there"),
            ("X-Token:abc\tpassword=p auth=b", "X-Token:[REDACTED]\tpassword=[REDACTED] auth=[REDACTED]"),
            ("Authorization: Bearer x", "Authorization: Bearer x"), // the value is another word
            ("author=me https://h/x", "author=me https://h/x"),
            ("\"auth\":x (auth=y) auth=", "\"auth\":[REDACTED] (auth=[REDACTED] auth="),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn letters_are_found_by_the_ids_of_their_records() {
        assert_eq!(letter_of("hook-dlq-17-aaaaaaaa-bbbbbbbb-0123456789abcdef"), Some("0123456789abcdef"));
        for id in ["hook-dlq-17-aaaaaaaa-bbbbbbbb-0123", "hook-dlq-17-a-b-0123456789abcdef-c", "0123456789abcdef", ""] {
            assert_eq!(letter_of(id), None, "{id}");
        }
    }

    #[test]
    fn reasons_are_short_and_never_blank() {
        assert_eq!(reason("  "), "operator resolved");
        assert_eq!(reason(" fixed secret=x "), "fixed secret=[REDACTED]");
        assert_eq!(reason(&"r".repeat(600)).len(), 512);
    }
}
