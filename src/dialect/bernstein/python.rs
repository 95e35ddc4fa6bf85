//! JSON as Python's `json` module writes it, from JSON of anybody: keys stay in their order, and numbers as they were written.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How texts and separators are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `json.dumps(value)`: blanks behind `,` and `:`, everything but printable ASCII escaped.
    Default,
    /// As the client library `httpx` writes bodies: no blanks, UTF-8.
    Compact,
}

/// A JSON text in this style.
pub(super) fn dumps(json: &str, style: Style) -> String {
    let mut written = String::with_capacity(json.len() + json.len() / 8);
    let mut rest = json.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            ',' | ':' => {
                written.push(c);
                if style == Style::Default {
                    written.push(' ');
                }
            }
            '"' => text(&mut rest, &mut written, style),
            c => written.push(c),
        }
    }
    written
}

/// One text, behind its opening quote.
fn text(rest: &mut std::str::Chars<'_>, written: &mut String, style: Style) {
    written.push('"');
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => escape(rest, written, style),
            c => character(c, written, style),
        }
    }
    written.push('"');
}

/// One escape, behind its backslash.
fn escape(rest: &mut std::str::Chars<'_>, written: &mut String, style: Style) {
    match rest.next() {
        Some('u') => {
            let unit = unit(rest);
            // Two units may be one character.
            let mut behind = rest.clone();
            if (0xd800..0xdc00).contains(&unit) && behind.next() == Some('\\') && behind.next() == Some('u') {
                let low = self::unit(&mut behind);
                if let Some(Ok(c)) = char::decode_utf16([unit, low]).next() {
                    *rest = behind;
                    return character(c, written, style);
                }
            }
            match char::from_u32(unit.into()) {
                Some(c) => character(c, written, style),
                None => escaped(unit, written), // half of a character
            }
        }
        Some('b') => character('\u{8}', written, style),
        Some('f') => character('\u{c}', written, style),
        Some('n') => character('\n', written, style),
        Some('r') => character('\r', written, style),
        Some('t') => character('\t', written, style),
        Some(c) => character(c, written, style), // a quote, a backslash or a slash
        None => {}
    }
}

fn unit(rest: &mut std::str::Chars<'_>) -> u16 {
    let digits = rest.by_ref().take(4).filter_map(|c| c.to_digit(16));
    digits.fold(0, |unit, digit| unit << 4 | u16::try_from(digit).unwrap_or_default())
}

fn character(c: char, written: &mut String, style: Style) {
    match c {
        '"' => written.push_str("\\\""),
        '\\' => written.push_str("\\\\"),
        '\n' => written.push_str("\\n"),
        '\r' => written.push_str("\\r"),
        '\t' => written.push_str("\\t"),
        '\u{8}' => written.push_str("\\b"),
        '\u{c}' => written.push_str("\\f"),
        ' '..='~' => written.push(c),
        c if style == Style::Default || c < ' ' => {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped(*unit, written));
        }
        c => written.push(c),
    }
}

fn escaped(unit: u16, written: &mut String) {
    let _ = write!(written, "\\u{unit:04x}"); // writing to memory does not fail
}

