//! What Kheish's tools look for in a status: `hooks` in numbers, and `health.warnings`.

use serde::Serialize;
use utoipa::ToSchema;

use super::dead_letters::KEPT_MAX;
use crate::domain::dialect::Dialect;
use crate::domain::fold::Standing;
use crate::domain::matching::HookSet;
use crate::flow::WorkCounts;
use crate::operations::Operations;

/// How it stands with Kheish's hooks. What was run is counted over all hooks of the fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KheishHooks)]
pub(in crate::http) struct HooksStatus {
    configured_count: usize,
    dead_lettered_count: u64,
    unresolved_dead_lettered_count: u64,
    /// Those that succeeded.
    execution_count: u64,
    failure_count: u64,
    retry_count: u64,
    dead_letter_persist_failure_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_dead_letter_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_dead_letter_hook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_unresolved_dead_letter_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_unresolved_dead_letter_hook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_read_error: Option<String>,
}

/// Something that an operator should look at.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = KheishWarning)]
pub(in crate::http) struct Warning {
    severity: &'static str,
    /// `hook_dead_letters`, `hook_dead_letter_persist_failures` or `hook_dead_letter_store_unreadable`.
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_id: Option<String>,
    action: &'static str,
}

/// Its `health`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KheishHealth)]
pub(in crate::http) struct Health {
    warnings: Vec<Warning>,
}

/// The letters of Kheish's hooks in numbers, if letters are read here, or why they cannot be.
pub(in crate::http) async fn letters(operations: Option<&Operations>) -> Option<Result<Standing, String>> {
    let read = operations?.letters.lately().await;
    Some(read.map(|fold| fold.standing_of(Dialect::Kheish, KEPT_MAX)).map_err(|error| error.to_string()))
}

impl HooksStatus {
    pub(in crate::http) fn of(work: &WorkCounts, hooks: &HookSet, letters: Option<Result<Standing, String>>) -> Self {
        let (standing, dead_letter_read_error) = match letters {
            Some(Ok(standing)) => (standing, None),
            Some(Err(error)) => (Standing::default(), Some(error)),
            None => (Standing::default(), None),
        };
        let Standing { letters, unresolved, last, last_unresolved, .. } = standing;
        let name = |last: &Option<crate::domain::fold::Last>| last.as_ref()?.hook.as_deref().map(str::to_owned);
        Self {
            configured_count: hooks.hooks().iter().filter(|hook| hook.dialect == Dialect::Kheish).count(),
            dead_lettered_count: letters,
            unresolved_dead_lettered_count: unresolved,
            execution_count: work.attempts.saturating_sub(work.failed),
            failure_count: work.failed,
            retry_count: work.retries,
            dead_letter_persist_failure_count: work.letters_unconfirmed,
            last_dead_letter_hook: name(&last),
            last_dead_letter_at_ms: last.map(|last| last.at_ms),
            last_unresolved_dead_letter_hook: name(&last_unresolved),
            last_unresolved_dead_letter_at_ms: last_unresolved.map(|last| last.at_ms),
            dead_letter_read_error,
        }
    }

    pub(in crate::http) fn health(&self) -> Health {
        let unresolved = self.unresolved_dead_lettered_count;
        let unwritten = self.dead_letter_persist_failure_count;
        let warning = |code, message, action| Warning { severity: "warning", code, message, related_id: None, action };
        let mut warnings = Vec::new();
        if unresolved > 0 {
            let message = format!("{unresolved} unresolved hook dead-letter record(s)");
            let action = "read GET /v1/runtime/hooks/dead-letter, mend the cause, and replay or resolve them";
            let related_id = self.last_unresolved_dead_letter_hook.clone();
            warnings.push(Warning { related_id, ..warning("hook_dead_letters", message, action) });
        }
        if unwritten > 0 {
            let message = format!("{unwritten} hook dead-letter write(s) were not confirmed");
            let action = "see whether the broker is there: each is repeated until it is confirmed";
            warnings.push(warning("hook_dead_letter_persist_failures", message, action));
        }
        if let Some(error) = &self.dead_letter_read_error {
            let message = format!("hook dead-letter records cannot be read: {error}");
            let action = "see whether the broker is there";
            warnings.push(warning("hook_dead_letter_store_unreadable", message, action));
        }
        Health { warnings }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fold::Last;

    #[test]
    fn numbers_and_warnings() {
        let work = WorkCounts { attempts: 9, failed: 4, retries: 2, letters_unconfirmed: 1, ..WorkCounts::default() };
        let last = |at_ms, hook: &str| Some(Last { at_ms, hook: Some(hook.into()) });
        let standing = Standing {
            letters: 3,
            unresolved: 2,
            last: last(7, "b"),
            last_unresolved: last(5, "a"),
            ..Standing::default()
        };
        let status = HooksStatus::of(&work, &HookSet::default(), Some(Ok(standing)));
        let expected = json!({ "configured_count": 0, "dead_lettered_count": 3, "unresolved_dead_lettered_count": 2,
            "execution_count": 5, "failure_count": 4, "retry_count": 2, "dead_letter_persist_failure_count": 1,
            "last_dead_letter_at_ms": 7, "last_dead_letter_hook": "b", "last_unresolved_dead_letter_at_ms": 5,
            "last_unresolved_dead_letter_hook": "a" });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
        let warnings = status.health().warnings;
        assert_eq!(
            warnings.iter().map(|it| it.code).collect::<Vec<_>>(),
            ["hook_dead_letters", "hook_dead_letter_persist_failures"]
        );
        assert_eq!(
            (warnings[0].message.as_str(), warnings[0].related_id.as_deref()),
            ("2 unresolved hook dead-letter record(s)", Some("a"))
        );

        let unread = HooksStatus::of(&WorkCounts::default(), &HookSet::default(), Some(Err("away".to_owned())));
        assert_eq!(unread.health().warnings[0].code, "hook_dead_letter_store_unreadable");
        let quiet = HooksStatus::of(&WorkCounts::default(), &HookSet::default(), None);
        assert_eq!(quiet.health().warnings, []);
    }
}
