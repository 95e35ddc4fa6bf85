//! The time that the file is written in.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 as this process counts them: the wall clock at start, and from there on a clock that nobody
/// sets. So no step of the wall clock makes a message arrive early or a lease end early; what a step costs shows at the
/// next start only, and one backwards makes things late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall_ms: i64,
    since: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_ms: millis(wall), since: Instant::now() }
    }

    /// Now, rounded down.
    pub(super) fn now_ms(self) -> i64 {
        self.wall_ms.saturating_add(millis(self.since.elapsed()))
    }

    /// When it will be `at_ms`; now, if that has passed.
    pub(super) fn instant(self, at_ms: i64) -> Instant {
        let wait = u64::try_from(at_ms.saturating_sub(self.wall_ms)).unwrap_or_default();
        self.since.checked_add(Duration::from_millis(wait)).unwrap_or_else(|| self.since + FAR)
    }
}

/// Further than any process lives.
const FAR: Duration = Duration::from_hours(100 * 365 * 24);

/// Whole milliseconds as SQLite keeps them.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_never_before_its_millisecond() {
        let clock = Clock::start();
        let at_ms = clock.now_ms() + 5;
        assert!(clock.instant(at_ms) > Instant::now());
        assert!(clock.instant(0) <= Instant::now());
        let _ = clock.instant(i64::MAX); // no overflow
    }
}
