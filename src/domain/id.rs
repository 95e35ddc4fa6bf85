//! The identities that everything else is named by: of hooks, events, invocations and dead letters.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::escape::quoted;

/// The id of a hook: 1 to 128 of `a-z A-Z 0-9 . _ -`, starting with a letter or digit. It is part of every
/// invocation's key, so it is never reused for another purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookId(Arc<str>);

impl HookId {
    /// # Errors
    /// What was expected and what was found.
    pub fn new(id: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let first = id.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && id.len() <= 128 && id.chars().all(legal) {
            Ok(Self(id.into()))
        } else {
            let found = quoted(id);
            Err(format!(
                "expected 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit, found {found}"
            ))
        }
    }

    /// Of no hook: a request to gates is claimed under it, for all of them together.
    #[must_use]
    pub fn of_requests() -> Self {
        Self("~gates".into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for HookId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The identity of an event as 16 bytes: SHA-256 of (source, id), cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventDigest(pub [u8; 16]);

impl EventDigest {
    #[must_use]
    pub fn of(source: &str, id: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((source.len() as u64).to_be_bytes()); // so that no two pairs run together
        hash.update(source);
        hash.update(id);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(bytes)
    }
}

impl From<EventDigest> for String {
    fn from(digest: EventDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for EventDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for EventDigest {
    type Err = String;

    /// As `Display` writes it.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 16];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if !text.bytes().any(|byte| byte.is_ascii_uppercase()) => Ok(Self(bytes)),
            Ok(()) | Err(_) => Err(format!("expected the 32 hexadecimal digits of an event, found {}", quoted(text))),
        }
    }
}

impl fmt::Display for EventDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// The event whose letter another one stands for, which was made of it with other data.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct EditedFrom {
    #[schema(value_type = String)]
    pub event: EventDigest,
    /// Its id, unless it is too long to be carried along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl EditedFrom {
    /// Longest id that is carried along, in bytes.
    const ID_BYTES_MAX: usize = 1024;

    /// The event with this source and id.
    #[must_use]
    pub fn new(source: &str, id: &str) -> Self {
        let named = Some(id.to_owned()).filter(|id| id.len() <= Self::ID_BYTES_MAX);
        Self { event: EventDigest::of(source, id), id: named }
    }
}

/// The key of an invocation, stable over redeliveries, attempts and replays.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InvocationKey {
    pub event: EventDigest,
    pub hook: HookId,
}

impl InvocationKey {
    /// Of an event as a request to gates.
    #[must_use]
    pub fn of_request(event: EventDigest) -> Self {
        Self { event, hook: HookId::of_requests() }
    }
}

impl fmt::Display for InvocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.event, self.hook)
    }
}

/// The id of a letter: a digest, so that the same failure always has the same id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct LetterId(String);

impl LetterId {
    /// The digest of these parts, with their lengths, so that no two lists of parts run together.
    pub(super) fn digest(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hex::encode(&hash.finalize()[..12]))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its digest, by which it is looked up; of an id that is none, one of its own.
    #[must_use]
    pub fn bytes(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        if hex::decode_to_slice(&self.0, &mut bytes).is_err() {
            bytes.copy_from_slice(&Sha256::digest(&self.0)[..12]);
        }
        bytes
    }
}

impl From<&str> for LetterId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_ids() {
        for good in ["a", "notify-oncall", "A.b_c-9"] {
            assert!(HookId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(HookId::new(bad).is_err(), "{bad}");
        }
        let error = HookId::new("\u{1b}[31m").unwrap_err();
        assert!(error.ends_with("\\u{1b}[31m\""), "{error}");
    }

    #[test]
    fn the_identity_of_an_event_is_its_source_and_id() {
        assert_ne!(EventDigest::of("ab", "c"), EventDigest::of("a", "bc"));
    }
}
