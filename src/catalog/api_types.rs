//! Hooks and problems as JSON, without what nobody may see.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::dialect::Dialect;
use crate::domain::expression::Expression;
use crate::domain::hook::{Action, Compression, Hook, Limits, Matcher, Mode, OncePer};
use crate::domain::pattern::{Glob, Pattern};
use crate::domain::retry::RetryPolicy;
use crate::yaml::problem::{Place, Problem};
use crate::yaml::scalar::show_duration;

/// A hook: of its target what may be shown, of headers and variables their names.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Hook)]
pub struct HookView {
    pub id: String,
    /// Event type patterns.
    pub on: Vec<String>,
    /// Globs; none: any source.
    pub source: Vec<String>,
    /// Globs; none: any subject.
    pub subject: Vec<String>,
    /// The condition, in CEL.
    pub when: Option<String>,
    /// active, paused, disabled or gate
    pub state: &'static str,
    pub labels: BTreeMap<String, String>,
    pub order: i32,
    pub once_per: Option<OncePerView>,
    /// The system whose contract its target speaks, such as kheish; absent for native.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<&'static str>,
    /// What that system calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What that system compares with an event's subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matcher: Option<String>,
    pub run: RunView,
    /// Such as 10s.
    pub timeout: String,
    pub retry: RetryView,
    /// Runs at a time in one worker.
    pub concurrency: usize,
    /// Runs at a time in all workers together.
    pub concurrency_fleet: Option<u32>,
    /// Between two runs, in all workers together.
    pub rate_interval: Option<String>,
    pub lane: &'static str,
}

/// Of events with the same key one runs the hook within the window.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = OncePer)]
pub struct OncePerView {
    /// In CEL.
    pub key: String,
    pub window: String,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Run)]
pub enum RunView {
    Http {
        method: &'static str,
        /// Scheme, host and port.
        target: String,
        /// Their names.
        headers: Vec<String>,
        /// The server whose tokens it sends: OAuth 2 client credentials. Scheme, host and port.
        #[serde(skip_serializing_if = "Option::is_none")]
        oauth2: Option<String>,
        /// Names of the headers that are made for each attempt.
        signed: Vec<String>,
        /// What is sent where the hook has no body of its own: `native`, `cloudevents`, `cloudevents-binary` or `envelope`.
        format: &'static str,
        /// Whether bodies are compressed where that makes them smaller.
        compressed: bool,
    },
    Command {
        program: Option<String>,
        /// How many there are.
        arguments: usize,
        /// The names of the variables that are set for it.
        env: Vec<String>,
        /// What each of its processes may use, where that is less than what the worker may.
        limits: LimitsView,
        no_new_privileges: bool,
        /// Whether it may open some files only.
        fenced: bool,
    },
    Callback {
        name: String,
    },
    Publish {
        /// Broker and exchange.
        target: String,
        /// Their names.
        headers: Vec<String>,
        /// Whether a message that no queue gets is a failure.
        mandatory: bool,
    },
    /// Kept, and not run by this version.
    Model {
        /// `prompt`, `agent` or `mcp_tool`, and who answers.
        target: String,
    },
}

/// Bounds of a process; what is not there has none.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Limits)]
pub struct LimitsView {
    /// Seconds of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// Bytes of address space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Open files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Processes of its user, beside those that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl LimitsView {
    const fn of(limits: &Limits) -> Self {
        Self { cpu: limits.cpu_s, memory: limits.memory, files: limits.files, processes: limits.processes }
    }
}

/// How often a hook is tried.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Retry)]
pub struct RetryView {
    pub attempts: u32,
    pub give_up_after: String,
    pub backoff: BackoffView,
}

/// How long is waited between attempts.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Backoff)]
pub struct BackoffView {
    pub initial: String,
    pub factor: f64,
    pub max: String,
    pub jitter: f64,
}

impl HookView {
    #[must_use]
    pub fn of(hook: &Hook) -> Self {
        Self {
            id: hook.id.to_string(),
            on: hook.on.iter().map(Pattern::as_str).map(str::to_owned).collect(),
            source: hook.source.iter().map(Glob::as_str).map(str::to_owned).collect(),
            subject: hook.subject.iter().map(Glob::as_str).map(str::to_owned).collect(),
            when: hook.when.as_ref().map(Expression::as_str).map(str::to_owned),
            state: state(hook),
            labels: hook.labels.clone(),
            order: hook.order,
            once_per: hook.once_per.as_ref().map(OncePerView::of),
            dialect: (hook.dialect != Dialect::Native).then(|| hook.dialect.name()),
            name: hook.name.clone(),
            matcher: hook.matcher.as_ref().map(Matcher::as_str).map(str::to_owned),
            run: RunView::of(&hook.action),
            timeout: show_duration(hook.timeout),
            retry: RetryView::of(&hook.retry),
            concurrency: hook.concurrency,
            concurrency_fleet: hook.concurrency_fleet,
            rate_interval: hook.rate.map(|rate| show_duration(rate.interval)),
            lane: hook.lane.name(),
        }
    }
}

impl OncePerView {
    fn of(once: &OncePer) -> Self {
        Self { key: once.key.as_str().to_owned(), window: show_duration(once.window) }
    }
}

impl RunView {
    fn of(action: &Action) -> Self {
        match action {
            Action::Http(http) => Self::Http {
                method: http.method.name(),
                target: action.target(),
                headers: http.headers.iter().map(|(name, _)| name.clone()).collect(),
                oauth2: http.oauth.as_ref().map(|oauth| oauth.server()),
                signed: http.signing.headers().map(str::to_owned).collect(),
                format: http.format.name(),
                compressed: http.compression == Compression::Gzip,
            },
            Action::Command(command) => Self::Command {
                program: command.argv.first().cloned(),
                arguments: command.argv.len().saturating_sub(1),
                env: command.env.keys().cloned().collect(),
                limits: LimitsView::of(&command.fences.limits),
                no_new_privileges: command.fences.no_new_privileges,
                fenced: command.fences.files.is_some(),
            },
            Action::Callback(name) => Self::Callback { name: name.clone() },
            Action::Publish(publish) => Self::Publish {
                target: action.target(),
                headers: publish.headers.iter().map(|(name, _)| name.clone()).collect(),
                mandatory: publish.mandatory,
            },
            Action::Model(model) => Self::Model { target: model.target() },
        }
    }
}

impl RetryView {
    fn of(retry: &RetryPolicy) -> Self {
        Self {
            attempts: retry.attempts,
            give_up_after: show_duration(retry.give_up_after),
            backoff: BackoffView {
                initial: show_duration(retry.initial),
                factor: retry.factor,
                max: show_duration(retry.max),
                jitter: retry.jitter,
            },
        }
    }
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

/// A problem of a hooks file, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Mistake)]
pub struct ProblemView {
    /// error or warning
    pub severity: String,
    pub file: String,
    pub line: Option<usize>,
    pub column: Option<usize>,
    /// The way to it, such as `hooks[2].retry.attempts`.
    pub path: String,
    pub expected: String,
    pub found: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl ProblemView {
    #[must_use]
    pub fn of(problem: &Problem) -> Self {
        let (file, line, column) = match &problem.place {
            Place::Line { file, line, column, .. } => (file.clone(), Some(*line), Some(*column)),
            other => (other.to_string(), None, None),
        };
        Self {
            severity: problem.severity.to_string(),
            file,
            line,
            column,
            path: problem.path.clone(),
            expected: problem.expected.clone(),
            found: problem.found.clone(),
            help: problem.help.clone(),
        }
    }
}
