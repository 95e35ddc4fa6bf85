//! Which session and which run an event belongs to: what people look for when something failed.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest name that is kept.
const BYTES_MAX: usize = 256;

/// The session and the run that an event names: in its data, as `session_id` and `run_id`, or in the extension attributes
/// `sessionid` and `runid`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    pub session: Option<String>,
    pub run: Option<String>,
}

/// What is looked at of an event in structured JSON.
#[derive(Default, Deserialize)]
struct Attributes<'a> {
    #[serde(default, borrow)]
    sessionid: Option<&'a RawValue>,
    #[serde(default, borrow)]
    runid: Option<&'a RawValue>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Data<'a> {
    #[serde(default, borrow)]
    session_id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    run_id: Option<&'a RawValue>,
}

impl Origin {
    /// Of an event in structured JSON; anything else names none.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let attributes: Attributes<'_> = serde_json::from_slice(body).unwrap_or_default();
        let data = attributes.data.and_then(|data| serde_json::from_str(data.get()).ok());
        let data: Data<'_> = data.unwrap_or_default();
        let named =
            |own: Option<&RawValue>, attribute: Option<&RawValue>| own.and_then(name).or(attribute.and_then(name));
        Self { session: named(data.session_id, attributes.sessionid), run: named(data.run_id, attributes.runid) }
    }
}

fn name(value: &RawValue) -> Option<String> {
    let name: String = serde_json::from_str(value.get()).ok()?;
    (!name.is_empty() && name.len() <= BYTES_MAX).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_and_runs() {
        let check = |body: &str, session: Option<&str>, run: Option<&str>| {
            let expected = Origin { session: session.map(str::to_owned), run: run.map(str::to_owned) };
            assert_eq!(Origin::of(body.as_bytes()), expected, "{body}");
        };
        check(r#"{"data":{"session_id":"s","run_id":"r"},"sessionid":"other"}"#, Some("s"), Some("r"));
        check(r#"{"sessionid":"s","runid":"r","data":[1]}"#, Some("s"), Some("r"));
        check(r#"{"data":{"session_id":7,"run_id":""},"runid":"r"}"#, None, Some("r"));
        check(r#"{"data":"session_id"}"#, None, None);
        check("{ no json", None, None);
        check(&format!(r#"{{"runid":"{}"}}"#, "x".repeat(257)), None, None);
    }
}
