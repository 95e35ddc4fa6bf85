//! Which hooks want an event. Indexed, so that the cost does not grow with hooks that do not match.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::decision::Json;
use super::dialect::Dialect;
use super::event::Event;
use super::event_type::EventTypes;
use super::expression::Facts;
use super::hook::{Hook, Matcher, Mode};
use super::id::HookId;
use super::pattern::Index;
use super::redaction::Secrets;
use super::revision::Revision;

/// The validated hooks of one catalog revision; immutable.
#[derive(Debug, Default, Clone)]
pub struct HookSet {
    revision: Revision,
    hooks: Vec<Arc<Hook>>,
    by_id: HashMap<HookId, usize>,
    index: Index,
    gates: Index,
    types: Arc<EventTypes>,
    secrets: Arc<Secrets>,
}

/// What an event finds.
#[derive(Debug, Default)]
pub struct Matches<'a> {
    /// The hooks that want it, each once, in catalog order.
    pub hooks: Vec<&'a Arc<Hook>>,
    /// Those whose condition cannot be evaluated for it, and why: they do not run.
    pub failed: Vec<(&'a Arc<Hook>, String)>,
    /// A condition asks for what the event says, and nobody can read that.
    pub unreadable: bool,
}

/// The same hooks under the same revision; the index follows from them.
impl PartialEq for HookSet {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && self.hooks == other.hooks
    }
}

impl HookSet {
    /// Hooks as they are written. Ids are unique: the catalog has checked it.
    #[must_use]
    pub fn new(revision: impl Into<Revision>, mut hooks: Vec<Hook>) -> Self {
        hooks.sort_by_key(|hook| hook.order);
        let mut set = Self { revision: revision.into(), ..Self::default() };
        for (index, hook) in hooks.into_iter().enumerate() {
            set.by_id.insert(hook.id.clone(), index);
            let observes = hook.mode == Mode::Observe;
            for pattern in hook.on.iter().filter(|_| hook.enabled) {
                let index_of = if observes { &mut set.index } else { &mut set.gates };
                index_of.insert(pattern, index);
            }
            set.hooks.push(Arc::new(hook));
        }
        set
    }

    /// With the event types that the catalog declares.
    #[must_use]
    pub fn with_types(self, types: EventTypes) -> Self {
        Self { types: Arc::new(types), ..self }
    }

    /// With the values that the catalog takes from outside.
    #[must_use]
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets: Arc::new(secrets), ..self }
    }

    /// What no text may show, whichever hook it came from.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    #[must_use]
    pub fn types(&self) -> &EventTypes {
        &self.types
    }

    #[must_use]
    pub const fn revision(&self) -> &Revision {
        &self.revision
    }

    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Hook>> {
        self.by_id.get(id).map(|&index| &self.hooks[index])
    }

    /// By their `order`, then as they are written.
    #[must_use]
    pub fn hooks(&self) -> &[Arc<Hook>] {
        &self.hooks
    }

    /// The hooks that want this event. What else they ask for is looked at only where its type is wanted.
    #[must_use]
    pub fn matching(&self, event: &Event) -> Matches<'_> {
        let facts = Facts::new(event);
        let mut matches = Matches::default();
        for hook in self.wanting_type(event) {
            match hook.unmatched_beside_type(&facts) {
                None => matches.hooks.push(hook),
                Some(Unmatched::WhenFailed(error)) => {
                    matches.unreadable |= !facts.is_readable();
                    matches.failed.push((hook, error));
                }
                Some(_) => {}
            }
        }
        matches
    }

    /// The gates that are asked about this event, each once, in catalog order; with the reason where its condition cannot be
    /// evaluated, so that nobody knows whether it should be.
    #[must_use]
    pub fn gates(&self, event: &Event) -> Vec<(&Arc<Hook>, Option<String>)> {
        self.gates_with(event, Hook::unmatched_beside_type)
    }

    /// The same for gates that are asked in turn, each about what those before it have made of the data. What wants a tool is
    /// among them whatever the tool is: [`Hook::wants_tool_of`] says so when its turn comes.
    #[must_use]
    pub fn gates_in_turn(&self, event: &Event) -> Vec<(&Arc<Hook>, Option<String>)> {
        self.gates_with(event, |hook, facts| match hook.matcher {
            Some(Matcher::Tool(_)) => hook.unmatched_beside_matcher(facts),
            Some(Matcher::Wildcards(_)) | None => hook.unmatched_beside_type(facts),
        })
    }

    fn gates_with(
        &self,
        event: &Event,
        unmatched: impl Fn(&Hook, &Facts<'_>) -> Option<Unmatched>,
    ) -> Vec<(&Arc<Hook>, Option<String>)> {
        let facts = Facts::new(event);
        let asked = self.gates.find(&event.kind).into_iter().map(|index| &self.hooks[index]);
        asked
            .filter_map(|hook| match unmatched(hook, &facts) {
                None => Some((hook, None)),
                Some(Unmatched::WhenFailed(error)) => Some((hook, Some(error))),
                Some(_) => None,
            })
            .collect()
    }

    /// Whether a gate may be asked about events of this type.
    #[must_use]
    pub fn has_gates_on(&self, kind: &str) -> bool {
        !self.gates.find(kind).is_empty()
    }

    fn wanting_type(&self, event: &Event) -> impl Iterator<Item = &Arc<Hook>> {
        self.index.find(&event.kind).into_iter().map(|index| &self.hooks[index])
    }
}

