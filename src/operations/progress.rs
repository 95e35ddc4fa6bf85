//! How far a replay of many letters is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::id::LetterId;

/// How far a replay is, and at its end what it came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    pub total: usize,
    /// Published and confirmed.
    pub sent: usize,
    /// Not sent, since somebody else has finished them or sent them out meanwhile, or they have aged out.
    pub skipped: usize,
    /// Cannot be sent as they are; the first hundred of them by name.
    pub failed: usize,
    pub failures: Vec<Unsent>,
    /// Why it ended before its time: stopped, or the broker away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A letter that could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unsent {
    pub id: LetterId,
    pub error: String,
}

impl Progress {
    /// Letters that were not come to.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.total.saturating_sub(self.sent).saturating_sub(self.skipped).saturating_sub(self.failed)
    }
}
