//! The outcome of a hook of Kheish: how it is read from what a hook wrote, and written for who has asked.

use serde::Serialize;
use serde_json::Value;

use super::invocation::CONTRACT_VERSION;
use crate::domain::decision::{Answer, Approval, Decision, Json, PermissionRule, Verdict};

/// Reads what a hook wrote: nothing at all, JSON, or the first balanced object within other text or a code fence; the first
/// balanced list where there is no object. Of a key that comes twice the last value counts.
///
/// # Errors
/// One sentence: it is none, of another version, or has a field of another type. May show a part of the text.
pub(super) fn read(text: &str) -> Result<Answer, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Answer::default());
    }
    if let Ok(whole) = serde_json::from_str(text) {
        return of_value(&whole);
    }
    match balanced(text, '{').or_else(|| balanced(text, '[')) {
        Some(json) => {
            let wrong = |error| format!("expected an answer such as {{\"decision\": \"block\"}}: {error}");
            of_value(&serde_json::from_str(json).map_err(wrong)?)
        }
        None => Err("expected a hook outcome in JSON, or nothing; found other text".to_owned()),
    }
}

/// A version that is null is one that there is not, and no missing one.
fn of_value(value: &Value) -> Result<Answer, String> {
    match value.get("contract_version") {
        Some(version) if version.is_null() => Err("malformed hook outcome contract_version".to_owned()),
        _ => Answer::of_object(&value.to_string()),
    }
}

/// The part of a text from the first of this bracket to the one that closes it.
fn balanced(text: &str, bracket: char) -> Option<&str> {
    let begin = text.find(bracket)?;
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    for (at, c) in text[begin..].char_indices() {
        match c {
            '"' if !is_escaped => is_text = !is_text,
            '{' | '[' if !is_text => depth += 1,
            '}' | ']' if !is_text => depth -= 1,
            _ => {}
        }
        is_escaped = is_text && c == '\\' && !is_escaped;
        if depth == 0 {
            return Some(&text[begin..=begin + at]);
        }
    }
    None
}

/// What all hooks came to, for who asked: all fields of an outcome.
pub(crate) fn outcome(decision: &Decision) -> String {
    #[derive(Serialize)]
    struct Outcome<'a> {
        contract_version: u64,
        continue_execution: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        stop_reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        decision: Option<Approval>,
        #[serde(skip_serializing_if = "Option::is_none")]
        permission: Option<Verdict>,
        #[serde(skip_serializing_if = "Option::is_none")]
        updated_input: Option<&'a Json>,
        #[serde(skip_serializing_if = "Option::is_none")]
        updated_output: Option<&'a Json>,
        updated_permissions: &'a [PermissionRule],
        additional_contexts: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_user_message: Option<&'a str>,
        watch_paths: Vec<&'a str>,
        retry: bool,
        matched_hooks: &'a [String],
    }
    // A request that is refused before any gate is asked says so in our words only.
    let (approval, permission) = match decision.spoken {
        Some(spoken) => (spoken.decision, spoken.permission),
        None if decision.verdict == Verdict::Deny => (Some(Approval::Block), None),
        None => (None, None),
    };
    let is_refused_unasked = decision.spoken.is_none() && decision.verdict == Verdict::Deny;
    let outcome = Outcome {
        contract_version: CONTRACT_VERSION,
        continue_execution: !decision.stop && !is_refused_unasked,
        stop_reason: decision.reason.as_deref(),
        decision: approval,
        permission,
        updated_input: decision.updated_input.as_ref(),
        updated_output: decision.updated_output.as_ref(),
        updated_permissions: &decision.updated_permissions,
        additional_contexts: &decision.additional_contexts,
        initial_user_message: decision.initial_user_message.as_deref(),
        watch_paths: decision.watch_paths.iter().map(String::as_str).collect(),
        retry: decision.retry,
        matched_hooks: &decision.matched_hooks,
    };
    serde_json::to_string(&outcome).unwrap_or_default() // texts, flags and numbers always serialize
}
