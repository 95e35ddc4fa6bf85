//! What a target said, made fit for an error text: one line, short, without the hook's own secrets.

/// Longest excerpt.
pub(super) const EXCERPT_CHARS_MAX: usize = 200;
const HIDDEN: &str = "[hidden]";

/// The beginning of `said` on one line, with every one of `secrets` replaced.
pub(super) fn excerpt(said: &[u8], mut secrets: Vec<String>) -> String {
    let mut text = String::from_utf8_lossy(said).into_owned();
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len())); // the whole before its parts
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), HIDDEN);
        }
    }
    one_line(&text)
}

/// `head`, and what was said if anything was.
pub(super) fn with_excerpt(head: String, said: &str) -> String {
    if said.is_empty() { head } else { format!("{head}: {said}") }
}

/// Runs of white space and control characters become one space each, what has no width goes.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        let mut visible = word.chars().filter(|c| !is_invisible(*c)).peekable();
        if visible.peek().is_some() && !line.is_empty() {
            line.push(' ');
            chars += 1;
        }
        for c in visible {
            if chars >= EXCERPT_CHARS_MAX {
                line.push('…');
                return line;
            }
            line.push(c);
            chars += 1;
        }
    }
    line
}

/// Characters that reorder or hide what stands around them on a terminal.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts() {
        let check = |said: &[u8], secrets: &[&str], expected: &str| {
            let secrets = secrets.iter().map(ToString::to_string).collect();
            assert_eq!(excerpt(said, secrets), expected);
        };
        check(b"", &[], "");
        check(b" \r\n a \x1b[31mb\x00c\t\n", &[], "a [31mb c");
        check("a\u{2028}b \u{202e}c\u{200b} \u{feff} d".as_bytes(), &[], "a b c d");
        check(b"\xff broken", &[], "\u{fffd} broken");
        check(b"token s3cret-s3 s3cret", &["s3cret", "s3cret-s3", ""], "token [hidden] [hidden]");
        check("ä".repeat(201).as_bytes(), &[], &format!("{}…", "ä".repeat(200)));
        check("ä".repeat(200).as_bytes(), &[], &"ä".repeat(200));
    }

    #[test]
    fn a_secret_is_hidden_before_the_text_is_cut() {
        let said = format!("{} {}", "x".repeat(190), "s3cret-that-is-long");
        assert!(!excerpt(said.as_bytes(), vec!["s3cret-that-is-long".to_owned()]).contains("s3c"));
    }
}
