//! The events of Bernstein (3.23.0). Its surfaces have names of their own, some of them twice with other payloads.

use serde_json::Value;

/// What the types of its events begin with.
pub(super) const TYPE_PREFIX: &str = "bernstein.";

/// What has raised an event, which says what its payload looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    /// `HookEvent`: webhooks, blocking hooks, and what the documentation calls hooks.
    Webhook,
    /// `LifecycleEvent`: scripts of `hooks:` and of `.bernstein/hooks`.
    Lifecycle,
    /// Hooks of plugins, and executable files in folders of their names.
    Plugin,
    /// Sinks of `notifications:`.
    Notification,
}

impl Surface {
    const ALL: [(&'static str, Self); 3] =
        [("lifecycle.", Self::Lifecycle), ("plugin.", Self::Plugin), ("notification.", Self::Notification)];

    /// The type of an event of this name here.
    pub(super) fn kind(self, name: &str) -> String {
        let part = Self::ALL.iter().find(|(_, surface)| *surface == self).map_or("", |(part, _)| part);
        format!("{TYPE_PREFIX}{part}{name}")
    }

    /// Of an event of this type, and its name there; `None`: it is of another system.
    pub(super) fn of(kind: &str) -> Option<(Self, &str)> {
        let name = kind.strip_prefix(TYPE_PREFIX)?;
        let of_part = |(part, surface): &(&'static str, Self)| Some((*surface, name.strip_prefix(*part)?));
        Some(Self::ALL.iter().find_map(of_part).unwrap_or((Self::Webhook, name)))
    }
}

pub(super) const WEBHOOKS: [&str; 32] = [
    "task.created",
    "task.claimed",
    "task.completed",
    "task.failed",
    "task.retried",
    "agent.spawned",
    "agent.heartbeat",
    "agent.completed",
    "agent.killed",
    "agent.stalled",
    "merge.started",
    "merge.completed",
    "merge.conflict",
    "quality_gate.passed",
    "quality_gate.failed",
    "budget.threshold",
    "budget.exceeded",
    "config.drift",
    "orchestrator.tick",
    "orchestrator.startup",
    "orchestrator.shutdown",
    "plan.loaded",
    "plan.stage_completed",
    "permission.denied",
    "permission.escalated",
    "secret.detected",
    "circuit_breaker.tripped",
    "cluster.node_joined",
    "lineage.merge_entry",
    "pre_merge",
    "pre_spawn",
    "pre_approve",
];

pub(super) const LIFECYCLE: [&str; 22] = [
    "pre_task",
    "post_task",
    "pre_merge",
    "post_merge",
    "pre_spawn",
    "post_spawn",
    "pre_archive",
    "post_archive",
    "task.resume",
    "kb.fact_published",
    "rate_limit.hit",
    "agent.retry_continuation",
    "agent.progress_stalled",
    "agent.startup_exhausted",
    "worker.escalated",
    "sessionStart",
    "userPromptSubmitted",
    "preToolUse",
    "postToolUse",
    "errorOccurred",
    "idle",
    "sessionEnd",
];

pub(super) const NOTIFICATIONS: [&str; 7] =
    ["pre_task", "post_task", "pre_merge", "post_merge", "pre_spawn", "post_spawn", "synthetic"];

/// Hooks of plugins that are given no schema there.
const PLUGINS_OF_ANY: [&str; 7] = [
    "on_task_hook_rejection",
    "on_compaction",
    "on_pre_compact",
    "on_post_compact",
    "on_metric_record",
    "on_audit_event",
    "on_agent_hook",
];

/// Type of an argument, as the JSON Schema of its hook has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    Text,
    Object,
    Flag,
    Integer,
    Texts,
}

impl Argument {
    /// As JSON Schema calls the type.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Object => "object",
            Self::Flag => "boolean",
            Self::Integer => "integer",
            Self::Texts => "array",
        }
    }

    /// Items of a list aside.
    pub(super) fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Object => value.is_object(),
            Self::Flag => value.is_boolean(),
            Self::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Self::Texts => value.is_array(),
        }
    }
}

