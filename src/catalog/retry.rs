//! How often a hook is tried, and after which waits.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::domain::retry::RetryPolicy;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{count, duration, number, show_duration};
use crate::yaml::value::Value;

const ATTEMPTS: RangeInclusive<u32> = 1..=100;
const FACTORS: RangeInclusive<f64> = 1.0..=1000.0;
const JITTERS: RangeInclusive<f64> = 0.0..=1.0;
/// Waits end some time, and their sums stay far from overflow.
const WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24 * 365);

pub(super) fn read(value: &Value<'_>, default: RetryPolicy) -> Option<RetryPolicy> {
    let mut fields = value.fields()?;
    let attempts = fields.read_or("attempts", default.attempts, count(ATTEMPTS));
    let give_up_after = fields.read_or("give_up_after", default.give_up_after, duration(WAITS));
    let backoff = match fields.get("backoff") {
        Some(value) => read_backoff(&value, &default),
        None => Some(default),
    };
    fields.end();
    Some(RetryPolicy { attempts: attempts?, give_up_after: give_up_after?, ..backoff? })
}

fn read_backoff(value: &Value<'_>, default: &RetryPolicy) -> Option<RetryPolicy> {
    let mut fields = value.fields()?;
    let (initial_value, max_value) = (fields.get("initial"), fields.get("max"));
    let wait = |value: &Option<Value<'_>>, default| match value {
        Some(value) => value.read(duration(WAITS)),
        None => Some(default),
    };
    let initial = wait(&initial_value, default.initial);
    let max = wait(&max_value, default.max);
    let factor = fields.read_or("factor", default.factor, number(FACTORS));
    let jitter = fields.read_or("jitter", default.jitter, number(JITTERS));
    fields.end();
    let (initial, max) = (initial?, max?);
    if initial > max {
        let place = initial_value.as_ref().or(max_value.as_ref()).unwrap_or(value);
        let found = format!("{} and {}", show_duration(initial), show_duration(max));
        place.wrong(Mismatch::new("`initial` to be at most `max`").found(found));
    }
    Some(RetryPolicy { initial, max, factor: factor?, jitter: jitter?, ..default.clone() })
}
