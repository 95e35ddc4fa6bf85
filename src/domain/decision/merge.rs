//! What the hooks of a gate say together.

use super::{Answer, Asked, Decision, Json, LIST_MAX, PermissionRule, REASON_CHARS_MAX, TEXT_CHARS_MAX, Verdict, cut};
use crate::domain::id::HookId;

/// Merges answers in the order of their hooks.
#[derive(Debug, Clone, Default)]
pub struct Merge(Decision);

impl Merge {
    /// The next hook's answer.
    pub fn add(&mut self, hook: &HookId, answer: Answer, attempts: u32, took_ms: u64) {
        let verdict = answer.verdict();
        let hook = hook.to_string();
        self.0.hooks.push(Asked { hook: hook.clone(), verdict: Some(verdict), attempts, took_ms, error: None });
        self.0.matched_hooks.push(hook);
        self.take(answer);
    }

    /// The next hook has failed; closed: that refuses, and names the hook. The error shows no secret.
    pub fn fail(&mut self, hook: &HookId, error: &str, attempts: u32, took_ms: u64, closed: bool) {
        let failed = Asked { hook: hook.to_string(), verdict: None, attempts, took_ms, error: Some(error.to_owned()) };
        self.0.hooks.push(failed);
        if closed {
            self.take(Answer::refusal(&format!("hook `{hook}` failed after {attempts} attempt(s): {error}")));
        }
    }

    fn take(&mut self, answer: Answer) {
        let merged = &mut self.0;
        merged.verdict = merged.verdict.max(answer.verdict());
        merged.stop |= !answer.continue_execution;
        merged.reason = merged.reason.take().or(answer.stop_reason.map(|reason| cut(reason, REASON_CHARS_MAX)));
        merged.updated_input = answer.updated_input.or(merged.updated_input.take());
        merged.updated_output = answer.updated_output.or(merged.updated_output.take());
        append(&mut merged.updated_permissions, answer.updated_permissions.into_iter().map(PermissionRule::cut));
        append(
            &mut merged.additional_contexts,
            answer.additional_contexts.into_iter().map(|text| cut(text, TEXT_CHARS_MAX)),
        );
        merged.initial_user_message =
            merged.initial_user_message.take().or(answer.initial_user_message.map(|text| cut(text, TEXT_CHARS_MAX)));
        let room = LIST_MAX.saturating_sub(merged.watch_paths.len());
        merged.watch_paths.extend(answer.watch_paths.into_iter().take(room).map(|text| cut(text, TEXT_CHARS_MAX)));
        merged.retry |= answer.retry;
    }

    /// Whether nobody else is asked.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.0.verdict == Verdict::Deny
    }

    /// What the next hook gets in place of what the event is about.
    #[must_use]
    pub const fn input(&self) -> Option<&Json> {
        self.0.updated_input.as_ref()
    }

    #[must_use]
    pub fn done(self) -> Decision {
        self.0
    }
}

fn append<T>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    let room = LIST_MAX.saturating_sub(list.len());
    list.extend(more.into_iter().take(room));
}
