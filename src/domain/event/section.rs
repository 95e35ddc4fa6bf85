//! The body of an AMQP 1.0 message that RabbitMQ hands to an AMQP 0.9.1 consumer as it is encoded.
//!
//! RabbitMQ takes data sections apart. Of any other body it hands over the encoded section, and says so in the property
//! `type`. Many AMQP 1.0 clients send text in such a section unless they are asked for another (`amqp-value`).

use bytes::Bytes;

use super::{Malformed, malformed};
use crate::domain::failure::Class;

/// Descriptors of sections (AMQP 1.0, part 3, 3.2).
const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

/// Whether a body begins with an encoded section.
pub(super) fn is_section(body: &[u8]) -> bool {
    descriptor(body).is_some()
}

/// The text or the bytes in a section; those of several data sections one after the other.
pub(super) fn content(body: &Bytes) -> Result<Bytes, Malformed> {
    let mut rest = body.as_ref();
    let mut content: Option<Bytes> = None;
    while let Some((kind, value)) = descriptor(rest) {
        if kind == FOOTER {
            return content.ok_or_else(|| expected("no section with a body"));
        }
        let (bytes, after) = match kind {
            DATA | VALUE => bytes(value).map_err(|found| expected(&format!("{} with {found}", name(kind))))?,
            _ => return Err(expected(&name(kind))),
        };
        content = Some(match content {
            None => body.slice_ref(bytes),
            Some(_) if kind == VALUE => return Err(expected("several amqp-value sections")),
            Some(before) => [&before, bytes].concat().into(),
        });
        rest = after;
    }
    content.filter(|_| rest.is_empty()).ok_or_else(|| expected("other bytes between sections"))
}

fn expected(found: &str) -> Malformed {
    let expected = "expected the event in a data section of AMQP 1.0, or as text or binary in an amqp-value section";
    malformed(Class::Unreadable, format!("{expected}; found {found}: send a data section"))
}

fn name(kind: u64) -> String {
    match kind {
        DATA => "a data section".to_owned(),
        SEQUENCE => "an amqp-sequence section".to_owned(),
        VALUE => "an amqp-value section".to_owned(),
        other => format!("a section with the descriptor {other:#x}"),
    }
}

/// The number that describes a section (part 1, 1.2), and what stands behind it.
fn descriptor(body: &[u8]) -> Option<(u64, &[u8])> {
    match body.strip_prefix(&[0x00])?.split_first()? {
        (0x53, rest) => rest.split_first().map(|(code, rest)| (u64::from(*code), rest)),
        (0x80, rest) => rest.split_first_chunk().map(|(code, rest)| (u64::from_be_bytes(*code), rest)),
        _ => None,
    }
}

/// The bytes of a text or a binary value (part 1, 1.6), and what stands behind it; of null, none.
fn bytes(value: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let Some((code, rest)) = value.split_first() else { return Err("nothing in it") };
    let taken = match code {
        0x40 => Some((&rest[..0], rest)),
        0xa0 | 0xa1 => rest.split_first().and_then(|(length, rest)| rest.split_at_checked(usize::from(*length))),
        0xb0 | 0xb1 => rest
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)),
        _ => return Err(what(*code)),
    };
    taken.ok_or("a text or binary value that is cut off")
}

fn what(code: u8) -> &'static str {
    match code {
        0xc1 | 0xd1 => "a map",
        0x45 | 0xc0 | 0xd0 => "a list",
        0xe0 | 0xf0 => "an array",
        0x41 | 0x42 | 0x56 => "a boolean",
        0x50..=0x55 | 0x60 | 0x61 | 0x70..=0x72 | 0x74 | 0x80..=0x82 | 0x84 | 0x94 | 0x43 | 0x44 => "a number",
        0x73 => "a character",
        0x83 => "a timestamp",
        0x98 => "a UUID",
        0xa3 | 0xb3 => "a symbol",
        0x00 => "a described value",
        _ => "a value of an unknown type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], expected: &str) {
        let found = match content(&Bytes::copy_from_slice(body)) {
            Ok(content) => String::from_utf8_lossy(&content).into_owned(),
            Err(malformed) => malformed.error,
        };
        assert!(found.contains(expected), "{body:?}\n found: {found}\n expected: {expected}");
    }

    #[test]
    fn text_and_binary_are_taken_out() {
        let text = br#"{"n":1}"#;
        for (code, long) in [(0xa1, false), (0xb1, true), (0xa0, false), (0xb0, true)] {
            let length = if long { vec![0, 0, 0, 7] } else { vec![7] };
            for descriptor in [vec![0, 0x53, 0x77], vec![0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x77]] {
                let whole = [descriptor, vec![code], length.clone(), text.to_vec()].concat();
                check(&whole, r#"{"n":1}"#);
                assert!(is_section(&whole));
                let footer = [&whole[..], &[0, 0x53, 0x78, 0xc1, 1, 0]].concat();
                check(&footer, r#"{"n":1}"#);
                check(&whole[..whole.len() - 1], "an amqp-value section with a text or binary value that is cut off");
                check(&[&whole[..], b"x"].concat(), "found other bytes between sections");
            }
        }
        check(&[0, 0x53, 0x75, 0xa0, 2, b'{', b'"', 0, 0x53, 0x75, 0xa0, 1, b'}'], "{\"}");
        check(&[0, 0x53, 0x77, 0x40], ""); // null is what a client without a body sends
    }

    #[test]
    fn other_values_are_named() {
        check(&[0, 0x53, 0x77, 0xc1, 1, 0], "found an amqp-value section with a map: send a data section");
        check(&[0, 0x53, 0x77, 0xd1, 0, 0, 0, 4, 0, 0, 0, 0], "an amqp-value section with a map");
        check(&[0, 0x53, 0x77, 0x45], "an amqp-value section with a list");
        check(&[0, 0x53, 0x77, 0x54, 7], "an amqp-value section with a number");
        check(&[0, 0x53, 0x77, 0x41], "an amqp-value section with a boolean");
        check(&[0, 0x53, 0x76, 0x45], "found an amqp-sequence section: send a data section");
        check(&[0, 0x53, 0x77], "an amqp-value section with nothing in it");
        for none in [&b""[..], b"{}", b"\0", b"\0\x53"] {
            assert!(!is_section(none));
        }
    }
}
