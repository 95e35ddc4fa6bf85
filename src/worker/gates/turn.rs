//! Asking the gates of one event.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::Worker;
use super::super::admission::{Elsewhere, Permit};
use super::Undecided;
use crate::dialect;
use crate::domain::aggregation::{Aggregation, Order, StopAt};
use crate::domain::claim::Point;
use crate::domain::dead_letter::{Cause, Letter};
use crate::domain::decision::{Answer, Decision, Json, Merge, Named};
use crate::domain::event::Event;
use crate::domain::failure::{AttemptReport, Class};
use crate::domain::hook::{Hook, Mode, OnFailure};
use crate::domain::invocation::Invocation;
use crate::domain::matching::HookSet;
use crate::domain::message::Queue;
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::domain::time::millis;
use crate::telemetry::now_ms;

/// One event before its gates.
pub(super) struct Turn<'w> {
    pub(super) worker: &'w Worker,
    pub(super) event: &'w Arc<Event>,
    /// By when the last of them has to have answered.
    pub(super) until: Instant,
    /// Workers that died while they asked the same before. This turn is a new one, with the whole time of each hook.
    pub(super) deaths: u32,
}

/// Why a gate has not answered.
struct Failed {
    class: Class,
    error: String,
    reports: Vec<AttemptReport>,
}

impl Failed {
    fn unasked(class: Class, error: impl Into<String>) -> Self {
        Self { class, error: error.into(), reports: Vec::new() }
    }
}

/// What has been said so far.
struct Said {
    merge: Merge,
    letters: Vec<Letter>,
}

impl Said {
    fn new(event: &Event) -> Self {
        Self { merge: Merge::new(event.dialect), letters: Vec::new() }
    }
}

/// A gate, with the reason where nobody knows whether it is one for the event.
type Gate<'h> = (&'h Arc<Hook>, Option<String>);

/// What a gate came to: its answer after so many attempts, and how long that took in milliseconds.
struct Ended {
    answered: Result<(Answer, u32), Failed>,
    took_ms: u64,
}

