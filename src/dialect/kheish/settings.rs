//! The settings of Kheish's hooks: `hooks.json` in its state folder, and the body of `POST /v1/runtime/hooks`.
//!
//! [`HookSettings::of_file`] reads the file, [`HookSettings::of_value`] the bare settings; both take what Kheish takes, and
//! tell everything that is wrong instead of the first mistake. [`HookSettings::to_file`] gives the file back.
//!
//! Kheish starts *without any hook* on a file that it cannot use. Here such a file is refused, with that reason.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::event_name::EventName;
use super::invocation::digest;
use generation::Generation;

pub use fault::{Fault, FaultKind};
pub use read::{Origin, Read};

mod fault;
mod fields;
pub mod generation;
mod read;
mod redacted;
mod target;
mod validate;

/// The version of the file that is written, and the only one that is read beside a file without a version.
pub const SCHEMA_VERSION: u64 = 1;
/// Most retries after the first try.
pub const RETRIES_MAX: u8 = 3;
/// Longest time for all tries of a hook, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 30_000;
/// What runs a command unless the hook names another program.
pub const SHELL: &str = "/bin/bash";
/// How often the model of an agent hook is asked unless the hook says so.
pub const TURNS: usize = 4;
/// An allow list with this entry allows no tool at all.
const DENY_ALL: &str = "\0kheish_tool_surface_deny_all\0";

/// All hooks, by event. Events in the order in which Kheish declares them, hooks in declaration order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HookSettings {
    hooks: Vec<(&'static EventName, Vec<HookDefinition>)>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookDefinition {
    /// What it is called. Two may have the same name.
    pub name: String,
    /// A glob over the subject, with `*` and `?`. `None` and "" match every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matcher: Option<String>,
    #[serde(default, skip_serializing_if = "FailurePolicy::is_default")]
    pub failure_policy: FailurePolicy,
    pub executor: Executor,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailurePolicy {
    #[serde(default)]
    pub mode: FailureMode,
    /// Tries after the first one, within the same timeout.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_retries: u8,
}

/// What a hook that has failed comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureMode {
    /// The hook is skipped.
    #[default]
    Open,
    /// It blocks.
    Closed,
}

/// What a hook runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Executor {
    /// `SHELL -lc COMMAND`, with the invocation on stdin.
    Command {
        command: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shell: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// A POST with the invocation as its body.
    Http {
        url: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// One turn of a model without tools.
    Prompt {
        template: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system_prompt: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<Model>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// A model with tools, for several turns.
    Agent {
        template: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system_prompt: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<Model>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool_surface: Option<ToolSurface>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_turns: Option<usize>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// A function of the program, by name.
    Callback {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
}

/// Which model a hook asks. What it does not say is as in the daemon's own settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Model {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// Which tools an agent may use. Without a surface, none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolSurface {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowlist: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denylist: Vec<String>,
}

impl ToolSurface {
    /// Whether it allows anything, or says outright that it allows nothing. Blank entries count for nothing.
    #[must_use]
    pub fn has_allowlist(&self) -> bool {
        self.allowlist.iter().any(|entry| !entry.trim().is_empty())
    }

    /// Whether it says outright that no tool may be used.
    #[must_use]
    pub fn is_deny_all(&self) -> bool {
        self.allowlist.iter().any(|entry| entry.trim() == DENY_ALL)
    }
}

impl FailurePolicy {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(count: &u8) -> bool {
    *count == 0
}

impl Executor {
    /// As `type` has it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Http { .. } => "http",
            Self::Prompt { .. } => "prompt",
            Self::Agent { .. } => "agent",
            Self::Callback { .. } => "callback",
        }
    }

    /// As the hook says it.
    const fn own_timeout_ms(&self) -> Option<u64> {
        match self {
            Self::Command { timeout_ms, .. }
            | Self::Http { timeout_ms, .. }
            | Self::Prompt { timeout_ms, .. }
            | Self::Agent { timeout_ms, .. }
            | Self::Callback { timeout_ms, .. } => *timeout_ms,
        }
    }

    /// How long all tries of the hook may take together, in milliseconds.
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        let default = match self {
            Self::Command { .. } | Self::Http { .. } => 5_000,
            Self::Prompt { .. } | Self::Callback { .. } => 15_000,
            Self::Agent { .. } => 30_000,
        };
        self.own_timeout_ms().unwrap_or(default).min(TIMEOUT_MS_MAX)
    }
}

impl HookDefinition {
    /// SHA-256 over name, failure policy and executor, as 64 hexadecimal digits: what tells in a dead letter which definition
    /// has failed. The matcher is no part of it.
    #[must_use]
    pub fn digest(&self) -> String {
        let Self { name, failure_policy, executor, .. } = self;
        digest(&json!({ "name": name, "failure_policy": failure_policy, "executor": executor }).to_string())
    }
}

impl HookSettings {
    /// Each event that is named, with its hooks in declaration order.
    pub fn by_event(&self) -> impl Iterator<Item = (&'static EventName, &[HookDefinition])> {
        self.hooks.iter().map(|(event, hooks)| (*event, hooks.as_slice()))
    }

    /// Those of several as one: of each event, the hooks of the first before those of the next.
    #[must_use]
    pub fn joined(all: &[Self]) -> Self {
        let mut hooks: Vec<(&'static EventName, Vec<HookDefinition>)> = Vec::new();
        for event in &EventName::ALL {
            let is_this = |(other, _): &&(&EventName, Vec<HookDefinition>)| other.snake == event.snake;
            let named = all.iter().flat_map(|settings| settings.hooks.iter().filter(is_this));
            let of_event: Vec<&Vec<HookDefinition>> = named.map(|(_, hooks)| hooks).collect();
            if !of_event.is_empty() {
                hooks.push((event, of_event.into_iter().flatten().cloned().collect()));
            }
        }
        Self { hooks }
    }

    /// How many hooks there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hooks.iter().map(|(_, hooks)| hooks.len()).sum()
    }

    /// The bare settings, as their API has them: what is a default is left out, as there.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let by_event = self.hooks.iter().map(|(event, hooks)| (event.snake.to_owned(), json!(hooks)));
        let by_event: Map<String, Value> = by_event.collect();
        let mut settings = Map::new();
        if !by_event.is_empty() {
            settings.insert("hooks".to_owned(), Value::Object(by_event));
        }
        Value::Object(settings)
    }

    /// The file, of schema version 1.
    #[must_use]
    pub fn to_file(&self) -> Value {
        let mut file = self.to_value();
        file["schema_version"] = json!(SCHEMA_VERSION);
        file
    }
}

#[cfg(test)]
mod tests;
