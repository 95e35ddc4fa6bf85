//! A dead letter as Kheish shows it: who failed, where and how often, without what it was given or what it runs.

use std::borrow::Cow;

use serde::Serialize;
use url::Url;

use super::invocation::{CONTRACT_VERSION, HookInvocation};
use super::settings::{Executor, FailureMode, HookDefinition};
use crate::domain::dead_letter::Letter;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterRecord {
    pub id: String,
    pub at_ms: u64,
    pub hook_name: String,
    pub event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    pub target: String,
    pub attempt_count: u32,
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
    /// The record of a letter about this hook, which was called with this invocation.
    #[must_use]
    pub fn of(
        letter: &Letter,
        hook: &HookDefinition,
        called: &HookInvocation<'_>,
        resolution: Option<Resolution<'_>>,
    ) -> Self {
        let (invocation, definition) = (called.digest(), hook.digest());
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            id: id(letter, &invocation, &definition),
            at_ms: letter.at_ms,
            hook_name: hook.name.clone(),
            event: called.event.snake,
            subject: text(&called.subject),
            session_id: text(&called.session_id),
            run_id: text(&called.run_id),
            target: target(hook),
            attempt_count: letter.attempts.last().map_or(1, |report| report.tries),
            failure_mode: hook.failure_policy.mode,
            contract_version: CONTRACT_VERSION,
            invocation_digest: invocation,
            definition_digest: definition,
            error: cut(&without_secrets(&letter.error), ERROR_CHARS_MAX),
            resolved_at_ms: resolution.map(|resolution| resolution.at_ms),
            resolution_reason: resolution.map(|resolution| reason(resolution.reason)),
        }
    }
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
fn target(hook: &HookDefinition) -> String {
    let (kind, name) = (hook.executor.kind(), short(&hook.name));
    match &hook.executor {
        Executor::Command { .. } | Executor::Prompt { .. } | Executor::Agent { .. } => format!("{kind}:{name}"),
        // Settings have no other URL than one with a scheme and a host.
        Executor::Http { url, .. } => {
            let origin = Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
            format!("{kind}:{name}:{origin}")
        }
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
        match word.split_once(['=', ':']).filter(|(key, value)| !value.is_empty() && is_secret(key)) {
            Some((key, _)) => {
                safe += key;
                safe += "=[REDACTED]";
                safe += &piece[word.len()..];
            }
            None => safe += piece,
        }
    }
    safe
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key == "auth" || SECRET_KEYS.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(name: &str, executor: &serde_json::Value) -> HookDefinition {
        serde_json::from_value(json!({ "name": name, "executor": executor })).unwrap()
    }

    #[test]
    fn values_of_secrets_are_covered() {
        for (text, expected) in [
            ("refused api_key=sk-1 there", "refused api_key=[REDACTED] there"),
            ("X-Token:abc\tpassword=p auth=b", "X-Token=[REDACTED]\tpassword=[REDACTED] auth=[REDACTED]"),
            ("Authorization: Bearer x", "Authorization: Bearer x"), // the value is another word
            ("author=me https://h/x", "author=me https://h/x"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn targets_are_safe_to_show() {
        let check = |name: &str, executor: &serde_json::Value, expected: &str| {
            assert_eq!(target(&definition(name, executor)), expected);
        };
        check("a  b\nc", &json!({ "type": "command", "command": "x" }), "command:a b c");
        let url = json!({ "type": "http", "url": "https://example.com:8443/path?token" });
        check("h", &url, "http:h:https://example.com:8443");
        check("h", &json!({ "type": "http", "url": "https://example.com:443/x" }), "http:h:https://example.com");
        check("h", &json!({ "type": "callback", "name": "cb" }), "callback:h:cb");
        check("h", &json!({ "type": "agent", "template": "x" }), "agent:h");
        let long = "n".repeat(161);
        check(&long, &json!({ "type": "prompt", "template": "x" }), &format!("prompt:{}…", &long[..160]));
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
