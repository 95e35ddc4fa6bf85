//! What a hook of Kheish is called with, and the two keys that are made from it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::event_name::EventName;
use crate::dialect::data;
use crate::domain::escape::quoted;
use crate::domain::event::Event;
use crate::domain::json::compact;

/// Version of the payload, and the highest of an outcome that is read.
pub(super) const CONTRACT_VERSION: u64 = 1;
/// As many characters of a digest stand in a key.
const KEY_CHARS: usize = 32;

/// One event as a hook of Kheish gets it, on stdin, as a request or as a callback's argument. The matcher of the hook is
/// compared with the subject.
///
/// ```
/// use hookfleet::{Answer, Failed, HookInvocation};
///
/// #[derive(serde::Deserialize)]
/// struct Tool {
///     command: String,
/// }
///
/// async fn guard(invocation: HookInvocation<'static>) -> Result<Answer, Failed> {
///     let tool: Tool = invocation.payload().map_err(Failed::never)?; // it will be the same the next time
///     Ok(if tool.command.starts_with("rm ") { Answer::refusal("no rm here") } else { Answer::default() })
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookInvocation<'a> {
    /// The event, such as `pre_tool_use`.
    pub event: &'static EventName,
    /// What it is about, such as the name of a tool.
    pub subject: Option<Cow<'a, str>>,
    pub session_id: Option<Cow<'a, str>>,
    pub agent_id: Option<Cow<'a, str>>,
    pub run_id: Option<Cow<'a, str>>,
    /// JSON without blanks between its parts. Each part is as it was written. `None`: the invocation has no payload, or null.
    pub(super) payload: Option<String>,
}

/// The fields as they come. Others are passed over, as there.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    agent_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    run_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    contract_version: Option<Value>,
}

impl<'a> HookInvocation<'a> {
    /// Reads one, with `contract_version` and `invocation_key` or without. The key is not believed: it is made anew.
    ///
    /// # Errors
    /// One sentence: what was expected and what was found.
    pub fn read(json: &'a [u8]) -> Result<Self, String> {
        let fields: Fields<'a> = serde_json::from_slice(json)
            .map_err(|error| format!("expected an invocation of a hook of Kheish: {error}"))?;
        match fields.contract_version.as_ref().map(Value::as_u64) {
            None | Some(Some(0..=CONTRACT_VERSION)) => {}
            Some(_) => {
                let found = fields.contract_version.unwrap_or_default();
                return Err(format!("expected `contract_version` {CONTRACT_VERSION}, found {found}"));
            }
        }
        let event = EventName::named(&fields.event).ok_or_else(|| {
            format!("expected one of the events of Kheish, such as pre_tool_use, found {}", quoted(&fields.event))
        })?;
        let Fields { subject, session_id, agent_id, run_id, payload, .. } = fields;
        let payload = payload.map(|payload| compact(payload.get())).filter(|payload| payload != "null");
        Ok(Self { event, subject, session_id, agent_id, run_id, payload })
    }

    /// What a hook of Kheish gets of an event. One of Kheish is its own invocation. Any other event is a `notification` whose
    /// subject is the event's type, and whose payload is the whole event.
    ///
    /// # Errors
    /// One sentence: it says that it is one of Kheish's events, and has no such data.
    pub fn of_event(event: &'a Event) -> Result<Self, String> {
        Self::of(&event.kind, &event.body)
    }

    /// The same, of an event of this type in structured JSON.
    ///
    /// # Errors
    /// As [`HookInvocation::of_event`].
    pub fn of(kind: &'a str, body: &'a [u8]) -> Result<Self, String> {
        let Some(name) = EventName::of_type(kind) else {
            const NOTIFICATION: &EventName = &EventName::ALL[25];
            let payload = String::from_utf8_lossy(body);
            return Ok(Self {
                event: NOTIFICATION,
                subject: Some(Cow::Borrowed(kind)),
                session_id: None,
                agent_id: None,
                run_id: None,
                payload: Some(compact(&payload)),
            });
        };
        let data =
            data(body).ok_or_else(|| format!("an event of type {kind} has its invocation as `data`; found none"))?;
        let invocation = Self::read(data.get().as_bytes())?;
        if invocation.event != name {
            return Err(format!(
                "an event of type {kind} is about another event in its data: {}",
                invocation.event.snake
            ));
        }
        Ok(invocation)
    }

    /// The payload. An invocation without one is read as `null`.
    ///
    /// # Errors
    /// It is of another type.
    pub fn payload<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.payload.as_deref().unwrap_or("null"))
    }

    /// The same, which does not borrow from the event.
    #[must_use]
    pub fn into_owned(self) -> HookInvocation<'static> {
        let own = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        let Self { event, subject, session_id, agent_id, run_id, payload } = self;
        HookInvocation {
            event,
            subject: own(subject),
            session_id: own(session_id),
            agent_id: own(agent_id),
            run_id: own(run_id),
            payload,
        }
    }

    /// Compact JSON: what stdin, bodies and `{{invocation_json}}` are made of.
    #[must_use]
    pub fn wire(&self) -> String {
        let mut json = self.json();
        json.pop();
        // Writing to memory does not fail.
        let _ =
            write!(json, r#","contract_version":{CONTRACT_VERSION},"invocation_key":"{}"}}"#, self.invocation_key());
        json
    }

    /// The key of the invocation. Events of equal content have the same one.
    #[must_use]
    pub fn invocation_key(&self) -> String {
        key("hook-invocation-", &self.json())
    }

    /// What an HTTP target tells repeats by: the same for every try of a hook of this name.
    #[must_use]
    pub fn execution_key(&self, hook: &str) -> String {
        let name = Value::from(hook);
        let whole =
            format!(r#"{{"contract_version":{CONTRACT_VERSION},"hook_name":{name},"invocation":{}}}"#, self.json());
        key("hook-execution-", &whole)
    }

    /// SHA-256 over the invocation, as 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.json())
    }

    /// The invocation alone: options that are absent are left out.
    fn json(&self) -> String {
        let mut json = format!(r#"{{"event":"{}""#, self.event.snake);
        let texts = [
            ("subject", &self.subject),
            ("session_id", &self.session_id),
            ("agent_id", &self.agent_id),
            ("run_id", &self.run_id),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                let _ = write!(json, r#","{name}":{}"#, Value::from(text.as_ref()));
            }
        }
        if let Some(payload) = &self.payload {
            let _ = write!(json, r#","payload":{payload}"#);
        }
        json.push('}');
        json
    }
}

fn key(prefix: &str, json: &str) -> String {
    let digest = digest(json);
    format!("{prefix}{}", &digest[..KEY_CHARS])
}

/// SHA-256 over compact JSON with sorted keys. The map of `serde_json` sorts by bytes, and is compact by default; numbers are
/// as that library reads and writes them, there as here.
pub(super) fn digest(json: &str) -> String {
    let sorted: Value = serde_json::from_str(json).unwrap_or_default();
    hex::encode(Sha256::digest(sorted.to_string()))
}
