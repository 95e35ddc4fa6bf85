//! What all readers of JSON have in common.

use bytes::Bytes;

/// A byte order mark in UTF-8. Writers may not add one; readers may ignore it (RFC 8259, 8.1). Some libraries of .NET and
/// Windows write it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The same without a byte order mark at its beginning.
#[must_use]
pub fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json)
}

/// The same without a byte order mark at its beginning.
#[must_use]
pub fn text_without_mark(json: &str) -> &str {
    json.strip_prefix('\u{feff}').unwrap_or(json)
}

/// The same without a byte order mark at its beginning; nothing is copied.
#[must_use]
pub fn bytes_without_mark(json: &Bytes) -> Bytes {
    json.slice_ref(without_mark(json))
}

/// JSON without blanks between its parts, and every part as it was written. The text has to be JSON.
#[must_use]
pub fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut is_text, mut is_escaped) = (false, false);
    for c in json.chars() {
        let is_blank = !is_text && matches!(c, ' ' | '\t' | '\n' | '\r');
        if !is_blank {
            compact.push(c);
        }
        is_text ^= c == '"' && !is_escaped;
        is_escaped = is_text && c == '\\' && !is_escaped;
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_between_parts_are_left_out() {
        for (json, expected) in [
            ("null", "null"),
            (" { \"a b\" : [ 1.50 , 2e3,\t\"\" ] }\r\n", r#"{"a b":[1.50,2e3,""]}"#),
            (r#"{ "a \" b" : "c \\" , "d" : " \\\" " }"#, r#"{"a \" b":"c \\","d":" \\\" "}"#),
        ] {
            assert_eq!(compact(json), expected, "{json}");
        }
    }
}
