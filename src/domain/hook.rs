//! A hook: what to run when. Data only; every value here was validated by the catalog.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::expression::Expression;
use super::flow::Rate;
use super::glob::Glob;
use super::message::{Lane, OVERFLOWS};
use super::retry::RetryPolicy;
use super::shown::quoted;
pub use action::{
    Action, CommandAction, Compression, Exit, ExitCodes, Fences, Files, HttpAction, Limits, Method, PublishAction,
    Server,
};

mod action;

/// Longest pattern: as long as a type may be. The index of patterns is as deep as the longest one has segments.
const PATTERN_BYTES_MAX: usize = 1024;

/// The id of a hook: 1 to 128 of `a-z A-Z 0-9 . _ -`, starting with a letter or digit. It is part of every
/// invocation's key, so it is never reused for another purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookId(Arc<str>);

impl HookId {
    /// # Errors
    /// What was expected and what was found.
    pub fn new(id: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let first = id.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && id.len() <= 128 && id.chars().all(legal) {
            Ok(Self(id.into()))
        } else {
            let found = quoted(id);
            Err(format!(
                "expected 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit, found {found}"
            ))
        }
    }

    /// Of no hook: a request to gates is claimed under it, for all of them together.
    #[must_use]
    pub fn of_requests() -> Self {
        Self("~gates".into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for HookId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A value that no log, error, letter or `Debug` output may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that uses it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// What to run when.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    pub id: HookId,
    /// Event type patterns; any of them matching is enough.
    pub on: Vec<Pattern>,
    /// Sources of events, any of them; none: of any source.
    pub source: Vec<Glob>,
    /// Their subjects, any of them; none: with any subject, and without one.
    pub subject: Vec<Glob>,
    /// What has to be true of an event besides.
    pub when: Option<Expression>,
    pub mode: Mode,
    /// Without it no event runs this hook, and what is pending becomes letters.
    pub enabled: bool,
    /// Its invocations wait in the broker.
    pub paused: bool,
    /// For people and their tools.
    pub labels: BTreeMap<String, String>,
    /// Hooks of one event come by this, then as they are written.
    pub order: i32,
    /// Of many events that are alike one runs it.
    pub once_per: Option<OncePer>,
    pub action: Action,
    /// [`Action::identity`], worked out once.
    pub identity: String,
    /// One deadline over the whole attempt.
    pub timeout: Duration,
    pub retry: RetryPolicy,
    /// Runs at a time in one process.
    pub concurrency: usize,
    /// Runs at a time in the whole fleet.
    pub concurrency_fleet: Option<u32>,
    /// Runs begun in a while, in the whole fleet.
    pub rate: Option<Rate>,
    pub lane: HookLane,
}

/// Who waits for what a hook says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody.
    Observe,
    /// The publisher, for a decision.
    Gate(OnFailure),
}

/// What a gate says that cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Go on.
    Open,
    /// Do not.
    Closed,
}

/// What makes events alike, and for how long one of them stands for all.
#[derive(Debug, Clone, PartialEq)]
pub struct OncePer {
    pub key: Expression,
    pub window: Duration,
}

/// A lane that hooks are put in, so that slow work never stands before fast work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookLane {
    Default,
    Slow,
}

impl HookLane {
    pub const ALL: [Self; 2] = [Self::Default, Self::Slow];

