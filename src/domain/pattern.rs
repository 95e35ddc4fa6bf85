//! Patterns over event types, globs over attributes, and an index that finds patterns by a type.

use super::escape::quoted;

pub use glob::Glob;
pub use index::Index;

mod glob;
mod index;

/// Longest pattern: as long as a type may be. The index of patterns is as deep as the longest one has segments.
const PATTERN_BYTES_MAX: usize = 1024;

/// A pattern over the dot-separated segments of an event type: `*` is any one segment, `**` any number of them, none
/// included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// # Errors
    /// What was expected and what was found.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected an event type or a pattern such as `task.*`, found an empty text".to_owned());
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("expected a pattern of at most {PATTERN_BYTES_MAX} bytes, found {}", quoted(text)));
        }
        for segment in text.split('.') {
            if segment.is_empty() {
                return Err(format!("expected segments between the dots, found an empty one in {}", quoted(text)));
            }
            if segment.contains('*') && segment != "*" && segment != "**" {
                let (segment, text) = (quoted(segment), quoted(text));
                return Err(format!("expected `*` or `**` to be a whole segment, found {segment} in {text}"));
            }
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an event type is one of those that it stands for.
    #[must_use]
    pub fn matches(&self, kind: &str) -> bool {
        self.takes(kind, |own, other| own == "*" || own == other)
    }

    /// Whether it matches everything that another one matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.takes(&other.0, |own, other| other != "**" && (own == "*" || own == other))
    }

    /// Goes through the segments once; where one does not fit, the last `**` takes one more.
    fn takes(&self, other: &str, fits: impl Fn(&str, &str) -> bool) -> bool {
        let own: Vec<&str> = self.0.split('.').collect();
        let other: Vec<&str> = other.split('.').collect();
        let (mut at, mut taken, mut last) = (0, 0, None);
        while taken < other.len() {
            match own.get(at) {
                Some(&"**") => {
                    at += 1;
                    last = Some((at, taken));
                }
                Some(segment) if fits(segment, other[taken]) => {
                    (at, taken) = (at + 1, taken + 1);
                }
                _ => {
                    let Some((after, begun)) = last else { return false };
                    last = Some((after, begun + 1));
                    (at, taken) = (after, begun + 1);
                }
            }
        }
        own[at..].iter().all(|segment| *segment == "**")
    }

    /// Whether it is an event type without wildcards.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_cover_others() {
        let check = |own: &str, other: &str, expected: bool| {
            let covers = Pattern::new(own).unwrap().covers(&Pattern::new(other).unwrap());
            assert_eq!(covers, expected, "{own} and {other}");
        };
        check("a.b", "a.b", true);
        check("a.*", "a.b", true);
        check("a.b", "a.*", false);
        check("a.*", "a.**", false);
        check("**", "a.**.b.*", true);
        check("a.**", "a.*.**.b", true);
        check("a.**", "a", true);
        check("**.b", "a.**.b", true);
        check("**.b", "a.**", false);
        check("*", "**", false);
        check("**.*", "**", false);
        check("*.**", "a", true);
    }

    #[test]
    fn patterns_that_are_refused() {
        for bad in ["", "a..b", "a.b*", ".a", "***", &"*.".repeat(100_000), &"x".repeat(1025)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        let error = Pattern::new("a*.\u{1b}[31m").unwrap_err();
        assert!(error.ends_with("\\u{1b}[31m\""), "{error}");
    }
}
