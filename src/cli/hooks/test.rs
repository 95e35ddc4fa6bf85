//! `hookfleet hooks test`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;

use crate::cli::output;
use crate::domain::event::{Event, Reading};
use crate::domain::hook::{Hook, Pattern};
use crate::domain::matching::HookSet;
use crate::domain::shown::quoted;
use crate::publish::{Rejected, prepare};

/// What an event would do, without doing it: which hooks want it, and why the others do not.
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    /// One CloudEvent in JSON
    #[arg(value_name = "EVENT.json")]
    event: PathBuf,
    /// This hook only
    #[arg(long, value_name = "ID")]
    hook: Option<String>,
}

pub(super) fn run(test: &Test, hooks: &HookSet, reading: &Reading) -> anyhow::Result<()> {
    let bytes = std::fs::read(&test.event).with_context(|| format!("cannot read {}", test.event.display()))?;
    let event = read(&Bytes::from(bytes), reading).with_context(|| test.event.display().to_string())?;
    if let Some(id) = &test.hook
        && hooks.get(id).is_none()
    {
        bail!("no hook has the id {}: see `hookfleet hooks list`", quoted(id));
    }
    output::out(&told(&event, hooks, test.hook.as_deref()));
    Ok(())
}

fn read(text: &Bytes, reading: &Reading) -> anyhow::Result<Event> {
    let prepared = prepare(text, None, None, reading).map_err(|rejected| match rejected {
        Rejected::ContentType(error) | Rejected::Event(error) | Rejected::TooLarge(error) => anyhow!(error),
    })?;
    Event::decode(&prepared.outgoing().message, reading).map_err(|malformed| anyhow!(malformed.error))
}

fn told(event: &Event, hooks: &HookSet, only: Option<&str>) -> String {
    let mut lines = vec![format!("{} (source {}, type {})", event.id, event.source, event.kind)];
    if let Some(misfit) = hooks.types().misfit(event) {
        let follows = if misfit.strict { "refused" } else { "taken, with a warning" };
        lines.push(format!("{follows}: {}", misfit.sentence()));
        if misfit.strict {
            return lines.join("\n"); // no hook runs
        }
    }
    let asked = hooks.hooks().iter().filter(|hook| only.is_none_or(|id| hook.id.as_str() == id));
    let wanting = hooks.matching(event);
    for hook in asked {
        let line = if wanting.iter().any(|wanting| wanting.id == hook.id) {
            format!("+ {}: {}", hook.id, hook.action.target())
        } else {
            format!("- {}: {}", hook.id, why_not(hook, event))
        };
        lines.push(line);
    }
    lines.join("\n")
}

/// The condition that failed.
fn why_not(hook: &Hook, event: &Event) -> String {
    let patterns: Vec<String> = hook.on.iter().map(Pattern::as_str).map(|pattern| format!("`{pattern}`")).collect();
    match patterns.as_slice() {
        [one] => format!("the type is {}, not {one}", quoted(&event.kind)),
        all => format!("the type is {}, none of {}", quoted(&event.kind), all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Terms, parse};

    fn check(event: &str, only: Option<&str>, expected: &str) {
        let text = "version: 1\nhooks:\n  - { id: a, on: task.*, run: { http: { url: 'https://x.example/hunter2' } } }\n  \
                    - { id: b, on: [order.paid, agent.*], run: { command: { argv: [echo] } } }\nevents:\n  task.failed: { \
                    schema: { required: [n] } }\n  task.strict: { schema: { type: object }, validate: strict }\n";
        let terms = Terms { hint_max: std::time::Duration::from_secs(1), env: &|_| None };
        let hooks = parse(text, "hooks.yaml", &terms).unwrap().hooks;
        let event = read(&Bytes::copy_from_slice(event.as_bytes()), &Reading::default()).unwrap();
        assert_eq!(told(&event, &hooks, only), expected);
    }

    #[test]
    fn every_hook_says_whether_and_why_not() {
        check(
            r#"{"id":"1","source":"/s","type":"task.failed","data":{"n":1}}"#,
            None,
            "1 (source /s, type task.failed)\n+ a: https://x.example\n- b: the type is \"task.failed\", none of \
             `order.paid`, `agent.*`",
        );
        check(
            r#"{"id":"1","source":"/s","type":"task.failed","data":{}}"#,
            Some("a"),
            "1 (source /s, type task.failed)\ntaken, with a warning: the data is not what the type `task.failed` declares: \
             data: \"n\" is a required property (rule /required)\n+ a: https://x.example",
        );
        check(
            r#"{"id":"1","source":"/s","type":"task.strict","data":[]}"#,
            None,
            "1 (source /s, type task.strict)\nrefused: the data is not what the type `task.strict` declares: data: value is \
             not of type \"object\" (rule /type)",
        );
        check(
            r#"{"id":"1","source":"/s","type":"x"}"#,
            Some("a"),
            "1 (source /s, type x)\n- a: the type is \"x\", not `task.*`",
        );
    }
}