/// The members of an object, in their order. Of a key that comes twice the last value counts, at the place of the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None`: it is no object.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// A member that is a text, and not an empty one.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|json| serde_json::from_str::<String>(json).ok()).filter(|text| !text.is_empty())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get()))
    }

    fn set(&mut self, name: String, value: &'a RawValue) {
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, there)) => *there = value,
            None => self.0.push((name, value)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some((name, value)) = entries.next_entry::<String, &'de RawValue>()? {
                    members.set(name, value);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// An object of these members, each of which is JSON.
pub(super) fn object<'m>(members: impl IntoIterator<Item = (&'m str, &'m str)>) -> String {
    let members = members.into_iter().map(|(name, value)| format!("{}:{value}", json_text(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// A text as JSON.
pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `{**base, **over}`: members of the second take the place of those of the first.
pub(super) fn updated(base: &str, over: &str) -> String {
    joined(base, over, &|_, over| over.to_owned())
}

/// The same, where objects are joined and not replaced.
pub(super) fn merged(base: &str, over: &str) -> String {
    joined(base, over, &|base, over| match (Members::read(base), Members::read(over)) {
        (Some(_), Some(_)) => merged(base, over),
        _ => over.to_owned(),
    })
}

fn joined(base: &str, over: &str, join: &dyn Fn(&str, &str) -> String) -> String {
    let (base, over) = (Members::read(base).unwrap_or_default(), Members::read(over).unwrap_or_default());
    let kept = base.iter().map(|(name, value)| match over.get(name) {
        Some(over) => (name, join(value, over)),
        None => (name, value.to_owned()),
    });
    let added = over.iter().filter(|(name, _)| base.get(name).is_none()).map(|(name, value)| (name, value.to_owned()));
    let members: Vec<(&str, String)> = kept.chain(added).collect();
    object(members.iter().map(|(name, value)| (*name, value.as_str())))
}

/// With the keys of all objects in order (`sort_keys=True`).
pub(super) fn sorted(json: &str) -> String {
    let json = json.trim();
    if let Some(Members(mut members)) = Members::read(json) {
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let members: Vec<_> = members.iter().map(|(name, value)| (name, sorted(value.get()))).collect();
        return object(members.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    match serde_json::from_str::<Vec<&RawValue>>(json) {
        Ok(items) => format!("[{}]", items.iter().map(|item| sorted(item.get())).collect::<Vec<_>>().join(",")),
        Err(_) => json.to_owned(),
    }
}

/// What Python's module reads as JSON, as strict JSON: `NaN` and infinities become texts, and half of a pair of surrogates the
/// character that stands for what is none.
pub(super) fn strict(json: &str) -> Cow<'_, str> {
    if !["NaN", "Infinity", "\\u"].iter().any(|part| json.contains(part)) {
        return Cow::Borrowed(json);
    }
    let mut written = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            rest = strict_text(&rest[1..], &mut written);
            continue;
        }
        let word = NO_NUMBERS.iter().find(|(word, _)| rest.starts_with(word));
        let (taken, put) = word.map_or((&rest[..c.len_utf8()], None), |(word, text)| (*word, Some(*text)));
        written.push_str(put.unwrap_or(taken));
        rest = &rest[taken.len()..];
    }
    Cow::Owned(written)
}

/// Words that stand for numbers there, and what `str` makes of them.
const NO_NUMBERS: [(&str, &str); 3] = [("NaN", "\"nan\""), ("-Infinity", "\"-inf\""), ("Infinity", "\"inf\"")];

/// One text, from behind its opening quote to behind the closing one; what is left.
fn strict_text<'j>(json: &'j str, written: &mut String) -> &'j str {
    written.push('"');
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        let taken = match (c, rest.get(1..2)) {
            ('"', _) => {
                written.push('"');
                return &rest[1..];
            }
            ('\\', Some("u")) => match surrogate(rest) {
                Some(0xd800..=0xdbff) if rest.get(6..).and_then(surrogate).is_some_and(|low| low >= 0xdc00) => 12,
                Some(_) => {
                    written.push_str("\\ufffd");
                    rest = rest.get(6..).unwrap_or_default();
                    continue;
                }
                None => 2,
            },
            ('\\', Some(_)) => 2,
            (c, _) => c.len_utf8(),
        };
        written.push_str(rest.get(..taken).unwrap_or(rest));
        rest = rest.get(taken..).unwrap_or_default();
    }
    rest
}

