//! Takes hooks over from Aether: a document of a workflow in, a hooks file of ours out.
//!
//! | there | here |
//! |---|---|
//! | `spec.hooks`, and `hooks` of a task in a dag | a hook for each, with the id `{prefix}.{workflow}.{hook}` or `{prefix}.{workflow}.{task}.{hook}` |
//! | the phase | `on: aether.{scope}.{hook}` |
//! | the workflow, or the place where the task is called | `subject`: its name |
//! | `template` | `name`, and a condition: the event says which template it is for |
//! | what the template runs | what is wished for under its name; else a `TaskAssignment` of package `wire`, published to [`EXCHANGE`] |

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::event::{HookType, Scope};
use crate::dialect::ids::Ids;
use crate::dialect::import::{Imported, ImportedHook, Misfit, Refused, Remark, Wish, gathered, hooks_file, place};
use crate::dialect::json_text::{JsonText, SPOTS_MAX, Way};
use crate::dialect::yaml_text::{comment, flow, quoted, scalar};
use document::{Binding, Document, Fault, Kind, Template, field, text};

mod document;
mod remarks;

/// Where assignments of tasks go.
const EXCHANGE: &str = "aether.tasks";
/// What a hook may run, and thus what may be wished for in place of a template.
const EXECUTORS: [&str; 4] = ["http", "command", "callback", "publish"];
/// What a template can read of the run that it is part of. Nothing of it is there for a hook.
const OF_RUNS: [&str; 3] = ["inputs.", "tasks.", "loop_iter."];

/// A hook that was taken over.
struct Taken<'d> {
    binding: Binding<'d>,
    hook: ImportedHook,
    run: Value,
    /// Nothing was wished for it.
    is_assigned: bool,
}

/// Takes over the hooks of one document.
///
/// # Errors
/// [`Refused`]: a document that the engine would refuse, or a hook that can run nothing here. With [`Wish::is_lenient`] such
/// hooks are left out instead.
pub(in crate::dialect) fn import(wish: &Wish<'_>) -> Result<Imported, Refused> {
    let (text, value) = JsonText::read(wish.bytes).map_err(|error| {
        refused(vec![Misfit { place: place(wish.file, error.spot, ""), reason: error.reason }], false)
    })?;
    let document = Document::read(&value).map_err(|faults| refused(placed(wish, text, faults), false))?;
    let mut faults = unknown_runs(&document, wish);
    let all = document.bindings();
    let (mut ids, mut seen, mut taken) = (Ids::new(wish.prefix), HashSet::new(), Vec::new());
    for binding in all.bindings {
        if !seen.insert((binding.scope.name(), binding.name, binding.hook_type.name(), binding.template)) {
            continue; // two dags call tasks of one name: their events are the same
        }
        match take(&document, binding, wish, &mut ids) {
            Ok(one) => taken.push(one),
            Err(fault) => faults.push(fault),
        }
    }
    let left_out = placed(wish, text, faults);
    if !left_out.is_empty() && !wish.is_lenient {
        return Err(refused(left_out, true));
    }
    let remarks = gathered(remarks::of(&document, &taken, &all.unknown));
    Ok(finish(wish, &document, &taken, remarks, left_out))
}

/// Names of what is wished for that are no templates of the document.
fn unknown_runs(document: &Document<'_>, wish: &Wish<'_>) -> Vec<Fault> {
    let is_unknown = |name: &&String| document.template(name).is_none();
    let fault =
        |name: &String| (Way::default(), format!("there is no template {name:?}, for which something is to run"));
    wish.runs.into_iter().flat_map(Map::keys).filter(is_unknown).map(fault).collect()
}

