//! The names of dialects. What they say stands in `crate::dialect`.

use serde::{Deserialize, Serialize};

use super::escape::quoted;
use super::message::Message;

/// Header by which a message names the dialect of its body. Believed of clients, and copied onto nothing that we publish.
pub const HEADER: &str = "hook-dialect";
/// Header with the name of the event in the words of the dialect, where its body does not say it.
pub const EVENT_HEADER: &str = "hook-event";
/// Content type that names it as well, between these.
const MEDIA_TYPE: (&str, &str) = ("application/vnd.hookfleet.", "+json");

/// The wire contract of one hook system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// This project's own contract.
    #[default]
    Native,
    /// The contract of Kheish, an agent daemon.
    Kheish,
    /// The contract of Aether, a workflow engine.
    Aether,
    /// The contracts of Bernstein, an orchestrator of agents.
    Bernstein,
}

impl Dialect {
    /// Every dialect, by the name that headers, settings and routes have for it.
    pub const ALL: [(&'static str, Self); 4] =
        [("native", Self::Native), ("kheish", Self::Kheish), ("aether", Self::Aether), ("bernstein", Self::Bernstein)];

    /// The name, as headers, settings and routes have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, dialect)| *dialect == self).map_or("", |(name, _)| name)
    }

    /// Whether it is this project's own.
    #[must_use]
    pub fn is_native(&self) -> bool {
        *self == Self::Native
    }

    /// By its name.
    ///
    /// # Errors
    /// One sentence that lists the names there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, dialect)| *dialect);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("expected a dialect ({}), found {}", names.join(", "), quoted(name))
        })
    }
}

/// The dialect that a message names by its header or its content type; `None`: it names none.
///
/// # Errors
/// One sentence: no dialect has that name, or header and content type name two.
pub fn of_message(message: &Message) -> Result<Option<Dialect>, String> {
    let header = message.text(HEADER).map(Dialect::named).transpose();
    let header = header.map_err(|error| format!("header `{HEADER}`: {error}"))?;
    let content_type = message.properties.content_type.as_deref().unwrap_or_default();
    let named = of_media_type(&content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())?;
    match (header, named) {
        (Some(header), Some(named)) if header != named => Err(format!(
            "expected one dialect, found {} in the header `{HEADER}` and {} in the content type",
            header.name(),
            named.name()
        )),
        (header, named) => Ok(header.or(named)),
    }
}

/// The dialect that a media type names, which is in lower case and without parameters; `None`: it names none.
///
/// # Errors
/// One sentence: no dialect has the name in this media type.
pub fn of_media_type(essence: &str) -> Result<Option<Dialect>, String> {
    let named = essence.strip_prefix(MEDIA_TYPE.0).and_then(|rest| rest.strip_suffix(MEDIA_TYPE.1));
    named.map(Dialect::named).transpose().map_err(|error| format!("content type: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Properties;

    #[test]
    fn messages_name_dialects() {
        let check = |header: Option<&str>, content_type: Option<&str>, expected: Result<Option<Dialect>, &str>| {
            let content_type = content_type.map(str::to_owned);
            let message =
                Message { properties: Properties { content_type, ..Properties::default() }, ..Message::default() };
            let message = match header {
                Some(header) => message.with(HEADER, header),
                None => message,
            };
            let found = of_message(&message);
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
        };
        let kheish = Ok(Some(Dialect::Kheish));
        check(None, None, Ok(None));
        check(None, Some("application/json"), Ok(None));
        check(Some("kheish"), None, kheish);
        check(None, Some("application/vnd.hookfleet.kheish+json; charset=utf-8"), kheish);
        check(Some("kheish"), Some("Application/Vnd.HookFleet.Kheish+JSON"), kheish);
        check(Some("kheish"), Some("application/json"), kheish);
        check(Some("native"), None, Ok(Some(Dialect::Native)));
        let names = "expected a dialect (native, kheish, aether, bernstein), found";
        check(Some("Kheish"), None, Err(&format!("header `hook-dialect`: {names} \"Kheish\"")));
        check(None, Some("application/vnd.hookfleet.x+json"), Err(&format!("content type: {names} \"x\"")));
        let both = "expected one dialect, found native in the header `hook-dialect` and kheish in the content type";
        check(Some("native"), Some("application/vnd.hookfleet.kheish+json"), Err(both));
    }
}
