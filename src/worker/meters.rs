//! What is counted at every event, its series looked up once, and told of some of it once in a while. Made after the
//! recorder of the process is installed.

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
const ANSWERS: [&str; 9] = ["won", "takeover", "done", "superseded", "busy", "resume", "suspect", "decided", "other"];

/// Between two lines about the same thing.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// The series of a process.
pub struct Meters {
    deliveries: HashMap<Queue, Counter>,
    claims: HashMap<&'static str, Counter>,
    told: Told,
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
            deliveries: Queue::ALL.iter().chain(&Queue::OF_GATES).map(delivered).collect(),
            claims: ANSWERS.into_iter().map(answered).collect(),
            told: Told::default(),
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
            Answer::Decided { .. } => "decided",
            Answer::Ok | Answer::NotYours | Answer::Cancelled { .. } => "other",
        };
        if let Some(counter) = self.claims.get(name) {
            counter.increment(1);
        }
        name
    }
}

impl Meters {
    /// An expression of a hook cannot be evaluated for an event.
    pub(super) fn condition_failed(&self, meters: &HookMeters, field: &str, error: &str) {
        meters.condition_errors.increment(1);
        if self.told.is_due("condition", meters.hook.as_str()) {
            tracing::warn!(hook = %meters.hook, error, "`{field}` cannot be evaluated for an event");
        }
    }

    /// An event is taken whose data is not what its type declares.
    pub(super) fn misfit_taken(&self, event: &Event, misfit: &Misfit) {
        if self.told.is_due("misfit", &misfit.on) {
            let (id, source, sentence) = (&event.id, &event.source, misfit.sentence());
            tracing::warn!(event = id, source, misfit = sentence, "an event is not what its type declares");
        }
    }
}

/// When each thing was told last, so that a flood of events does not become one of lines.
#[derive(Default)]
struct Told(Mutex<HashMap<(&'static str, String), Instant>>);

impl Told {
    /// Whether to tell of this thing now.
    fn is_due(&self, what: &'static str, name: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (what, name.to_owned());
        let is_due = told.get(&key).is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if is_due {
            told.retain(|_, at| at.elapsed() < TELL_EVERY); // what no catalog names any more is not kept
            told.insert(key, Instant::now());
        }
        is_due
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
    async fn each_thing_is_told_once_a_minute() {
        let told = Told::default();
        let check = |what, name, expected| assert_eq!(told.is_due(what, name), expected, "{what} {name}");
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
        assert_eq!(told.0.lock().unwrap().len(), 2, "what is over is not kept");
    }
}