fn take<'d>(
    document: &Document<'d>,
    binding: Binding<'d>,
    wish: &Wish<'_>,
    ids: &mut Ids<'_>,
) -> Result<Taken<'d>, Fault> {
    let Binding { hook_type, scope, name, template, ref way, ref location, .. } = binding;
    let said = |reason: &str| (way.field("template"), format!("{location}: {} {reason}", hook_type.name()));
    if template.is_empty() {
        return Err(said("names no template: the engine takes that, and there is nothing to run"));
    }
    let found =
        document.template(template).ok_or_else(|| said(&format!("references unknown template {template:?}")))?;
    if found.kind != Kind::Task {
        return Err(said(&format!("template {template:?} must be a task template (not dag or loop)")));
    }
    let wished = wish.runs.and_then(|runs| runs.get(template));
    if wished.is_none() {
        check_executor(found).and_then(|()| reads_nothing(found))?;
    }
    let run = wished.cloned().unwrap_or_else(|| assignment(found));
    let runs = run.as_object().and_then(|run| EXECUTORS.into_iter().find(|kind| run.contains_key(*kind)));
    let runs = runs.ok_or_else(|| {
        (Way::default(), format!("expected one of {} to run for template {template:?}", EXECUTORS.join(", ")))
    })?;
    let group = match scope {
        Scope::Workflow => document.name.to_owned(),
        Scope::Task => format!("{}.{name}", document.name),
    };
    let hook = ImportedHook {
        id: ids.next(&group, hook_type.name()),
        name: template.to_owned(),
        event: format!("{}.{}", scope.name(), hook_type.name()),
        runs,
        enabled: true,
    };
    Ok(Taken { binding, hook, run, is_assigned: wished.is_none() })
}

/// The executor's type becomes a routing key, and a text of a hooks file, in which some characters mean more.
fn check_executor(template: &Template<'_>) -> Result<(), Fault> {
    let (name, executor) = (template.name, executor(template));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    if !executor.is_empty() && executor.chars().all(is_plain) {
        return Ok(());
    }
    let reason = format!(
        "template {name:?} has the executor {executor:?}: a task is assigned by a type of letters, digits and `_-.:/`; say \
         with --runs what runs it"
    );
    Err((template.way.field("executor").field("type"), reason))
}

/// A hook gets neither inputs nor outputs of the run, so that a template which reads them cannot be one.
fn reads_nothing(template: &Template<'_>) -> Result<(), Fault> {
    let inputs = field(template.value, "inputs").and_then(|inputs| field(inputs, "parameters"));
    for (at, input) in inputs.and_then(Value::as_array).into_iter().flatten().enumerate() {
        if ["value", "default", "valueFrom"].iter().all(|of| field(input, of).is_none()) {
            let way = template.way.field("inputs").field("parameters").item(at);
            let (name, input) = (template.name, text(input, "name"));
            return Err((way, format!("template {name:?} wants the input {input:?}, and a hook is given none")));
        }
    }
    match reading(template.value, &template.way) {
        None => Ok(()),
        Some((way, found)) => {
            let name = template.name;
            Err((way, format!("template {name:?} reads {found:?}, and a hook is given nothing of the run")))
        }
    }
}

/// The first text that reads something of a run.
fn reading<'v>(value: &'v Value, way: &Way) -> Option<(Way, &'v str)> {
    match value {
        Value::String(text) => {
            let inside = text.split("{{").skip(1).map(str::trim_start);
            let mut places = [text.trim_start()].into_iter().chain(inside);
            let reads = places.any(|place| OF_RUNS.iter().any(|of_runs| place.starts_with(of_runs)));
            reads.then(|| (way.clone(), text.as_str()))
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| reading(item, &way.item(at))),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| reading(value, &way.field(name))),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn executor<'v>(template: &Template<'v>) -> &'v str {
    field(template.value, "executor").map(|executor| text(executor, "type")).unwrap_or_default()
}

