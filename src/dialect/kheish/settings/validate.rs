//! The rules of settings, in the order in which Kheish looks at them. It tells the first that is broken; here all are told.

use super::{Executor, Fault, FaultKind, HookDefinition, RETRIES_MAX, TIMEOUT_MS_MAX, target};
use crate::dialect::json_text::Way;
use crate::dialect::kheish::event_name::EventName;

/// Every rule that a definition breaks. `at` is the way to it.
pub(super) fn check(event: &EventName, index: usize, hook: &HookDefinition, at: &Way) -> Vec<Fault> {
    let hook_is = Fault::said_of(event, index, &hook.name);
    let fault = |(way, message): (Way, String)| Fault::new(FaultKind::Invalid, &way, format!("{hook_is}: {message}"));
    broken(hook, at).into_iter().map(fault).collect()
}

fn broken(hook: &HookDefinition, at: &Way) -> Vec<(Way, String)> {
    let mut broken = Vec::new();
    let mut check = |is_broken: bool, way: Way, message: String| {
        if is_broken {
            broken.push((way, message));
        }
    };
    check(is_blank(&hook.name), at.field("name"), "hook name must not be empty".to_owned());
    let retries = at.field("failure_policy").field("max_retries");
    let too_many = hook.failure_policy.max_retries > RETRIES_MAX;
    check(too_many, retries, format!("hook max_retries must not exceed {RETRIES_MAX}"));
    let executor = at.field("executor");
    if let Some(ms) = hook.executor.own_timeout_ms() {
        let way = executor.field("timeout_ms");
        check(ms == 0, way.clone(), "hook timeout_ms must be greater than zero".to_owned());
        check(ms > TIMEOUT_MS_MAX, way, format!("hook timeout_ms must not exceed {TIMEOUT_MS_MAX}"));
    }
    broken.extend(of_executor(&hook.executor, &executor));
    broken
}

fn of_executor(executor: &Executor, at: &Way) -> Vec<(Way, String)> {
    let empty = |text: &str, field: &str, message: &str| is_blank(text).then(|| (at.field(field), message.to_owned()));
    let broken = match executor {
        Executor::Command { command, shell, .. } => [
            empty(command, "command", "command hook command is empty"),
            shell.as_deref().and_then(|shell| empty(shell, "shell", "command hook shell is empty")),
            None,
        ],
        Executor::Http { url, .. } => [target::check(url).err().map(|message| (at.field("url"), message)), None, None],
        Executor::Prompt { template, .. } => [empty(template, "template", "prompt hook template is empty"), None, None],
        Executor::Agent { template, tool_surface, max_turns, .. } => {
            let is_open = tool_surface.as_ref().is_some_and(|it| !it.has_allowlist() && !it.is_deny_all());
            let surface = "agent hook tool_surface must include an allowlist";
            let no_turns = *max_turns == Some(0);
            [
                empty(template, "template", "agent hook template is empty"),
                is_open.then(|| (at.field("tool_surface"), surface.to_owned())),
                no_turns.then(|| (at.field("max_turns"), "agent hook max_turns is zero".to_owned())),
            ]
        }
        Executor::Callback { name, .. } => [empty(name, "name", "callback hook name is empty"), None, None],
    };
    broken.into_iter().flatten().collect()
}

/// Nothing but what Unicode calls white space.
fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}
