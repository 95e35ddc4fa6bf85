//! Texts that many letters share, each kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// Texts by content.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    all: HashSet<Arc<str>>,
    /// How many there may be before those that nobody has any more are looked for.
    tidy_at: usize,
}

/// Below that many nobody looks.
const TIDY_MIN: usize = 1024;

impl Words {
    /// The one copy of this text.
    pub(super) fn one(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.all.get(text) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.tidy_at.max(TIDY_MIN) {
            self.tidy();
        }
        let new: Arc<str> = text.into();
        self.all.insert(Arc::clone(&new));
        new
    }

    /// Drops those that nobody has any more.
    pub(super) fn tidy(&mut self) {
        self.all.retain(|text| Arc::strong_count(text) > 1);
        self.tidy_at = self.all.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_once_and_not_for_ever() {
        let mut words = Words::default();
        let kept: Vec<_> = (0..10).map(|number| words.one(&number.to_string())).collect();
        assert!(Arc::ptr_eq(&kept[3], &words.one("3")));
        for number in 10..100_000 {
            words.one(&number.to_string());
        }
        assert!(words.all.len() <= TIDY_MIN && kept.iter().all(|text| words.all.contains(text)));
    }
}
