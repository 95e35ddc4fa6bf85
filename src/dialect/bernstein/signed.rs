//! Signatures of what Bernstein sends (3.23.0): `sha256=` and the HMAC-SHA256 in hexadecimal digits, of the body alone or of a
//! timestamp and the body.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How far a timestamp may be from now, in seconds.
const SKEW_S: u64 = 300;
const PREFIX: &str = "sha256=";
const DIGITS: usize = 64;

/// Whether a header signs these parts, one behind the other. Case and blanks around it do not matter; a key that is empty signs
/// nothing. Takes as long whatever the signature is.
#[must_use]
pub fn is_signed(key: &str, header: &str, parts: &[&[u8]]) -> bool {
    let header = header.trim().to_lowercase();
    let digits = header.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS);
    let (Some(signature), false) = (digits.and_then(bytes), key.is_empty()) else { return false };
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return false };
    let mac = parts.iter().fold(mac, Mac::chain_update);
    mac.verify_slice(&signature).is_ok()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.as_bytes().chunks(2).map(|pair| Some(digit(pair.first()?)? * 16 + digit(pair.get(1)?)?)).collect()
}

/// Seconds since 1970, as a header has them: digits alone.
#[must_use]
pub fn seconds(header: &str) -> Option<u64> {
    let digits = header.trim();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Whether a timestamp is near enough to now, both in seconds.
#[must_use]
pub const fn is_recent(timestamp: u64, now: u64) -> bool {
    timestamp.abs_diff(now) <= SKEW_S
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn signatures_as_its_own_verifier_has_them() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../../../tests/vectors/bernstein-signatures.json")).unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let text = |name: &str| case[name].as_str().unwrap();
            let found = is_signed(text("secret"), text("signature"), &[text("payload").as_bytes()]);
            assert_eq!(found, case["result"].as_bool().unwrap(), "{case}");
        }
    }

    #[test]
    fn parts_are_signed_as_one() {
        let signature = "sha256=5910e62016ef5034272c926c27071992a465c2335cecf41851bda071577f4f6d";
        assert!(is_signed("s3cret", signature, &[b"{\"a\"", b":1}"]));
        assert!(!is_signed("s3cret", signature, &[b"{\"a\"", b":1}", b" "]));
    }

    #[test]
    fn timestamps() {
        for (header, expected) in [
            ("1712345678", Some(1_712_345_678)),
            (" 17 ", Some(17)),
            ("17.5", None),
            ("-17", None),
            ("+17", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(seconds(header), expected, "{header:?}");
        }
        for (timestamp, expected) in [(700, true), (699, false), (1300, true), (1301, false), (1_000_000, false)] {
            assert_eq!(is_recent(timestamp, 1000), expected, "{timestamp}");
        }
    }
}