use Argument::{Flag, Integer, Object, Text, Texts};

type Arguments = &'static [(&'static str, Argument)];

/// Hooks of plugins that are, with the arguments that each has to be given.
const PLUGINS: [(&str, Arguments); 31] = [
    ("on_task_created", &[("task_id", Text), ("role", Text), ("title", Text)]),
    ("on_task_completed", &[("task_id", Text), ("role", Text), ("result_summary", Text)]),
    ("on_task_failed", &[("task_id", Text), ("role", Text), ("error", Text)]),
    ("on_agent_spawned", &[("session_id", Text), ("role", Text), ("model", Text)]),
    ("on_agent_reaped", &[("session_id", Text), ("role", Text), ("outcome", Text)]),
    ("on_tool_error", &[("session_id", Text), ("tool", Text), ("error", Text)]),
    ("on_evolve_proposal", &[("proposal_id", Text), ("title", Text), ("verdict", Text)]),
    ("on_pre_task_create", &[("task_id", Text), ("role", Text), ("title", Text), ("description", Text)]),
    ("on_permission_denied", &[("task_id", Text), ("reason", Text), ("tool", Text), ("args", Object)]),
    ("on_pre_tool_use", &[("session_id", Text), ("tool", Text), ("tool_input", Object)]),
    (
        "on_post_tool_use",
        &[("session_id", Text), ("tool", Text), ("tool_input", Object), ("result", Text), ("success", Flag)],
    ),
    (
        "on_post_tool_use_failure",
        &[("session_id", Text), ("tool", Text), ("tool_input", Object), ("error", Text), ("retries", Integer)],
    ),
    ("on_notification", &[("session_id", Text), ("level", Text), ("message", Text)]),
    ("on_user_prompt_submit", &[("session_id", Text), ("prompt", Text)]),
    ("on_session_start", &[("session_id", Text), ("role", Text), ("task_id", Text)]),
    ("on_session_end", &[("session_id", Text), ("role", Text), ("reason", Text)]),
    ("on_stop", &[("session_id", Text), ("reason", Text), ("signal", Text)]),
    ("on_stop_failure", &[("session_id", Text), ("reason", Text), ("error", Text)]),
    ("on_subagent_start", &[("session_id", Text), ("sub_id", Text), ("role", Text)]),
    ("on_subagent_stop", &[("session_id", Text), ("sub_id", Text), ("outcome", Text)]),
    ("on_permission_request", &[("session_id", Text), ("tool", Text), ("mode", Text)]),
    ("on_setup", &[("session_id", Text), ("role", Text), ("workdir", Text)]),
    ("on_teammate_idle", &[("session_id", Text), ("role", Text), ("queue_depth", Integer)]),
    ("on_elicitation", &[("session_id", Text), ("prompt", Text), ("options", Texts)]),
    ("on_elicitation_result", &[("session_id", Text), ("prompt", Text), ("response", Text)]),
    ("on_config_change", &[("key", Text), ("old_value", Text), ("new_value", Text)]),
    ("on_worktree_create", &[("session_id", Text), ("worktree_path", Text), ("branch", Text)]),
    ("on_worktree_remove", &[("session_id", Text), ("worktree_path", Text)]),
    ("on_instructions_loaded", &[("session_id", Text), ("role", Text), ("source_paths", Texts)]),
    ("on_cwd_changed", &[("session_id", Text), ("old_cwd", Text), ("new_cwd", Text)]),
    ("on_file_changed", &[("session_id", Text), ("file_path", Text), ("change_type", Text)]),
];

/// What a hook of plugins has to be given; `None`: there is no such hook.
pub(super) fn arguments(hook: &str) -> Option<Arguments> {
    let known = PLUGINS.iter().find(|(name, _)| *name == hook).map(|(_, arguments)| *arguments);
    known.or_else(|| PLUGINS_OF_ANY.contains(&hook).then_some(&[]))
}
