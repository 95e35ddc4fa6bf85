//! Globs over attributes of events: `*` is any run of characters, none included, `?` any one of them.

use crate::domain::escape::quoted;

/// Longest glob: as long as an attribute may be.
const BYTES_MAX: usize = 1024;

/// A glob that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// # Errors
    /// What was expected and what was found.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(
                "expected a text in which `*` is any run of characters and `?` any one, found an empty one".into()
            );
        }
        if text.len() > BYTES_MAX {
            return Err(format!("expected a text of at most {BYTES_MAX} bytes, found {}", quoted(text)));
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a whole text is of this form. Where a character does not fit, the last `*` takes one more.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut rest, mut last) = (self.0.as_str(), text, None);
        while let Some(found) = rest.chars().next() {
            match pattern.chars().next() {
                Some('*') => {
                    pattern = &pattern[1..];
                    last = Some((pattern, rest));
                }
                Some(wanted) if wanted == '?' || wanted == found => {
                    pattern = &pattern[wanted.len_utf8()..];
                    rest = &rest[found.len_utf8()..];
                }
                _ => {
                    let Some((after, begun)) = last else { return false };
                    let mut begun = begun.chars();
                    begun.next();
                    rest = begun.as_str();
                    pattern = after;
                    last = Some((after, rest));
                }
            }
        }
        pattern.bytes().all(|byte| byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs() {
        let check = |glob: &str, text: &str, expected: bool| {
            assert_eq!(Glob::new(glob).unwrap().matches(text), expected, "{glob} {text}");
        };
        check("/tasks", "/tasks", true);
        check("/tasks", "/tasks/1", false);
        check("/tasks/*", "/tasks/1/2", true);
        check("*", "", true);
        check("?", "", false);
        check("?", "\u{e4}", true);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("**a", "a", true);
        let long = "a".repeat(1024);
        check(&format!("{}b", "a*".repeat(500)), &long, false); // soon
        assert!(Glob::new("").is_err() && Glob::new(&"x".repeat(1025)).is_err());
    }

    fn naive(glob: &[char], text: &[char]) -> bool {
        match (glob, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
            ([first, rest @ ..], [head, tail @ ..]) => (*first == '?' || first == head) && naive(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_the_naive_matcher(glob in "[ab\u{e4}*?]{1,6}", text in "[ab\u{e4}]{0,7}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Glob::new(&glob).unwrap().matches(&text), naive(&chars(&glob), &chars(&text)));
        }
    }
}