    #[must_use]
    pub const fn lane(self) -> Lane {
        match self {
            Self::Default => Lane::Default,
            Self::Slow => Lane::Slow,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        self.lane().name()
    }

    /// The overflow queues of its hooks. A worker that does not serve a lane does not serve these either.
    #[must_use]
    pub const fn overflows(self) -> std::ops::Range<u8> {
        const SLOW: u8 = 2;
        match self {
            Self::Default => 0..OVERFLOWS - SLOW,
            Self::Slow => OVERFLOWS - SLOW..OVERFLOWS,
        }
    }

    /// The overflow queue of a hook: always the same one.
    #[must_use]
    pub fn overflow(self, hook: &HookId) -> Lane {
        let range = self.overflows();
        // FNV-1a: any hash would do that is the same in every worker and version.
        let hash =
            hook.0.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let count = u32::from(range.end - range.start);
        Lane::Overflow(range.start + u8::try_from(hash % count).unwrap_or_default())
    }
}

/// A pattern over the dot-separated segments of an event type: `*` is any one segment, `**` any number of them, none
/// included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// # Errors
    /// What was expected and what was found.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected an event type or a pattern such as `task.*`, found an empty text".to_owned());
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("expected a pattern of at most {PATTERN_BYTES_MAX} bytes, found {}", quoted(text)));
        }
        for segment in text.split('.') {
            if segment.is_empty() {
                return Err(format!("expected segments between the dots, found an empty one in {}", quoted(text)));
            }
            if segment.contains('*') && segment != "*" && segment != "**" {
                let (segment, text) = (quoted(segment), quoted(text));
                return Err(format!("expected `*` or `**` to be a whole segment, found {segment} in {text}"));
            }
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an event type is one of those that it stands for.
    #[must_use]
    pub fn matches(&self, kind: &str) -> bool {
        self.takes(kind, |own, other| own == "*" || own == other)
    }

    /// Whether it matches everything that another one matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.takes(&other.0, |own, other| other != "**" && (own == "*" || own == other))
    }

    /// Goes through the segments once; where one does not fit, the last `**` takes one more.
    fn takes(&self, other: &str, fits: impl Fn(&str, &str) -> bool) -> bool {
        let own: Vec<&str> = self.0.split('.').collect();
        let other: Vec<&str> = other.split('.').collect();
        let (mut at, mut taken, mut last) = (0, 0, None);
        while taken < other.len() {
            match own.get(at) {
                Some(&"**") => {
                    at += 1;
                    last = Some((at, taken));
                }
                Some(segment) if fits(segment, other[taken]) => {
                    (at, taken) = (at + 1, taken + 1);
                }
                _ => {
                    let Some((after, begun)) = last else { return false };
                    last = Some((after, begun + 1));
                    (at, taken) = (after, begun + 1);
                }
            }
        }
        own[at..].iter().all(|segment| *segment == "**")
    }

    /// Whether it is an event type without wildcards.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// A hook that asks for nothing special.
    pub(crate) fn hook(id: &str) -> Hook {
        let action = Action::Command(CommandAction::plain(&["true"]));
        Hook {
            id: HookId::new(id).unwrap(),
            on: vec![Pattern::new("a.b").unwrap()],
            source: vec![],
            subject: vec![],
            when: None,
            mode: Mode::Observe,
            enabled: true,
            paused: false,
            labels: BTreeMap::new(),
            order: 0,
            once_per: None,
            identity: action.identity(),
            action,
            timeout: Duration::from_secs(1),
            retry: RetryPolicy::default(),
            concurrency: 64,
            concurrency_fleet: None,
            rate: None,
            lane: HookLane::Default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_queues_are_the_lanes_own() {
        let of = |lane: HookLane, id: &str| lane.overflow(&HookId::new(id).unwrap());
        assert_eq!(of(HookLane::Default, "a"), of(HookLane::Default, "a"));
        let queues =
            |lane: HookLane| (0..100).map(|n| of(lane, &format!("h{n}"))).collect::<std::collections::BTreeSet<_>>();
        assert_eq!((queues(HookLane::Default).len(), queues(HookLane::Slow).len()), (6, 2));
        assert!(queues(HookLane::Default).is_disjoint(&queues(HookLane::Slow)));
    }

    #[test]
    fn patterns_that_cover_others() {
        let check = |own: &str, other: &str, expected: bool| {
            let covers = Pattern::new(own).unwrap().covers(&Pattern::new(other).unwrap());
            assert_eq!(covers, expected, "{own} and {other}");
        };
        check("a.b", "a.b", true);
        check("a.*", "a.b", true);
        check("a.b", "a.*", false);
        check("a.*", "a.**", false);
        check("**", "a.**.b.*", true);
        check("a.**", "a.*.**.b", true);
        check("a.**", "a", true);
        check("**.b", "a.**.b", true);
        check("**.b", "a.**", false);
        check("*", "**", false);
        check("**.*", "**", false);
        check("*.**", "a", true);
    }

    #[test]
    fn names() {
        for good in ["a", "notify-oncall", "A.b_c-9"] {
            assert!(HookId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(HookId::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "a..b", "a.b*", ".a", "***", &"*.".repeat(100_000), &"x".repeat(1025)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        for error in [HookId::new("\u{1b}[31m").unwrap_err(), Pattern::new("a*.\u{1b}[31m").unwrap_err()] {
            assert!(error.ends_with("\\u{1b}[31m\""), "{error}");
        }
    }
}
