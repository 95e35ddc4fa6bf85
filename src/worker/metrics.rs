//! Metrics that are counted at every event, their series looked up once; and log lines that a flood of events would repeat,
//! once a minute each. Made after the recorder of the process is installed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Histogram};
use tokio::time::Instant;

use crate::domain::claim::Answer;
use crate::domain::event::Event;
use crate::domain::event_type::Misfit;
use crate::domain::failure::Class;
use crate::domain::id::HookId;
use crate::domain::message::Queue;
use crate::domain::outcome::Outcome;
use crate::telemetry::{Metric, now_ms};

/// Answers to claims, by the names of their series.
const ANSWERS: [&str; 10] =
    ["won", "takeover", "done", "superseded", "cancelled", "busy", "resume", "suspect", "decided", "other"];

/// Between two lines about the same thing.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// The series of a process.
pub struct WorkerMetrics {
    deliveries: HashMap<Queue, Counter>,
    claims: HashMap<&'static str, Counter>,
    logged: LoggedAt,
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

impl Default for WorkerMetrics {
    fn default() -> Self {
        let delivered = |&queue: &Queue| (queue, Metric::Deliveries.counter(&[("queue", queue.name().to_owned())]));
        let answered = |name: &'static str| (name, Metric::Claims.counter(&[("answer", name.to_owned())]));
        Self {
            deliveries: Queue::ALL.iter().chain(&Queue::OF_GATES).map(delivered).collect(),
            claims: ANSWERS.into_iter().map(answered).collect(),
            logged: LoggedAt::default(),
            last_letter: Mutex::default(),
        }
    }
}

impl WorkerMetrics {
    pub(super) fn delivered(&self, queue: Queue) {
        if let Some(counter) = self.deliveries.get(&queue) {
            counter.increment(1);
        }
    }

    /// Counts a dead letter.
    pub(super) fn dead_lettered(&self, class: Class, hook: Option<&str>) {
        Metric::Letters.count(&[("class", class.name()), ("hook", hook.unwrap_or_default().to_owned())]);
        let last = LastLetter { at_ms: now_ms(), hook: hook.map(str::to_owned) };
        *self.last_letter.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    #[must_use]
    pub fn last_letter(&self) -> Option<LastLetter> {
        self.last_letter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts an answer to a claim.
    pub(super) fn claim_answered(&self, answer: &Answer) {
        if let Some(counter) = self.claims.get(claim_name(answer)) {
            counter.increment(1);
        }
    }
}

/// The name of an answer to a claim, as metrics and logs have it.
pub(super) const fn claim_name(answer: &Answer) -> &'static str {
    match answer {
        Answer::Won { taken_over: true, .. } => "takeover",
        Answer::Won { .. } => "won",
        Answer::Done { .. } => "done",
        Answer::Superseded => "superseded",
        Answer::Busy { .. } => "busy",
        Answer::Resume { .. } => "resume",
        Answer::Suspect { .. } => "suspect",
        Answer::Decided { .. } => "decided",
        Answer::Cancelled { .. } => "cancelled",
        Answer::Ok | Answer::NotYours => "other",
    }
}

impl WorkerMetrics {
    /// An expression of a hook cannot be evaluated for an event.
    pub(super) fn condition_failed(&self, hook: &HookMetrics, field: &str, error: &str) {
        hook.condition_errors.increment(1);
        if self.logged.is_due("condition", hook.hook.as_str()) {
            tracing::warn!(hook = %hook.hook, error, "`{field}` cannot be evaluated for an event");
        }
    }

    /// An event is taken whose data is not what its type declares.
    pub(super) fn misfit_taken(&self, event: &Event, misfit: &Misfit) {
        if self.logged.is_due("misfit", &misfit.on) {
            let (id, source, sentence) = (&event.id, &event.source, misfit.sentence());
            tracing::warn!(event = id, source, misfit = sentence, "an event is not what its type declares");
        }
    }
}

/// When each thing was logged last, so that a flood of events does not become one of lines.
#[derive(Default)]
struct LoggedAt(Mutex<HashMap<(&'static str, String), Instant>>);

impl LoggedAt {
    /// Whether to tell of this thing now.
    fn is_due(&self, what: &'static str, name: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (what, name.to_owned());
        let is_due = logged.get(&key).is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if is_due {
            logged.retain(|_, at| at.elapsed() < TELL_EVERY); // what no catalog names any more is not kept
            logged.insert(key, Instant::now());
        }
        is_due
    }
}

/// The series of one hook.
pub struct HookMetrics {
    done: Counter,
    failed: Counter,
    interrupted: Counter,
    seconds: Histogram,
    condition_errors: Counter,
    hook: HookId,
}

impl HookMetrics {
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_thing_is_logged_once_a_minute() {
        let logged = LoggedAt::default();
        let check = |what, name, expected| assert_eq!(logged.is_due(what, name), expected, "{what} {name}");
        check("condition", "a", true);
        check("condition", "a", false);
        check("condition", "b", true);
        check("misfit", "a", true);
        advance(TELL_EVERY / 2).await;
        check("condition", "c", true);
        check("condition", "a", false);
        advance(TELL_EVERY / 2).await;
        check("condition", "a", true);
        check("condition", "a", false);
        check("condition", "c", false);
        assert_eq!(logged.0.lock().unwrap().len(), 2, "what is over is not kept");
    }
}
