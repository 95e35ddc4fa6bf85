//! Hooks, from the tree of a hooks file of version 1.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::types::{self, Declared};
use super::{Outside, action};
use crate::domain::flow::Rate;
use crate::domain::hook::{Hook, HookId, HookLane, Pattern};
use crate::domain::retry::RetryPolicy;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{count, duration, number, one_of, show_duration};
use crate::yaml::value::Value;

/// The only version of the format so far.
const VERSION: &str = "1";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
const CONCURRENCY_DEFAULT: usize = 64;
const CONCURRENCIES: RangeInclusive<usize> = 1..=100_000;
const FLEET_CONCURRENCIES: RangeInclusive<u32> = 1..=1_000_000;
const LANES: [(&str, HookLane); 2] = [("default", HookLane::Default), ("slow", HookLane::Slow)];
const ATTEMPTS: RangeInclusive<u32> = 1..=100;
const FACTORS: RangeInclusive<f64> = 1.0..=1000.0;
const JITTERS: RangeInclusive<f64> = 0.0..=1.0;
/// Waits end some time, and their sums stay far from overflow.
const WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24 * 365);

/// What is known before a document is read, and what was read of those before it.
pub(super) struct Reading<'a> {
    hint_max: Duration,
    outside: &'a Outside<'a>,
    /// File and line of each id.
    ids: HashMap<HookId, (String, usize)>,
    pub(super) events: Declared,
}

impl<'a> Reading<'a> {
    pub(super) fn new(hint_max: Duration, outside: &'a Outside<'a>) -> Self {
        Self { hint_max, outside, ids: HashMap::new(), events: Declared::default() }
    }
}

/// All hooks of a document.
pub(super) fn read(root: &Value<'_>, reading: &mut Reading<'_>) -> Option<Vec<Hook>> {
    let mut fields = root.fields()?;
    if let Some(version) = fields.require("version")
        && version.read(check_version).is_none()
    {
        let _ = root.clone().secret(); // of another version nobody can say what is wrong, nor what is secret
        return None;
    }
    let hooks = match fields.get("hooks") {
        Some(hooks) if !hooks.is_nothing() => hooks.list(|hook| read_hook(&hook, reading)),
        _ => Some(Vec::new()),
    };
    let events = fields.get("events").map_or(Some(()), |events| types::read(&events, &mut reading.events));
    fields.end();
    events.and(hooks)
}

pub(super) fn check_version(text: &str) -> Result<(), Mismatch> {
    if text == VERSION { Ok(()) } else { Err(Mismatch::new(format!("version `{VERSION}`, the only one so far"))) }
}

fn read_hook(value: &Value<'_>, reading: &mut Reading<'_>) -> Option<Hook> {
    let mut fields = value.fields()?;
    let id = fields.require("id").and_then(|id| read_id(&id, &mut reading.ids));
    let on = fields.require("on").and_then(|on| read_patterns(&on));
    let action = fields.require("run").and_then(|run| action::read(run, reading.outside));
    let timeout = fields.read_or("timeout", TIMEOUT_DEFAULT, duration(TIMEOUTS));
    let default = RetryPolicy { hint_max: reading.hint_max, ..RetryPolicy::default() };
    let retry = match fields.get("retry") {
        Some(retry) => read_retry(&retry, default),
        None => Some(default),
    };
    let concurrency = fields.read_or("concurrency", CONCURRENCY_DEFAULT, count(CONCURRENCIES));
    // What is wrong with these two is reported, and no hook of such a file is used.
    let concurrency_fleet = fields.get("concurrency_fleet").and_then(|value| value.read(count(FLEET_CONCURRENCIES)));
    let rate = fields.get("rate").and_then(|value| value.read(rate));
    let lane = fields.read_or("lane", HookLane::Default, one_of(&LANES));
    fields.end();
    let action = action?;
    Some(Hook {
        id: id?,
        on: on?,
        identity: action.identity(),
        action,
        timeout: timeout?,
        retry: retry?,
        concurrency: concurrency?,
        concurrency_fleet,
        rate,
        lane: lane?,
    })
}

/// Such as `50/s`, `100/m` or `5/h`.
fn rate(text: &str) -> Result<Rate, Mismatch> {
    let parsed = text.split_once('/').and_then(|(number, unit)| {
        let per = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "d" => Duration::from_hours(24),
            _ => return None,
        };
        Rate::new(number.trim().parse().ok()?, per)
    });
    parsed.ok_or_else(|| Mismatch::new("runs in a second, minute, hour or day, such as 50/s, 100/m, 5/h or 1/d"))
}

fn read_id(value: &Value<'_>, ids: &mut HashMap<HookId, (String, usize)>) -> Option<HookId> {
    let id = value.read(|text| HookId::new(text).map_err(|sentence| Mismatch::from_sentence(&sentence)))?;
    let (file, line) = (value.file(), value.line());
    if let Some((first, at)) = ids.get(&id) {
        let place = if first == file { format!("line {at}") } else { format!("line {at} of {first}") };
        let found = format!("\"{id}\" on line {line}, which the hook on {place} has already");
        value.wrong(Mismatch::new("an id that no other hook has").found(found));
    } else {
        ids.insert(id.clone(), (file.to_owned(), line));
    }
    Some(id)
}

/// One pattern or a list of them.
fn read_patterns(value: &Value<'_>) -> Option<Vec<Pattern>> {
    let pattern = |text: &str| Pattern::new(text).map_err(|sentence| Mismatch::from_sentence(&sentence));
    if !value.is_list() {
        return Some(vec![value.read(pattern)?]);
    }
    let patterns = value.list(|item| item.read(pattern))?;
    if patterns.is_empty() {
        value.wrong(Mismatch::new("at least one event type or pattern").found("an empty list"));
    }
    Some(patterns)
}

fn read_retry(value: &Value<'_>, default: RetryPolicy) -> Option<RetryPolicy> {
    let mut fields = value.fields()?;
    let attempts = fields.read_or("attempts", default.attempts, count(ATTEMPTS));
    let give_up_after = fields.read_or("give_up_after", default.give_up_after, duration(WAITS));
    let backoff = match fields.get("backoff") {
        Some(backoff) => read_backoff(&backoff, &default),
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
