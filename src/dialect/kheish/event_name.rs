//! The 27 events of Kheish.

/// An event of Kheish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventName {
    /// As payloads and settings have it.
    pub snake: &'static str,
    /// As templates and error texts have it.
    pub pascal: &'static str,
    /// Its hooks are asked one after the other, up to the first that blocks; those of the others are asked all at once.
    pub is_in_turn: bool,
}

/// What the types of these events begin with here.
pub const TYPE_PREFIX: &str = "kheish.";

const fn in_turn(snake: &'static str, pascal: &'static str) -> EventName {
    EventName { snake, pascal, is_in_turn: true }
}

const fn at_once(snake: &'static str, pascal: &'static str) -> EventName {
    EventName { snake, pascal, is_in_turn: false }
}

impl EventName {
    /// Every event, in the order in which Kheish declares them.
    pub const ALL: [Self; 27] = [
        in_turn("pre_tool_use", "PreToolUse"),
        in_turn("post_tool_use", "PostToolUse"),
        in_turn("post_tool_use_failure", "PostToolUseFailure"),
        in_turn("permission_request", "PermissionRequest"),
        at_once("permission_denied", "PermissionDenied"),
        in_turn("setup", "Setup"),
        in_turn("session_start", "SessionStart"),
        at_once("session_end", "SessionEnd"),
        in_turn("stop", "Stop"),
        at_once("stop_failure", "StopFailure"),
        in_turn("user_prompt_submit", "UserPromptSubmit"),
        in_turn("pre_compact", "PreCompact"),
        at_once("post_compact", "PostCompact"),
        in_turn("subagent_start", "SubagentStart"),
        at_once("subagent_stop", "SubagentStop"),
        at_once("teammate_idle", "TeammateIdle"),
        at_once("task_created", "TaskCreated"),
        at_once("task_completed", "TaskCompleted"),
        at_once("elicitation", "Elicitation"),
        at_once("elicitation_result", "ElicitationResult"),
        in_turn("config_change", "ConfigChange"),
        in_turn("worktree_create", "WorktreeCreate"),
        at_once("worktree_remove", "WorktreeRemove"),
        at_once("file_changed", "FileChanged"),
        in_turn("instructions_loaded", "InstructionsLoaded"),
        at_once("notification", "Notification"),
        at_once("cwd_changed", "CwdChanged"),
    ];

    /// By its name in payloads and settings.
    #[must_use]
    pub fn named(snake: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|event| event.snake == snake)
    }

    /// By the type that it has here.
    #[must_use]
    pub fn of_type(kind: &str) -> Option<&'static Self> {
        Self::named(kind.strip_prefix(TYPE_PREFIX)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_making() {
        for event in EventName::ALL {
            let words = event.snake.split('_').map(|word| {
                let (first, rest) = word.split_at(1);
                format!("{}{rest}", first.to_ascii_uppercase())
            });
            assert_eq!(event.pascal, words.collect::<String>());
            assert_eq!(EventName::of_type(&format!("kheish.{}", event.snake)), Some(&event));
        }
        assert_eq!(EventName::ALL.iter().filter(|event| event.is_in_turn).count(), 13);
        assert_eq!(EventName::of_type("stop"), None);
        assert_eq!(EventName::named("Stop"), None);
    }
}
