//! Ids for hooks that have names only.

use std::collections::{HashMap, HashSet};

/// Longest id of a hook.
const CHARS_MAX: usize = 128;

/// Gives each hook an id that no other has.
pub(super) struct Ids<'a> {
    prefix: &'a str,
    given: HashSet<String>,
    /// The last number behind each id, so that a thousand hooks of one name do not try a thousand numbers each.
    numbers: HashMap<String, usize>,
}

impl<'a> Ids<'a> {
    pub(super) fn new(prefix: &'a str) -> Self {
        Self { prefix, given: HashSet::new(), numbers: HashMap::new() }
    }

    /// `{prefix}.{event}.{name}`, with `-2` behind the second of the same, `-3` behind the third.
    pub(super) fn next(&mut self, event: &str, name: &str) -> String {
        let whole = format!("{}.{event}.{}", self.prefix, legal(name));
        let cut = |room: usize| whole.chars().take(CHARS_MAX - room).collect::<String>();
        let with_number = |number: usize| {
            let end = if number == 1 { String::new() } else { format!("-{number}") };
            format!("{}{end}", cut(end.len()))
        };
        let number = self.numbers.entry(cut(0)).or_insert(0);
        loop {
            *number += 1;
            let id = with_number(*number);
            if self.given.insert(id.clone()) {
                return id;
            }
        }
    }
}

/// A name in letters that an id may have: others become one `-` together.
fn legal(name: &str) -> String {
    let mut legal = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') {
            legal.push(c);
        } else if !legal.ends_with('-') {
            legal.push('-');
        }
    }
    let legal = legal.trim_matches('-');
    if legal.is_empty() { "hook".to_owned() } else { legal.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::HookId;

    #[test]
    fn ids_are_legal_and_each_there_once() {
        let mut ids = Ids::new("kheish");
        for (name, expected) in [
            ("bash-guard", "kheish.stop.bash-guard"),
            ("second opinion", "kheish.stop.second-opinion"),
            ("second/opinion", "kheish.stop.second-opinion-2"),
            ("second-opinion-2", "kheish.stop.second-opinion-2-2"),
            ("second.opinion", "kheish.stop.second.opinion"),
            ("second opinion", "kheish.stop.second-opinion-3"),
            (" -ä- ", "kheish.stop.hook"),
            ("日本", "kheish.stop.hook-2"),
            ("a__b..c", "kheish.stop.a__b..c"),
            ("a\u{1b}[31m", "kheish.stop.a-31m"),
        ] {
            assert_eq!(ids.next("stop", name), expected, "{name}");
        }
        let long = "x".repeat(500);
        for end in ["xxx", "x-2", "x-3"] {
            let id = ids.next("stop", &long);
            assert!(id.ends_with(end) && HookId::new(&id).is_ok(), "{id}");
        }
    }
}
