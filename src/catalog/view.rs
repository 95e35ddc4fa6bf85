//! Hooks and problems as JSON, without what nobody may see.

use serde_json::{Value, json};

use crate::domain::expression::Expression;
use crate::domain::glob::Glob;
use crate::domain::hook::{Action, Hook, Mode, Pattern};
use crate::yaml::problem::{Place, Problem};
use crate::yaml::scalar::show_duration;

/// A hook: of its target what may be shown, of headers and variables their names.
#[must_use]
pub fn hook(hook: &Hook) -> Value {
    let run = match &hook.action {
        Action::Http(http) => {
            let headers: Vec<&str> = http.headers.iter().map(|(name, _)| name.as_str()).collect();
            json!({ "http": { "target": hook.action.target(), "headers": headers } })
        }
        Action::Command(command) => {
            let variables: Vec<&String> = command.env.keys().collect();
            json!({ "command": { "program": command.argv.first(), "arguments": command.argv.len().saturating_sub(1),
                                 "env": variables } })
        }
    };
    json!({
        "id": hook.id.as_str(),
        "on": hook.on.iter().map(Pattern::as_str).collect::<Vec<_>>(),
        "source": hook.source.iter().map(Glob::as_str).collect::<Vec<_>>(),
        "subject": hook.subject.iter().map(Glob::as_str).collect::<Vec<_>>(),
        "when": hook.when.as_ref().map(Expression::as_str),
        "state": state(hook),
        "labels": hook.labels,
        "order": hook.order,
        "once_per": hook.once_per.as_ref().map(|once| json!({ "key": once.key.as_str(), "window": show_duration(once.window) })),
        "run": run,
        "timeout": show_duration(hook.timeout),
        "retry": {
            "attempts": hook.retry.attempts,
            "give_up_after": show_duration(hook.retry.give_up_after),
            "backoff": {
                "initial": show_duration(hook.retry.initial),
                "factor": hook.retry.factor,
                "max": show_duration(hook.retry.max),
                "jitter": hook.retry.jitter,
            },
        },
        "concurrency": hook.concurrency,
        "concurrency_fleet": hook.concurrency_fleet,
        "rate_interval": hook.rate.map(|rate| show_duration(rate.interval)),
        "lane": hook.lane.name(),
    })
}

/// Whether events run it.
#[must_use]
pub const fn state(hook: &Hook) -> &'static str {
    match hook {
        Hook { enabled: false, .. } => "disabled",
        Hook { mode: Mode::Gate(_), .. } => "gate",
        Hook { paused: true, .. } => "paused",
        Hook { .. } => "active",
    }
}

/// A problem, with its place.
#[must_use]
pub fn problem(problem: &Problem) -> Value {
    let (file, line, column) = match &problem.place {
        Place::Line { file, line, column, .. } => (file.clone(), Some(line), Some(column)),
        other => (other.to_string(), None, None),
    };
    json!({
        "severity": problem.severity.to_string(),
        "file": file,
        "line": line,
        "column": column,
        "path": problem.path,
        "expected": problem.expected,
        "found": problem.found,
        "help": problem.help,
    })
}
