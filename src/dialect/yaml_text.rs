//! Writes YAML that reads back as what it was made of, for hooks files that an importer makes.

use serde_json::Value;

/// Longest line of a comment.
const COLUMNS: usize = 110;

/// A text as a scalar: plain where that cannot be taken for anything else, else in double quotes.
#[must_use]
pub(super) fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes. Everything that is no printable character, or a line break to some, is escaped.
#[must_use]
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => push_escaped(&mut quoted, c),
            c if c.is_control() => push_escaped(&mut quoted, c),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn push_escaped(text: &mut String, c: char) {
    let escape = format!("\\u{:04x}", u32::from(c));
    text.push_str(&escape);
}

/// Words and names, and nothing that YAML reads as a number, a flag or nothing.
fn is_plain(text: &str) -> bool {
    const OTHERS: [&str; 11] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(is_word)
        && !OTHERS.contains(&text.to_ascii_lowercase().as_str())
}

/// JSON on one line.
#[must_use]
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{}: {}", quoted_key(name), flow(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A key of a map on one line.
fn quoted_key(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { quoted(name) }
}

/// How deep a value is nested; a scalar is 0 deep.
#[must_use]
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// A comment of as many lines as it takes. No character of the text can end it.
#[must_use]
pub(super) fn comment(indent: usize, text: &str) -> String {
    let begin = format!("{}# ", " ".repeat(indent));
    let mut lines = Vec::new();
    let mut line = begin.clone();
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_control() && *c != '\u{feff}').collect();
        let is_empty = line.len() == begin.len();
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::replace(&mut line, begin.clone()));
        } else if !is_empty {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    let ended: Vec<String> = lines.iter().map(|line| format!("{}\n", line.trim_end())).collect();
    ended.concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::yaml::report::Report;
    use crate::yaml::value::Value as Tree;

    /// What YAML reads.
    fn read(yaml: &str) -> Value {
        let report = Report::new("t.yaml", yaml);
        let node = crate::yaml::parse(&report);
        let json = node.as_ref().and_then(|node| Tree::root(&report, node).json());
        report.into_result(json).unwrap_or_else(|problems| panic!("{yaml:?}: {problems}"))
    }

    #[test]
    fn scalars_are_plain_where_they_can_be() {
        let check = |text: &str, expected: &str| {
            assert_eq!(scalar(text), expected);
            assert_eq!(read(&format!("a: {expected}"))["a"], json!(text));
        };
        check("bash-guard", "bash-guard");
        check("kheish.pre_tool_use", "kheish.pre_tool_use");
        check("bash*", "\"bash*\"");
        check("", "\"\"");
        check("No", "\"No\"");
        check("12", "\"12\"");
        check("a: b # c", "\"a: b # c\"");
        check(
            "say \"hi\" \\ \n\t\u{1b}\u{85}\u{2028}\u{7f}\0é😀",
            "\"say \\\"hi\\\" \\\\ \\n\\t\\u001b\\u0085\\u2028\\u007f\\u0000é😀\"",
        );
    }

    #[test]
    fn values_are_written_on_one_line() {
        let value = json!({ "a": [1, -2.5, true, null, "x"], "b c": {}, "d": { "e": "{{ f }}" }, "g": [] });
        let line = r#"{ a: [1, -2.5, true, null, "x"], "b c": {}, d: { e: "{{ f }}" }, g: [] }"#;
        assert_eq!(flow(&value), line);
        assert_eq!(read(line), value);
        assert_eq!((depth(&value), depth(&json!(1)), depth(&json!([[]]))), (2, 0, 2));
    }

    #[test]
    fn comments_stay_comments() {
        assert_eq!(comment(2, "one two"), "  # one two\n");
        assert_eq!(comment(0, ""), "#\n");
        let long = comment(4, &"word\u{1b}\u{85}x \n".repeat(60));
        assert!(long.lines().count() > 2 && long.lines().all(|line| line.starts_with("    # w") && line.len() <= 110));
        assert_eq!(read(&format!("{long}a: 1\n")), json!({ "a": 1 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text: String, other: String) {
            let value = json!({ "text": text.as_str(), "list": [other.as_str(), { "key": text.as_str() }] });
            let scalar = scalar(&text);
            prop_assert_eq!(&read(&format!("a: {scalar}\nb: {}\n", flow(&value))), &json!({ "a": text, "b": value }));
        }
    }
}
