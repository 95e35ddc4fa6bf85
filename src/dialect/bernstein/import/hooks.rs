//! `hooks:` of `bernstein.yaml`: lifecycle scripts, and the form of the documentation, told from each other by entry.

use super::Reading;
use super::draft::{Draft, Said, attempts, said};
use super::entry::{field, unknown};
use super::scalar::Scalar;
use crate::dialect::bernstein::names::{LIFECYCLE, Surface, WEBHOOKS};
use crate::dialect::import::Remark;
use crate::domain::escape::quoted;
use crate::domain::hook::{OnFailure, ToolFilter};
use crate::yaml::problem::Mismatch;
use crate::yaml::value::Value;

/// Seconds that a lifecycle script has which does not say so.
const TIMEOUT_S: i128 = 30;

pub(super) fn read(value: &Value<'_>, reading: &mut Reading) {
    let Some(entries) = value.entries() else { return };
    for (key, value) in entries {
        let name = key.name.as_str();
        if name == "webhooks" {
            super::webhooks::read(&value, reading);
            continue;
        }
        if !LIFECYCLE.contains(&name) && !WEBHOOKS.contains(&name) {
            let mismatch = Mismatch::new("an event of Bernstein, such as pre_task or task.completed");
            value.wrong_key(key, mismatch.did_you_mean(name, LIFECYCLE.into_iter().chain(WEBHOOKS)));
            continue;
        }
        if value.is_nothing() {
            continue;
        }
        let _ = value.list(|entry| {
            read_entry(name, &entry, reading);
            Some(())
        });
    }
}

fn read_entry(event: &str, entry: &Value<'_>, reading: &mut Reading) {
    let is_documented = entry.is_map() && field(entry, "type").is_some();
    let (is_lifecycle, is_webhook) = (LIFECYCLE.contains(&event), WEBHOOKS.contains(&event));
    if is_documented && is_webhook {
        super::documented::read(event, entry, reading);
    } else if is_documented {
        let found =
            format!("an entry with `type` at {event}: the documentation has those for events such as task.completed");
        entry.wrong(Mismatch::new("`script` or `plugin` at a lifecycle event").found(found));
    } else if is_lifecycle {
        read_script(event, entry, reading);
    } else {
        let mismatch = Mismatch::new("an entry with `type` (webhook, script or blocking_script)");
        entry.wrong(
            mismatch.help(format!(
                "scripts without `type` are for lifecycle events such as post_task, and {event} is none"
            )),
        );
    }
}

fn read_script(event: &str, entry: &Value<'_>, reading: &mut Reading) {
    if let Some(Scalar::Text(path)) = Scalar::of(entry) {
        reading.add(script(event, &path, reading));
        return;
    }
    if !entry.is_map() {
        entry.wrong(Mismatch::new("the path of a script, or a map with `script` or `plugin`"));
        return;
    }
    match (field(entry, "script"), field(entry, "plugin")) {
        (Some(path), _) => {
            if let Some(draft) = whole_script(event, &path, entry, reading) {
                reading.add(draft);
            }
        }
        (None, Some(plugin)) => {
            let Some(Scalar::Text(name)) = Scalar::of(&plugin) else {
                plugin.wrong(Mismatch::new("the name of a plugin"));
                return;
            };
            reading.remark(
                format!(
                    "`{}` is the plugin {}: code that runs within Bernstein, and has no equal here",
                    entry.path(),
                    quoted(&name)
                ),
                "leave it there; examples/bernstein publishes what plugins see, and a callback can do the same here",
            );
        }
        (None, None) => entry.wrong(Mismatch::new("`script` or `plugin`").found("neither")),
    }
}

fn whole_script(event: &str, path: &Value<'_>, entry: &Value<'_>, reading: &Reading) -> Option<Draft> {
    let text = Scalar::text(path);
    if text.is_none() {
        path.wrong(Mismatch::new("the path of a script"));
    }
    let timeout = match field(entry, "timeout").map(|value| (Scalar::of(&value), value)) {
        None => Some(TIMEOUT_S),
        Some((Some(Scalar::Whole(seconds)), _)) => Some(seconds),
        Some((_, value)) => {
            value.wrong(Mismatch::new("a whole number of seconds"));
            None
        }
    };
    let filter = match field(entry, "if").map(|value| (Scalar::of(&value), value)) {
        None => Some(None),
        Some((Some(Scalar::Text(text)), value)) => match ToolFilter::read(&text) {
            Ok(_) => Some(Some(text)),
            Err(sentence) => {
                value.wrong(Mismatch::from_sentence(&sentence));
                None
            }
        },
        Some((_, value)) => {
            value.wrong(Mismatch::new("a filter such as `Bash(git *)`"));
            None
        }
    };
    let (text, timeout, filter) = (text?, timeout?, filter?);
    let mut draft = script(event, &text, reading);
    draft.matcher = filter;
    #[expect(clippy::cast_precision_loss, reason = "more than 24 h are cut anyway")]
    let mut draft = draft.within(timeout as f64);
    draft.remarks.extend(unknown(entry, &["script", "timeout", "if"]));
    Some(draft)
}

/// A lifecycle script, which decides.
pub(super) fn script(event: &str, path: &str, reading: &Reading) -> Draft {
    let normal = normalized(path);
    let stem = normal.rsplit('/').next().unwrap_or_default();
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let run = ("command", reading.command(&[&normal]));
    let mut draft = Draft::new(format!("lifecycle.{event}"), path, Surface::Lifecycle.kind(event), run);
    stem.clone_into(&mut draft.short);
    event.clone_into(&mut draft.event);
    draft.gate = Some(OnFailure::Closed);
    draft.timeout = std::time::Duration::from_secs(30);
    draft.retry = attempts(1);
    if !normal.contains('/') {
        let name = quoted(&normal);
        draft.remarks.push(said(
            format!("Bernstein looks for {name} in PATH, and not in the folder of the project; so does the hook"),
            "move the script to a folder, such as scripts, if it is one of the project's",
        ));
    }
    draft.general = general();
    draft
}

fn general() -> Vec<Said> {
    vec![
        said(
            "Bernstein reads lifecycle scripts for its commands `bernstein hooks` alone: no run of it has called them. Here they are \
             gates, which run when they are asked, and not for an event that is only published",
            "ask with POST /v1/gates or the exchange for gates; take `mode` and `on_failure` away where nobody waits for an answer",
        ),
        said(
            "Scripts of one event run one after the other, up to the first that denies or fails. Each gets the data that those \
             before it have made",
            Remark::NOTHING,
        ),
        said(
            "Bernstein runs scripts in a trusted workspace only. Here `commands.allow` says which programs may run",
            Remark::NOTHING,
        ),
    ]
}

/// As Python's `Path` has it: without `.`, empty parts and a slash at the end.
fn normalized(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    let joined = format!("{root}{}", parts.join("/"));
    if joined.is_empty() { ".".to_owned() } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_python_has_them() {
        for (path, expected) in [
            ("scripts/x.sh", "scripts/x.sh"),
            ("./x.sh", "x.sh"),
            ("a//b.sh/", "a/b.sh"),
            ("", "."),
            ("/srv/./x.sh", "/srv/x.sh"),
            ("x/../a.sh", "x/../a.sh"),
        ] {
            assert_eq!(normalized(path), expected);
        }
    }
}
