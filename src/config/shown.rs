//! Settings as text: those in force with where they come from, and the file that ships.

use std::fmt::Write as _;

use url::Url;

use super::Settings;
use super::raw::Raw;
use super::table::{Fallback, Kind, SETTINGS, Setting};

/// Where the origins of settings begin, if there is room.
const ORIGIN_COLUMN: usize = 52;
/// In place of what nobody may see.
const HIDDEN: &str = "***";
/// Parameters of URLs whose values are shown. Any other one may be a password.
const HARMLESS: [&str; 7] =
    ["auth_mechanism", "channel_max", "connection_timeout", "db", "frame_max", "heartbeat", "protocol"];

/// A setting in force.
#[derive(Debug, Clone)]
pub(super) struct Effective {
    setting: &'static Setting,
    /// As YAML, without passwords.
    value: Option<String>,
    origin: String,
}

/// All settings in force. Only for settings that were found to be right.
pub(super) fn effective(raw: &Raw<'_>) -> Vec<Effective> {
    let as_is = |text: &str| Ok(text.to_owned());
    let effective = SETTINGS.iter().map(|setting| {
        let value = match setting.kind {
            Kind::One => raw.read(setting.path, as_is).map(|text| scalar(&text)),
            Kind::Secret => raw.read(setting.path, as_is).map(|text| scalar(if text.is_empty() { "" } else { HIDDEN })),
            Kind::SecretUrl => raw.read(setting.path, as_is).map(|text| scalar(&without_password(&text))),
            Kind::OneOrMoreSecretUrls => raw.read_some(setting.path, as_is).map(|urls| {
                let urls: Vec<String> = urls.iter().map(|url| without_password(url)).collect();
                match urls.as_slice() {
                    [one] => scalar(one),
                    many => flow_list(many.iter().map(String::as_str)),
                }
            }),
            Kind::List => raw.read_list(setting.path, as_is).map(|items| flow_list(items.iter().map(String::as_str))),
            Kind::SecretUrls => {
                let shown = |text: &str| Ok(without_password(text));
                raw.read_list(setting.path, shown).map(|items| flow_list(items.iter().map(String::as_str)))
            }
            Kind::Tokens => {
                let shown = |text: &str| Ok(without_token(text));
                raw.read_list(setting.path, shown).map(|items| flow_list(items.iter().map(String::as_str)))
            }
        };
        Effective { setting, value, origin: raw.origin(setting.path) }
    });
    effective.collect()
}

impl Settings {
    /// Every setting in force and where it comes from, as YAML with comments. Passwords are replaced.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = String::new();
        let mut section = None;
        for Effective { setting, value, origin } in &self.effective {
            let (indent, key) = enter(&mut text, &mut section, setting);
            let line = match value {
                Some(value) => format!("{indent}{key}: {value}"),
                None => format!("{indent}#{key}:"),
            };
            let _ = writeln!(text, "{line:ORIGIN_COLUMN$} # {origin}");
        }
        text
    }

    /// The same as JSON: under `items` each setting with its path, its value as text, and where that comes from.
    #[must_use]
    pub fn as_json(&self) -> serde_json::Value {
        let item = |Effective { setting, value, origin }: &Effective| serde_json::json!({ "setting": setting.path, "value": value, "origin": origin });
        serde_json::json!({ "items": self.effective.iter().map(item).collect::<Vec<_>>() })
    }

    /// The settings file with everything at its default and explained: `config/hookfleet.yaml` as it ships.
    #[must_use]
    pub fn commented_file() -> String {
        let mut text = String::from(
            "# The settings of hookfleet, each at its default. Take the # away from what you change.\n\
             #\n\
             # Later words count more: this file, then the environment, then flags. The variable of worker.prefetch\n\
             # is HOOKFLEET_WORKER_PREFETCH, and so on; lists are written with commas, and an empty variable counts\n\
             # as not set. `hookfleet settings` shows what is in force and where each value comes from.\n",
        );
        let mut section = None;
        for setting in &SETTINGS {
            if setting.place().0 != section || section.is_none() {
                text.push('\n');
            }
            let (indent, key) = enter(&mut text, &mut section, setting);
            for line in setting.doc.lines() {
                let _ = writeln!(text, "{indent}# {line}");
            }
            let value = match (setting.default, setting.kind) {
                (Fallback::Is(default), kind) if kind.is_list() => {
                    flow_list(default.split(',').filter(|item| !item.is_empty()))
                }
                (Fallback::Is(value) | Fallback::Unset { example: value }, _) => scalar(value),
            };
            let _ = writeln!(text, "{indent}#{key}: {value}");
        }
        text
    }
}

/// Begins the section of a setting if need be. Gives its indentation and its key.
fn enter(text: &mut String, section: &mut Option<&str>, setting: &'static Setting) -> (&'static str, &'static str) {
    let (found, key) = setting.place();
    if let Some(name) = found
        && *section != found
    {
        let _ = writeln!(text, "{name}:");
    }
    *section = found;
    (if found.is_some() { "  " } else { "" }, key)
}

/// A text as a YAML scalar: plain if no reader of YAML could take it for something else, else quoted.
fn scalar(text: &str) -> String {
    let plain_start = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.'));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=@%+:*".contains(c);
    if plain_start && text.chars().all(plain) && !text.ends_with(':') {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string() // a JSON string is a YAML scalar
}

fn flow_list<'i>(items: impl Iterator<Item = &'i str>) -> String {
    let items: Vec<String> = items.map(scalar).collect();
    format!("[{}]", items.join(", "))
}

/// A token as it may be shown: its role.
fn without_token(text: &str) -> String {
    text.split_once(':').map_or_else(|| HIDDEN.to_owned(), |(role, _)| format!("{role}:{HIDDEN}"))
}

/// A URL as it may be shown. A user without a password may be a token, so it is replaced as well.
fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return HIDDEN.to_owned() };
    let replaced = match (url.password(), url.username()) {
        (Some(_), _) => url.set_password(Some(HIDDEN)),
        (None, "") => Ok(()),
        (None, _) => url.set_username(HIDDEN),
    };
    if url.query().is_some() {
        let shown =
            |name: &str, value: &str| if HARMLESS.contains(&name) { value.to_owned() } else { HIDDEN.to_owned() };
        let pairs: Vec<String> =
            url.query_pairs().map(|(name, value)| format!("{name}={}", shown(&name, &value))).collect();
        url.set_query(Some(&pairs.join("&")));
    }
    if url.fragment().is_some() {
        url.set_fragment(Some(HIDDEN));
    }
    replaced.map_or_else(|()| HIDDEN.to_owned(), |()| url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case D9: a password may stand in a parameter as well.
    #[test]
    fn d9_parameters_of_urls_are_hidden() {
        let check = |text: &str, expected: &str| assert_eq!(without_password(text), expected, "{text}");
        check("amqp://h:1/v?heartbeat=5&auth_mechanism=external", "amqp://h:1/v?heartbeat=5&auth_mechanism=external");
        check("http://h/?password=hunter2&x=hunter3", "http://h/?password=***&x=***");
        check(
            "redis://:hunter2@r:6379/0?protocol=resp3&%70assword=hunter2",
            "redis://:***@r:6379/0?protocol=resp3&password=***",
        );
        check("redis://r/#hunter2", "redis://r/#***");
        check("hunter2", "***");
    }
}
