//! A stranger's words in a sentence of ours: short, on one line, with nothing in them that a terminal would obey.

/// Longest piece of a text that is shown.
const CHARS_MAX: usize = 80;
/// Longest way to something that is shown: twelve names, each at its longest.
const PATH_CHARS_MAX: usize = 1000;

/// A value: in quotes, escaped, not too long.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut room = CHARS_MAX; // of what is shown: an escape takes up to ten
    for (at, c) in text.char_indices() {
        match room.checked_sub(c.escape_debug().count()) {
            Some(left) => room = left,
            None => return format!("{:?}...", &text[..at]),
        }
    }
    format!("{text:?}")
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

/// The way to something, of names that are fit to be shown: its end if it is long.
#[must_use]
pub fn path(path: &str) -> String {
    match path.char_indices().rev().nth(PATH_CHARS_MAX - 1) {
        Some((start, _)) if start > 0 => format!("...{}", &path[start..]),
        _ => path.to_owned(),
    }
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
        check(&"\u{10fffe}".repeat(9), &format!("\"{}\"...", "\\u{10fffe}".repeat(8)));
        check("it's", "\"it's\"");
        assert_eq!(path(&"ä".repeat(1000)), "ä".repeat(1000));
        assert_eq!(path(&format!("b{}", "ä".repeat(1000))), format!("...{}", "ä".repeat(1000)));
        assert_eq!(path(""), "");
        assert_eq!(name("a\u{1b}b"), "a\\u{1b}b");
        assert_eq!(name(&"ä".repeat(81)), format!("{}...", "ä".repeat(80)));
        assert_eq!(sentence("found \"\\u{1b}\u{1b}\n\u{202e}'\" ä", 99), "found \"\\u{1b}\\u{1b}\\n\\u{202e}'\" ä");
        assert_eq!(sentence(&"\u{1b}".repeat(1000), 7), "\\u{1b}\\");
    }
}
