//! The event that Aether's engine hands to its notifier.

use std::borrow::Cow;

use serde::Deserialize;

use crate::domain::escape::quoted;

/// A phase for which a document names a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookType {
    Start,
    Success,
    Failure,
    Error,
    Suspend,
    Resume,
    Cancel,
    Exit,
}

impl HookType {
    /// All of them, in the order in which the engine checks the hooks of a document.
    pub(super) const ALL: [(&'static str, Self); 8] = [
        ("onStart", Self::Start),
        ("onSuccess", Self::Success),
        ("onFailure", Self::Failure),
        ("onError", Self::Error),
        ("onSuspend", Self::Suspend),
        ("onResume", Self::Resume),
        ("onCancel", Self::Cancel),
        ("onExit", Self::Exit),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, hook_type)| *hook_type == self).map_or("", |(name, _)| name)
    }

    /// A run fires it once. The others come again with equal content, when a task is suspended, resumed or retried.
    const fn is_once(self) -> bool {
        !matches!(self, Self::Start | Self::Suspend | Self::Resume)
    }
}

/// What has reached the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Workflow,
    Task,
}

impl Scope {
    const ALL: [(&'static str, Self); 2] = [("workflow", Self::Workflow), ("task", Self::Task)];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, scope)| *scope == self).map_or("", |(name, _)| name)
    }
}

/// An event, as far as it is looked at. Texts that are not there are empty, as Go has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookEvent<'a> {
    pub hook_type: HookType,
    pub scope: Scope,
    pub workflow_run_id: Cow<'a, str>,
    pub workflow_name: Cow<'a, str>,
    pub task_run_id: Cow<'a, str>,
    pub task_name: Cow<'a, str>,
    /// The template that the document names for this hook.
    pub template: Cow<'a, str>,
}

/// The fields as Go writes a struct without tags, or as a host has tagged it.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default, rename = "HookType", alias = "hookType")]
    hook_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "Scope", alias = "scope")]
    scope: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "WorkflowRunID", alias = "workflowRunID", alias = "workflowRunId")]
    workflow_run_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "WorkflowName", alias = "workflowName")]
    workflow_name: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "TaskRunID", alias = "taskRunID", alias = "taskRunId")]
    task_run_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "TaskName", alias = "taskName")]
    task_name: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "Template", alias = "template")]
    template: Option<Cow<'a, str>>,
}

impl<'a> HookEvent<'a> {
    /// # Errors
    /// One sentence: what was expected and what was found.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, String> {
        if json.trim_ascii_start().first() == Some(&b'[') {
            return Err("expected a hook event of Aether: an object, found a list".to_owned());
        }
        let fields: Fields<'a> =
            serde_json::from_slice(json).map_err(|error| format!("expected a hook event of Aether: {error}"))?;
        let hook_type = one_of("HookType", &HookType::ALL, fields.hook_type.as_deref())?;
        let scope = one_of("Scope", &Scope::ALL, fields.scope.as_deref())?;
        let event = Self {
            hook_type,
            scope,
            workflow_run_id: fields.workflow_run_id.unwrap_or_default(),
            workflow_name: fields.workflow_name.unwrap_or_default(),
            task_run_id: fields.task_run_id.unwrap_or_default(),
            task_name: fields.task_name.unwrap_or_default(),
            template: fields.template.unwrap_or_default(),
        };
        if event.workflow_run_id.is_empty() {
            return Err("expected `WorkflowRunID`, found none".to_owned());
        }
        if scope == Scope::Task && event.task_run_id.is_empty() {
            return Err("expected `TaskRunID` in an event of a task, found none".to_owned());
        }
        Ok(event)
    }

    /// Of the workflow, or the task.
    pub(super) fn name(&self) -> &str {
        match self.scope {
            Scope::Workflow => &self.workflow_name,
            Scope::Task => &self.task_name,
        }
    }

    /// Of the run and the hook, if one run fires it once.
    pub(super) fn id(&self) -> Option<String> {
        let parts = [&self.workflow_run_id, &self.task_run_id].map(|part| escaped(part));
        self.hook_type.is_once().then(|| format!("{}/{}/{}", parts[0], parts[1], self.hook_type.name()))
    }
}

/// A part of an id, in which no `/` can be taken for the end of it.
fn escaped(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

fn one_of<T: Copy>(field: &str, all: &[(&'static str, T)], found: Option<&str>) -> Result<T, String> {
    let value = all.iter().find(|(name, _)| Some(*name) == found).map(|(_, value)| *value);
    value.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let found = found.map_or_else(|| "none".to_owned(), quoted);
        format!("expected `{field}` of a hook event of Aether ({}), found {found}", names.join(", "))
    })
}
