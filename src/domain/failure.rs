//! Why something failed: the classes of dead letters, and what is kept of one failed attempt.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::escape::quoted;

/// Longest error text that is kept with an attempt, in characters.
pub const ERROR_CHARS_MAX: usize = 1024;

/// Why something became a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Every attempt failed.
    Exhausted,
    /// The target refused for good (most 4xx, 3xx).
    Rejected,
    /// The target's address is not allowed.
    TargetBlocked,
    /// The body could not be read as an event.
    Unreadable,
    /// The event has no identity.
    Unidentified,
    /// Readable, but not a valid event or message.
    Invalid,
    /// Nothing was bound for it.
    Unrouted,
    /// It killed every worker that ran it.
    Poisoned,
    /// Its hook is no longer in the catalog.
    HookRemoved,
    /// Its hook is disabled.
    HookDisabled,
    /// It waited longer than it may.
    Expired,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 11] = [
        Self::Exhausted,
        Self::Rejected,
        Self::TargetBlocked,
        Self::Unreadable,
        Self::Unidentified,
        Self::Invalid,
        Self::Unrouted,
        Self::Poisoned,
        Self::HookRemoved,
        Self::HookDisabled,
        Self::Expired,
    ];

    /// By its name.
    ///
    /// # Errors
    /// One sentence: there is none of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|class| class.name() == name);
        found.ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(|class| format!("`{}`", class.name())).collect();
            format!("class: expected one of {}, found {}", all.join(", "), quoted(name))
        })
    }

    /// As letters and metrics have it.
    #[must_use]
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    }
}

/// What is kept of one failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct AttemptReport {
    /// The generation of its run: 0 is the first, and each replay one more. Older versions did not say.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
    pub attempt: u32,
    /// Start, in milliseconds since 1970.
    pub at_ms: u64,
    pub took_ms: u64,
    /// HTTP status or exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// How often the target was tried within it; once, unless it says more.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub tries: u32,
    pub error: String,
}

const fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_once(tries: &u32) -> bool {
    *tries == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_first(generation: &u32) -> bool {
    *generation == 0
}
