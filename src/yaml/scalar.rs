//! Parsers of single values, the same for files, environment and flags. Each gives a function from text to value; what
//! it says of an empty text describes what it takes.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::problem::Mismatch;

/// The units of durations, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A duration within a range: an integer or decimal with one of the units ms, s, m, h, d. Plain `0` is one too.
pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, Mismatch> {
    move |text| {
        let Some(duration) = parse_duration(text) else {
            let mismatch = Mismatch::new("a duration such as 500ms, 10s, 5m, 1h or 7d");
            let bare = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            return Err(if bare { mismatch.help(format!("with its unit: {text}s")) } else { mismatch });
        };
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (from, to) = (show_duration(*range.start()), show_duration(*range.end()));
        Err(Mismatch::new(format!("a duration from {from} to {to}")))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let unit_start = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_start);
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * Duration::from_millis(*unit_ms).as_secs_f64()).ok()
}

/// In the longest unit that gives a whole number.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let whole = UNITS.iter().find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(u128::from(*unit_ms)));
    whole.map_or_else(|| "0s".to_owned(), |(name, unit_ms)| format!("{}{name}", ms / u128::from(*unit_ms)))
}

/// A whole number within a range.
pub fn count<T: FromStr + PartialOrd + Display>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Mismatch> {
    within("a whole number", range)
}

/// A number of bytes within a range: an integer with one of the units KiB, MiB, GiB, or without.
pub fn bytes(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, Mismatch> {
    move |text| {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let with_unit = units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (number, unit) = with_unit.unwrap_or((text, 1_u64));
        let found = number.trim_end().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        found.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            Mismatch::new(format!("bytes such as 512MiB or 2GiB, from {} to {}", range.start(), range.end()))
        })
    }
}

/// A number within a range.
pub fn number(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, Mismatch> {
    within("a number", range)
}

fn within<T: FromStr + PartialOrd + Display>(
    what: &'static str,
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, Mismatch> {
    move |text| {
        let value = text.parse().ok().filter(|value| range.contains(value));
        value.ok_or_else(|| Mismatch::new(format!("{what} from {} to {}", range.start(), range.end())))
    }
}

/// `true` or `false`.
pub fn flag(text: &str) -> Result<bool, Mismatch> {
    one_of(&[("true", true), ("false", false)])(text)
}

/// One of a few words, each with its meaning.
pub fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, Mismatch> {
    move |text| {
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let listed: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        Err(Mismatch::new(listed.join(" or ")).did_you_mean(text, words.iter().map(|(word, _)| *word)))
    }
}

/// Any text but an empty one, without NUL, which no operating system takes. `what` says what it stands for.
pub fn text(what: &'static str) -> impl Fn(&str) -> Result<String, Mismatch> {
    move |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(Mismatch::new(what));
        }
        Ok(text.to_owned())
    }
}

/// The name of an environment variable.
pub fn variable(text: &str) -> Result<String, Mismatch> {
    if text.is_empty() || text.contains(['=', '\0']) {
        return Err(Mismatch::new("the name of an environment variable"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u128>| {
            let read = duration(Duration::ZERO..=Duration::from_hours(24 * 3650))(text);
            assert_eq!(read.ok().map(|duration| duration.as_micros()), expected, "{text}");
        };
        check("500ms", Some(500_000));
        check("10s", Some(10_000_000));
        check("0.25s", Some(250_000));
        check("1.5h", Some(5_400_000_000));
        check("5m", Some(300_000_000));
        check("7d", Some(604_800_000_000));
        check("3.3ms", Some(3300));
        check("0", Some(0));
        check("0s", Some(0));
        for bad in [
            "",
            "10",
            "s",
            ".5s",
            "5.s",
            "1.2.3s",
            "-1s",
            "+1s",
            "1 s",
            "1h30m",
            "1S",
            "1e3s",
            "inf",
            "NaNs",
            "10 parsecs",
            "99999999999999999999999d",
            "3651d",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn ranges_are_named() {
        let check = |text: &str, expected: &str| {
            let mismatch = duration(Duration::from_millis(1)..=Duration::from_hours(24))(text).unwrap_err();
            assert_eq!(format!("{} | {}", mismatch.expected, mismatch.help.unwrap_or_default()), expected);
        };
        check("0s", "a duration from 1ms to 1d | ");
        check("25h", "a duration from 1ms to 1d | ");
        check("10", "a duration such as 500ms, 10s, 5m, 1h or 7d | with its unit: 10s");
        check("10 parsecs", "a duration such as 500ms, 10s, 5m, 1h or 7d | ");
    }

    #[test]
    fn durations_are_shown_in_the_longest_whole_unit() {
        let check = |ms: u64, expected: &str| assert_eq!(show_duration(Duration::from_millis(ms)), expected);
        check(0, "0s");
        check(1500, "1500ms");
        check(60_000, "1m");
        check(90_000, "90s");
        check(86_400_000, "1d");
    }

    #[test]
    fn numbers_and_words() {
        assert_eq!(count(1..=9u16)("9"), Ok(9));
        for bad in ["0", "10", "1.5", "x", "", "-1", "99999"] {
            assert_eq!(count(1..=9u16)(bad), Err(Mismatch::new("a whole number from 1 to 9")), "{bad}");
        }
        assert_eq!(number(0.0..=1.0)("0.2"), Ok(0.2));
        for bad in ["NaN", "inf", "1.1", "-0.1", ""] {
            assert!(number(0.0..=1.0)(bad).is_err(), "{bad}");
        }
        assert_eq!(flag("true"), Ok(true));
        assert_eq!(flag("flase"), Err(Mismatch::new("`true` or `false`").help("did you mean `false`?")));
        assert_eq!(flag("yes"), Err(Mismatch::new("`true` or `false`")));
        assert!(text("a word")("").is_err() && text("a word")("a\0").is_err());
        assert!(variable("A=B").is_err());
    }
}
