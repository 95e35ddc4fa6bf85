//! Limits and times of the pipeline, and the transitions that it follows.

use std::sync::Arc;
use std::time::Duration;

use crate::config::WhenAway;
use crate::domain::claim::Token;
use crate::domain::event::Reading;
use crate::domain::hook::HookLane;
use crate::domain::redaction::{Pointer, Secrets, redact_event, redact_up_to};
use crate::domain::revision::{Revision, Unknown, unknown_hook};
use crate::domain::settle::{Answer, Progress, Stage, next_effect};

/// Characters of a payload that a debug line shows.
const PAYLOAD_CHARS_MAX: usize = 16 * 1024;

/// Limits and times of the pipeline.
#[derive(Debug, Clone)]
pub struct Rules {
    pub reading: Reading,
    /// No delivery is held longer than this.
    pub hold: Duration,
    /// The lanes whose hooks run here: by place in [`HookLane::ALL`].
    pub lanes: [bool; HookLane::ALL.len()],
    pub lease: Duration,
    /// How long a finished invocation is remembered.
    pub window: Duration,
    /// How long a finished replay is remembered: as long as dead letters are kept.
    pub retention: Duration,
    pub when_away: WhenAway,
    /// How long a gate request may take that names no deadline.
    pub gate_deadline: Duration,
    /// What debug lines show of payloads: all but these places. `None`: nothing.
    pub payloads: Option<Arc<[Pointer]>>,
    pub protocol: Protocol,
}

impl Rules {
    /// Whether hooks of this lane run here.
    #[must_use]
    pub const fn serves(&self, lane: HookLane) -> bool {
        self.lanes[lane as usize]
    }

    /// A payload as a debug line shows it, without secrets of hooks; `None`: lines show none.
    #[must_use]
    pub fn shown(&self, payload: &[u8], secrets: &Secrets) -> Option<String> {
        let hidden = self.payloads.as_ref().filter(|_| tracing::enabled!(tracing::Level::DEBUG))?;
        let text = String::from_utf8_lossy(payload);
        Some(redact_up_to(&redact_event(&text, hidden), secrets, PAYLOAD_CHARS_MAX))
    }
}

/// The transitions that the pipeline follows. A simulation puts unsound ones in their place, to show that it notices.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// [`next_effect`].
    pub next_effect: fn(&Progress, Token, Stage, Answer) -> Stage,
    /// [`unknown_hook`].
    pub unknown_hook: fn(&Revision, &Revision, Duration) -> Unknown,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { next_effect, unknown_hook }
    }
}
