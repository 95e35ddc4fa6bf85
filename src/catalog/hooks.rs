//! Hooks, from the tree of a hooks file of version 1.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::http::Targets;
use super::types::{self, Declared};
use super::{Outside, action, event, retry};
use crate::dialect;
use crate::domain::dialect::Dialect;
use crate::domain::flow::Rate;
use crate::domain::hook::{Action, Format, Hook, HookLane, Matcher, Mode, OnFailure};
use crate::domain::id::HookId;
use crate::domain::pattern::Pattern;
use crate::domain::retry::RetryPolicy;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{count, duration, flag, one_of};
use crate::yaml::value::{Fields, Value};

/// The only version of the format so far.
const VERSION: &str = "1";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
const CONCURRENCY_DEFAULT: usize = 64;
const CONCURRENCIES: RangeInclusive<usize> = 1..=100_000;
const FLEET_CONCURRENCIES: RangeInclusive<u32> = 1..=1_000_000;
/// Longest name of another system's hook.
const NAME_CHARS_MAX: usize = 256;
const LANES: [(&str, HookLane); 2] = [("default", HookLane::Default), ("slow", HookLane::Slow)];
const MODES: [(&str, bool); 2] = [("observe", false), ("gate", true)];
const FAILURES: [(&str, OnFailure); 2] = [("open", OnFailure::Open), ("closed", OnFailure::Closed)];
/// Between the first and the last hook of an event there is room for many.
const ORDERS: RangeInclusive<i32> = -1_000_000..=1_000_000;

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
    let defaults = match fields.get("defaults") {
        Some(value) => read_defaults(&value, reading),
        None => Some(Defaults::new(reading.hint_max)),
    };
    // With wrong defaults the hooks are looked at all the same.
    let own = defaults.clone().unwrap_or_else(|| Defaults::new(reading.hint_max));
    let targets_value = fields.get("targets");
    let targets = targets_value.as_ref().map(|value| Targets::read(value, reading.outside)).unwrap_or_default();
    let hooks = match fields.get("hooks") {
        Some(hooks) if !hooks.is_nothing() => {
            hooks.list(|hook| read_hook(&hook, reading, &Shared { defaults: &own, targets: &targets }))
        }
        _ => Some(Vec::new()),
    };
    let events = fields.get("events").map_or(Some(()), |events| types::read(&events, &mut reading.events));
    fields.end();
    if let Some(value) = targets_value.filter(|_| !targets.is_empty()) {
        targets.warn_of_unused(&value);
    }
    hooks.filter(|_| defaults.is_some() && targets.are_good() && events.is_some())
}

pub(super) fn check_version(text: &str) -> Result<(), Mismatch> {
    if text == VERSION { Ok(()) } else { Err(Mismatch::new(format!("version `{VERSION}`, the only one so far"))) }
}

/// What a document's hooks say unless they say otherwise.
#[derive(Clone)]
struct Defaults {
    /// `None`: as the dialect of the hook has it.
    timeout: Option<Duration>,
    retry: RetryPolicy,
    concurrency: usize,
    lane: HookLane,
    labels: BTreeMap<String, String>,
}

impl Defaults {
    fn new(hint_max: Duration) -> Self {
        Self {
            timeout: None,
            retry: RetryPolicy { hint_max, ..RetryPolicy::default() },
            concurrency: CONCURRENCY_DEFAULT,
            lane: HookLane::Default,
            labels: BTreeMap::new(),
        }
    }

    /// The same with what some fields say.
    fn with(&self, fields: &mut Fields<'_>) -> Option<Self> {
        let timeout = match fields.get("timeout") {
            Some(value) => value.read(duration(TIMEOUTS)).map(Some),
            None => Some(self.timeout),
        };
        let retry = match fields.get("retry") {
            Some(value) => retry::read(&value, self.retry.clone()),
            None => Some(self.retry.clone()),
        };
        let concurrency = fields.read_or("concurrency", self.concurrency, count(CONCURRENCIES));
        let lane = fields.read_or("lane", self.lane, one_of(&LANES));
        let labels = match fields.get("labels") {
            Some(value) => event::labels(&value, &self.labels),
            None => Some(self.labels.clone()),
        };
        Some(Self { timeout: timeout?, retry: retry?, concurrency: concurrency?, lane: lane?, labels: labels? })
    }
}

fn read_defaults(value: &Value<'_>, reading: &Reading<'_>) -> Option<Defaults> {
    let mut fields = value.fields()?;
    let defaults = Defaults::new(reading.hint_max).with(&mut fields);
    fields.end();
    defaults
}

/// What the hooks of a document share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    defaults: &'a Defaults,
    targets: &'a Targets,
}

