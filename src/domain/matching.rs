//! Which hooks want an event. Indexed, so that the cost does not grow with hooks that do not match.

use std::collections::HashMap;
use std::sync::Arc;

use super::event::Event;
use super::event_type::EventTypes;
use super::hook::{Hook, HookId, Pattern};
use super::revision::Revision;

/// The validated hooks of one catalog revision; immutable.
#[derive(Debug, Default, Clone)]
pub struct HookSet {
    revision: Revision,
    hooks: Vec<Arc<Hook>>,
    by_id: HashMap<HookId, usize>,
    index: Index,
    types: Arc<EventTypes>,
}

/// Finds numbers by the patterns that they were put under.
#[derive(Debug, Default, Clone)]
pub(super) struct Index {
    exact: HashMap<String, Vec<usize>>,
    wild: Node,
}

impl Index {
    pub(super) fn insert(&mut self, pattern: &Pattern, number: usize) {
        if pattern.is_exact() {
            self.exact.entry(pattern.as_str().to_owned()).or_default().push(number);
        } else {
            self.wild.insert(pattern, number);
        }
    }

    /// Whatever a type matches, each once, in their order.
    pub(super) fn find(&self, kind: &str) -> Vec<usize> {
        let mut found = self.exact.get(kind).cloned().unwrap_or_default();
        if !self.wild.is_leaf() {
            let segments: Vec<&str> = kind.split('.').collect();
            Search { found: &mut found, done: HashMap::new() }.visit(&self.wild, &segments, false);
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// A node of the trie over segments; `here` lists the hooks whose pattern ends at it.
#[derive(Debug, Default, Clone)]
struct Node {
    named: HashMap<String, Node>,
    any: Option<Box<Node>>,
    any_number: Option<Box<Node>>,
    here: Vec<usize>,
}

/// The same hooks under the same revision; the index follows from them.
impl PartialEq for HookSet {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && self.hooks == other.hooks
    }
}

impl HookSet {
    /// Hooks in catalog order. Ids are unique: the catalog has checked it.
    #[must_use]
    pub fn new(revision: impl Into<Revision>, hooks: Vec<Hook>) -> Self {
        let mut set = Self { revision: revision.into(), ..Self::default() };
        for (index, hook) in hooks.into_iter().enumerate() {
            set.by_id.insert(hook.id.clone(), index);
            for pattern in &hook.on {
                set.index.insert(pattern, index);
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

    #[must_use]
    pub fn hooks(&self) -> &[Arc<Hook>] {
        &self.hooks
    }

    /// The hooks that want this event, each once, in catalog order.
    #[must_use]
    pub fn matching(&self, event: &Event) -> Vec<&Arc<Hook>> {
        self.index.find(&event.kind).into_iter().map(|index| &self.hooks[index]).collect()
    }
}

impl Node {
    fn insert(&mut self, pattern: &Pattern, index: usize) {
        let mut node = self;
        for segment in pattern.as_str().split('.') {
            node = match segment {
                "*" => node.any.get_or_insert_default(),
                "**" => node.any_number.get_or_insert_default(),
                name => node.named.entry(name.to_owned()).or_default(),
            };
        }
        node.here.push(index);
    }

    fn is_leaf(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.any_number.is_none()
    }
}

/// A walk through the trie.
struct Search<'a> {
    found: &'a mut Vec<usize>,
    /// The most segments that a `**` below another one was tried on, by the address of its node. There are many ways to
    /// it, more than anyone can wait for, and what it finds in fewer segments it has found by then.
    done: HashMap<usize, usize>,
}

impl Search<'_> {
    /// `below`: of a `**`.
    fn visit(&mut self, node: &Node, segments: &[&str], below: bool) {
        if let Some(rest) = &node.any_number {
            for left in self.untried(rest, segments.len(), below) {
                self.visit(rest, &segments[segments.len() - left..], true);
            }
        }
        match segments {
            [] => self.found.extend_from_slice(&node.here),
            [first, rest @ ..] => {
                if let Some(node) = node.named.get(*first) {
                    self.visit(node, rest, below);
                }
                if let Some(node) = &node.any {
                    self.visit(node, rest, below);
                }
            }
        }
    }

    /// How many segments a `**` may leave of so many, without what was tried before.
    fn untried(&mut self, node: &Node, segments: usize, below: bool) -> std::ops::Range<usize> {
        if !below {
            return 0..segments + 1; // there is one way to it
        }
        let done = self.done.entry(std::ptr::from_ref(node).addr()).or_default();
        let untried = *done..segments + 1;
        *done = (*done).max(segments + 1);
        untried
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::event::Reading;
    use crate::domain::hook::fixture;
    use crate::domain::message::Message;

    fn hook(id: usize, patterns: &[&str]) -> Hook {
        let on = patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect();
        Hook { on, ..fixture::hook(&format!("h{id}")) }
    }

    fn event(kind: &str) -> Event {
        let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"{kind}"}}"#);
        Event::decode(&Message { body: body.into(), ..Message::default() }, &Reading::default()).unwrap()
    }

    fn check(patterns: &[&str], kind: &str, expected: bool) {
        let set = HookSet::new("r", vec![hook(0, patterns)]);
        assert_eq!(set.matching(&event(kind)).len(), usize::from(expected), "{patterns:?} on {kind}");
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

    proptest! {
        #[test]
        fn the_index_agrees_with_the_naive_matcher(
            patterns in prop::collection::vec("(a|b|\\*|\\*\\*)(\\.(a|b|\\*|\\*\\*)){0,3}", 1..12),
            kind in "(a|b)(\\.(a|b)){0,4}",
        ) {
            let hooks = patterns.iter().enumerate().map(|(id, pattern)| hook(id, &[pattern])).collect();
            let set = HookSet::new("r", hooks);
            let found: Vec<String> = set.matching(&event(&kind)).iter().map(|hook| hook.id.to_string()).collect();
            let segments: Vec<&str> = kind.split('.').collect();
            let expected: Vec<String> = patterns
                .iter()
                .enumerate()
                .filter(|(_, pattern)| naive(&pattern.split('.').collect::<Vec<_>>(), &segments))
                .map(|(id, _)| format!("h{id}"))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
