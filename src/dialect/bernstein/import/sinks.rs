//! `notifications:` of `bernstein.yaml`: sinks, each a hook.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};

use super::Reading;
use super::draft::{Draft, Said, said};
use super::entry::{field, unknown};
use super::lax::{flag, number_within, whole_within};
use super::scalar::Scalar;
use super::targets::{self, Target};
use crate::dialect::bernstein::names::{NOTIFICATIONS, Surface};
use crate::dialect::import::Remark;
use crate::domain::escape::quoted;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::show_duration;
use crate::yaml::value::Value;

const SEVERITIES: [&str; 3] = ["info", "warning", "error"];
/// Seconds for which an id is remembered there.
const WINDOW_S: i128 = 21_600;

/// What holds for all sinks of a file.
struct Shared {
    is_enabled: bool,
    retry: Json,
    window_s: i128,
}

pub(super) fn read(value: &Value<'_>, reading: &mut Reading) {
    if value.is_nothing() {
        return;
    }
    let Some(mut fields) = value.fields() else { return };
    let shared = Shared {
        is_enabled: fields.get("enabled").map_or(Some(true), |value| flag(&value)).unwrap_or(true),
        retry: read_retry(fields.get("retry")),
        window_s: fields
            .get("dedup_window_seconds")
            .map_or(Some(WINDOW_S), |value| whole_within(&value, 1..=i128::MAX))
            .unwrap_or(WINDOW_S),
    };
    let _ = fields.get("dedup_lru_size").map(|value| whole_within(&value, 16..=i128::MAX));
    let sinks = fields.get("sinks");
    fields.end();
    let mut ids = HashSet::new();
    let Some(sinks) = sinks else { return };
    let _ = sinks.list(|sink| {
        if let Some(draft) = read_sink(&sink, &shared, &mut ids, reading) {
            reading.add(draft);
        }
        Some(())
    });
}

