//! What is counted at every event, its series looked up once. Made after the recorder of the process is installed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Histogram};
use tokio::time::Instant;

use crate::domain::claim::Answer;
use crate::domain::hook::HookId;
use crate::domain::message::Queue;
use crate::domain::outcome::Outcome;
use crate::domain::settle::Class;
use crate::telemetry::{Metric, now_ms};

/// Answers to claims, by the names of their series.
const ANSWERS: [&str; 8] = ["won", "takeover", "done", "superseded", "busy", "resume", "suspect", "other"];

/// Between two lines about the expressions of one hook.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// The series of a pipeline.
pub struct Meters {
    deliveries: HashMap<Queue, Counter>,
    claims: HashMap<&'static str, Counter>,
    last_letter: Mutex<Option<LastLetter>>,
}

/// The newest letter of a cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastLetter {
    /// In milliseconds since 1970.
    pub at_ms: u64,
    /// None: it is about a whole event or message.
    pub hook: Option<String>,
}

impl Default for Meters {
    fn default() -> Self {
        let delivered = |&queue: &Queue| (queue, Metric::Deliveries.counter(&[("queue", queue.name().to_owned())]));
        let answered = |name: &'static str| (name, Metric::Claims.counter(&[("answer", name.to_owned())]));
        Self {
            deliveries: Queue::ALL.iter().map(delivered).collect(),
            claims: ANSWERS.into_iter().map(answered).collect(),
            last_letter: Mutex::default(),
        }
    }
}

impl Meters {
    pub(super) fn delivered(&self, queue: Queue) {
        if let Some(counter) = self.deliveries.get(&queue) {
            counter.increment(1);
        }
    }

    /// Counts a letter.
    pub(super) fn buried(&self, class: Class, hook: Option<&str>) {
        Metric::Letters.count(&[("class", class.name()), ("hook", hook.unwrap_or_default().to_owned())]);
        let last = LastLetter { at_ms: now_ms(), hook: hook.map(str::to_owned) };
        *self.last_letter.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    #[must_use]
    pub fn last_letter(&self) -> Option<LastLetter> {
        self.last_letter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts an answer to a claim; says what it is called.
    pub(super) fn claimed(&self, answer: &Answer) -> &'static str {
        let name = match answer {
            Answer::Won { taken_over: true, .. } => "takeover",
            Answer::Won { .. } => "won",
            Answer::Done { .. } => "done",
            Answer::Superseded => "superseded",
            Answer::Busy { .. } => "busy",
            Answer::Resume { .. } => "resume",
            Answer::Suspect { .. } => "suspect",
            Answer::Ok | Answer::NotYours | Answer::Cancelled { .. } => "other",
        };
        if let Some(counter) = self.claims.get(name) {
            counter.increment(1);
        }
        name
    }
}

/// The series of one hook.
pub struct HookMeters {
    done: Counter,
    failed: Counter,
    interrupted: Counter,
    seconds: Histogram,
    condition_errors: Counter,
    hook: HookId,
    /// When it was told last that an expression fails.
    told: Mutex<Option<Instant>>,
}

impl HookMeters {
    pub(super) fn new(hook: &HookId) -> Self {
        let label = || ("hook", hook.to_string());
        let ended = |outcome: &str| Metric::Attempts.counter(&[label(), ("outcome", outcome.to_owned())]);
        Self {
            done: ended("done"),
            failed: ended("failed"),
            interrupted: ended("interrupted"),
            seconds: Metric::AttemptSeconds.histogram(&[label()]),
            condition_errors: Metric::ConditionErrors.counter(&[label()]),
            hook: hook.clone(),
            told: Mutex::default(),
        }
    }

    /// An expression of the hook cannot be evaluated for an event: counted, and told once in a while.
    pub(super) fn condition_failed(&self, field: &str, error: &str) {
        self.condition_errors.increment(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(hook = %self.hook, error, "`{field}` cannot be evaluated for an event");
        }
    }

    pub(super) fn attempted(&self, outcome: &Outcome, seconds: f64) {
        self.seconds.record(seconds);
        let counter = match outcome {
            Outcome::Done => &self.done,
            Outcome::Failed(_) => &self.failed,
            Outcome::Interrupted => &self.interrupted,
        };
        counter.increment(1);
    }
}
