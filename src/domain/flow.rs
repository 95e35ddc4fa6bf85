//! How fast work may flow: rates, shares of the fleet, breakers. Pure: the clock is an argument.

use std::time::Duration;

use super::health::Health;

/// So many runs begun in such a time, evenly spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Between two runs.
    pub interval: Duration,
}

/// Slots are reserved ahead for as long as this at most, so that nobody sits on them.
pub const RESERVE_AHEAD: Duration = Duration::from_secs(1);
/// What one worker reserves at a time.
const SLICE: Duration = Duration::from_millis(200);

impl Rate {
    /// `count` runs in `per`; `None` if it is no rate that can be kept: one run in a day to one in a microsecond.
    #[must_use]
    pub fn new(count: u32, per: Duration) -> Option<Self> {
        let interval = per.checked_div(count)?;
        let legal = Duration::from_micros(1)..=Duration::from_hours(24);
        legal.contains(&interval).then_some(Self { interval })
    }

    /// How many slots a worker with so many invocations waiting reserves at a time.
    #[must_use]
    pub fn slice(self, waiting: u32) -> u32 {
        let most = u32::try_from(SLICE.as_micros() / self.interval.as_micros().max(1)).unwrap_or(u32::MAX);
        waiting.min(most).max(1)
    }

    /// The part of the rate that one of so many workers keeps while they cannot ask each other.
    #[must_use]
    pub fn split(self, workers: u32) -> Self {
        Self { interval: self.interval.saturating_mul(workers.max(1)) }
    }
}

/// Slots of a rate that were reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// Until the first of them.
    pub wait: Duration,
    /// None if too much is reserved ahead already: ask again after `wait`.
    pub count: u32,
}

/// Reserves up to `want` slots: the generic cell rate algorithm without a burst. `free_us` is when the next slot is free
/// and `now_us` the time by the same clock; the second value is when the next one is free then.
#[must_use]
pub fn reserve(rate: Rate, free_us: u64, now_us: u64, want: u32) -> (Slots, u64) {
    let interval_us = u64::try_from(rate.interval.as_micros()).unwrap_or(u64::MAX);
    let ahead_us = u64::try_from(RESERVE_AHEAD.as_micros()).unwrap_or(u64::MAX).max(interval_us);
    let first_us = free_us.max(now_us);
    let wait_us = first_us - now_us;
    if wait_us > ahead_us {
        return (Slots { wait: Duration::from_micros(wait_us - ahead_us), count: 0 }, free_us);
    }
    let next_us = first_us.saturating_add(interval_us.saturating_mul(u64::from(want)));
    (Slots { wait: Duration::from_micros(wait_us), count: want }, next_us)
}

/// What one of so many workers may take of a limit while they cannot ask each other. `rank` counts from 0.
#[must_use]
pub const fn split_share(limit: u32, workers: u32, rank: u32) -> u32 {
    let workers = if workers == 0 { 1 } else { workers };
    let rest = if rank < limit % workers { 1 } else { 0 };
    limit / workers + rest
}

/// What one worker is granted of a limit of which others have `others`, so that all get their part.
#[must_use]
pub fn grant(limit: u32, others: u32, want: u32, workers: u32) -> u32 {
    want.min(limit.saturating_sub(others)).min(limit.div_ceil(workers.max(1)))
}

/// When a target is taken to be broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// So many failures one after the other; 0: no breakers at all.
    pub failures: u32,
    /// Or this share of the attempts within `window`, if there were at least [`WINDOW_ATTEMPTS_MIN`].
    pub share: f64,
    pub window: Duration,
}

/// Fewer attempts in a window say nothing.
pub const WINDOW_ATTEMPTS_MIN: u32 = 20;
/// The longest that a breaker stays open: 2 seconds to the power of this.
const LEVEL_MAX: u8 = 8;
/// How long a probe may take before another worker may try.
pub const PROBE: Duration = Duration::from_secs(30);
/// Between two tries to be the one that probes.
pub const PROBE_AGAIN: Duration = Duration::from_secs(2);

/// Whether an attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Go,
    /// One may: it decides.
    Probe,
    Wait(Duration),
}

/// What the fleet is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    /// Opened for two seconds to the power of this level.
    Opened(u8),
    Closed,
}

/// What the fleet says of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    pub level: u8,
    /// Until it may be probed.
    pub left: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until_ms: u64,
    },
    /// Somebody of this worker probes it.
    Probing {
        until_ms: u64,
    },
}

/// One worker's view of a target. Times are milliseconds by any clock that nobody sets.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    level: u8,
    /// The fleet knows that it is open.
    shared: bool,
    consecutive: u32,
    /// Attempts and failures in this half of the window and in the one before.
    halves: [(u32, u32); 2],
    half_began_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, level: 0, shared: false, consecutive: 0, halves: [(0, 0); 2], half_began_ms: 0 }
    }
}

