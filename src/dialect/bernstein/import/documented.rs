//! The form of Bernstein's documentation: `type: webhook`, `script` or `blocking_script` at an event such as `task.completed`. No
//! version of it reads that.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::Reading;
use super::draft::{Draft, Said, attempts, said};
use super::entry::{field, literal, referring, required, unknown};
use super::scalar::Scalar;
use crate::dialect::bernstein::names::Surface;
use crate::dialect::import::Remark;
use crate::domain::hook::OnFailure;
use crate::yaml::problem::Mismatch;
use crate::yaml::value::Value;

/// Tries in all, where an entry does not say `retry`.
const TRIES: u32 = 3;
const TRIES_MAX: u32 = 100;
/// Seconds, where an entry does not say `timeout_s`.
const WEBHOOK_S: f64 = 10.0;
const SCRIPT_S: f64 = 30.0;
const BLOCKING_S: f64 = 5.0;

pub(super) fn read(event: &str, entry: &Value<'_>, reading: &mut Reading) {
    let kind = field(entry, "type").and_then(|value| Some((Scalar::of(&value)?, value)));
    let draft = match kind {
        Some((Scalar::Text(kind), _)) if kind == "webhook" => webhook(event, entry),
        Some((Scalar::Text(kind), _)) if kind == "script" => script(event, entry, false, reading),
        Some((Scalar::Text(kind), _)) if kind == "blocking_script" => script(event, entry, true, reading),
        _ => {
            let value = field(entry, "type").unwrap_or_else(|| entry.clone());
            value.wrong(Mismatch::new("webhook, script or blocking_script"));
            None
        }
    };
    if let Some(mut draft) = draft {
        draft.general.push(said(
            "No version of Bernstein reads this form of its documentation: its own parser refuses the events. Here it runs as it is \
             documented",
            Remark::NOTHING,
        ));
        reading.add(draft);
    }
}

fn webhook(event: &str, entry: &Value<'_>) -> Option<Draft> {
    let mut remarks = Vec::new();
    let url = required(entry, "url").and_then(|value| referring(&value.secret(), "url", &mut remarks));
    let secret = match field(entry, "secret") {
        None => Some(None),
        Some(value) => referring(&value.secret(), "secret", &mut remarks).map(Some),
    };
    let (seconds, tries) = (seconds(entry, WEBHOOK_S), tries(entry, TRIES));
    let (url, secret, seconds, tries) = (url?, secret?, seconds?, tries?);
    let mut run = Map::from_iter([("url".to_owned(), json!(url.text)), ("format".to_owned(), json!("envelope"))]);
    if let Some(secret) = secret.filter(|secret| !secret.text.is_empty()) {
        run.insert("sign".to_owned(), sign(&secret.text));
        remarks.extend(literal(&secret, "secret"));
    }
    let mut draft = draft(event, "webhook", ("http", Json::Object(run)), remarks, seconds);
    draft.retry = attempts(tries);
    draft.remarks.extend(unknown(entry, &["type", "url", "secret", "timeout_s", "retry"]));
    draft.general.push(said(
        "The body is `{event, timestamp, data}`, as documented. Deliveries of the product have the data beside `event`",
        "take `format: envelope` away for those",
    ));
    Some(draft)
}

/// How the body is signed.
pub(super) fn sign(key: &str) -> Json {
    json!({ "hmac": { "header": "x-bernstein-signature", "prefix": "sha256=", "key": key } })
}

fn script(event: &str, entry: &Value<'_>, is_blocking: bool, reading: &Reading) -> Option<Draft> {
    let command = required(entry, "command").and_then(|value| match Scalar::of(&value) {
        Some(Scalar::Text(line)) if !line.trim().is_empty() => reading.shell(&value, &line),
        _ => {
            value.wrong(Mismatch::new("a line of shell"));
            None
        }
    });
    let seconds = seconds(entry, if is_blocking { BLOCKING_S } else { SCRIPT_S });
    let tries = tries(entry, if is_blocking { 1 } else { TRIES });
    let (command, seconds, tries) = (command?, seconds?, tries?);
    let name = if is_blocking { "blocking_script" } else { "script" };
    let mut draft = draft(event, name, ("command", command), Vec::new(), seconds);
    draft.retry = attempts(tries);
    draft.remarks.extend(unknown(entry, &["type", "command", "timeout_s", "retry"]));
    if is_blocking {
        draft.gate = Some(OnFailure::Closed);
        draft.general.push(said(
            "A blocking script is a gate: any exit but 0 blocks, with its stderr as the reason, and so does a time-out. It runs when it \
             is asked, and not for an event that is only published",
            "ask with POST /v1/gates or the exchange for gates",
        ));
    }
    Some(draft)
}

fn draft(event: &str, name: &str, run: (&'static str, Json), remarks: Vec<Said>, seconds: f64) -> Draft {
    let draft = Draft::new(event.to_owned(), name, Surface::Webhook.kind(event), run);
    let draft = Draft { remarks, timeout: Duration::ZERO, ..draft };
    draft.within(seconds)
}

fn seconds(entry: &Value<'_>, default: f64) -> Option<f64> {
    let Some(value) = field(entry, "timeout_s") else { return Some(default) };
    let number = match Scalar::of(&value) {
        Some(scalar @ (Scalar::Whole(_) | Scalar::Real(_))) => scalar.number(),
        _ => None,
    };
    let number = number.filter(|seconds| *seconds > 0.0 && seconds.is_finite());
    if number.is_none() {
        value.wrong(Mismatch::new("seconds, more than 0"));
    }
    number
}

fn tries(entry: &Value<'_>, default: u32) -> Option<u32> {
    let Some(value) = field(entry, "retry") else { return Some(default) };
    let count = match Scalar::of(&value) {
        Some(Scalar::Whole(count)) => u32::try_from(count).ok().filter(|count| (1..=TRIES_MAX).contains(count)),
        _ => None,
    };
    if count.is_none() {
        value.wrong(Mismatch::new(format!("tries in all, a whole number from 1 to {TRIES_MAX}")));
    }
    count
}
