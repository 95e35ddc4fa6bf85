//! The document of a workflow, as far as its hooks go. Keys are found as Go's decoder finds them: the one that is the same, else
//! one that differs in case.

use serde_json::Value;

use crate::dialect::aether::event::{HookType, Scope};
use crate::dialect::json_text::Way;

/// The only version of documents that the engine takes.
const VERSION: &str = "aether/v1";
/// Longest name of a workflow, a template or a task.
const NAME_BYTES_MAX: usize = 63;

/// What is wrong, and where.
pub(super) type Fault = (Way, String);

#[derive(Debug)]
pub(super) struct Document<'v> {
    /// Of the workflow.
    pub name: &'v str,
    spec: &'v Value,
    way: Way,
    pub templates: Vec<Template<'v>>,
}

#[derive(Debug)]
pub(super) struct Template<'v> {
    pub name: &'v str,
    pub kind: Kind,
    pub value: &'v Value,
    pub way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Task,
    Dag,
    Loop,
}

impl Kind {
    const ALL: [(&'static str, Self); 3] = [("dag", Self::Dag), ("task", Self::Task), ("loop", Self::Loop)];
}

/// One hook of a document: of its workflow, or of one place where a task is called.
#[derive(Debug)]
pub(super) struct Binding<'v> {
    pub hook_type: HookType,
    pub scope: Scope,
    /// Of the workflow or the task.
    pub name: &'v str,
    /// The template that runs; may be empty.
    pub template: &'v str,
    pub way: Way,
    /// As the engine's own errors say where it is.
    pub location: String,
    /// What the task itself runs is a dag or a loop.
    pub of_container: bool,
    /// Its fields that are passed over.
    pub unknown: Vec<String>,
}

/// Everything in `hooks` of one place.
#[derive(Debug, Default)]
pub(super) struct Bindings<'v> {
    pub bindings: Vec<Binding<'v>>,
    /// Names that are none of a hook's, with their ways.
    pub unknown: Vec<Way>,
}

impl<'v> Document<'v> {
    /// # Errors
    /// What the engine would refuse, with its place.
    pub(super) fn read(value: &'v Value) -> Result<Self, Vec<Fault>> {
        let top = Way::default();
        let one = |fault| vec![fault];
        if !value.is_object() {
            return Err(one((top, format!("expected a workflow, found {}", kind_of(value)))));
        }
        let version = text(value, "apiVersion");
        if version != VERSION {
            return Err(one((top.field("apiVersion"), format!("unsupported apiVersion: {version}"))));
        }
        let name = field(value, "metadata").map(|metadata| text(metadata, "name")).unwrap_or_default();
        check_name("metadata.name", name).map_err(|reason| one((top.field("metadata").field("name"), reason)))?;
        let (spec, way) = match text(value, "kind") {
            "Workflow" => (field(value, "spec"), top.field("spec")),
            "CronWorkflow" => {
                let spec = field(value, "spec").and_then(|spec| field(spec, "workflowSpec"));
                (spec, top.field("spec").field("workflowSpec"))
            }
            kind => return Err(one((top.field("kind"), format!("unsupported kind: {kind}")))),
        };
        let spec = spec.filter(|spec| spec.is_object());
        let spec = spec.ok_or_else(|| one((way.clone(), "expected an object with `templates`".to_owned())))?;
        let templates = templates(spec, &way)?;
        let document = Self { name, spec, way, templates };
        document.check()?;
        Ok(document)
    }