/// The value of `retry` of a hook.
fn read_retry(value: Option<Value<'_>>) -> Json {
    let (mut tries, mut initial_ms, mut factor, mut max_ms) = (3, 250, 2.0, 30_000);
    if let Some(mut fields) = value.filter(|value| !is_wrong_map(value)).and_then(|value| value.fields()) {
        let mut whole = |name, range, default| {
            fields.get(name).map_or(Some(default), |value| whole_within(&value, range)).unwrap_or(default)
        };
        tries = whole("max_attempts", 1..=20, tries);
        initial_ms = whole("initial_delay_ms", 1..=60_000, initial_ms);
        max_ms = whole("max_delay_ms", 1..=600_000, max_ms);
        factor = fields
            .get("backoff_factor")
            .map_or(Some(factor), |value| number_within(&value, 1.0..=10.0))
            .unwrap_or(factor);
        fields.end();
    }
    let wait = |ms: i128| show_duration(std::time::Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
    let backoff = json!({
        "initial": wait(initial_ms.min(max_ms)), "factor": factor, "max": wait(max_ms), "jitter": 0,
    });
    json!({ "attempts": tries, "backoff": backoff })
}

/// Reports a `retry` that is there and says nothing.
fn is_wrong_map(value: &Value<'_>) -> bool {
    if value.is_nothing() {
        value.wrong(Mismatch::new("a map"));
    }
    value.is_nothing()
}

fn read_sink(sink: &Value<'_>, shared: &Shared, ids: &mut HashSet<String>, reading: &mut Reading) -> Option<Draft> {
    if !sink.is_map() {
        sink.wrong(Mismatch::new("a sink: a map with `id` and `kind`"));
        return None;
    }
    let (id, kind) = (named(sink, "id"), named(sink, "kind"));
    if let Some(id) = id.as_ref().filter(|id| !ids.insert((*id).clone())) {
        sink.wrong(Mismatch::new("each `id` once").found(format!("a second sink {}", quoted(id))));
    }
    let is_enabled = field(sink, "enabled").map_or(Some(true), |value| flag(&value));
    let events = chosen(sink, "events", &NOTIFICATIONS);
    let severities = chosen(sink, "severities", &SEVERITIES);
    let labels = labels(sink);
    let (id, kind, is_enabled, events) = (id?, kind?, is_enabled?, events?);
    let (severities, labels) = (severities?, labels?);
    let Some(target) = targets::read(&kind, sink, reading) else {
        return without_target(&kind, sink, is_enabled, reading);
    };
    let target = target?;
    let mut draft = draft(&id, target, shared);
    draft.is_enabled = is_enabled && shared.is_enabled;
    draft.labels = labels;
    choose(&mut draft, events, severities);
    draft.remarks.extend(unknown_of(sink, &kind));
    Some(draft)
}

/// Of a kind that no hook is made of: one that is switched off is passed over.
fn without_target(kind: &str, sink: &Value<'_>, is_enabled: bool, reading: &mut Reading) -> Option<Draft> {
    let is_mail = kind == "email_smtp";
    let reason = if is_mail { "no hook sends mail by itself" } else { "Bernstein has no such kind" };
    if is_enabled {
        let expected = format!("a kind of sink that hooks can be made of ({})", targets::KINDS.join(", "));
        let value = field(sink, "kind").unwrap_or_else(|| sink.clone());
        let help = if is_mail { "a shell sink can call a program that sends it" } else { "see how it is written" };
        value.wrong(Mismatch::new(expected).help(format!("{reason}: {help}")));
    } else {
        let change =
            format!("`{}` is of the kind {}, and switched off. It is left out: {reason}", sink.path(), quoted(kind));
        reading.remark(change, Remark::NOTHING);
    }
    None
}

fn draft(id: &str, target: Target, shared: &Shared) -> Draft {
    let mut draft = Draft::new("notification".to_owned(), id, String::new(), target.run);
    draft.remarks = target.remarks;
    let mut draft = draft.within(target.seconds);
    draft.retry = shared.retry.clone();
    draft.event = NOTIFICATIONS.join(", ");
    draft.general = general(shared);
    draft
}

fn general(shared: &Shared) -> Vec<Said> {
    let mut general = vec![
        said(
            "Only `bernstein notify test` sends notifications: no run of it does. Here sinks get the events that are published",
            "publish them, for example with POST /v1/hooks/bernstein",
        ),
        said(
            format!(
                "Bernstein remembers an event_id for {} s, before it delivers: what fails is not sent again. Here it is remembered \
                 once it is delivered, for as long as `idempotency.window` says (24 h)",
                shared.window_s
            ),
            Remark::NOTHING,
        ),
    ];
    if !shared.is_enabled {
        general.push(said(
            "`notifications.enabled` is false: the hooks are switched off. Bernstein sends all the same",
            "switch on what is wanted",
        ));
    }
    general
}

fn choose(draft: &mut Draft, events: Option<Vec<String>>, severities: Option<Vec<String>>) {
    for (name, chosen) in [("events", &events), ("severities", &severities)] {
        if chosen.as_ref().is_some_and(Vec::is_empty) {
            draft.is_enabled = false;
            draft.remarks.push(said(
                format!("`{name}` is empty: the sink gets nothing there, and is switched off here"),
                "name some",
            ));
        }
    }
    let events = events.filter(|events| !events.is_empty());
    if let Some(events) = &events {
        draft.event = events.join(", ");
    }
    let all = || vec![Surface::Notification.kind("*")];
    draft.on = events.map_or_else(all, |events| events.iter().map(|name| Surface::Notification.kind(name)).collect());
    let severities = severities.filter(|severities| !severities.is_empty());
    draft.when = severities.map(|severities| format!("event.data.severity in {}", json!(severities)));
}

/// A text that has to be there, and to have a letter.
fn named(sink: &Value<'_>, name: &'static str) -> Option<String> {
    let value = field(sink, name);
    match value.as_ref().and_then(Scalar::of) {
        Some(Scalar::Text(text)) if !text.trim().is_empty() => Some(text),
        _ => {
            let value = value.unwrap_or_else(|| sink.clone());
            value.wrong(Mismatch::new(format!("`{name}` of a sink, a text")));
            None
        }
    }
}

/// What of these a sink wants; the inner `None`: all.
#[expect(clippy::option_option, reason = "wrong, all, or some")]
fn chosen(sink: &Value<'_>, name: &'static str, known: &[&str]) -> Option<Option<Vec<String>>> {
    let Some(value) = field(sink, name).filter(|value| !value.is_nothing()) else { return Some(None) };
    let item = |item: Value<'_>| match Scalar::of(&item) {
        Some(Scalar::Text(text)) if known.contains(&text.as_str()) => Some(text),
        _ => {
            item.wrong(Mismatch::new(format!("one of {}", known.join(", "))));
            None
        }
    };
    value.list(item).map(Some)
}

fn labels(sink: &Value<'_>) -> Option<Map<String, Json>> {
    let Some(value) = field(sink, "labels") else { return Some(Map::new()) };
    if !value.is_map() {
        value.wrong(Mismatch::new("labels, a map of texts"));
        return None;
    }
    let label = |(key, value): (&crate::yaml::Key, Value<'_>)| {
        let text = Scalar::text(&value);
        if text.is_none() {
            value.wrong(Mismatch::new("a text"));
        }
        Some((key.name.clone(), json!(text?)))
    };
    let read: Vec<_> = value.entries()?.into_iter().map(label).collect();
    read.into_iter().collect()
}

fn unknown_of(sink: &Value<'_>, kind: &str) -> Vec<Said> {
    let of_all = ["id", "kind", "enabled", "events", "severities", "labels"];
    let known: Vec<&str> = of_all.iter().chain(targets::keys(kind)).copied().collect();
    unknown(sink, &known)
}
