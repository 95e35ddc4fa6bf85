//! Which catalog: its revision, and what is to be done about a hook that it does not know.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The name of a catalog's content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revision {
    /// One after the other, for the whole fleet: shown as `r17`.
    Numbered(u64),
    /// Of files: the beginning of their SHA-256, in hexadecimal digits. They have no order.
    Digest(Arc<str>),
}

impl Revision {
    /// Whether the other one is known to have come later.
    #[must_use]
    pub const fn is_older_than(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Numbered(own), Self::Numbered(other)) => *own < *other,
            (Self::Numbered(_) | Self::Digest(_), _) => false,
        }
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self::Digest("".into())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(number) => write!(f, "r{number}"),
            Self::Digest(digest) => f.write_str(digest),
        }
    }
}

/// As it travels in messages: what is no number is taken for a digest, which nobody knows then.
impl From<&str> for Revision {
    fn from(text: &str) -> Self {
        let digits = text.strip_prefix('r').filter(|digits| digits.starts_with(|first| matches!(first, '1'..='9')));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) => Self::Numbered(number),
            None => Self::Digest(text.into()),
        }
    }
}

/// How long a worker may serve a catalog while it knows that another one is current.
pub const BEHIND_MAX: Duration = Duration::from_secs(10);

/// Whether a worker may take work: it has a catalog, and has not known for long that another one is current. To match
/// against nothing would be to lose events, to match against the past for ever would be as bad.
#[must_use]
pub fn may_serve(has_catalog: bool, behind_for: Option<Duration>) -> bool {
    has_catalog && behind_for.is_none_or(|behind| behind < BEHIND_MAX)
}

/// What becomes of an invocation whose hook is not in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Nobody has the hook any more.
    Removed,
    /// Another catalog may have it: once more after this round on the ladder.
    Again(Duration),
}

/// Between files nobody can say which is newer: they are given this long to become the same on all workers.
const UNORDERED_MAX: Duration = Duration::from_mins(10);
const UNORDERED_ROUND: Duration = Duration::from_mins(1);
/// A worker loads a newer revision within a second, or stops consuming: so this ends only where the store of revisions
/// has forgotten the one that the message names.
const NEWER_MAX: Duration = Duration::from_hours(24);
const NEWER_ROUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// What to do with an invocation that was made at revision `made`, has waited for so long, and meets a worker at
/// revision `own`, which does not know its hook.
#[must_use]
pub fn unknown_hook(own: &Revision, made: &Revision, waited: Duration) -> Unknown {
    let until = |max, round| if waited < max { Unknown::Again(round) } else { Unknown::Removed };
    match (own, made) {
        (Revision::Numbered(own), Revision::Numbered(made)) if own >= made => Unknown::Removed,
        (Revision::Numbered(_), Revision::Numbered(_)) => {
            let [shortest, longest] = NEWER_ROUNDS;
            until(NEWER_MAX, waited.clamp(shortest, longest))
        }
        (own, made) if own == made => Unknown::Removed,
        _ => until(UNORDERED_MAX, UNORDERED_ROUND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, expected: Revision| {
            assert_eq!(Revision::from(text), expected);
            assert_eq!(expected.to_string(), text);
        };
        check("r17", Revision::Numbered(17));
        check("r", Revision::Digest("r".into()));
        check("r07", Revision::Digest("r07".into()));
        check("r+7", Revision::Digest("r+7".into()));
        check("17", Revision::Digest("17".into()));
        check("0123456789ab", Revision::Digest("0123456789ab".into()));
        check("", Revision::default());
    }

    #[test]
    fn who_may_serve() {
        let behind = |seconds| Some(Duration::from_secs(seconds));
        assert!(may_serve(true, None));
        assert!(may_serve(true, behind(9)));
        assert!(!may_serve(true, behind(10)));
        assert!(!may_serve(false, None));
        assert!(!may_serve(false, behind(0)));
    }

    #[test]
    fn unknown_hooks() {
        let check = |own: &str, made: &str, waited_s: u64, expected: &str| {
            let found = match unknown_hook(&own.into(), &made.into(), Duration::from_secs(waited_s)) {
                Unknown::Removed => "removed".to_owned(),
                Unknown::Again(round) => format!("again after {round:?}"),
            };
            assert_eq!(found, expected, "{own} meets {made} after {waited_s} s");
        };
        check("r17", "r17", 0, "removed");
        check("r18", "r17", 0, "removed");
        check("r17", "r18", 0, "again after 1s");
        check("r17", "r18", 8, "again after 8s");
        check("r17", "r18", 3600, "again after 60s");
        check("r17", "r18", 24 * 3600, "removed");
        check("a1", "a1", 0, "removed");
        check("a1", "b2", 0, "again after 60s");
        check("a1", "b2", 599, "again after 60s");
        check("a1", "b2", 600, "removed");
        check("r17", "b2", 0, "again after 60s");
        check("a1", "r17", 600, "removed");
    }
}