/// `TaskAssignment` of package `wire`. The task run is one of its own, named by the key of the invocation.
fn assignment(template: &Template<'_>) -> Value {
    let json = |text: &str| Value::from(text).to_string();
    let (name, executor) = (json(template.name), executor(template));
    let body = format!(
        r#"{{"taskRunID": "{{{{ key }}}}", "workflowRunID": "{{{{ event.workflowrunid }}}}", "taskName": {name}, "templateName": {name}, "executorType": {}}}"#,
        json(executor)
    );
    serde_json::json!({ "publish": {
        "exchange": EXCHANGE,
        "routing_key": executor,
        "type": "aether.task.assignment",
        "content_type": "application/json",
        "body": body,
    } })
}

fn finish(
    wish: &Wish<'_>,
    document: &Document<'_>,
    taken: &[Taken<'_>],
    remarks: Vec<Remark>,
    left_out: Vec<Misfit>,
) -> Imported {
    let program = |taken: &Taken<'_>| Some(taken.run.pointer("/command/argv/0")?.as_str()?.to_owned());
    let mut programs: Vec<String> = taken.iter().filter_map(program).collect();
    programs.sort();
    programs.dedup();
    let load = load(document, taken);
    let hooks = taken.iter().map(|taken| taken.hook.clone()).collect();
    let imported = Imported { yaml: String::new(), hooks, remarks, left_out, programs, load };
    let head = format!("Hooks of Aether's workflow {}, imported from {}.", document.name, wish.file);
    let items: Vec<String> = taken.iter().map(|taken| written(taken, &imported.remarks)).collect();
    let yaml = hooks_file(&head, &imported, items.iter().map(String::as_str));
    Imported { yaml, ..imported }
}

/// The hook as an item of `hooks:`, with its remarks above it.
fn written(taken: &Taken<'_>, remarks: &[Remark]) -> String {
    let Taken { binding, hook, run, .. } = taken;
    let mut lines = vec![String::from("\n")];
    let own = remarks.iter().filter(|remark| !remark.is_general && remark.hooks.contains(&hook.id));
    lines.extend(own.map(|remark| comment(2, &remark.sentences())));
    lines.push(format!("  - id: {}\n    name: {}\n    dialect: aether\n", scalar(&hook.id), scalar(&hook.name)));
    lines.push(format!("    on: {}{}\n", super::TYPE_PREFIX, hook.event));
    lines.push(format!("    subject: {}\n", scalar(binding.name)));
    let is_its_own = format!("has(event.hooktemplate) && event.hooktemplate == {}", Value::from(hook.name.as_str()));
    lines.push(format!("    when: {}\n", quoted(&is_its_own)));
    lines.push(format!("    run: {}\n", flow(run)));
    lines.concat()
}

fn load(document: &Document<'_>, taken: &[Taken<'_>]) -> Vec<String> {
    let of_workflow = taken.iter().filter(|taken| taken.binding.scope == Scope::Workflow);
    let ends = of_workflow.clone().filter(|taken| !matches!(taken.binding.hook_type, HookType::Start | HookType::Exit));
    let always = of_workflow.clone().count() - ends.clone().count();
    let most = always + usize::from(ends.count() > 0);
    let of_tasks = taken.len() - of_workflow.count();
    let mut sentences = Vec::new();
    if !taken.is_empty() {
        sentences.push(format!(
            "Load: a run of {} makes at most {most} runs for the workflow, and those of {of_tasks} hooks of tasks at each \
             phase that they reach.",
            document.name
        ));
    }
    sentences
}

fn placed(wish: &Wish<'_>, text: JsonText<'_>, faults: Vec<Fault>) -> Vec<Misfit> {
    let misfit = |(at, (way, reason)): (usize, Fault)| {
        let spot = (at < SPOTS_MAX && way.len() > 0).then(|| text.spot(&way));
        Misfit { place: place(wish.file, spot, &way.to_string()), reason }
    };
    faults.into_iter().enumerate().map(misfit).collect()
}

fn refused(problems: Vec<Misfit>, can_be_left_out: bool) -> Refused {
    let notes =
        if can_be_left_out { Vec::new() } else { vec!["Aether refuses such a document, or cannot read it".to_owned()] };
    Refused { problems, notes, can_be_left_out }
}

#[cfg(test)]
mod tests;
