//! A hook: what to run when. Data only; every value here was validated by the catalog.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dialect::Dialect;
use super::expression::Expression;
use super::flow::Rate;
use super::id::HookId;
use super::message::{Lane, OVERFLOWS};
use super::pattern::{Glob, Pattern};
use super::retry::RetryPolicy;
pub use action::{
    Action, CommandAction, Compression, Exit, ExitCodes, Fences, Files, Format, HttpAction, Limits, Method,
    PublishAction, Server,
};

pub use tool_filter::ToolFilter;

pub use model::{Agent, McpTool, Model, ModelAction, Prompt, ToolSurface};

mod action;
mod model;
mod tool_filter;

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
    /// The contract between this fleet and the action's target.
    pub dialect: Dialect,
    /// What the system whose dialect it is calls the hook; its id, if it has no such name.
    pub name: Option<String>,
    /// What its dialect compares with an event besides; `None`: every event of its types matches.
    pub matcher: Option<Matcher>,
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

/// What a hook of another dialect wants of an event besides, by that dialect's own rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    /// `*` is any run of characters and `?` any one, over the whole subject; an event without one has the subject "".
    Wildcards(String),
    /// What the event says of a tool.
    Tool(ToolFilter),
}

impl Matcher {
    /// Whether an event with this subject, and this structured JSON, is one for the hook.
    #[must_use]
    pub fn matches(&self, subject: Option<&str>, event: &[u8]) -> bool {
        match self {
            Self::Tool(filter) => filter.matches(event),
            Self::Wildcards(pattern) => wildcards(pattern, subject.unwrap_or_default()),
        }
    }

    /// As the file has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Wildcards(pattern) => pattern,
            Self::Tool(filter) => filter.as_str(),
        }
    }
}

/// Whether a whole text is what a pattern of `*` and `?` says, which stands for one byte of UTF-8 (so Kheish has it). Takes at
/// most the product of both lengths.
fn wildcards(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut done) = (0, 0);
    // Behind the last `*`, and how much of the text that has taken.
    let mut retry: Option<(usize, usize)> = None;
    while done < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                retry = Some((at, done));
            }
            Some(wanted) if *wanted == b'?' || *wanted == text[done] => {
                at += 1;
                done += 1;
            }
            _ => {
                let Some((behind, taken)) = retry else { return false };
                retry = Some((behind, taken + 1));
                (at, done) = (behind, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

impl Hook {
    /// What a hook is called in what an event of this dialect comes to.
    #[must_use]
    pub fn called(&self, by: Dialect) -> &str {
        let name = self.name.as_deref().filter(|_| by != Dialect::Native);
        name.unwrap_or_else(|| self.id.as_str())
    }
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
        let hash = hook
            .as_str()
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let count = u32::from(range.end - range.start);
        Lane::Overflow(range.start + u8::try_from(hash % count).unwrap_or_default())
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
            dialect: Dialect::Native,
            name: None,
            matcher: None,
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
    fn wildcards_match_whole_subjects() {
        let check = |pattern: &str, subject: Option<&str>, expected| {
            let matcher = Matcher::Wildcards(pattern.to_owned());
            assert_eq!(matcher.matches(subject, b"{}"), expected, "{pattern} {subject:?}");
        };
        for (pattern, subject, expected) in [
            ("bash*", "bash", true),
            ("bash*", "bash:rm", true),
            ("file-?.txt", "file-a.txt", true),
            ("file-?.txt", "file-é.txt", false),
            ("file-??.txt", "file-é.txt", true),
            ("file-*é.txt", "file-éé.txt", true),
            ("file-?.txt", "file-aa.txt", false),
            ("write_*", "bash", false),
            ("Bash", "bash", false),
            ("a|b", "a", false),
            ("*a*b", "xaayb", true),
            ("*a*b", "xaaybc", false),
            ("a**", "a", true),
            ("?", "", false),
            ("[ab]", "a", false),
        ] {
            check(pattern, Some(subject), expected);
        }
        check("*", None, true);
        check("x", None, false);
        check(&"*a".repeat(1000), Some(&"a".repeat(10_000)), true);
    }

    #[test]
    fn overflow_queues_are_the_lanes_own() {
        let of = |lane: HookLane, id: &str| lane.overflow(&HookId::new(id).unwrap());
        assert_eq!(of(HookLane::Default, "a"), of(HookLane::Default, "a"));
        let queues =
            |lane: HookLane| (0..100).map(|n| of(lane, &format!("h{n}"))).collect::<std::collections::BTreeSet<_>>();
        assert_eq!((queues(HookLane::Default).len(), queues(HookLane::Slow).len()), (6, 2));
        assert!(queues(HookLane::Default).is_disjoint(&queues(HookLane::Slow)));
    }
}