/// The surrogate that an escape at the beginning stands for.
fn surrogate(json: &str) -> Option<u32> {
    let unit = u32::from_str_radix(json.strip_prefix("\\u")?.get(..4)?, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

/// Without what Python's `strip` takes away.
pub(super) fn stripped(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// `str(value)` of what strict JSON is read as.
pub(super) fn str_of(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| repr(json))
}

/// `repr(value)` of what strict JSON is read as.
pub(super) fn repr(json: &str) -> String {
    let json = json.trim();
    match json {
        "null" => return "None".to_owned(),
        "true" => return "True".to_owned(),
        "false" => return "False".to_owned(),
        _ => {}
    }
    if let Ok(text) = serde_json::from_str::<String>(json) {
        return repr_text(&text);
    }
    if let Some(members) = Members::read(json) {
        let members = members.iter().map(|(name, value)| format!("{}: {}", repr_text(name), repr(value)));
        return format!("{{{}}}", members.collect::<Vec<_>>().join(", "));
    }
    match serde_json::from_str::<Vec<&RawValue>>(json) {
        Ok(items) => format!("[{}]", items.iter().map(|item| repr(item.get())).collect::<Vec<_>>().join(", ")),
        Err(_) => number(json),
    }
}

fn number(json: &str) -> String {
    if json.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return if json == "-0" { "0".to_owned() } else { json.to_owned() };
    }
    let shown = json.parse::<f64>().map_or_else(|_| json.to_owned(), |number| format!("{number:?}"));
    // Python writes at least two digits of an exponent, and its sign.
    match shown.split_once('e') {
        Some((mantissa, exponent)) => match exponent.strip_prefix('-') {
            Some(digits) => format!("{mantissa}e-{digits:0>2}"),
            None => format!("{mantissa}e+{exponent:0>2}"),
        },
        None => shown,
    }
}

fn repr_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c == quote => shown.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(shown, "\\x{:02x}", u32::from(c)); // writing to memory does not fail
            }
            c => shown.push(c),
        }
    }
    shown.push(quote);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_writes_it() {
        for (json, default, compact) in [
            ("null", "null", "null"),
            (r#"{"a":1.50,"b":[ ]}"#, r#"{"a": 1.50, "b": []}"#, r#"{"a":1.50,"b":[]}"#),
            (
                "\"h\u{e9}\u{2603}\u{1f600}\u{7f}\"",
                r#""h\u00e9\u2603\ud83d\ude00\u007f""#,
                "\"hé\u{2603}\u{1f600}\u{7f}\"",
            ),
            (r#""h\u00e9\ud83d\ude00\u0041""#, r#""h\u00e9\ud83d\ude00A""#, "\"hé\u{1f600}A\""),
            (r#""\ud83d x\udc00\ud800A""#, r#""\ud83d x\udc00\ud800A""#, r#""\ud83d x\udc00\ud800A""#),
            (r#""a,b: \"\\\/\b\f\n\r\t\u0001""#, r#""a,b: \"\\/\b\f\n\r\t\u0001""#, r#""a,b: \"\\/\b\f\n\r\t\u0001""#),
        ] {
            assert_eq!(dumps(json, Style::Default), default, "{json}");
            assert_eq!(dumps(json, Style::Compact), compact, "{json}");
        }
    }

    #[test]
    fn objects_are_joined() {
        let base = r#"{"b":{"x":1,"y":[1]},"a":1}"#;
        assert_eq!(updated(base, r#"{"c":3,"b":{"z":2}}"#), r#"{"b":{"z":2},"a":1,"c":3}"#);
        assert_eq!(merged(base, r#"{"c":3,"b":{"z":2,"y":[2]}}"#), r#"{"b":{"x":1,"y":[2],"z":2},"a":1,"c":3}"#);
        assert_eq!(merged(base, r#"{"b":7,"b":8}"#), r#"{"b":8,"a":1}"#);
        assert_eq!(sorted(r#"{"b":[{"d":1,"c":2}],"a":null}"#), r#"{"a":null,"b":[{"c":2,"d":1}]}"#);
    }

    #[test]
    fn values_as_texts() {
        for (json, expected) in [
            ("\"a\"", "a"),
            ("null", "None"),
            ("7", "7"),
            ("true", "True"),
            (r#"["a","b"]"#, "['a', 'b']"),
            (r#"{"a":"it's"}"#, r#"{'a': "it's"}"#),
            (r#"{"b":1,"a":[2.50,-0]}"#, "{'b': 1, 'a': [2.5, 0]}"),
            ("1e-05", "1e-05"),
            ("1e999", "inf"),
            ("1e16", "1e+16"),
            ("12345678901234567890123", "12345678901234567890123"),
            (r#"["a\tb\u0001'\""]"#, r#"['a\tb\x01\'"']"#),
        ] {
            assert_eq!(str_of(json), expected, "{json}");
        }
    }

    #[test]
    fn what_python_reads_becomes_strict() {
        for (json, expected) in [
            (r#"{"a":NaN,"b":[-Infinity,Infinity]}"#, r#"{"a":"nan","b":["-inf","inf"]}"#),
            (r#"{"a":"NaN \" Infinity","\ud800":1}"#, r#"{"a":"NaN \" Infinity","\ufffd":1}"#),
            (r#""\ud83d\ude00 \ude00 \ud83dx \\ud800 \u0041""#, r#""\ud83d\ude00 \ufffd \ufffdx \\ud800 \u0041""#),
            (r#"["\ud800"#, r#"["\ufffd"#),
            (r#""\u12"#, r#""\u12"#),
            ("\"é\\", "\"é\\"),
        ] {
            assert_eq!(strict(json), expected, "{json}");
        }
        assert_eq!(stripped("\u{1c} \u{a0}{}\n\u{1f}"), "{}");
    }
}
