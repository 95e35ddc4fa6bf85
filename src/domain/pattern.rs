//! Patterns over event types, globs over attributes, and an index that finds patterns by a type.

use super::escape::quoted;

pub use glob::Glob;
pub use index::Index;

mod glob;
mod index;

/// Longest pattern: as long as a type may be. The index of patterns is as deep as the longest one has segments.
const PATTERN_BYTES_MAX: usize = 1024;

/// Segments that are wildcards elsewhere, and where. As types of events they mean nothing.
const FOREIGN: [(&str, &str); 2] = [("#", "RabbitMQ"), (">", "NATS")];

/// Whether a text of CloudEvents may have this character (CloudEvents 1.0, type system: String).
const fn is_of_types(c: char) -> bool {
    let code = c as u32;
    !(code < 0x20 || code >= 0x7f && code <= 0x9f || code >= 0xfdd0 && code <= 0xfdef || code & 0xfffe == 0xfffe)
}

/// What is most likely not meant in an event type, or a pattern over types, in a few words. Events may have such types.
#[must_use]
pub fn oddity(kind: &str) -> Option<&'static str> {
    let has = |wanted: &[char]| kind.contains(wanted);
    if kind.contains(char::is_whitespace) {
        Some("a space")
    } else if has(&['#', '>']) {
        Some("a wildcard of another system")
    } else if has(&['?', '[', ']', '{', '}', '|', '^', '$', '(', ')', '\\']) {
        Some("a character of globs or regular expressions")
    } else if has(&[',', ';']) {
        Some("a separator of lists")
    } else if kind.split('.').any(str::is_empty) {
        Some("an empty segment between two dots")
    } else {
        None
    }
}

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
        if let Some(found) = text.chars().find(|c| !is_of_types(*c)) {
            return Err(format!(
                "expected characters that a type of CloudEvents may have, found {} in {}",
                found.escape_unicode(),
                quoted(text)
            ));
        }
        for segment in text.split('.') {
            if segment.is_empty() {
                return Err(format!("expected segments between the dots, found an empty one in {}", quoted(text)));
            }
            if let Some((_, whose)) = FOREIGN.iter().find(|(wildcard, _)| *wildcard == segment) {
                return Err(format!(
                    "expected `**` for any number of segments or `*` for one, found the wildcard of {whose} in {}",
                    quoted(text)
                ));
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
        for bad in [
            "",
            "a..b",
            "a.b*",
            ".a",
            "***",
            "order.#",
            "#",
            "order.>",
            "a.\u{7f}",
            "a\nb",
            "a.\u{ffff}",
            &"*.".repeat(100_000),
            &"x".repeat(1025),
        ] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        let error = Pattern::new("a*.\u{1b}[31m").unwrap_err();
        assert!(error.ends_with("\\u{1b}[31m\""), "{error}");
        let error = Pattern::new("order.#").unwrap_err();
        let expected =
            "expected `**` for any number of segments or `*` for one, found the wildcard of RabbitMQ in \"order.#\"";
        assert_eq!(error, expected);
    }

    #[test]
    fn what_is_most_likely_not_meant() {
        for fine in
            ["a", "task.failed", "task.*", "**", "com.example/v1:x-y_z@2", "größe.ändert", "https://x.example/y"]
        {
            assert_eq!(oddity(fine), None, "{fine}");
        }
        for odd in ["a b", "order.paid ", "order.p?id", "order.{paid,sent}", "a,b", "order.paid#", "a..b", "^a$", "a|b"]
        {
            assert!(oddity(odd).is_some(), "{odd}");
        }
    }
}
