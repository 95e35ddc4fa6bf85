//! Who may run now, and where the others wait.
//!
//! A run needs a permit of its hook, one of its lane, a slot of the hook's rate, a part of its share of the fleet, and a
//! target whose breaker lets it through. Targets that have not done well of late share a part of their lane, and hooks
//! whose target says that it is overloaded have fewer permits. What does not get all of that soon waits in a queue of the
//! broker and not here, so that no hook stands before another: over its capacity in overflow, before a broken target
//! parked. No attempt is spent by waiting, and nothing is dropped.
//!
//! A hook that decides cannot wait: what a breaker holds back of it counts as failed. So the breaker of its target, which
//! others may have opened, holds it back only if its own last attempts have failed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::domain::flow::{BreakerPolicy, Change, PROBE_AGAIN, Pass};
use crate::domain::health::Health;
use crate::domain::hook::{Hook, HookLane, Mode};
use crate::domain::id::HookId;
use crate::domain::matching::HookSet;
use crate::domain::outcome::Outcome;
use crate::flow::{BEAT_EVERY, Card, Failing, Flow};
use crate::telemetry::Metric;
pub use gate::{Gate, GateStatus, Permit};
use gate::{LaneGate, Take};
use ration::Ration;
use target::Target;

mod gate;
mod permits;
mod ration;
mod share;
mod target;

/// What a process may do at a time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Runs in each lane.
    pub lane: usize,
    /// Invocations that may wait for a permit in memory. Few, so that those of a saturated hook do not fill the prefetch
    /// of all.
    pub waiting: usize,
    /// Runs in each lane whose targets have not succeeded, or not of late. Few too: until they fail they hold deliveries.
    pub unproven: usize,
    /// Runs of hooks that decide.
    pub gates: usize,
    pub breaker: BreakerPolicy,
}

/// Where an invocation waits that may not run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// With others that are over the capacity of their hook.
    Overflow,
    /// For about this long, before a target that is broken or behind a pause.
    Parked(Duration),
}

/// A hook whose last attempts, so many, have all failed is one that only fails.
const FAILING_MIN: u64 = 5;
/// So many of them are told.
const FAILING_SHOWN: usize = 20;

/// The admission of a process: shared by its cells.
pub struct Admission {
    lanes: [Arc<LaneGate>; HookLane::ALL.len()],
    /// Of hooks that decide: nobody who waits for them stands behind events.
    gates: Arc<LaneGate>,
    waiting: Semaphore,
    hooks: Mutex<HashMap<HookId, Used<Gate>>>,
    targets: Mutex<BTreeMap<String, Used<Target>>>,
    ration: Arc<Ration>,
    policy: BreakerPolicy,
}

/// Something that is kept, and when it was last asked for.
struct Used<T> {
    it: Arc<T>,
    at: Instant,
}

impl<T> Used<T> {
    fn new(it: &Arc<T>) -> Self {
        Self { it: Arc::clone(it), at: Instant::now() }
    }

    /// It is asked for again.
    fn again(&mut self) -> Arc<T> {
        self.at = Instant::now();
        Arc::clone(&self.it)
    }

    /// Whether nobody has it, nor has asked for it for this long.
    fn is_idle(&self, since: Duration) -> bool {
        Arc::strong_count(&self.it) == 1 && self.at.elapsed() >= since
    }
}

impl Admission {
    /// For a process that shares `flow` with the fleet.
    #[must_use]
    pub fn new(limits: &Limits, flow: Arc<dyn Flow>) -> Self {
        Self {
            lanes: HookLane::ALL.map(|_| Arc::new(LaneGate::new(limits.lane, limits.unproven))),
            gates: Arc::new(LaneGate::new(limits.gates, limits.gates)),
            waiting: Semaphore::new(limits.waiting.max(1)),
            hooks: Mutex::default(),
            targets: Mutex::default(),
            ration: Arc::new(Ration::new(flow)),
            policy: limits.breaker,
        }
    }

    /// What is kept of a hook; new when the catalog has changed its capacity. Runs under the old one finish beside it.
    pub fn gate(&self, hook: &Hook) -> Arc<Gate> {
        let mut hooks = lock(&self.hooks);
        match hooks.get_mut(&hook.id) {
            Some(known) if known.it.is_of(hook) => known.again(),
            _ => {
                let lane = match hook.mode {
                    Mode::Observe => &self.lanes[hook.lane as usize],
                    Mode::Gate(_) => &self.gates,
                };
                let gate = Arc::new(Gate::new(hook, Arc::clone(lane), self.target(&hook.identity)));
                hooks.insert(hook.id.clone(), Used::new(&gate));
                gate
            }
        }
    }