    /// The parts that its hooks stand on.
    fn check(&self) -> Result<(), Vec<Fault>> {
        let entrypoint = text(self.spec, "entrypoint");
        let mut faults = Vec::new();
        if self.template(entrypoint).is_none() {
            let reason = format!("entrypoint template {entrypoint:?} not found in templates");
            faults.push((self.way.field("entrypoint"), reason));
        }
        for (template, task, way) in self.tasks() {
            let (name, called) = (text(task, "name"), text(task, "template"));
            if let Err(reason) = check_name("task name", name) {
                faults.push((way.field("name"), format!("template {:?}: {reason}", template.name)));
            }
            if !called.is_empty() && self.template(called).is_none() {
                let reason =
                    format!("template {:?}: task {name:?} references unknown template {called:?}", template.name);
                faults.push((way.field("template"), reason));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    pub(super) fn template(&self, name: &str) -> Option<&Template<'v>> {
        self.templates.iter().find(|template| template.name == name)
    }

    /// The tasks of all dags, with their templates and ways.
    fn tasks(&self) -> Vec<(&Template<'v>, &'v Value, Way)> {
        let mut tasks = Vec::new();
        for template in self.templates.iter().filter(|template| template.kind == Kind::Dag) {
            let Some(list) = field(template.value, "tasks").and_then(Value::as_array) else { continue };
            let way = template.way.field("tasks");
            tasks.extend(list.iter().enumerate().map(|(at, task)| (template, task, way.item(at))));
        }
        tasks
    }

    /// All hooks: those of the workflow, then those of tasks in their order.
    pub(super) fn bindings(&self) -> Bindings<'v> {
        let mut all = Bindings::default();
        let way = self.way.field("hooks");
        read_hooks(self.spec, &way, (Scope::Workflow, self.name, "spec.hooks".to_owned(), false), &mut all);
        for (template, task, way) in self.tasks() {
            let name = text(task, "name");
            let location = format!("template {:?} task {name:?} hooks", template.name);
            let called = self.template(text(task, "template"));
            let of_container = called.is_some_and(|called| called.kind != Kind::Task);
            read_hooks(task, &way.field("hooks"), (Scope::Task, name, location, of_container), &mut all);
        }
        all
    }
}

/// The hooks of one place.
fn read_hooks<'v>(
    of: &'v Value,
    way: &Way,
    (scope, name, location, of_container): (Scope, &'v str, String, bool),
    all: &mut Bindings<'v>,
) {
    let Some(hooks) = field(of, "hooks").and_then(Value::as_object) else { return };
    for (hook_name, hook_type) in HookType::ALL {
        let Some((key, hook)) = entry(hooks, hook_name).filter(|(_, hook)| hook.is_object()) else { continue };
        let unknown = hook.as_object().into_iter().flatten().map(|(name, _)| name);
        all.bindings.push(Binding {
            hook_type,
            scope,
            name,
            template: text(hook, "template"),
            way: way.field(key),
            location: location.clone(),
            of_container,
            unknown: unknown.filter(|name| !name.eq_ignore_ascii_case("template")).cloned().collect(),
        });
    }
    let is_hook = |name: &str| HookType::ALL.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    all.unknown.extend(hooks.keys().filter(|name| !is_hook(name)).map(|name| way.field(name)));
}

fn templates<'v>(spec: &'v Value, way: &Way) -> Result<Vec<Template<'v>>, Vec<Fault>> {
    let way = way.field("templates");
    let list = field(spec, "templates").and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| vec![(way.clone(), "spec.templates is required".to_owned())])?;
    let (mut templates, mut faults) = (Vec::new(), Vec::new());
    for (at, value) in list.iter().enumerate() {
        match template(value, &way.item(at), at) {
            Ok(template) => templates.push(template),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(templates) } else { Err(faults) }
}

/// `{"task": {"name": …}}`, or in the older form `{"name": …, "executor": …}`.
fn template<'v>(value: &'v Value, way: &Way, at: usize) -> Result<Template<'v>, Fault> {
    let wrapped = Kind::ALL.iter().filter_map(|(key, kind)| Some((*key, *kind, field(value, key)?)));
    let wrapped: Vec<_> = wrapped.filter(|(_, _, value)| value.is_object()).collect();
    let (kind, inner, way) = match wrapped.as_slice() {
        [(key, kind, inner)] => (*kind, *inner, way.field(key)),
        [] if field(value, "executor").is_some() => (Kind::Task, value, way.clone()),
        _ => {
            let reason = format!("template[{at}] must have exactly one of dag/task/loop");
            return Err((way.clone(), reason));
        }
    };
    let name = [text(inner, "name"), text(value, "name")].into_iter().find(|name| !name.is_empty());
    let name = name.ok_or_else(|| (way.clone(), format!("template[{at}].name is required")))?;
    check_name("template name", name).map_err(|reason| (way.field("name"), reason))?;
    Ok(Template { name, kind, value: inner, way })
}

/// As DNS-1123 has the names of hosts.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    let is_good = ends.into_iter().all(|end| end.is_some_and(is_letter))
        && name.bytes().all(|byte| is_letter(byte) || byte == b'-')
        && name.len() <= NAME_BYTES_MAX;
    if is_good {
        return Ok(());
    }
    Err(format!(
        "{what} {name:?} is invalid: expected 1 to {NAME_BYTES_MAX} of a-z, 0-9 and '-', with none of '-' at an end"
    ))
}

/// What Aether's engine reads under a key.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    entry(value.as_object()?, name).map(|(_, value)| value).filter(|value| !value.is_null())
}

fn entry<'v>(fields: &'v serde_json::Map<String, Value>, name: &str) -> Option<(&'v String, &'v Value)> {
    fields.get_key_value(name).or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
}

pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    field(value, name).and_then(Value::as_str).unwrap_or_default()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
