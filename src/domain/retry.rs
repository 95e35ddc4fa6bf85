//! When a failed attempt is tried again. Pure: the die is an argument.
//!
//! The only place that names the `backoff` crate, which computes the bare interval; jitter, hints and limits are ours.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// How a hook is retried. Valid by construction of the catalog: `attempts` and `initial` are above zero, `factor` is
/// at least 1, `jitter` lies in 0..=1.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Wait after the first failed attempt.
    pub initial: Duration,
    /// Growth of the wait from attempt to attempt.
    pub factor: f64,
    /// Longest wait before jitter.
    pub max: Duration,
    /// Share of the wait that the die may add or take.
    pub jitter: f64,
    /// No attempt starts later than this after the first, counting runs and planned waits only.
    pub give_up_after: Duration,
    /// Longest `Retry-After` that is honoured; a longer one is cut to it.
    pub hint_max: Duration,
    /// All attempts are made within one run, whose timeout they share with the waits between them. `None`: each is a run of
    /// its own, and between them the invocation waits in the broker.
    pub in_run: Option<InRun>,
}

/// How attempts within one run differ from others. A `Retry-After` takes the place of the wait, which has no jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InRun {
    /// The die adds less than this to each wait.
    pub added_below: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_hours(1),
            jitter: 0.2,
            give_up_after: Duration::from_hours(24),
            hint_max: Duration::from_hours(1),
            in_run: None,
        }
    }
}

impl RetryPolicy {
    /// The wait after failed attempt number `attempt` (from 1), or `None` when it was the last.
    ///
    /// `spent` is what the invocation has used so far: runs plus planned waits. `roll` is in 0..1. A hint can only
    /// lengthen the wait, up to `hint_max`.
    #[must_use]
    pub fn delay(&self, attempt: u32, spent: Duration, hint: Option<Duration>, roll: f64) -> Option<Duration> {
        if attempt >= self.attempts || self.in_run.is_some() {
            return None;
        }
        let jittered = self.interval(attempt).mul_f64(1.0 + self.jitter * (2.0 * roll - 1.0));
        let delay = jittered.max(hint.unwrap_or_default().min(self.hint_max));
        (spent + delay <= self.give_up_after).then_some(delay)
    }

    /// The wait within a run after failed attempt number `attempt` (from 1), or `None` when it was the last.
    #[must_use]
    pub fn delay_in_run(&self, attempt: u32, hint: Option<Duration>, roll: f64) -> Option<Duration> {
        let InRun { added_below } = self.in_run.filter(|_| attempt < self.attempts)?;
        Some(match hint {
            Some(hint) => hint.min(self.hint_max),
            None => self.interval(attempt) + added_below.mul_f64(roll),
        })
    }

    /// The `attempt`-th interval of the exponential series, without jitter.
    fn interval(&self, attempt: u32) -> Duration {
        let mut series = ExponentialBackoff {
            current_interval: self.initial,
            initial_interval: self.initial,
            randomization_factor: 0.0,
            multiplier: self.factor,
            max_interval: self.max,
            max_elapsed_time: None, // its default ends any series after 15 minutes
            ..ExponentialBackoff::default()
        };
        let mut interval = self.initial;
        for _ in 0..attempt {
            interval = series.next_backoff().unwrap_or(self.max);
            if interval >= self.max {
                break;
            }
        }
        interval.min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// 2 s first, doubled, at most 60 s, 4 attempts, 20 % jitter, hints to 100 s, give up after 200 s.
    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            initial: secs(2.0),
            factor: 2.0,
            max: secs(60.0),
            jitter: 0.2,
            give_up_after: secs(200.0),
            hint_max: secs(100.0),
            in_run: None,
        }
    }

    fn check(attempt: u32, spent: f64, hint: Option<f64>, roll: f64, expected: Option<f64>) {
        let delay = policy().delay(attempt, secs(spent), hint.map(secs), roll);
        assert_eq!(delay.map(|delay| delay.as_millis()), expected.map(|expected| secs(expected).as_millis()));
    }

    #[test]
    fn delays() {
        check(1, 0.0, None, 0.5, Some(2.0));
        check(2, 0.0, None, 0.5, Some(4.0));
        check(3, 0.0, None, 0.5, Some(8.0));
        check(4, 0.0, None, 0.5, None); // that was the last
        check(1, 0.0, None, 0.0, Some(1.6));
        check(1, 0.0, None, 1.0, Some(2.4));
        check(1, 0.0, Some(10.0), 0.5, Some(10.0)); // a hint lengthens the wait
        check(1, 0.0, Some(0.1), 0.5, Some(2.0)); // and never shortens it
        check(1, 0.0, Some(999.0), 0.5, Some(100.0)); // nor does it pass the cap
        check(1, 199.0, None, 0.5, None); // 199 s + 2 s is past giving up
        check(1, 198.0, None, 0.5, Some(2.0));
    }

    #[test]
    fn a_long_series_stays_at_its_maximum() {
        let policy = RetryPolicy { attempts: 5000, give_up_after: Duration::MAX, ..policy() };
        assert_eq!(policy.delay(4000, secs(1e6), None, 0.5), Some(secs(60.0)));
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_share(attempt in 1u32..40, roll in 0.0..1.0f64) {
            let policy = RetryPolicy { attempts: 100, give_up_after: Duration::MAX, ..policy() };
            let bare = policy.interval(attempt);
            let delay = policy.delay(attempt, Duration::ZERO, None, roll).unwrap();
            prop_assert!(delay >= bare.mul_f64(0.799) && delay <= bare.mul_f64(1.201));
        }
    }
}
