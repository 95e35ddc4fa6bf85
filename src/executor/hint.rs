//! What a target says about when to ask it again.

use std::time::{Duration, SystemTime};

/// The value of `Retry-After` (RFC 9110, 10.2.3): seconds, or a date in any of the three formats of HTTP. A date that is
/// over is no wait. How much of it is honoured is the retry policy's to say.
#[must_use]
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?.trim_ascii();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_all_its_forms() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:30 GMT").unwrap();
        let check = |value: &[u8], seconds: Option<u64>| {
            let shown = String::from_utf8_lossy(value);
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{shown}");
        };
        check(b"0", Some(0));
        check(b" 120 ", Some(120));
        check(b"99999999999999999999999", Some(u64::MAX));
        check(b"Sun, 06 Nov 1994 08:49:37 GMT", Some(7));
        check(b"Sunday, 06-Nov-94 08:49:37 GMT", Some(7));
        check(b"Sun Nov  6 08:49:37 1994", Some(7));
        check(b"Sun, 06 Nov 1994 08:49:00 GMT", Some(0));
        for nonsense in ["", "-1", "1.5", "+3", "soon", "1994-11-06T08:49:37Z", "\u{661}"] {
            check(nonsense.as_bytes(), None);
        }
        check(b"\xff", None);
    }
}
