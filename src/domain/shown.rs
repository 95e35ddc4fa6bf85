//! A stranger's words in a sentence of ours: short, on one line, with nothing in them that a terminal would obey.

/// Longest piece of a text that is shown.
const CHARS_MAX: usize = 80;

/// A value: in quotes, escaped, not too long.
#[must_use]
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
    }
}

/// A name, to stand by itself or in quotes of another kind: escaped, not too long.
#[must_use]
pub fn name(text: &str) -> String {
    let mut escaped = text.escape_debug();
    let mut name: String = escaped.by_ref().take(CHARS_MAX).collect();
    if escaped.next().is_some() {
        name.push_str("...");
    }
    name
}

/// A sentence that others had a part in, cut to so many characters.
#[must_use]
pub fn sentence(text: &str, chars_max: usize) -> String {
    let escape = |c: char| {
        let plain = matches!(c, '"' | '\'' | '\\'); // quotes of ours, and what is escaped by now
        plain.then_some(c).into_iter().chain((!plain).then(|| c.escape_debug()).into_iter().flatten())
    };
    text.chars().flat_map(escape).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_safely() {
        let check = |text: &str, expected: &str| assert_eq!(quoted(text), expected);
        check("10 parsecs", "\"10 parsecs\"");
        check("\u{1b}[31m\"", "\"\\u{1b}[31m\\\"\"");
        check(&"ä".repeat(81), &format!("\"{}\"...", "ä".repeat(80)));
        assert_eq!(name("a\u{1b}b"), "a\\u{1b}b");
        assert_eq!(name(&"ä".repeat(81)), format!("{}...", "ä".repeat(80)));
        assert_eq!(sentence("found \"\\u{1b}\u{1b}\n\u{202e}'\" ä", 99), "found \"\\u{1b}\\u{1b}\\n\\u{202e}'\" ä");
        assert_eq!(sentence(&"\u{1b}".repeat(1000), 7), "\\u{1b}\\");
    }
}