/// How long a breaker of this level stays open.
#[must_use]
pub const fn open_time(level: u8) -> Duration {
    Duration::from_secs(1 << if level < LEVEL_MAX { level } else { LEVEL_MAX })
}

impl Breaker {
    /// Whether an attempt may be made now.
    pub fn pass(&mut self, now_ms: u64) -> Pass {
        match self.state {
            State::Closed => Pass::Go,
            State::Open { until_ms } if now_ms < until_ms => Pass::Wait(Duration::from_millis(until_ms - now_ms)),
            State::Probing { until_ms } if now_ms < until_ms => Pass::Wait(PROBE_AGAIN),
            State::Open { .. } | State::Probing { .. } => {
                self.state = State::Probing { until_ms: now_ms + millis(PROBE) };
                Pass::Probe
            }
        }
    }

    /// Another worker probes, or the probe ended without an outcome.
    pub fn not_probed(&mut self, now_ms: u64) {
        if matches!(self.state, State::Probing { .. }) {
            self.state = State::Open { until_ms: now_ms + millis(PROBE_AGAIN) };
        }
    }

    /// An attempt said how its target is.
    pub fn ended(&mut self, policy: &BreakerPolicy, now_ms: u64, health: Health, probe: bool) -> Change {
        if policy.failures == 0 {
            return Change::None;
        }
        let well = health == Health::Well;
        match self.state {
            State::Closed | State::Probing { .. } if health == Health::Gone && (probe || !self.is_open()) => {
                self.open(now_ms, LEVEL_MAX)
            }
            State::Open { .. } | State::Probing { .. } if probe && well => {
                *self = Self::default();
                Change::Closed
            }
            State::Open { .. } | State::Probing { .. } if probe => self.open(now_ms, (self.level + 1).min(LEVEL_MAX)),
            State::Open { .. } | State::Probing { .. } => Change::None, // begun before it opened
            State::Closed => {
                self.count(policy, now_ms, well);
                if self.is_over(policy) { self.open(now_ms, 1) } else { Change::None }
            }
        }
    }

    /// The fleet knows now what this worker told it.
    pub fn told(&mut self) {
        self.shared = !matches!(self.state, State::Closed);
    }

    /// What the fleet says of the target, if it has it as open.
    pub fn heard(&mut self, now_ms: u64, opened: Option<Opened>) {
        match (opened, self.state) {
            (Some(opened), State::Closed | State::Open { .. }) => {
                self.level = opened.level;
                self.shared = true;
                let until_ms = now_ms + millis(opened.left);
                let sooner = if let State::Open { until_ms } = self.state { until_ms } else { 0 };
                self.state = State::Open { until_ms: until_ms.max(sooner) };
            }
            (None, State::Open { .. }) if self.shared => *self = Self::default(),
            (Some(_), State::Probing { .. }) | (None, _) => {}
        }
    }

