//! What is different between two catalogs.

use std::fmt;

use serde::Serialize;
use similar::TextDiff;
use utoipa::ToSchema;

use super::Document;
use crate::domain::id::HookId;
use crate::domain::matching::HookSet;

/// Hooks by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Changes {
    /// From one set to another, each list in catalog order.
    #[must_use]
    pub fn between(old: &HookSet, new: &HookSet) -> Self {
        let names = |ids: Vec<&HookId>| ids.into_iter().map(ToString::to_string).collect();
        let ids = |set: &'_ HookSet, wanted: &dyn Fn(&HookId) -> bool| -> Vec<String> {
            names(set.hooks().iter().map(|hook| &hook.id).filter(|id| wanted(id)).collect())
        };
        Self {
            added: ids(new, &|id| old.get(id.as_str()).is_none()),
            removed: ids(old, &|id| new.get(id.as_str()).is_none()),
            changed: ids(new, &|id| old.get(id.as_str()).is_some_and(|was| Some(was) != new.get(id.as_str()))),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// One line a hook: `+` added, `-` removed, `~` changed.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no hook is added, removed or changed");
        }
        let lists = [("+", &self.added), ("-", &self.removed), ("~", &self.changed)];
        let lines = lists.iter().flat_map(|(mark, ids)| ids.iter().map(move |id| format!("{mark} {id}")));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// The difference of the texts, document by document by their names, as `diff -u` writes it.
#[must_use]
pub fn texts(old: &[Document], new: &[Document]) -> String {
    let find = |documents: &[Document], name: &str| {
        documents.iter().find(|document| document.name == name).map_or_else(String::new, |found| found.text.clone())
    };
    let gone = old.iter().filter(|document| new.iter().all(|other| other.name != document.name));
    let mut diff = String::new();
    for Document { name, .. } in gone.chain(new) {
        let (old, new) = (find(old, name), find(new, name));
        let (from, to) = (format!("a/{name}"), format!("b/{name}"));
        diff.push_str(&TextDiff::from_lines(&old, &new).unified_diff().header(&from, &to).to_string());
    }
    diff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hook::{Hook, fixture};

    #[test]
    fn hooks() {
        let set = |hooks: &[(&str, usize)]| {
            let hooks = hooks.iter().map(|(id, concurrency)| Hook { concurrency: *concurrency, ..fixture::hook(id) });
            HookSet::new("r", hooks.collect())
        };
        let check = |old: &[(&str, usize)], new: &[(&str, usize)], expected: &str| {
            assert_eq!(Changes::between(&set(old), &set(new)).to_string(), expected, "{old:?} {new:?}");
        };
        check(&[], &[], "no hook is added, removed or changed");
        check(&[("a", 1), ("b", 1)], &[("b", 1), ("a", 1)], "no hook is added, removed or changed");
        check(&[("a", 1), ("b", 1), ("c", 1)], &[("a", 2), ("c", 1), ("d", 1)], "+ d\n- b\n~ a");
    }

    #[test]
    fn documents() {
        let document = |name: &str, text: &str| Document::native(name, text);
        let old = [document("gone.yaml", "x\n"), document("same.yaml", "y\n"), document("z.yaml", "1\n2\n")];
        let new = [document("same.yaml", "y\n"), document("z.yaml", "1\n3\n")];
        let expected = "--- a/gone.yaml\n+++ b/gone.yaml\n@@ -1 +0,0 @@\n-x\n--- a/z.yaml\n+++ b/z.yaml\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n";
        assert_eq!(texts(&old, &new), expected);
        assert_eq!(texts(&new, &new), "");
    }
}
