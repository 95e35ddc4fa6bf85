//! Webhooks as the product's dispatcher takes them: a list of `{url, events, auth, timeout_s, max_retries}`.

use serde_json::{Map, Value as Json, json};

use super::Reading;
use super::documented::sign;
use super::draft::{Draft, Said, attempts, said};
use super::entry::{field, literal, referring_shown, unknown};
use super::scalar::Scalar;
use crate::dialect::bernstein::names::{Surface, WEBHOOKS};
use crate::dialect::import::Remark;
use crate::domain::escape::quoted;
use crate::yaml::problem::Mismatch;
use crate::yaml::value::Value;

const TIMEOUT_S: f64 = 10.0;
const TRIES: f64 = 3.0;
const TRIES_MAX: f64 = 100.0;

pub(super) fn read(value: &Value<'_>, reading: &mut Reading) {
    if value.is_nothing() {
        return;
    }
    let _ = value.list(|entry| {
        if let Some(draft) = target(&entry, reading) {
            reading.add(draft);
        }
        Some(())
    });
}

fn target(entry: &Value<'_>, reading: &mut Reading) -> Option<Draft> {
    if !entry.is_map() {
        entry.wrong(Mismatch::new("a webhook: a map with `url`"));
        return None;
    }
    let Some(url) = field(entry, "url").filter(|url| !is_empty(url)) else {
        reading.remark(
            format!(
                "`{}` has no `url`: Bernstein passes over it with a warning, and so does this import",
                entry.path()
            ),
            "correct it, or drop it",
        );
        return None;
    };
    let mut remarks = Vec::new();
    let url = referring_shown(&url.secret(), "url", &mut Vec::new()).inspect(|url| {
        if !url.is_literal {
            remarks.push(said(
                "Bernstein puts no variable into `url` of a webhook, although it does into its secrets. Here it is put in",
                "set the variable for workers",
            ));
        }
    });
    let events = events(entry, &mut remarks);
    let credentials = credentials(entry, &mut remarks);
    let (seconds, tries) = (seconds(entry), tries(entry));
    let (url, events, credentials, seconds, tries) = (url?, events?, credentials?, seconds?, tries?);
    let mut run = Map::from_iter([("url".to_owned(), json!(url.text))]);
    run.extend(credentials);
    let mut draft = Draft::new("webhooks".to_owned(), &host(&url.text), String::new(), ("http", Json::Object(run)));
    draft.on = events;
    draft.remarks = remarks;
    let mut draft = draft.within(seconds);
    draft.is_enabled = tries >= 1.0;
    if !draft.is_enabled {
        draft.remarks.push(said(
            format!("`max_retries` is {tries}: Bernstein never sends it, and neither does the hook"),
            "correct it",
        ));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in this range")]
    let count = tries.clamp(1.0, TRIES_MAX) as u32;
    draft.retry = attempts(count);
    draft.remarks.extend(unknown(entry, &["url", "events", "auth", "timeout_s", "max_retries"]));
    draft.general = general();
    Some(draft)
}

fn general() -> Vec<Said> {
    vec![
        said(
            "No version of Bernstein starts its webhooks: nothing in it reads their list. Here they run for events that are published",
            "publish with examples/bernstein, or POST /v1/hooks/bernstein",
        ),
        said(
            "`max_retries` counts all tries. After the last the event is lost there; here it is a letter. Any answer but 2xx is tried again",
            Remark::NOTHING,
        ),
    ]
}

fn is_empty(value: &Value<'_>) -> bool {
    matches!(Scalar::of(value), Some(Scalar::Nothing)) || value.scalar().is_some_and(|(text, _)| text.is_empty())
}

/// A part of its id.
fn host(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "webhook".to_owned())
}

/// The types of events that it wants.
fn events(entry: &Value<'_>, remarks: &mut Vec<Said>) -> Option<Vec<String>> {
    let named = match field(entry, "events") {
        Some(value) if value.is_list() => value.list(|item| {
            let name = Scalar::of(&item).map(|scalar| scalar.shown());
            if name.is_none() {
                item.wrong(Mismatch::new("the name of an event"));
            }
            name
        })?,
        _ => Vec::new(),
    };
    if named.is_empty() {
        return Some(families());
    }
    for name in named.iter().filter(|name| !WEBHOOKS.contains(&name.as_str())) {
        remarks
            .push(said(format!("Bernstein has no event {}: the hook never gets it", quoted(name)), "correct the name"));
    }
    Some(named.iter().map(|name| Surface::Webhook.kind(name)).collect())
}

/// All events of webhooks, by what they begin with.
fn families() -> Vec<String> {
    let mut families: Vec<String> = Vec::new();
    for name in WEBHOOKS {
        let family = name.split_once('.').map_or_else(|| name.to_owned(), |(family, _)| format!("{family}.*"));
        let family = Surface::Webhook.kind(&family);
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

/// What the request shows besides: a signature, a token, or nothing.
fn credentials(entry: &Value<'_>, remarks: &mut Vec<Said>) -> Option<Map<String, Json>> {
    let Some(auth) = field(entry, "auth").filter(Value::is_map) else { return Some(Map::new()) };
    let kind = field(&auth, "type").and_then(|value| Scalar::of(&value)).map(|scalar| scalar.shown());
    let name = match kind.as_deref() {
        Some("hmac") => "secret",
        Some("bearer") => "token",
        None | Some("none") => return Some(Map::new()),
        Some(other) => {
            let change = format!("Bernstein knows no `auth.type` {}, and sends nothing for it", quoted(other));
            remarks.push(said(change, "it is none, bearer or hmac, in these letters"));
            return Some(Map::new());
        }
    };
    let value = field(&auth, name).filter(|value| !is_empty(value));
    let Some(value) = value else {
        remarks.push(said(
            format!("`auth` has no `{name}`: Bernstein sends no header for it, and neither does the hook"),
            "add it",
        ));
        return Some(Map::new());
    };
    let secret = referring_shown(&value.secret(), &format!("auth.{name}"), remarks)?;
    remarks.extend(literal(&secret, &format!("auth.{name}")));
    let (key, value) =
        if name == "secret" { ("sign", sign(&secret.text)) } else { ("auth", json!({ "bearer": secret.text })) };
    Some(Map::from_iter([(key.to_owned(), value)]))
}

/// What Python's `float` makes of it.
fn seconds(entry: &Value<'_>) -> Option<f64> {
    let Some(value) = field(entry, "timeout_s") else { return Some(TIMEOUT_S) };
    let number = Scalar::of(&value).and_then(|scalar| scalar.number()).filter(|number| !number.is_nan());
    if number.is_none() {
        value.wrong(Mismatch::new("a number of seconds"));
    }
    number
}

/// What Python's `int` makes of it.
fn tries(entry: &Value<'_>) -> Option<f64> {
    let Some(value) = field(entry, "max_retries") else { return Some(TRIES) };
    let number = match Scalar::of(&value) {
        Some(Scalar::Text(text)) => text.trim().parse::<i32>().ok().map(f64::from),
        Some(scalar) => scalar.number().filter(|number| number.is_finite()).map(f64::trunc),
        None => None,
    };
    if number.is_none() {
        value.wrong(Mismatch::new("a whole number"));
    }
    number
}
