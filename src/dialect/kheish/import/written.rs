//! A hook of ours, as YAML.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Hook, machine, rules};
use crate::dialect::import::Remark;
use crate::dialect::kheish::event_name::TYPE_PREFIX;
use crate::dialect::kheish::settings::{Executor, FailureMode, HookDefinition, Model, SHELL, ToolSurface};
use crate::dialect::yaml_text::{comment, depth, flow, quoted, scalar};
use crate::domain::id::HookId;
use crate::yaml::scalar::show_duration;

/// A hooks file is nested 32 deep at most, and a value stands within some levels.
const DEPTH_MAX: usize = 24;
/// What is a reference in texts of a hooks file.
const REFERENCES: [&str; 2] = ["${env:", "${file:"];

/// What a hook runs here.
pub(super) struct Run {
    /// The lines below `run:`.
    pub(super) yaml: String,
    pub(super) is_enabled: bool,
    /// What `commands.allow` has to name.
    pub(super) program: Option<String>,
}

impl Run {
    fn on(yaml: String) -> Self {
        Self { yaml, is_enabled: true, program: None }
    }
}

/// What a hook runs here. Of one that cannot be the same: the field of its executor, and why.
pub(super) fn run(definition: &HookDefinition) -> Result<Run, (&'static str, String)> {
    match &definition.executor {
        Executor::Command { command, shell, .. } => {
            let program = shell.as_deref().unwrap_or(SHELL);
            check_argument(program).map_err(|reason| ("shell", reason))?;
            check_argument(command).map_err(|reason| ("command", reason))?;
            let argv = [program, "-lc", command].map(quoted).join(", ");
            let yaml = format!("      command: {{ argv: [{argv}] }}\n");
            Ok(Run { program: Some(program.to_owned()), ..Run::on(yaml) })
        }
        Executor::Http { url, .. } => Ok(Run::on(format!("      http: {{ url: {} }}\n", quoted(&url_text(url))))),
        Executor::Callback { name, .. } => {
            let legal = "a callback is registered here under 1 to 128 letters, digits, '.', '_' or '-'";
            HookId::new(name).map_err(|_| ("name", legal.to_owned()))?;
            Ok(Run::on(format!("      callback: {}\n", scalar(name))))
        }
        Executor::Prompt { template, system_prompt, model, .. } => {
            let fields =
                [text("template", Some(template)), text("system_prompt", system_prompt.as_ref()), of(model.as_ref())];
            asked("prompt", fields.into_iter().flatten())
        }
        Executor::Agent { template, system_prompt, model, tool_surface, max_turns, .. } => {
            let fields = [
                text("template", Some(template)),
                text("system_prompt", system_prompt.as_ref()),
                of(model.as_ref()),
                tool_surface.as_ref().map(|surface| ("tool_surface", of_surface(surface))),
                max_turns.map(|turns| ("max_turns", json!(turns))),
            ];
            asked("agent", fields.into_iter().flatten())
        }
    }
}

type Entry = Option<(&'static str, Value)>;

fn text(name: &'static str, text: Option<&String>) -> Entry {
    text.map(|text| (name, json!(text)))
}

/// What a model is asked for, without fields that have their defaults.
fn of(model: Option<&Model>) -> Entry {
    let Model { provider, generation } = model?;
    let mut fields = Map::new();
    if let Some(provider) = provider {
        fields.insert("provider".to_owned(), json!(provider));
    }
    if let Some(generation) = generation {
        fields.insert("generation".to_owned(), Value::Object(generation.said()));
    }
    Some(("model", Value::Object(fields)))
}

/// Both lists, so that the file shows that one is empty.
fn of_surface(ToolSurface { allowlist, denylist }: &ToolSurface) -> Value {
    json!({ "allowlist": allowlist, "denylist": denylist })
}

/// A hook that a model answers. No version runs it yet.
fn asked(
    kind: &'static str,
    fields: impl Iterator<Item = (&'static str, Value)>,
) -> Result<Run, (&'static str, String)> {
    let mut lines = vec![format!("      {kind}:\n")];
    for (name, value) in fields {
        if depth(&value) > DEPTH_MAX {
            return Err((name, format!("it is nested more than {DEPTH_MAX} deep, which a hooks file does not hold")));
        }
        lines.push(format!("        {name}: {}\n", flow(&value)));
    }
    Ok(Run { is_enabled: false, ..Run::on(lines.concat()) })
}

fn check_argument(argument: &str) -> Result<(), String> {
    if argument.contains('\0') {
        return Err("it has a NUL, which no argument of a program can have".to_owned());
    }
    match REFERENCES.iter().find(|reference| argument.contains(**reference)) {
        Some(reference) => Err(format!(
            "it has `{reference}`, which is a reference in a hooks file: call the variable in the command by another name"
        )),
        None => Ok(()),
    }
}

/// A URL, with what would be a template or a reference in a hooks file percent-encoded.
fn url_text(url: &str) -> String {
    if rules::is_rewritten(url) { url.replace('{', "%7B") } else { url.to_owned() }
}

/// The hook as an item of `hooks:`, with its remarks above it.
pub(super) fn hook(hook: &Hook<'_>, run: &Run, remarks: &[Remark]) -> String {
    let HookDefinition { name, matcher, failure_policy, executor } = hook.definition;
    let mut lines = vec![String::from("\n")];
    let own = remarks.iter().filter(|remark| !remark.is_general);
    lines.extend(own.map(|remark| comment(2, &remark.sentences())));
    lines.push(format!("  - id: {}\n    name: {}\n    dialect: kheish\n", scalar(&hook.id), scalar(name)));
    lines.push(format!("    on: {TYPE_PREFIX}{}\n", hook.event.snake));
    if let Some(matcher) = matcher.as_deref().filter(|matcher| !matcher.is_empty()) {
        lines.push(format!("    matcher: {}\n", quoted(matcher)));
    }
    if !rules::ignores_answers(hook.event) {
        lines.push("    mode: gate\n".to_owned());
        if failure_policy.mode == FailureMode::Closed {
            lines.push("    on_failure: closed\n".to_owned());
        }
    }
    if !run.is_enabled {
        lines.push("    enabled: false\n".to_owned());
    }
    let timeout = show_duration(Duration::from_millis(executor.timeout_ms()));
    lines.push(format!("    timeout: {timeout}\n    retry: {{ attempts: {} }}\n", failure_policy.max_retries + 1));
    if matches!(executor, Executor::Command { command, .. } if machine::sign(command).is_some()) {
        lines.push("    # run_on: origin\n".to_owned());
    }
    lines.push(format!("    run:\n{}", run.yaml));
    lines.concat()
}
