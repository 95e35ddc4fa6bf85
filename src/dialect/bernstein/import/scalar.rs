//! What PyYAML reads a scalar as, which is YAML 1.1: `timeout: 1:30` is 90, and `on` is a flag.

use crate::yaml::value::Value;

/// A scalar of YAML 1.1.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Nothing,
    Flag(bool),
    Whole(i128),
    Real(f64),
    Text(String),
}

impl Scalar {
    /// What stands there; `None`: a list or a map.
    pub(super) fn of(value: &Value<'_>) -> Option<Self> {
        if value.is_nothing() {
            return Some(Self::Nothing);
        }
        let (text, is_plain) = value.scalar()?;
        Some(if is_plain { Self::plain(text) } else { Self::Text(text.to_owned()) })
    }

    /// A text that stands there; `None`: it is none.
    pub(super) fn text(value: &Value<'_>) -> Option<String> {
        match Self::of(value) {
            Some(Self::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Without quotes. Dates are texts here, and something else in Python: nothing in a file of hooks is one.
    fn plain(text: &str) -> Self {
        if let Some(flag) = flag(text) {
            return Self::Flag(flag);
        }
        let (is_negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let whole = whole(digits).map(|number| if is_negative { -number } else { number });
        if let Some(number) = whole {
            return Self::Whole(number);
        }
        match real(digits) {
            Some(number) => Self::Real(if is_negative { -number } else { number }),
            None => Self::Text(text.to_owned()),
        }
    }

    /// What Python's `float` makes of it.
    pub(super) fn number(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "as in Python")]
        match self {
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Self::Whole(number) => Some(*number as f64),
            Self::Real(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Nothing => None,
        }
    }

    /// What Python's `str` makes of it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Nothing => "None".to_owned(),
            Self::Flag(true) => "True".to_owned(),
            Self::Flag(false) => "False".to_owned(),
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => format!("{number:?}"),
            Self::Text(text) => text.clone(),
        }
    }
}

fn flag(text: &str) -> Option<bool> {
    let forms = |word: &str| [word.to_lowercase(), word.to_uppercase(), capital(word)];
    let is = |words: [&str; 3]| words.iter().any(|word| forms(word).iter().any(|form| form == text));
    if is(["yes", "true", "on"]) {
        return Some(true);
    }
    is(["no", "false", "off"]).then_some(false)
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{}{rest}", first.to_uppercase())
}

/// Without its sign: decimal, octal after `0`, hexadecimal, binary, or to the base of 60. `_` may stand between digits.
fn whole(digits: &str) -> Option<i128> {
    let plain = digits.replace('_', "");
    let based = |digits: &str, base| {
        let is_good = !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
        is_good.then(|| i128::from_str_radix(digits, base).unwrap_or(i128::MAX))
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Some(rest) = plain.strip_prefix("0x") {
        return based(rest, 16);
    }
    if let Some(rest) = plain.strip_prefix("0b") {
        return based(rest, 2);
    }
    if plain.contains(':') && !plain.starts_with('0') {
        return parts(&plain, |part| based(part, 10)).map(|parts| parts.iter().fold(0, |sum, part| sum * 60 + part));
    }
    if plain.len() > 1 && plain.starts_with('0') { based(&plain[1..], 8) } else { based(&plain, 10) }
}

/// What stands between colons; all but the first below 60.
fn parts(text: &str, read: impl Fn(&str) -> Option<i128>) -> Option<Vec<i128>> {
    let read = |(at, part): (usize, &str)| {
        let number = read(part)?;
        let is_in_range = if at == 0 { number < 1_000_000_000 } else { number < 60 && part.len() <= 2 };
        (is_in_range && at < 8).then_some(number)
    };
    text.split(':').enumerate().map(read).collect()
}

/// Without its sign. An exponent needs one of its own and a point before it.
fn real(digits: &str) -> Option<f64> {
    match digits {
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let plain = digits.replace('_', "");
    let (mantissa, exponent) = plain.split_once(['e', 'E']).map_or((&*plain, None), |(m, e)| (m, Some(e)));
    let (before, after) = mantissa.split_once('.')?;
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_mantissa = are_digits(before) && are_digits(after) && before.len() + after.len() > 0;
    let is_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']);
        digits.is_some_and(|digits| !digits.is_empty() && are_digits(digits))
    });
    (is_mantissa && is_exponent).then(|| plain.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_as_python_has_them() {
        let check = |text: &str, expected: &Scalar| assert_eq!(&Scalar::plain(text), expected, "{text}");
        for (text, number) in [
            ("0", 0),
            ("30", 30),
            ("-1", -1),
            ("+7", 7),
            ("1_0", 10),
            ("0x10", 16),
            ("010", 8),
            ("0b11", 3),
            ("1:30", 90),
            ("1:00:00", 3600),
        ] {
            check(text, &Scalar::Whole(number));
        }
        for (text, number) in [("1.5", 1.5), ("-.5", -0.5), ("2.", 2.0), ("1.0e+3", 1000.0), (".inf", f64::INFINITY)] {
            check(text, &Scalar::Real(number));
        }
        for (text, flag) in [("yes", true), ("On", true), ("TRUE", true), ("no", false), ("off", false)] {
            check(text, &Scalar::Flag(flag));
        }
        for text in ["5s", "a.sh", "1e3", "1.0e3", "1:75", "08", "y", "0x", "-", ".", "_1", "::"] {
            check(text, &Scalar::Text(text.to_owned()));
        }
        check("99999999999999999999999999999999999999999999", &Scalar::Whole(i128::MAX));
    }

    #[test]
    fn texts_as_python_has_them() {
        for (scalar, shown, number) in [
            (Scalar::Nothing, "None", None),
            (Scalar::Flag(true), "True", Some(1.0)),
            (Scalar::Whole(7), "7", Some(7.0)),
            (Scalar::Real(2.5), "2.5", Some(2.5)),
            (Scalar::Text(" 5 ".to_owned()), " 5 ", Some(5.0)),
            (Scalar::Text("5s".to_owned()), "5s", None),
        ] {
            assert_eq!((scalar.shown(), scalar.number()), (shown.to_owned(), number), "{scalar:?}");
        }
    }
}
