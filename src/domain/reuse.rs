//! HTTP connections that are used again: how long they may be idle, and which requests go out a second time.
//!
//! Receivers close idle connections whenever they like, and few of them say when: gunicorn after 2 s, uvicorn and Apache
//! after 5, Node after 6, Puma after 20. A request that meets the closing on its way gets no answer from a receiver that
//! is well. RFC 9110 (9.2.2) lets a client repeat it if that is safe: every attempt carries an idempotency key.

use std::time::Duration;

/// No connection is used that was idle for longer: a second less than what most receivers allow.
pub const IDLE_MAX: Duration = Duration::from_secs(4);
/// A receiver's own figure less this, since requests are on their way for a while.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// An attempt sends its request once, and this often again.
const RESENDS_MAX: u32 = 2;

/// How long a connection may be idle before it is used again, by the header `Keep-Alive` of an answer
/// (`timeout=5, max=100`). Zero: it is not used again.
#[must_use]
pub fn idle_max(keep_alive: &str) -> Duration {
    let parameters = keep_alive.split(',').filter_map(|parameter| parameter.split_once('='));
    let timeouts = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
    let seconds = timeouts.filter_map(|(_, value)| value.trim().trim_matches('"').parse().ok());
    let least = seconds.map(|seconds: u32| Duration::from_secs(seconds.into()).saturating_sub(IDLE_MARGIN)).min();
    least.map_or(IDLE_MAX, |least| least.min(IDLE_MAX))
}

/// How a request ended that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The receiver says that it has not begun with it: `REFUSED_STREAM`, or `GOAWAY` without an error (RFC 9113, 8.7).
    Unprocessed,
    /// By itself: no connection could be had, or the receiver has ended this request and not its connection.
    Alone,
    /// With its connection.
    Cut {
        /// The connection was open before the request: the receiver may have been closing it already.
        reused: bool,
        /// A byte of an answer came.
        heard: bool,
    },
}

impl Unanswered {
    /// Whether the request goes out again at once, on a new connection, as part of the same attempt. `resends`: how often it
    /// has done so.
    #[must_use]
    pub const fn goes_again(self, resends: u32) -> bool {
        resends < RESENDS_MAX && matches!(self, Self::Unprocessed | Self::Cut { reused: true, heard: false })
    }
}

/// Whether an answer says only that its connection was idle for too long: 408 from a receiver that closes it, to a request
/// that was on its way (RFC 9110, 15.5.9). Such a request goes out again once.
#[must_use]
pub const fn was_too_late(status: u16, closes: bool, reused: bool, resends: u32) -> bool {
    status == 408 && closes && reused && resends == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_say_how_long_connections_may_be_idle() {
        let check = |keep_alive: &str, seconds: u64| {
            assert_eq!(idle_max(keep_alive), Duration::from_secs(seconds), "{keep_alive}");
        };
        check("", 4);
        check("timeout=5", 4);
        check("timeout=5, max=100", 4);
        check("max=100, Timeout = 3", 2);
        check("timeout=\"2\"", 1);
        check("timeout=1", 0);
        check("timeout=0", 0);
        check("timeout=3600", 4);
        check("timeout=3, timeout=2", 1);
        for nonsense in ["timeout", "timeout=", "timeout=-1", "timeout=soon", "max=1", "timeout=99999999999"] {
            check(nonsense, 4);
        }
    }

    #[test]
    fn which_requests_go_out_again() {
        let check = |name: &str, unanswered: Unanswered, expected: [bool; 3]| {
            assert_eq!([0, 1, 2].map(|resends| unanswered.goes_again(resends)), expected, "{name}");
        };
        check("a new connection ends", Unanswered::Cut { reused: false, heard: false }, [false; 3]);
        check("a used one ends", Unanswered::Cut { reused: true, heard: false }, [true, true, false]);
        check("a used one ends within an answer", Unanswered::Cut { reused: true, heard: true }, [false; 3]);
        check("a receiver resets a stream", Unanswered::Alone, [false; 3]);
        check("a receiver refuses a stream", Unanswered::Unprocessed, [true, true, false]);
    }

    #[test]
    fn a_timeout_of_the_connection_is_no_answer() {
        assert!(was_too_late(408, true, true, 0));
        for (status, closes, reused, resends) in
            [(408, true, true, 1), (408, true, false, 0), (408, false, true, 0), (503, true, true, 0)]
        {
            assert!(!was_too_late(status, closes, reused, resends), "{status} {closes} {reused} {resends}");
        }
    }
}