fn read_hook(value: &Value<'_>, reading: &mut Reading<'_>, shared: &Shared<'_>) -> Option<Hook> {
    let mut fields = value.fields()?;
    let id = fields.require("id").and_then(|id| read_id(&id, &mut reading.ids));
    let on = fields.require("on").and_then(|on| event::patterns(&on));
    let globs = |value: Option<Value<'_>>| value.map_or(Some(Vec::new()), |value| event::globs(&value));
    let (source, subject) = (globs(fields.get("source")), globs(fields.get("subject")));
    // What is wrong with those that need not be there is reported, and no hook of such a file is used.
    let when = fields.get("when").and_then(|value| value.read(event::expression));
    let mode = read_mode(&mut fields);
    let enabled = fields.read_or("enabled", true, flag);
    let paused = fields.read_or("paused", false, flag);
    let order = fields.read_or("order", 0, count(ORDERS));
    let once_per = fields.get("once_per");
    let run = fields.require("run");
    let action = run.as_ref().and_then(|run| action::read(run.clone(), reading.outside, shared.targets));
    if let (Some(value), Some(Action::Model(model)), Some(true)) = (&run, &action, enabled) {
        let found = format!("`{}` in a hook that is enabled", model.kind());
        let mismatch = Mismatch::new("`enabled: false` beside what no version runs yet").found(found);
        value.wrong(mismatch.help("a later version asks models; until then the hook can be kept, and is not run"));
    }
    if matches!(mode, Some(Mode::Gate(_))) {
        let publishes = run.clone().filter(|_| matches!(action, Some(Action::Publish(_))));
        check_gate(once_per.as_ref(), publishes.as_ref());
    }
    let once_per = once_per.and_then(|value| event::once_per(&value));
    let foreign = read_foreign(&mut fields);
    check_format(run.as_ref(), action.as_ref(), foreign.as_ref());
    let own = foreign
        .as_ref()
        .and_then(|foreign| foreign.defaults(shared.defaults, on.as_deref().unwrap_or_default()).with(&mut fields));
    let concurrency_fleet = fields.get("concurrency_fleet").and_then(|value| value.read(count(FLEET_CONCURRENCIES)));
    let rate = fields.get("rate").and_then(|value| value.read(rate));
    fields.end();
    let (action, own, foreign) = (action?, own?, foreign?);
    let Foreign { dialect, name, matcher } = foreign;
    let timeout = own.timeout.or_else(|| dialect::timeout(dialect, &action)).unwrap_or(TIMEOUT_DEFAULT);
    Some(Hook {
        id: id?,
        on: on?,
        source: source?,
        subject: subject?,
        when,
        mode: mode?,
        enabled: enabled?,
        paused: paused?,
        labels: own.labels,
        order: order?,
        once_per,
        dialect,
        name,
        matcher,
        identity: action.identity(),
        action,
        timeout,
        retry: own.retry,
        concurrency: own.concurrency,
        concurrency_fleet,
        rate,
        lane: own.lane,
    })
}

/// What a hook has of another system.
struct Foreign {
    dialect: Dialect,
    name: Option<String>,
    matcher: Option<Matcher>,
}

impl Foreign {
    /// What its hooks say unless they say otherwise: what the document says is about hooks of ours.
    fn defaults(&self, of_document: &Defaults, on: &[Pattern]) -> Defaults {
        match dialect::retry(self.dialect, on) {
            None => of_document.clone(),
            Some(retry) => Defaults { timeout: None, retry, ..of_document.clone() },
        }
    }
}

fn read_foreign(fields: &mut Fields<'_>) -> Option<Foreign> {
    let dialect = fields.read_or("dialect", Dialect::Native, one_of(&Dialect::ALL));
    let (name, matcher) = (fields.get("name"), fields.get("matcher"));
    let dialect = dialect?;
    if let Some(value) = name.as_ref().filter(|_| dialect == Dialect::Native) {
        let mismatch = Mismatch::new("`name` with another dialect than native only").found("it without one");
        value.wrong(mismatch.help("it is what another system calls the hook; hooks of this project have their `id`"));
    }
    let name = name.as_ref().map(|name| name.read(foreign_name));
    let matcher = matcher.map(|matcher| {
        matcher.read(|text| dialect::matcher(dialect, text).map_err(|error| Mismatch::from_sentence(&error)))
    });
    // Each is given up as a whole where one of its parts is wrong.
    let name = name.map_or(Some(None), |name| name.map(Some));
    Some(Foreign { dialect, name: name?, matcher: matcher.map_or(Some(None), |matcher| matcher)? })
}

/// The envelope is Bernstein's.
fn check_format(run: Option<&Value<'_>>, action: Option<&Action>, foreign: Option<&Foreign>) {
    if let (Some(value), Some(Action::Http(http)), Some(foreign)) = (run, action, foreign)
        && http.format == Format::Envelope
        && foreign.dialect != Dialect::Bernstein
    {
        let mismatch = Mismatch::new("`format: envelope` with `dialect: bernstein` only");
        value.wrong(mismatch.found(format!("it with `dialect: {}`", foreign.dialect.name())));
    }
}

fn foreign_name(name: &str) -> Result<String, Mismatch> {
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(Mismatch::new(format!("a name of 1 to {NAME_CHARS_MAX} characters")));
    }
    Ok(name.to_owned())
}

fn read_mode(fields: &mut Fields<'_>) -> Option<Mode> {
    let (mode, on_failure) = (fields.get("mode"), fields.get("on_failure"));
    let is_gate = mode.as_ref().map_or(Some(false), |mode| mode.read(one_of(&MODES)))?;
    let failure = on_failure.as_ref().map_or(Some(OnFailure::Open), |value| value.read(one_of(&FAILURES)));
    if !is_gate {
        if let Some(value) = on_failure.filter(|_| failure.is_some()) {
            let mismatch = Mismatch::new("`on_failure` with `mode: gate` only").found("it with another mode");
            value.wrong(mismatch.help("a hook that only observes fails for itself: `retry` says what follows"));
        }
        return Some(Mode::Observe);
    }
    failure.map(Mode::Gate)
}

/// What makes no sense where somebody waits for an answer.
fn check_gate(once_per: Option<&Value<'_>>, publishes: Option<&Value<'_>>) {
    if let Some(value) = once_per {
        let mismatch = Mismatch::new("`once_per` with `mode: observe` only").found("it with `mode: gate`");
        value.wrong(mismatch.help("who asks is answered every time; a decision on one event is kept by itself"));
    }
    if let Some(value) = publishes {
        value.warn(
            Mismatch::new("an action that answers").found("`publish`, which answers nothing: this gate never refuses"),
        );
    }
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