/// Why a hook does not want an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmatched {
    Disabled,
    /// Gates are not run by events.
    Gate,
    Type,
    Source,
    Subject,
    /// The matcher of its dialect.
    Matcher,
    When,
    /// The condition cannot be evaluated for this event. The sentence shows nothing of it.
    WhenFailed(String),
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("it is not enabled"),
            Self::Gate => f.write_str("it is a gate"),
            Self::Type => f.write_str("no pattern of `on` matches the type"),
            Self::Source => f.write_str("`source` does not match"),
            Self::Subject => f.write_str("`subject` does not match"),
            Self::Matcher => f.write_str("`matcher` does not match"),
            Self::When => f.write_str("`when` is false"),
            Self::WhenFailed(error) => write!(f, "`when` fails: {error}"),
        }
    }
}

impl Hook {
    /// Whether events run it at all.
    #[must_use]
    pub fn is_run_by_events(&self) -> bool {
        self.enabled && self.mode == Mode::Observe
    }

    /// Whether a replay runs it. A hook of another system is run although it decides: as one that observes.
    #[must_use]
    pub fn is_run_by_replays(&self) -> bool {
        self.is_run_by_events() || self.enabled && self.dialect != Dialect::Native
    }

    /// The first reason for which it does not want an event; `None`: it does.
    #[must_use]
    pub fn unmatched(&self, facts: &Facts<'_>) -> Option<Unmatched> {
        match self.mode {
            Mode::Gate(_) if self.enabled => Some(Unmatched::Gate),
            Mode::Gate(_) | Mode::Observe => self.unmatched_when_asked(facts),
        }
    }

    /// As [`Hook::unmatched`], where the event is a question, which gates answer and observers hear of.
    #[must_use]
    pub fn unmatched_when_asked(&self, facts: &Facts<'_>) -> Option<Unmatched> {
        if !self.enabled {
            return Some(Unmatched::Disabled);
        }
        if !self.on.iter().any(|pattern| pattern.matches(&facts.event().kind)) {
            return Some(Unmatched::Type);
        }
        self.unmatched_beside_type(facts)
    }

    /// As [`Hook::unmatched`], for an event whose type it wants.
    fn unmatched_beside_type(&self, facts: &Facts<'_>) -> Option<Unmatched> {
        let event = facts.event();
        if let Some(unmatched) = self.unmatched_by_origin(event) {
            return Some(unmatched);
        }
        if self.matcher.as_ref().is_some_and(|matcher| !matcher.matches(event.subject.as_deref(), &event.body)) {
            return Some(Unmatched::Matcher);
        }
        self.unmatched_by_condition(facts)
    }