impl Turn<'_> {
    /// Asks as the dialect of the event has it, and merges what is said in the order of the catalog.
    pub(super) async fn ask_all(&self) -> Result<(Decision, Vec<Letter>), Undecided> {
        let hooks = self.worker.catalog.borrow().clone();
        let Aggregation { order, passes_input } = dialect::aggregation(self.event);
        let mut said = Said::new(self.event);
        match order {
            Order::InTurn(stop) => {
                for gate in &hooks.gates_in_turn(self.event) {
                    if said.merge.ends_at(stop) {
                        break;
                    }
                    let input = said.merge.input().filter(|_| passes_input);
                    if !gate.0.wants_tool_of(self.event, input) {
                        continue;
                    }
                    let ended = self.ask_one(gate, &hooks, input).await?;
                    self.take(&mut said, gate, &hooks, ended);
                }
            }
            Order::AtOnce => {
                let gates = hooks.gates(self.event);
                let asked = gates.iter().map(|gate| self.ask_one(gate, &hooks, None));
                for (gate, ended) in gates.iter().zip(join_all(asked).await) {
                    self.take(&mut said, gate, &hooks, ended?);
                }
            }
        }
        Ok((said.merge.done(), said.letters))
    }

    /// As if all of them had failed for one reason.
    pub(super) fn fail_all(&self, class: Class, error: &str) -> (Decision, Vec<Letter>) {
        let hooks = self.worker.catalog.borrow().clone();
        let stop = match dialect::aggregation(self.event).order {
            Order::InTurn(stop) => stop,
            Order::AtOnce => StopAt::Never,
        };
        let mut said = Said::new(self.event);
        for (hook, _) in hooks.gates(self.event) {
            if said.merge.ends_at(stop) {
                break;
            }
            self.fail(&mut said, hook, &hooks, Failed::unasked(class, error), 0);
        }
        (said.merge.done(), said.letters)
    }

    async fn ask_one(&self, gate: &Gate<'_>, hooks: &HookSet, input: Option<&Json>) -> Result<Ended, Undecided> {
        let began = Instant::now();
        let answered = match gate {
            (_, Some(error)) => Err(Failed::unasked(Class::Invalid, format!("`when` fails: {error}"))),
            (hook, None) => self.ask(hook, hooks, input).await?,
        };
        Ok(Ended { answered, took_ms: millis(began.elapsed()) })
    }

    fn take(&self, said: &mut Said, (hook, _): &Gate<'_>, hooks: &HookSet, ended: Ended) {
        let Ended { answered, took_ms } = ended;
        match answered {
            Ok((answer, attempts)) => said.merge.add(self.named(hook), answer, attempts, took_ms),
            Err(failed) => self.fail(said, hook, hooks, failed, took_ms),
        }
    }

    fn named<'h>(&self, hook: &'h Hook) -> Named<'h> {
        Named { id: &hook.id, called: hook.called(self.event.dialect) }
    }

    fn fail(&self, said: &mut Said, hook: &Hook, hooks: &HookSet, failed: Failed, took_ms: u64) {
        let Failed { class, error, mut reports } = failed;
        let closed = hook.mode == Mode::Gate(OnFailure::Closed);
        let attempts = reports.iter().map(|report| report.tries).sum();
        said.merge.fail(self.named(hook), &error, attempts, took_ms, closed);
        let report = reports.pop();
        let mut invocation = self.invocation(hook, hooks);
        invocation.history = reports;
        let (target, foreign) = (Some(hook.action.target()), dialect::foreign_hook(hook));
        let words = dialect::words(hook);
        let cause = Cause { class, report, unprotected: false, deaths: self.deaths, target, foreign };
        let letter = Letter::of_invocation(&invocation, Point::first(0), cause, Queue::Gates.name(), now_ms());
        tracing::warn!(hook = %hook.id, words, event = self.event.id, error, closed, "a gate failed");
        said.letters.push(letter.for_record(&error));
    }

    fn invocation(&self, hook: &Hook, hooks: &HookSet) -> Invocation {
        Invocation::first(Arc::clone(self.event), hook.id.clone(), hooks.revision().clone())
    }

    /// One gate, as often as its `retry` allows within the time that is left: its answer, and after how many attempts.
    async fn ask(
        &self,
        hook: &Arc<Hook>,
        hooks: &HookSet,
        input: Option<&Json>,
    ) -> Result<Result<(Answer, u32), Failed>, Undecided> {
        let mut invocation = self.invocation(hook, hooks);
        let (mut reports, mut spent) = (Vec::new(), Duration::ZERO);
        loop {
            let permit = match self.admit(hook).await {
                Ok(permit) => permit,
                Err(error) => return Ok(Err(Failed { class: Class::Exhausted, error, reports })),
            };
            let (began, at_ms, attempt) = (Instant::now(), now_ms(), invocation.at.attempt);
            let failure = match self.attempt(hook, hooks, &invocation, input, &permit).await {
                Ok(answer) => return Ok(Ok((answer, attempt))),
                Err(Outcome::Failed(failure)) => failure,
                Err(_) if self.worker.interrupt.is_cancelled() => return Err(Undecided::Interrupted),
                // Trouble of our own, or of the program that the worker is part of.
                Err(Outcome::Interrupted | Outcome::Done) => {
                    Failure::new(Again::Later(None), None, "it could not be asked to the end")
                }
            };
            drop(permit);
            let took = began.elapsed();
            spent += took;
            let Failure { again, status, error, tries, .. } = failure;
            reports.push(AttemptReport {
                generation: 0,
                attempt,
                at_ms,
                took_ms: millis(took),
                status,
                tries,
                error: error.clone(),
            });
            let (class, wait) = match again {
                Again::Never(class) => (class, None),
                Again::Later(hint) => (Class::Exhausted, hook.retry.delay(attempt, spent, hint, fastrand::f64())),
            };
            match wait.filter(|wait| Instant::now() + *wait < self.until) {
                Some(wait) => sleep(wait).await,
                None => return Ok(Err(Failed { class, error, reports })),
            }
            spent += wait.unwrap_or_default();
            invocation.at = invocation.at.next();
        }
    }

    async fn admit(&self, hook: &Hook) -> Result<Permit, String> {
        let admission = &self.worker.admission;
        let admitted = admission.admit(&admission.gate(hook), true, self.until).await;
        admitted.map_err(|elsewhere| match elsewhere {
            Elsewhere::Overflow => "the gate was busy for as long as there was time".to_owned(),
            Elsewhere::Parked(_) if hook.paused => "the gate is paused".to_owned(),
            Elsewhere::Parked(_) => "the gate's target is broken: it is not asked for a while".to_owned(),
        })
    }

    async fn attempt(
        &self,
        hook: &Hook,
        hooks: &HookSet,
        invocation: &Invocation,
        input: Option<&Json>,
        permit: &Permit,
    ) -> Result<Answer, Outcome> {
        let (worker, began) = (self.worker, Instant::now());
        let log = |line: &str, shown: Option<String>| {
            let event = &self.event.id;
            let Some(shown) = shown else { return };
            tracing::debug!(hook = %hook.id, event, attempt = invocation.at.attempt, payload = shown, "{line}");
        };
        log("asking a gate", worker.rules.shown(&self.event.body, hooks.secrets()));
        let asked = worker.executors.ask(hook, invocation, input);
        let Ok(asked) = timeout_at(self.until, asked).await else {
            // Somebody was in a hurry: that says nothing of the target.
            worker.admission.ended(permit, &Outcome::Interrupted);
            return Err(Outcome::later("it has not answered by the deadline of the request"));
        };
        let asked = asked.map_err(|outcome| outcome.redacted(hooks.secrets()));
        let outcome = asked.as_ref().err().cloned().unwrap_or(Outcome::Done);
        worker.admission.ended(permit, &outcome);
        permit.gate().metrics.attempted(&outcome, began.elapsed().as_secs_f64());
        let asked = asked.map(|answer| answer.redacted(hooks.secrets()));
        if worker.rules.payloads.is_some() {
            let (line, said) = match &asked {
                Ok(answer) => ("a gate has answered", format!("{answer:?}")),
                Err(outcome) => ("a gate has not answered", format!("{outcome:?}")),
            };
            log(line, worker.rules.shown(said.as_bytes(), hooks.secrets()));
        }
        asked
    }
}
