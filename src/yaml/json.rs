//! A tree as JSON, by YAML 1.2's core schema: what has no quotes may be a number, a flag or nothing.

use serde_json::{Map, Number, Value as Json};

use super::problem::Mismatch;
use super::value::{Value, all};
use super::{Kind, Node};

impl Value<'_> {
    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Option<Json> {
        let Node { kind, plain, .. } = self.node();
        match kind {
            Kind::Nothing => Some(Json::Null),
            Kind::Refused => None,
            Kind::Text(text) if *plain => match scalar(text) {
                Ok(scalar) => Some(scalar),
                Err(mismatch) => {
                    self.wrong(mismatch);
                    None
                }
            },
            Kind::Text(text) => Some(Json::String(text.clone())),
            Kind::List(_) => self.list(|item| item.json()).map(Json::Array),
            Kind::Map(_) => {
                let entries = self.entries()?.into_iter().map(|(key, value)| Some((key.name.clone(), value.json()?)));
                Some(Json::Object(all(entries)?.into_iter().collect::<Map<_, _>>()))
            }
        }
    }

    /// What a JSON pointer into it leads to, or the last thing on the way that is there.
    #[must_use]
    pub fn at_pointer(&self, pointer: &str) -> Self {
        let mut at = self.clone();
        for segment in pointer.split('/').skip(1) {
            let name = segment.replace("~1", "/").replace("~0", "~");
            let Some(next) = at.child_named(&name) else { break };
            at = next;
        }
        at
    }

    fn child_named(&self, name: &str) -> Option<Self> {
        match &self.node().kind {
            Kind::Map(_) => self.entries()?.into_iter().find(|(key, _)| key.name == name).map(|(_, value)| value),
            Kind::List(_) => self.item(name.parse().ok()?),
            Kind::Nothing | Kind::Text(_) | Kind::Refused => None,
        }
    }
}

/// YAML 1.2.2, 10.3.2.
fn scalar(text: &str) -> Result<Json, Mismatch> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix)?;
        let number = digits.chars().all(|c| c.is_digit(radix)).then(|| u64::from_str_radix(digits, radix).ok())??;
        Some(Json::Number(number.into()))
    };
    match text {
        "true" | "True" | "TRUE" => return Ok(Json::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Json::Bool(false)),
        _ => {}
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(Mismatch::new("a number that JSON has").help("quote it if a text is meant"));
    }
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Ok(number);
    }
    Ok(number(sign, digits).map_or_else(|| Json::String(text.to_owned()), Json::Number))
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn number(sign: &str, digits: &str) -> Option<Number> {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if exponent.is_some_and(|exponent| !is_digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))) {
        return None;
    }
    match (mantissa.split_once('.'), exponent) {
        (None, None) if is_digits(mantissa) => {
            let whole = format!("{sign}{mantissa}");
            let small = whole.parse::<i64>().map(Number::from).or_else(|_| whole.parse::<u64>().map(Number::from));
            small.ok().or_else(|| Number::from_f64(whole.parse().ok()?))
        }
        (None, Some(_)) if is_digits(mantissa) => float(sign, digits),
        (Some(("", after)), _) if is_digits(after) => float(sign, digits),
        (Some((before, after)), _) if is_digits(before) && (after.is_empty() || is_digits(after)) => {
            float(sign, digits)
        }
        _ => None,
    }
}

fn float(sign: &str, digits: &str) -> Option<Number> {
    Number::from_f64(format!("{sign}{digits}").parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::*;

    fn check(text: &str, expected: &str) {
        let report = Report::new("t.yaml", text);
        let node = super::super::parse(&report).unwrap();
        let json = Value::root(&report, &node).json();
        let shown = match report.into_result(json) {
            Ok(json) => json.to_string(),
            Err(problems) => {
                problems.list().iter().map(|problem| format!("{problem:#}")).collect::<Vec<_>>().join("\n")
            }
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn trees_as_json() {
        check("{b: [x, {c: ~}], a: null}", r#"{"a":null,"b":["x",{"c":null}]}"#);
        check("[true, False, 'true', \"1\", yes, on]", r#"[true,false,"true","1","yes","on"]"#);
        check("[1, -2, +3, 007, 0o17, 0x1F, 18446744073709551615]", "[1,-2,3,7,15,31,18446744073709551615]");
        check(
            "[1.5, -.5, 1., 1e3, 1.5E-3, 340282366920938463463374607431768211456]",
            "[1.5,-0.5,1.0,1000.0,0.0015,3.402823669209385e+38]",
        );
        check(
            "[1.2.3, 1e, '-', 0xg, 1_000, 12:30, 2026-11-21, 1e999]",
            r#"["1.2.3","1e","-","0xg","1_000","12:30","2026-11-21","1e999"]"#,
        );
        check("a: |\n  1\nb: >\n  2\n", "{\"a\":\"1\\n\",\"b\":\"2\\n\"}");
        check("{1: x, null: y}", r#"{"1":"x","null":"y"}"#);
        check("[.inf, a]", "1:2 [0]: expected a number that JSON has, found \".inf\"");
    }

    #[test]
    fn pointers_lead_as_far_as_they_can() {
        let report = Report::new("t.yaml", "a: {'x/y': [1, {z~: 2}]}");
        let node = super::super::parse(&report).unwrap();
        let root = Value::root(&report, &node);
        let check = |pointer: &str, expected: &str| assert_eq!(root.at_pointer(pointer).path(), expected, "{pointer}");
        check("", "");
        check("/a", "a");
        check("/a/x~1y/1/z~0", "a.x/y[1].z~");
        check("/a/x~1y/7/z", "a.x/y");
        check("/a/b/c", "a");
    }
}
