//! Waits: what a target asks for, what the retry policy makes of it, and how that is waited.

use std::time::{Duration, SystemTime};

use hookfleet::domain::claim::{Next, Settlement};
use hookfleet::domain::failure::Class;
use hookfleet::domain::message::{
    Destination, LADDER_LEVELS, LADDER_UNIT, Lane, Message, Outgoing, PARK_LEVELS, WAIT_AFTER,
};
use hookfleet::domain::outcome::{Again, Failure, Outcome};
use hookfleet::domain::retry::RetryPolicy;
use hookfleet::domain::settle::{Tried, settle};
use hookfleet::executor::hint::retry_after as read;

/// The year 9999, the last that HTTP can name.
const LAST_SECOND: u64 = 253_402_300_799;
const YEAR_MS: u64 = 365 * 24 * 3_600_000;

/// A line for the header's value; what follows are the numbers of the policy and of the attempt.
pub fn retry_after(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (value, rest) = data.split_at(end);
    let mut numbers = Numbers(rest.get(1..).unwrap_or_default());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(numbers.next() % (LAST_SECOND + 1));
    let hint = hint(value, now);
    waits(&mut numbers, hint);
}

/// Little-endian numbers; zeros where none are left.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> u64 {
        let (bytes, rest) = self.0.split_at(self.0.len().min(8));
        self.0 = rest;
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        f64::from(u16::try_from(self.next() % 65_535).unwrap_or_default()) / 65_535.0
    }

    fn wait(&mut self) -> Duration {
        Duration::from_millis(1 + self.next() % YEAR_MS)
    }
}

fn hint(value: &[u8], now: SystemTime) -> Option<Duration> {
    let hint = read(value, now);
    let padded = [b" \t", value, b"\t "].concat();
    assert_eq!(read(&padded, now), hint, "space around it");
    let text = String::from_utf8_lossy(value).trim_ascii().to_owned();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        assert_eq!(hint, Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
        return hint;
    }
    // A date: another clock, another wait, but the same moment.
    if let Some(wait) = hint {
        assert!(wait <= Duration::from_secs(LAST_SECOND), "{wait:?} to a date");
        assert_eq!(wait.subsec_nanos(), 0);
        let first = read(value, SystemTime::UNIX_EPOCH).expect("a date at any time");
        let moment = SystemTime::UNIX_EPOCH + first;
        assert_eq!(wait, moment.duration_since(now).unwrap_or_default());
        if first > Duration::ZERO {
            assert_eq!(read(httpdate::fmt_http_date(moment).as_bytes(), now), Some(wait), "written in another format");
        }
    }
    hint
}

/// What the catalog lets through.
fn policy(numbers: &mut Numbers<'_>) -> RetryPolicy {
    let max = numbers.wait();
    RetryPolicy {
        attempts: 1 + u32::try_from(numbers.next() % 100).unwrap_or_default(),
        initial: numbers.wait().min(max),
        factor: 1.0 + 999.0 * numbers.share(),
        max,
        jitter: numbers.share(),
        give_up_after: numbers.wait(),
        hint_max: numbers.wait(),
        in_run: None,
    }
}

fn waits(numbers: &mut Numbers<'_>, hint: Option<Duration>) {
    let policy = policy(numbers);
    let tried = Tried {
        attempt: u32::try_from(numbers.next() % 256).unwrap_or_default(),
        spent: Duration::from_millis(numbers.next() >> 1), // as large as a header can say
        at_ms: numbers.next(),
        took: Duration::from_millis(numbers.next() % YEAR_MS),
    };
    let failure = Failure::new(Again::Later(hint), Some(503), "503");
    let settlement = settle(&tried, Outcome::Failed(failure), &policy, numbers.share());
    let spent = tried.spent + tried.took;
    match settlement {
        Some(Settlement::Next(Next::Retry { delay_ms, spent_ms, .. })) => {
            let delay = Duration::from_millis(delay_ms);
            let honoured = hint.unwrap_or_default().min(policy.hint_max);
            assert!(tried.attempt < policy.attempts, "after the last attempt");
            let second = Duration::from_secs(1); // floating point has no milliseconds of years
            assert!(delay <= (policy.max.mul_f64(1.0 + policy.jitter) + second).max(honoured), "waits {delay:?}");
            assert!(delay >= honoured, "{delay:?}, although it is to be {honoured:?}");
            let sum = spent.as_millis() + u128::from(delay_ms);
            assert!(u128::from(spent_ms).abs_diff(sum) <= 1, "{spent_ms} ms spent, not {sum}");
            assert!(Duration::from_millis(spent_ms) <= policy.give_up_after, "later than it may be");
            ways(delay);
        }
        Some(Settlement::Next(Next::Bury { class, .. })) => assert_eq!(class, Class::Exhausted),
        other => panic!("{other:?} of a failure"),
    }
    ways(hint.unwrap_or_default());
}

/// No part of a wait is lost on its way over the ladder.
fn ways(wait: Duration) {
    let out = Outgoing::to_lane(Lane::Slow, wait, Message::default());
    let rest = u64::try_from(out.message.number(WAIT_AFTER).unwrap_or_default()).expect("no wait back in time");
    assert!(out.delay <= LADDER_UNIT * ((1 << LADDER_LEVELS) - 1));
    assert!(out.delay.as_millis().is_multiple_of(LADDER_UNIT.as_millis()));
    let whole = wait.as_millis().min(u128::try_from(i64::MAX).expect("positive"));
    assert_eq!((out.delay.as_millis() + u128::from(rest)).min(whole), whole);
    let Destination::Parked(Lane::Slow, level) = Outgoing::parked(Lane::Slow, wait, Message::default()).to else {
        panic!("not parked");
    };
    assert!(PARK_LEVELS.contains(&level));
}
