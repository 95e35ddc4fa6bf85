//! Named points at which a test may kill the process, one in every gap of the crash table. Release builds have none.

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
