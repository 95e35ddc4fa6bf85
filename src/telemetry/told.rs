//! What was logged once and need not be again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// So many names are kept. Then all are forgotten, and what lasts is told anew.
const NAMES_MAX: usize = 4096;

/// Names of what was told.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashSet<String>>);

impl Told {
    /// Whether this is to be told now: it was not yet.
    pub fn is_first(&self, name: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(name) {
            return false;
        }
        if told.len() >= NAMES_MAX {
            told.clear();
        }
        told.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        let told = Told::default();
        for (name, expected) in [("a", true), ("a", false), ("b", true), ("a", false)] {
            assert_eq!(told.is_first(name), expected, "{name}");
        }
        assert_eq!((0..NAMES_MAX).filter(|number| told.is_first(&number.to_string())).count(), NAMES_MAX);
        assert!(told.0.lock().unwrap().len() <= NAMES_MAX);
    }
}
