//! What a target says back: no spelling of a secret gets through, and no text takes long (`-timeout`, and the bound of
//! `tests/it/fuzz.rs`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookfleet::domain::failure::ERROR_CHARS_MAX;
use hookfleet::domain::redaction::{REDACTED, Secrets, redact};

/// As much as is ever read of a reply.
const SAID_BYTES_MAX: usize = 128 * 1024;
/// A secret of no other meaning in any spelling, in case the data has none.
const PLAIN: &str = "s3cret~\u{e4}<1>";

/// A line for the secret; what follows is what a target says.
pub fn redaction(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (secret, said) = data.split_at(end);
    let (secret, said) =
        (String::from_utf8_lossy(secret), String::from_utf8_lossy(&said[..said.len().min(SAID_BYTES_MAX)]));
    let secrets = Secrets::new([secret.clone().into_owned(), PLAIN.to_owned()]);
    let shown = redact(&said, &secrets);
    assert!(shown.chars().count() <= ERROR_CHARS_MAX && !shown.contains(char::is_control));
    let secret = secret.trim();
    let hides = secret.len() >= 4 && !REDACTED.contains(secret) && !secret.contains(REDACTED);
    assert!(!hides || !shown.contains(secret), "{secret:?} of {said:?} is shown: {shown:?}");
    // Wherever it stands, and in whichever spelling.
    for spelled in spellings() {
        let before: String = said.chars().take(200).filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect();
        let shown = redact(&format!("{before} said: {spelled} ."), &secrets);
        assert!(shown.contains(REDACTED) && !shown.contains(spelled.trim_matches('"')), "{spelled}: {shown}");
    }
}

fn spellings() -> [String; 5] {
    let json = serde_json::Value::from(PLAIN).to_string();
    [
        json.replace('\u{e4}', "\\u00e4"),
        serde_json::Value::from(json).to_string(),
        PLAIN.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02x}")),
        PLAIN.chars().fold(String::new(), |all, c| all + &format!("&#{};", u32::from(c))),
        STANDARD.encode(PLAIN),
    ]
}