    fn unmatched_by_origin(&self, event: &Event) -> Option<Unmatched> {
        if !self.source.is_empty() && !self.source.iter().any(|glob| glob.matches(&event.source)) {
            return Some(Unmatched::Source);
        }
        let wanted = |subject: &String| self.subject.iter().any(|glob| glob.matches(subject));
        let is_wanted = self.subject.is_empty() || event.subject.as_ref().is_some_and(wanted);
        (!is_wanted).then_some(Unmatched::Subject)
    }

    /// As [`Hook::unmatched`], for an event whose type it wants, whatever its matcher says.
    fn unmatched_beside_matcher(&self, facts: &Facts<'_>) -> Option<Unmatched> {
        self.unmatched_by_origin(facts.event()).or_else(|| self.unmatched_by_condition(facts))
    }

    /// Whether it wants an event whose data were put in this place by others, as far as its filter on tools goes.
    #[must_use]
    pub fn wants_tool_of(&self, event: &Event, input: Option<&Json>) -> bool {
        match (&self.matcher, input) {
            (Some(Matcher::Tool(filter)), Some(input)) => filter.matches_data(input.as_str()),
            (Some(Matcher::Tool(filter)), None) => filter.matches(&event.body),
            (Some(Matcher::Wildcards(_)) | None, _) => true,
        }
    }

    fn unmatched_by_condition(&self, facts: &Facts<'_>) -> Option<Unmatched> {
        match self.when.as_ref()?.holds(facts) {
            Ok(true) => None,
            Ok(false) => Some(Unmatched::When),
            Err(error) => Some(Unmatched::WhenFailed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::event::Reading;
    use crate::domain::expression::Expression;
    use crate::domain::hook::{OnFailure, fixture};
    use crate::domain::message::Message;
    use crate::domain::pattern::{Glob, Pattern};

    fn hook(id: usize, patterns: &[&str]) -> Hook {
        let on = patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect();
        Hook { on, ..fixture::hook(&format!("h{id}")) }
    }

    fn event(kind: &str) -> Event {
        decode(&format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"{kind}"}}"#))
    }

    fn decode(body: &str) -> Event {
        let message = Message { body: body.to_owned().into(), ..Message::default() };
        Event::decode(&message, &Reading::default()).unwrap()
    }

    fn check(patterns: &[&str], kind: &str, expected: bool) {
        let set = HookSet::new("r", vec![hook(0, patterns)]);
        assert_eq!(set.matching(&event(kind)).hooks.len(), usize::from(expected), "{patterns:?} on {kind}");
    }

    #[test]
    fn patterns() {
        check(&["task.failed"], "task.failed", true);
        check(&["task.failed"], "task.failed.x", false);
        check(&["task.*"], "task.failed", true);
        check(&["task.*"], "task", false);
        check(&["task.*"], "task.a.b", false);
        check(&["task.**"], "task", true);
        check(&["task.**"], "task.a.b", true);
        check(&["**"], "anything.at.all", true);
        check(&["**.failed"], "failed", true);
        check(&["**.failed"], "a.b.failed", true);
        check(&["a.**.z"], "a.z", true);
        check(&["a.**.z"], "a.b.c.z", true);
        check(&["a.**.z"], "a.b.c", false);
        check(&["task.*", "task.failed", "**"], "task.failed", true); // once, not three times
    }

    /// The number of ways in which `**` can share out a type's segments must not matter.
    #[test]
    fn many_wildcards_take_no_time() {
        let kind = ["a"; 500].join(".");
        for pattern in [["**.a"; 40].join("."), ["**"; 40].join("."), ["**.*"; 40].join(".")] {
            check(&[&pattern], &kind, true);
            check(&[&format!("{pattern}.b")], &kind, false);
        }
    }

    /// What a pattern means, said in the plainest way.
    fn naive(pattern: &[&str], kind: &[&str]) -> bool {
        match (pattern, kind) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=kind.len()).any(|taken| naive(rest, &kind[taken..])),
            ([first, rest @ ..], [head, tail @ ..]) => (*first == "*" || first == head) && naive(rest, tail),
            _ => false,
        }
    }

    /// What a hook asks for, in short.
    #[derive(Debug, Clone)]
    struct Asked {
        pattern: String,
        source: Option<&'static str>,
        subject: Option<&'static str>,
        /// Numbers below which `event.data.n` has to be.
        below: Option<u8>,
        order: i32,
        enabled: bool,
        gate: bool,
    }

