//! Excerpts of what a target said, fit for an error text: one line, short, without secrets.

use super::redaction::{Secrets, redact};

/// Longest excerpt, in characters.
pub const EXCERPT_CHARS_MAX: usize = 200;

/// The beginning of `said` on one line, with every one of `secrets` replaced, and what looks like one.
#[must_use]
pub fn excerpt(said: &[u8], secrets: Vec<String>) -> String {
    let text = redact(&String::from_utf8_lossy(said), &Secrets::new(secrets));
    match text.char_indices().nth(EXCERPT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// `head`, and behind it what was said, if anything was.
#[must_use]
pub fn with_excerpt(head: String, said: &str) -> String {
    if said.is_empty() { head } else { format!("{head}: {said}") }
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
        check(b"the key s3cret-s3 s3cret", &["s3cret", "s3cret-s3", ""], "the key [REDACTED] [REDACTED]");
        check(b"token: s3cret https://u:p@x.example/way", &[], "token=[REDACTED] https://x.example");
        check("ä".repeat(201).as_bytes(), &[], &format!("{}…", "ä".repeat(200)));
        check("ä".repeat(200).as_bytes(), &[], &"ä".repeat(200));
    }

    #[test]
    fn a_secret_is_hidden_before_the_text_is_cut() {
        let said = format!("{} {}", "x".repeat(190), "s3cret-that-is-long");
        assert!(!excerpt(said.as_bytes(), vec!["s3cret-that-is-long".to_owned()]).contains("s3c"));
    }
}
