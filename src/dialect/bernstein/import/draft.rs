//! A hook on its way, and how it is written.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::dialect::import::{ImportedHook, Remark};
use crate::dialect::yaml_text::{comment, flow, quoted, scalar};
use crate::domain::hook::OnFailure;
use crate::yaml::scalar::show_duration;

/// What a hooks file takes as a timeout.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// What is different here, and what to do about it.
pub(super) type Said = (String, String);

pub(super) fn said(change: impl Into<String>, advice: impl Into<String>) -> Said {
    (change.into(), advice.into())
}

/// A hook of ours that is made of one of theirs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    /// What its id has before its name, such as `lifecycle.pre_task`.
    pub group: String,
    /// What its id ends with.
    pub short: String,
    /// What it is called there.
    pub name: String,
    /// The event as it is called there.
    pub event: String,
    pub on: Vec<String>,
    pub matcher: Option<String>,
    pub when: Option<String>,
    /// `None`: it observes.
    pub gate: Option<OnFailure>,
    pub is_enabled: bool,
    pub timeout: Duration,
    /// The value of `retry`.
    pub retry: Value,
    pub labels: Map<String, Value>,
    /// What it does: the one field of `run`, and its value.
    pub run: (&'static str, Value),
    /// Remarks on it alone.
    pub remarks: Vec<Said>,
    /// Remarks on all of its kind.
    pub general: Vec<Said>,
}

impl Draft {
    /// One that observes, with nothing special.
    pub(super) fn new(group: String, name: &str, on: String, run: (&'static str, Value)) -> Self {
        Self {
            event: group.clone(),
            group,
            short: name.to_owned(),
            name: name.to_owned(),
            on: vec![on],
            matcher: None,
            when: None,
            gate: None,
            is_enabled: true,
            timeout: Duration::from_secs(10),
            retry: attempts(1),
            labels: Map::new(),
            run,
            remarks: Vec::new(),
            general: Vec::new(),
        }
    }

    /// With this timeout, in seconds. One that a hooks file cannot hold becomes the next that it can, with a remark.
    pub(super) fn within(mut self, seconds: f64) -> Self {
        let wanted = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        self.timeout = wanted.clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        if wanted < TIMEOUT_MIN {
            self.remarks.push(said(
                format!("Its timeout is {seconds} s: it expires at once, there and here (after 1 ms)"),
                "correct the timeout: the hook always fails",
            ));
        } else if wanted > TIMEOUT_MAX {
            self.remarks
                .push(said(format!("Its timeout is {seconds} s; here a hook has 24 h at most"), Remark::NOTHING));
        }
        self
    }

    /// What `commands.allow` has to name for it.
    pub(super) fn program(&self) -> Option<String> {
        let ("command", run) = &self.run else { return None };
        match run.pointer("/argv/0") {
            Some(program) => program.as_str().map(str::to_owned),
            None => Some("sh".to_owned()),
        }
    }

    pub(super) fn imported(&self, id: &str) -> ImportedHook {
        let (name, event) = (self.name.clone(), self.event.clone());
        ImportedHook { id: id.to_owned(), name, event, runs: self.run.0, enabled: self.is_enabled }
    }

    /// All remarks on it, as remarks of the hook with this id.
    pub(super) fn remarks(&self, id: &str) -> impl Iterator<Item = Remark> {
        let of = |(change, advice): &Said, is_general| Remark {
            hooks: vec![id.to_owned()],
            events: vec![self.event.clone()],
            change: change.clone(),
            advice: advice.clone(),
            is_general,
        };
        let own = self.remarks.iter().map(move |said| of(said, false));
        own.chain(self.general.iter().map(move |said| of(said, true)))
    }

    /// As an item of `hooks:`, with its remarks above it.
    pub(super) fn yaml(&self, id: &str) -> String {
        let mut lines = vec![String::from("\n")];
        let own = self.remarks(id).filter(|remark| !remark.is_general);
        lines.extend(own.map(|remark| comment(2, &remark.sentences())));
        lines.push(format!("  - id: {}\n    name: {}\n    dialect: bernstein\n", scalar(id), scalar(&self.name)));
        lines.push(match &*self.on {
            [on] => format!("    on: {}\n", type_text(on)),
            all => format!("    on: [{}]\n", all.iter().map(|on| type_text(on)).collect::<Vec<_>>().join(", ")),
        });
        let texts = [("matcher", &self.matcher), ("when", &self.when)];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)));
        lines.extend(texts.map(|(key, text)| format!("    {key}: {}\n", quoted(text))));
        if let Some(on_failure) = self.gate {
            lines.push("    mode: gate\n".to_owned());
            lines.extend((on_failure == OnFailure::Closed).then(|| "    on_failure: closed\n".to_owned()));
        }
        lines.extend((!self.is_enabled).then(|| "    enabled: false\n".to_owned()));
        lines.push(format!("    timeout: {}\n    retry: {}\n", show_duration(self.timeout), flow(&self.retry)));
        if !self.labels.is_empty() {
            lines.push(format!("    labels: {}\n", flow(&Value::Object(self.labels.clone()))));
        }
        let (kind, run) = &self.run;
        lines.push(format!("    run: {{ {kind}: {} }}\n", flow(run)));
        lines.concat()
    }
}

/// The value of `retry` for so many tries in all, with the waits of the dialect.
pub(super) fn attempts(count: u32) -> Value {
    json!({ "attempts": count })
}

/// A type of events, where it is no plain scalar.
fn type_text(on: &str) -> String {
    let is_plain = on.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if is_plain { scalar(on) } else { quoted(on) }
}
