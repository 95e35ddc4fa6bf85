//! Times as they travel in headers and stored values.

use std::time::Duration;

/// Whole milliseconds; a longer time than they can hold is the longest that they can.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
