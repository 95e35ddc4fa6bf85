//! What the hooks of a gate say together.

use super::{
    Answer, Approval, Asked, Decision, Json, LIST_MAX, PermissionRule, REASON_CHARS_MAX, Spoken, TEXT_CHARS_MAX,
    Verdict, cut,
};
use crate::domain::aggregation::StopAt;
use crate::domain::dialect::Dialect;
use crate::domain::id::HookId;

/// Merges answers in the order of their hooks.
#[derive(Debug, Clone, Default)]
pub struct Merge {
    merged: Decision,
    /// One has blocked, or wants nothing to go on.
    is_blocked: bool,
    /// One wants no gate behind it to be asked.
    has_ended: bool,
}

/// A hook, and what the dialect of the event calls it.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    pub id: &'a HookId,
    pub called: &'a str,
}

impl<'a> From<&'a HookId> for Named<'a> {
    /// By its id.
    fn from(id: &'a HookId) -> Self {
        Self { id, called: id.as_str() }
    }
}

impl Merge {
    /// For an event of this dialect.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        // Others have no words of their own for a decision.
        let spoken = (dialect == Dialect::Kheish).then_some(Spoken { dialect, decision: None, permission: None });
        Self { merged: Decision { spoken, ..Decision::default() }, is_blocked: false, has_ended: false }
    }

    /// The next hook's answer.
    pub fn add<'h>(&mut self, hook: impl Into<Named<'h>>, answer: Answer, attempts: u32, took_ms: u64) {
        let hook: Named<'_> = hook.into();
        let asked =
            Asked { hook: hook.id.to_string(), verdict: Some(answer.verdict()), attempts, took_ms, error: None };
        self.merged.hooks.push(asked);
        self.merged.matched_hooks.push(hook.called.to_owned());
        self.take(answer);
    }

    /// The next hook has failed; closed: that refuses, and names the hook. The error shows no secret.
    pub fn fail<'h>(&mut self, hook: impl Into<Named<'h>>, error: &str, attempts: u32, took_ms: u64, closed: bool) {
        let hook: Named<'_> = hook.into();
        let asked =
            Asked { hook: hook.id.to_string(), verdict: None, attempts, took_ms, error: Some(error.to_owned()) };
        self.merged.hooks.push(asked);
        if closed {
            let called = hook.called;
            // There a refusal that stands in for a failed hook is an outcome of that hook.
            if self.merged.spoken.is_some() {
                self.merged.matched_hooks.push(called.to_owned());
            }
            self.take(Answer::refusal(&format!("hook `{called}` failed after {attempts} attempt(s): {error}")));
        }
    }

    fn take(&mut self, answer: Answer) {
        self.has_ended |= answer.ends;
        self.is_blocked |= !answer.continue_execution || answer.decision == Some(Approval::Block);
        let merged = &mut self.merged;
        if let Some(spoken) = &mut merged.spoken {
            spoken.decision = spoken.decision.max(answer.decision);
            spoken.permission = spoken.permission.max(answer.permission);
        }
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

    /// Whether the answers so far are enough.
    #[must_use]
    pub fn ends_at(&self, stop: StopAt) -> bool {
        match stop {
            StopAt::Denial => self.merged.verdict == Verdict::Deny || self.has_ended,
            StopAt::Block => self.is_blocked,
            StopAt::Never => false,
        }
    }

    /// What the next hook gets in place of what the event is about.
    #[must_use]
    pub const fn input(&self) -> Option<&Json> {
        self.merged.updated_input.as_ref()
    }

    #[must_use]
    pub fn done(self) -> Decision {
        self.merged
    }
}

fn append<T>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    let room = LIST_MAX.saturating_sub(list.len());
    list.extend(more.into_iter().take(room));
}