    /// Whether attempts are held back.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    fn open(&mut self, now_ms: u64, level: u8) -> Change {
        *self = Self { level, state: State::Open { until_ms: now_ms + millis(open_time(level)) }, ..Self::default() };
        Change::Opened(level)
    }

    fn count(&mut self, policy: &BreakerPolicy, now_ms: u64, well: bool) {
        self.consecutive = if well { 0 } else { self.consecutive.saturating_add(1) };
        let half_ms = millis(policy.window / 2).max(1);
        let age_ms = now_ms.saturating_sub(self.half_began_ms);
        if age_ms >= half_ms {
            let before = if age_ms < 2 * half_ms { self.halves[0] } else { (0, 0) };
            self.halves = [(0, 0), before];
            self.half_began_ms = now_ms;
        }
        self.halves[0].0 += 1;
        self.halves[0].1 += u32::from(!well);
    }

    fn is_over(&self, policy: &BreakerPolicy) -> bool {
        let [(now, bad_now), (before, bad_before)] = self.halves;
        let (attempts, bad) = (now + before, bad_now + bad_before);
        let share = attempts >= WINDOW_ATTEMPTS_MIN && f64::from(bad) >= policy.share * f64::from(attempts);
        self.consecutive >= policy.failures || share
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BreakerPolicy = BreakerPolicy { failures: 3, share: 0.5, window: Duration::from_secs(10) };

    #[test]
    fn slots_are_evenly_spread() {
        let rate = Rate::new(50, Duration::from_secs(1)).unwrap();
        let (slots, free) = reserve(rate, 0, 1_000_000, 2);
        assert_eq!((slots, free), (Slots { wait: Duration::ZERO, count: 2 }, 1_040_000));
        let (slots, free) = reserve(rate, free, 1_010_000, 3);
        assert_eq!((slots, free), (Slots { wait: Duration::from_millis(30), count: 3 }, 1_100_000));
        let (slots, free) = reserve(rate, 3_000_000, 1_500_000, 1);
        assert_eq!((slots.count, slots.wait, free), (0, Duration::from_millis(500), 3_000_000));
        let slow = Rate::new(1, Duration::from_mins(1)).unwrap(); // further apart than is reserved ahead
        assert_eq!(reserve(slow, 60_000_000, 10_000_000, 1).0.count, 1);
        assert_eq!((rate.slice(0), rate.slice(4), rate.slice(100)), (1, 4, 10));
        assert!(Rate::new(0, Duration::from_secs(1)).is_none());
    }

    #[test]
    fn shares_add_up_to_the_limit() {
        for (limit, workers) in [(10, 4), (1, 3), (7, 7), (0, 2), (5, 0)] {
            let sum: u32 = (0..workers.max(1)).map(|rank| split_share(limit, workers, rank)).sum();
            assert_eq!(sum, limit, "{limit} by {workers}");
        }
        assert_eq!(grant(10, 0, 20, 1), 10);
        assert_eq!(grant(10, 0, 20, 4), 3);
        assert_eq!(grant(10, 9, 20, 4), 1);
        assert_eq!(grant(10, 12, 20, 4), 0);
    }

    #[test]
    fn a_target_that_is_gone_is_seldom_asked_again() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ended(&POLICY, 0, Health::Gone, false), Change::Opened(LEVEL_MAX));
        assert_eq!(breaker.ended(&POLICY, 1, Health::Gone, false), Change::None);
        assert_eq!(breaker.pass(0), Pass::Wait(Duration::from_secs(256)));
        assert_eq!(breaker.pass(256_000), Pass::Probe);
        assert_eq!(breaker.ended(&POLICY, 256_100, Health::Gone, true), Change::Opened(LEVEL_MAX));
        assert_eq!(breaker.pass(512_100), Pass::Probe);
        assert_eq!(breaker.ended(&POLICY, 512_200, Health::Well, true), Change::Closed);
    }

    #[test]
    fn a_breaker_opens_probes_and_closes() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ended(&POLICY, 0, Health::Ill, false), Change::None);
        assert_eq!(breaker.ended(&POLICY, 1, Health::Well, false), Change::None);
        for now in 2..4 {
            assert_eq!(breaker.ended(&POLICY, now, Health::Ill, false), Change::None);
        }
        assert_eq!(breaker.ended(&POLICY, 4, Health::Ill, false), Change::Opened(1));
        assert_eq!(breaker.ended(&POLICY, 5, Health::Ill, false), Change::None); // begun before
        assert_eq!(breaker.pass(1004), Pass::Wait(Duration::from_secs(1)));
        assert_eq!(breaker.pass(2004), Pass::Probe);
        assert_eq!(breaker.pass(2005), Pass::Wait(PROBE_AGAIN));
        assert_eq!(breaker.ended(&POLICY, 2100, Health::Ill, true), Change::Opened(2));
        assert_eq!(breaker.pass(2100), Pass::Wait(Duration::from_secs(4)));
        assert_eq!(breaker.pass(6100), Pass::Probe);
        breaker.not_probed(6100);
        assert_eq!(breaker.pass(6200), Pass::Wait(Duration::from_millis(1900)));
        assert_eq!(breaker.pass(8100), Pass::Probe);
        assert_eq!(breaker.pass(8100 + 30_000), Pass::Probe); // that probe was never heard of again
        assert_eq!(breaker.ended(&POLICY, 40_000, Health::Well, true), Change::Closed);
        assert_eq!(breaker.pass(40_000), Pass::Go);
    }

    #[test]
    fn a_share_of_failures_opens_it_too() {
        let policy = BreakerPolicy { failures: 100, ..POLICY };
        let odd = |n| if n % 2 == 0 { Health::Well } else { Health::Ill };
        let mut breaker = Breaker::default();
        let mut changes = (0..40).map(|n| breaker.ended(&policy, n * 100, odd(n), false));
        assert_eq!(changes.position(|change| change == Change::Opened(1)), Some(19));
        // The same share over a longer time is none within one window.
        let mut breaker = Breaker::default();
        assert!((0..40).all(|n| breaker.ended(&policy, n * 1000, odd(n), false) == Change::None));
    }

    #[test]
    fn the_fleet_is_heard() {
        let mut breaker = Breaker::default();
        let opened = |level, secs| Some(Opened { level, left: Duration::from_secs(secs) });
        breaker.heard(0, opened(3, 5));
        assert_eq!(breaker.pass(0), Pass::Wait(Duration::from_secs(5)));
        breaker.heard(1000, None);
        assert_eq!(breaker.pass(1000), Pass::Go);
        // Not before the fleet was told.
        for now in 0..3 {
            breaker.ended(&POLICY, now, Health::Ill, false);
        }
        breaker.heard(10, None);
        assert!(breaker.is_open());
        breaker.told();
        breaker.heard(20, None);
        assert!(!breaker.is_open());
    }

    #[test]
    fn without_a_number_of_failures_nothing_opens() {
        let policy = BreakerPolicy { failures: 0, ..POLICY };
        let mut breaker = Breaker::default();
        assert!((0..100).all(|now| breaker.ended(&policy, now, Health::Ill, false) == Change::None));
    }
}
