//! Limits and times of the pipeline, and the transitions that it follows.

use std::time::Duration;

use crate::config::WhenAway;
use crate::domain::claim::Token;
use crate::domain::event::Reading;
use crate::domain::hook::HookLane;
use crate::domain::revision::{Revision, Unknown, unknown_hook};
use crate::domain::settle::{Answer, Progress, Stage, next_effect};

/// Limits and times of the pipeline.
#[derive(Debug, Clone, Copy)]
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
    /// Show payloads in debug lines.
    pub log_payloads: bool,
    pub protocol: Protocol,
}

impl Rules {
    /// Whether hooks of this lane run here.
    #[must_use]
    pub const fn serves(&self, lane: HookLane) -> bool {
        self.lanes[lane as usize]
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