    /// A permit for one run of this hook, at once or before `until`. `at_leisure`: it waits in overflow already, whose
    /// consumers may hold what they have.
    ///
    /// # Errors
    /// Where it has to wait instead.
    pub async fn admit(&self, gate: &Arc<Gate>, at_leisure: bool, until: Instant) -> Result<Permit, Elsewhere> {
        if let Some(wait) = gate.pause() {
            return Err(Elsewhere::Parked(wait));
        }
        if let Pass::Wait(wait) = gate.target.look()
            && gate.is_held_back()
        {
            return Err(Elsewhere::Parked(wait));
        }
        let permit = match gate.take(at_leisure) {
            Take::Taken(permit) => permit,
            Take::Refused => return Err(Elsewhere::Overflow),
            Take::Later => {
                let place =
                    if at_leisure { None } else { Some(self.waiting.try_acquire().or(Err(Elsewhere::Overflow))?) };
                let waited = timeout_at(until, gate.wait(&self.ration)).await;
                drop(place);
                waited.ok().flatten().ok_or(Elsewhere::Overflow)?
            }
        };
        match gate.target.pass() {
            Pass::Wait(wait) if gate.is_held_back() => Err(Elsewhere::Parked(wait)),
            Pass::Go | Pass::Wait(_) => Ok(permit),
            Pass::Probe => {
                permit.begin_probe(); // from here on its end is the probe's
                match self.ration.flow.probe(gate.target.name()).await {
                    Ok(false) if gate.is_held_back() => Err(Elsewhere::Parked(PROBE_AGAIN)),
                    Ok(false) => {
                        permit.give_up_probe();
                        Ok(permit)
                    }
                    Ok(true) | Err(_) => Ok(permit),
                }
            }
        }
    }

    /// A run came to this: its target may be broken, overloaded, gone, or well again.
    pub fn ended(&self, permit: &Permit, outcome: &Outcome) {
        permit.gate().attempted(outcome);
        let target = Arc::clone(&permit.gate().target);
        let Some(health) = Health::of(outcome, permit.gate().calls_one_url) else { return };
        permit.gate().ended(health);
        if health == Health::Overloaded && target.overloaded(permit.began(), permit.gate().width()) {
            self.narrow(&target);
        }
        let change = target.ended(&self.policy, health, permit.end_probe());
        if change == Change::None {
            return;
        }
        let flow = Arc::clone(&self.ration.flow);
        tokio::spawn(async move {
            let told = match change {
                Change::Opened(level) => flow.open(target.name(), level).await,
                Change::Closed | Change::None => flow.close(target.name()).await,
            };
            match told {
                Ok(()) => target.told(),
                Err(error) => tracing::debug!(%error, target = target.name(), "the fleet was not told of a breaker"),
            }
        });
    }

    /// Says that this worker is there, and what `card` says of it now, renews its shares, and hears of the breakers of
    /// others. For ever.
    pub async fn keep(&self, card: impl Fn() -> Card) {
        loop {
            self.ration.beat(&card()).await;
            let targets = self.all_targets();
            for target in targets.iter().filter(|target| target.eased()) {
                self.narrow(target);
            }
            let gates: Vec<Arc<Gate>> = lock(&self.hooks).values().map(|known| Arc::clone(&known.it)).collect();
            for gate in gates {
                gate.renew(&self.ration).await;
            }
            if let Ok(opened) = self.ration.flow.opened().await {
                for name in opened.keys() {
                    self.target(name);
                }
                let targets = self.all_targets();
                for target in targets {
                    target.heard(opened.get(target.name()).copied());
                }
            }
            sleep(BEAT_EVERY).await;
        }
    }

    fn narrow(&self, target: &Arc<Target>) {
        for known in lock(&self.hooks).values().filter(|known| Arc::ptr_eq(&known.it.target, target)) {
            known.it.narrow();
        }
    }

    /// The hooks that have run here, by name.
    #[must_use]
    pub fn hooks(&self) -> Vec<GateStatus> {
        let mut hooks: Vec<GateStatus> = lock(&self.hooks).values().map(|known| known.it.status()).collect();
        hooks.sort_by(|a, b| a.hook.cmp(&b.hook));
        hooks
    }

    /// The hooks whose last attempts here have all failed, those that have failed most often first; some of them, where
    /// there are many.
    #[must_use]
    pub fn failing(&self) -> Vec<Failing> {
        let mut failing: Vec<Failing> =
            lock(&self.hooks).values().filter_map(|known| known.it.failing(FAILING_MIN)).collect();
        failing.sort_by(|one, other| other.attempts.cmp(&one.attempts).then_with(|| one.hook.cmp(&other.hook)));
        failing.truncate(FAILING_SHOWN);
        failing
    }

    /// The targets whose breakers are open, as this worker sees it.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let targets = lock(&self.targets);
        targets.values().filter(|known| known.it.is_open()).map(|known| known.it.name().to_owned()).collect()
    }

    /// Forgets the hooks that are not in the catalog, and targets of none, once nothing is under way there and nobody has
    /// asked for them for this long.
    pub fn forget(&self, catalog: &HookSet, after: Duration) {
        lock(&self.hooks).retain(|id, known| catalog.get(id.as_str()).is_some() || !known.is_idle(after));
        lock(&self.targets).retain(|_, known| known.it.is_open() || !known.is_idle(after));
    }

    /// Whether a label of a metric stands for a hook or a target that is not forgotten.
    #[must_use]
    pub fn knows(&self, label: &str, value: &str) -> bool {
        match label {
            "hook" => HookId::new(value).is_ok_and(|id| lock(&self.hooks).contains_key(&id)),
            "target" => lock(&self.targets).contains_key(value),
            _ => false,
        }
    }

    fn all_targets(&self) -> Vec<Arc<Target>> {
        lock(&self.targets).values().map(|known| Arc::clone(&known.it)).collect()
    }

    fn target(&self, name: &str) -> Arc<Target> {
        let mut targets = lock(&self.targets);
        if let Some(known) = targets.get_mut(name) {
            return known.again();
        }
        let target = Arc::new(Target::new(name, Metric::BreakerOpen.gauge(&[("target", name.to_owned())])));
        targets.insert(name.to_owned(), Used::new(&target));
        target
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
