//! How it stands with the letters, in numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{Fold, State};
use crate::domain::dialect::Dialect;
use crate::domain::failure::Class;

/// The letters in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub letters: u64,
    /// Open, or with a replay that is out.
    pub unresolved: u64,
    /// Those by class and hook.
    #[serde(skip)]
    pub by_cause: BTreeMap<(Class, Option<Arc<str>>), u64>,
    /// When the oldest of them was written, and when the copy of it that has been kept longest; in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_unresolved_ms: Option<u64>,
    #[serde(skip)]
    pub oldest_kept_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_unresolved: Option<Last>,
}

/// The newest letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Last {
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<Arc<str>>,
}

impl Fold {
    /// The letters of another system's hooks in numbers: the newest, at most so many. The hooks have their names there.
    #[must_use]
    pub fn standing_of(&self, dialect: Dialect, most: usize) -> Standing {
        let mut standing = Standing::default();
        let of_dialect = self.folded().rev().filter_map(|(_, folded)| {
            let (letter, state) = (folded.letter.as_ref()?, folded.state()?);
            let hook = letter.foreign.as_ref().filter(|hook| hook.dialect == dialect)?;
            Some((Last { at_ms: letter.at_ms, hook: Some(Arc::clone(&hook.name)) }, state))
        });
        for (last, state) in of_dialect.take(most) {
            standing.letters += 1;
            if state != State::Resolved {
                standing.unresolved += 1;
                standing.last_unresolved.get_or_insert_with(|| last.clone());
            }
            standing.last.get_or_insert(last);
        }
        standing
    }

    /// The letters in numbers.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mut standing = Standing::default();
        for (_, folded) in self.folded() {
            let (Some(letter), Some(state)) = (&folded.letter, folded.state()) else { continue };
            let last = Some(Last { at_ms: letter.at_ms, hook: letter.hook.clone() });
            standing.letters += 1;
            if state != State::Resolved {
                standing.unresolved += 1;
                *standing.by_cause.entry((letter.class, letter.hook.clone())).or_default() += 1;
                standing.oldest_unresolved_ms.get_or_insert(letter.at_ms);
                let kept_ms = Some(letter.kept_ms()).filter(|kept_ms| *kept_ms > 0);
                standing.oldest_kept_ms = standing.oldest_kept_ms.into_iter().chain(kept_ms).min();
                standing.last_unresolved.clone_from(&last);
            }
            standing.last = last; // they come oldest first
        }
        standing
    }
}
