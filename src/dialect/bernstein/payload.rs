//! What Bernstein sends, and the shapes in which its hooks get it.

use super::names::{LIFECYCLE, NOTIFICATIONS, Surface, WEBHOOKS, arguments};
use super::python::{Members, json_text, object};
use crate::dialect::data;
use crate::domain::escape::quoted;
use crate::domain::event::Event;

/// An event of Bernstein: its surface, its name there, and its payload.
#[derive(Debug, Clone)]
pub(super) struct Payload<'a> {
    pub surface: Surface,
    pub name: String,
    pub members: Members<'a>,
}

/// Keys of an envelope, beside `data`.
const EVENT: &str = "event";
const TIMESTAMP: &str = "timestamp";
const DATA: &str = "data";

impl<'a> Payload<'a> {
    /// Reads one. `named` is what the message says that it is of: hooks of plugins do not say it themselves.
    ///
    /// # Errors
    /// One sentence: what was expected and what was found.
    pub(super) fn read(json: &'a str, named: Option<&str>) -> Result<Self, String> {
        let members = Members::read(json).ok_or_else(|| "expected a payload of Bernstein: a JSON object".to_owned())?;
        let of = |surface, name: String, members| Ok(Self { surface, name, members });
        if let Some(name) = named.filter(|name| arguments(name).is_some()) {
            return of(Surface::Plugin, name.to_owned(), members);
        }
        let event = members.text(EVENT);
        if let Some(named) = named.filter(|named| event.as_deref() != Some(*named)) {
            return Err(format!(
                "expected a hook of Bernstein's plugins, such as on_task_created, or the `event` of the payload in the header \
                 `hook-event`; found {}",
                quoted(named)
            ));
        }
        if members.get("event_id").is_some() && members.get("kind").is_some() {
            let kind = members.text("kind").unwrap_or_default();
            if !NOTIFICATIONS.contains(&kind.as_str()) {
                let kinds = NOTIFICATIONS.join(", ");
                return Err(format!(
                    "expected `kind` of a notification of Bernstein ({kinds}), found {}",
                    quoted(&kind)
                ));
            }
            return of(Surface::Notification, kind, members);
        }
        let Some(name) = event else {
            return Err(
                "expected a payload of Bernstein with `event`, or with `event_id` and `kind`; hooks of plugins are \
                        named in the header `hook-event`"
                    .to_owned(),
            );
        };
        // Two names are on both lists: a script's payload says where it is run.
        let is_of_script = members.get("workdir").is_some() || members.get("env").is_some();
        if LIFECYCLE.contains(&name.as_str()) && (is_of_script || !WEBHOOKS.contains(&name.as_str())) {
            return of(Surface::Lifecycle, name, members);
        }
        if WEBHOOKS.contains(&name.as_str()) {
            return of(Surface::Webhook, name, members);
        }
        Err(format!(
            "expected one of the events of Bernstein, such as task.completed or pre_task, found {}",
            quoted(&name)
        ))
    }

    /// What a hook of Bernstein gets of an event. Any other event is one whose data it is as a whole.
    pub(super) fn of(event: &'a Event) -> Option<Self> {
        let (surface, name) = Surface::of(&event.kind)?;
        let members = Members::read(data(&event.body)?.get())?;
        Some(Self { surface, name: name.to_owned(), members })
    }

    /// What it is about: a task, else a session.
    pub(super) fn subject(&self) -> Option<String> {
        let of = |members: &Members<'_>| ["task_id", "task", "session_id"].iter().find_map(|name| members.text(name));
        of(&self.members).or_else(|| of(&Members::read(self.members.get(DATA)?)?))
    }

    /// The payload of webhooks: an envelope's data stand beside its `event`.
    pub(super) fn flat(&self) -> String {
        let inner = self.is_envelope().then(|| self.members.get(DATA).and_then(Members::read)).flatten();
        match inner {
            None => object(self.members.iter()),
            Some(inner) => {
                let outer = self.members.iter().filter(|(name, _)| *name != DATA);
                object(outer.chain(inner.iter().filter(|(name, _)| self.members.get(name).is_none())))
            }
        }
    }

    /// As the documentation has it: `{event, timestamp, data}`.
    pub(super) fn envelope(&self) -> String {
        let name = json_text(&self.name);
        let timestamp = self.members.get(TIMESTAMP).unwrap_or("null");
        let data = match self.members.get(DATA).filter(|_| self.is_envelope()) {
            Some(data) => data.to_owned(),
            None => object(self.members.iter().filter(|(name, _)| ![EVENT, TIMESTAMP].contains(name))),
        };
        object([(EVENT, name.as_str()), (TIMESTAMP, timestamp), (DATA, data.as_str())])
    }

    /// `{event, timestamp, data}` and nothing else.
    fn is_envelope(&self) -> bool {
        let is_outer = |name: &str| [EVENT, TIMESTAMP, DATA].contains(&name);
        self.members.get(DATA).is_some_and(|data| data.starts_with('{'))
            && self.members.iter().all(|(name, _)| is_outer(name))
    }

    /// What a lifecycle script reads. `data` is what scripts before it have made of the payload's.
    pub(super) fn script(&self, data: Option<&str>) -> String {
        let name = json_text(&self.name);
        let or = |key: &str, absent: &'static str| self.members.get(key).unwrap_or(absent);
        object([
            (EVENT, name.as_str()),
            ("task", or("task", "null")),
            ("session_id", or("session_id", "null")),
            ("workdir", or("workdir", "null")),
            ("env", or("env", "{}")),
            (TIMESTAMP, or(TIMESTAMP, "null")),
            (DATA, data.unwrap_or_else(|| or(DATA, "{}"))),
        ])
    }

    /// What is handed from one hook to the next: a script's data, or all arguments of a hook of plugins.
    pub(super) fn passed_on(&self) -> String {
        match self.surface {
            Surface::Lifecycle => self.members.get(DATA).unwrap_or("{}").to_owned(),
            Surface::Plugin | Surface::Webhook | Surface::Notification => object(self.members.iter()),
        }
    }

    /// The whole seconds of its timestamp.
    pub(super) fn seconds(&self) -> Option<String> {
        let timestamp: f64 = self.members.get(TIMESTAMP)?.parse().ok()?;
        timestamp.is_finite().then(|| format!("{:.0}", timestamp.floor()))
    }
}