    fn asked() -> impl Strategy<Value = Asked> {
        (
            "(a|b|\\*|\\*\\*)(\\.(a|b|\\*|\\*\\*)){0,3}",
            prop::option::of(prop::sample::select(vec!["/s", "/*", "/other"])),
            prop::option::of(prop::sample::select(vec!["x", "?", "y*"])),
            prop::option::of(0..4u8),
            -1..2i32,
            prop::bool::weighted(0.9),
            prop::bool::weighted(0.1),
        )
            .prop_map(|(pattern, source, subject, below, order, enabled, gate)| Asked {
                pattern,
                source,
                subject,
                below,
                order,
                enabled,
                gate,
            })
    }

    impl Asked {
        fn hook(&self, id: usize) -> Hook {
            let globs = |glob: Option<&str>| glob.map(|glob| Glob::new(glob).unwrap()).into_iter().collect();
            Hook {
                source: globs(self.source),
                subject: globs(self.subject),
                when: self.below.map(|n| Expression::new(&format!("event.data.n < {n}")).unwrap()),
                order: self.order,
                enabled: self.enabled,
                mode: if self.gate { Mode::Gate(OnFailure::Open) } else { Mode::Observe },
                ..hook(id, &[&self.pattern])
            }
        }

        /// What it means, said in the plainest way.
        fn wants(&self, kind: &str, subject: Option<&str>, n: u8) -> bool {
            let segments: Vec<&str> = kind.split('.').collect();
            naive(&self.pattern.split('.').collect::<Vec<_>>(), &segments)
                && self.source != Some("/other")
                && match (self.subject, subject) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some("?"), Some(subject)) => subject.len() == 1,
                    (Some("y*"), Some(subject)) => subject.starts_with('y'),
                    (Some(wanted), Some(subject)) => wanted == subject,
                }
                && self.below.is_none_or(|below| n < below)
                && self.enabled
                && !self.gate
        }
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_the_naive_matcher(
            asked in prop::collection::vec(asked(), 1..12),
            kind in "(a|b)(\\.(a|b)){0,4}",
            subject in prop::option::of(prop::sample::select(vec!["x", "yy", "zzz"])),
            n in 0..4u8,
        ) {
            let set = HookSet::new("r", asked.iter().enumerate().map(|(id, asked)| asked.hook(id)).collect());
            let subject_json = subject.map(|subject| format!(r#""subject":"{subject}","#)).unwrap_or_default();
            let body = format!(
                r#"{{"specversion":"1.0","id":"1","source":"/s",{subject_json}"type":"{kind}","data":{{"n":{n}}}}}"#
            );
            let event = decode(&body);
            let matches = set.matching(&event);
            let found: Vec<&str> = matches.hooks.iter().map(|hook| hook.id.as_str()).collect();
            let mut expected: Vec<(i32, usize)> =
                asked.iter().enumerate().filter(|(_, asked)| asked.wants(&kind, subject, n)).map(|(id, asked)| (asked.order, id)).collect();
            expected.sort_unstable();
            let expected: Vec<String> = expected.into_iter().map(|(_, id)| format!("h{id}")).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert!(matches.failed.is_empty());
            for hook in set.hooks() {
                let unmatched = hook.unmatched(&Facts::new(&event));
                prop_assert_eq!(unmatched.is_none(), expected.contains(&hook.id.to_string()), "{:?} {:?}", hook, unmatched);
            }
        }
    }

    #[test]
    fn a_condition_that_fails_matches_nothing_and_is_told() {
        let failing = Hook { when: Some(Expression::new("event.data.n.m == 1").unwrap()), ..hook(0, &["a"]) };
        let set = HookSet::new("r", vec![failing, hook(1, &["a"])]);
        let event = event("a");
        let matches = set.matching(&event);
        assert_eq!(matches.hooks.iter().map(|hook| hook.id.as_str()).collect::<Vec<_>>(), ["h1"]);
        let [(hook, error)] = matches.failed.as_slice() else { panic!("{matches:?}") };
        assert_eq!((hook.id.as_str(), error.as_str()), ("h0", "the event has no `data`"));
    }
}
