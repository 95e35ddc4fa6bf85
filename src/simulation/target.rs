//! What hooks call: takes its time, fails now and then, and remembers every run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::process::Life;
use crate::domain::claim::Point;
use crate::domain::decision::{Answer, Json};
use crate::domain::failure::Class;
use crate::domain::hook::Hook;
use crate::domain::id::InvocationKey;
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Again, Failure, Outcome};
use crate::executor::Execute;

/// One run, as its receiver saw it.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) key: InvocationKey,
    pub(super) name: String,
    pub(super) at: Point,
    pub(super) began: Instant,
    /// When it was over and whether it was done; none: the caller went away before.
    pub(super) ended: Option<(Instant, bool)>,
    /// Whether its caller was dead by then.
    pub(super) orphaned: bool,
}

/// The targets of all hooks.
pub(super) struct Target {
    runs: Mutex<Vec<Run>>,
    chance: Arc<Chance>,
    /// From now on everything is done.
    healed: Mutex<bool>,
    /// This hook takes a minute.
    slow: Mutex<Option<&'static str>>,
}

impl Target {
    pub(super) fn new(chance: Arc<Chance>) -> Arc<Self> {
        Arc::new(Self { runs: Mutex::default(), chance, healed: Mutex::new(false), slow: Mutex::default() })
    }

    pub(super) fn heal(&self) {
        *lock(&self.healed) = true;
    }

    pub(super) fn slow_down(&self, hook: &'static str) {
        *lock(&self.slow) = Some(hook);
    }

    pub(super) fn runs(&self) -> Vec<Run> {
        lock(&self.runs).clone()
    }

    /// How long a run takes, and what it comes to.
    fn roll(&self, hook: &Hook) -> (Duration, Outcome) {
        if let Some(slow) = *lock(&self.slow) {
            return (Duration::from_millis(if hook.id.as_str() == slow { 60_000 } else { 1 }), Outcome::Done);
        }
        let mut rng = self.chance.rng();
        let ms = match rng.u8(..20) {
            0 => rng.u64(6_000..14_000), // longer than a delivery is held
            1..4 => rng.u64(500..4_000),
            _ => rng.u64(1..200),
        };
        let error = "simulated".to_owned();
        let failed = |again| Outcome::Failed(Failure::new(again, Some(500), error));
        let outcome = match rng.u8(..10) {
            _ if *lock(&self.healed) => Outcome::Done,
            0..3 => failed(Again::Later(None)),
            3 => failed(Again::Never(Class::Rejected)),
            _ => Outcome::Done,
        };
        (Duration::from_millis(ms), outcome)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One process's way to them.
pub(super) struct Caller {
    pub(super) target: Arc<Target>,
    pub(super) life: Life,
}

#[async_trait]
impl Execute for Caller {
    async fn run(&self, hook: &Hook, invocation: &Invocation) -> Outcome {
        self.life.check().await;
        let (takes, outcome) = self.target.roll(hook);
        let number = {
            let mut runs = lock(&self.target.runs);
            let key = invocation.key();
            let name = invocation.idempotency_key();
            runs.push(Run { key, name, at: invocation.at, began: Instant::now(), ended: None, orphaned: false });
            runs.len() - 1
        };
        sleep(takes).await;
        if let Some(run) = lock(&self.target.runs).get_mut(number) {
            run.ended = Some((Instant::now(), outcome == Outcome::Done));
            run.orphaned = self.life.is_over();
        }
        self.life.check().await;
        outcome
    }

    async fn ask(&self, _: &Hook, _: &Invocation, _: Option<&Json>) -> Result<Answer, Outcome> {
        Ok(Answer::default()) // nobody asks here
    }
}
