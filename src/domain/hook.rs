//! A hook: what to run when. Data only; every value here was validated by the catalog.

use std::collections::BTreeMap;
use std::time::Duration;

use super::contract::Dialect;
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

mod action;

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
}
