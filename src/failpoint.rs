//! What a test may do to a process from outside: kill it at a named point, one in every gap of the crash table, have it ack
//! too early, or have it write messages of another version. Release builds can do none of this.

use std::time::Duration;

use crate::domain::message;

/// A gap between two effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Received,
    Claimed,
    Ran,
    Recorded,
    Published,
    Marked,
    Guarded,
    GateClaimed,
    GateAsked,
    GateDecided,
    GateReplied,
    GatePublished,
}

impl Point {
    const fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Claimed => "claimed",
            Self::Ran => "ran",
            Self::Recorded => "recorded",
            Self::Published => "published",
            Self::Marked => "marked",
            Self::Guarded => "guarded",
            Self::GateClaimed => "gate-claimed",
            Self::GateAsked => "gate-asked",
            Self::GateDecided => "gate-decided",
            Self::GateReplied => "gate-replied",
            Self::GatePublished => "gate-published",
        }
    }

    /// Aborts the process here if `HOOKFLEET_CRASH_AT` names this point, and `HOOKFLEET_CRASH_EVENT`, if set, this
    /// event. Does nothing in release builds.
    pub fn reached(self, event: &str) {
        if cfg!(debug_assertions)
            && std::env::var("HOOKFLEET_CRASH_AT").is_ok_and(|at| at == self.name())
            && std::env::var("HOOKFLEET_CRASH_EVENT").map_or(true, |id| id == event)
        {
            std::process::abort();
        }
    }
}

/// Whether `HOOKFLEET_TEST_FLAW` asks this process to ack deliveries before what follows from them is safe, so that a test can
/// show that it notices. False in release builds.
#[must_use]
pub fn acks_early() -> bool {
    cfg!(debug_assertions) && std::env::var("HOOKFLEET_TEST_FLAW").is_ok_and(|flaw| flaw == "ack-before-publish")
}

/// Between two rounds of the keeper, as `HOOKFLEET_TEST_KEEPER_MS` says, if it does. None in release builds.
#[must_use]
pub fn keeper_every() -> Option<Duration> {
    let named = std::env::var("HOOKFLEET_TEST_KEEPER_MS").ok().filter(|_| cfg!(debug_assertions))?;
    named.parse().ok().map(Duration::from_millis)
}

/// Takes the version of messages that `HOOKFLEET_TEST_FORMAT_VERSION` names for its own, as a later build would. Does
/// nothing in release builds.
pub fn pretend_version() {
    if cfg!(debug_assertions)
        && let Ok(named) = std::env::var("HOOKFLEET_TEST_FORMAT_VERSION")
        && let Ok(version) = named.parse()
    {
        message::pretend_format_version(version);
    }
}
