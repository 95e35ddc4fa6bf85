//! A target as this process sees it: its breaker, and the clock that it goes by.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio::time::Instant;

use crate::domain::flow::{Breaker, BreakerPolicy, Change, Opened, Pass, open_time};
use crate::domain::health::{Health, Throttle};

/// So many failures one after the other, and a target has to prove itself again.
pub(super) const STRIKES: u32 = 3;

/// What several hooks may call.
pub(super) struct Target {
    name: String,
    since: Instant,
    breaker: Mutex<Breaker>,
    throttle: Mutex<Throttle>,
    /// Failures since the last success; [`STRIKES`] before the first.
    strikes: AtomicU32,
    open: Gauge,
}

impl Target {
    pub(super) fn new(name: &str, open: Gauge) -> Self {
        Self {
            name: name.to_owned(),
            since: Instant::now(),
            breaker: Mutex::default(),
            throttle: Mutex::default(),
            strikes: AtomicU32::new(STRIKES),
            open,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has done well of late. Nobody knows what a new one will do, nor one that fails.
    pub(super) fn is_proven(&self) -> bool {
        self.strikes.load(Ordering::Relaxed) < STRIKES
    }

    /// Whether it lets anybody through, without becoming the one who probes.
    pub(super) fn look(&self) -> Pass {
        let breaker = self.breaker();
        if breaker.is_open() { breaker.clone().pass(self.now_ms()) } else { Pass::Go }
    }

    pub(super) fn pass(&self) -> Pass {
        self.breaker().pass(self.now_ms())
    }

    pub(super) fn not_probed(&self) {
        self.breaker().not_probed(self.now_ms());
    }

    pub(super) fn ended(&self, policy: &BreakerPolicy, health: Health, probe: bool) -> Change {
        if health == Health::Well {
            self.strikes.store(0, Ordering::Relaxed);
        } else if self.is_proven() {
            self.strikes.fetch_add(1, Ordering::Relaxed);
        }
        let change = self.breaker().ended(policy, self.now_ms(), health, probe);
        match change {
            Change::Opened(level) => {
                let wait = open_time(level);
                let is = if health == Health::Gone { "is gone (410)" } else { "is broken" };
                tracing::warn!(target = self.name, ?wait, "a target {is}: its invocations are parked");
                self.open.set(1.0);
            }
            Change::Closed => {
                tracing::info!(target = self.name, "a target is well again");
                self.open.set(0.0);
            }
            Change::None => {}
        }
        change
    }

    /// It told a run that began then, of a hook of this width, that it has too much to do. Answers whether less may run
    /// from now on.
    pub(super) fn overloaded(&self, began: Instant, width: usize) -> bool {
        let cut = self.throttle().overloaded(self.ms(began), self.now_ms(), width);
        if cut {
            tracing::info!(target = self.name, "a target is overloaded: half as many run at a time");
        }
        cut
    }

    /// Whether more may run again, since it has not said so for a while.
    pub(super) fn eased(&self) -> bool {
        self.throttle().eased(self.now_ms())
    }

    /// What is left of so many runs at a time.
    pub(super) fn width(&self, width: usize) -> usize {
        self.throttle().width(width)
    }

    pub(super) fn told(&self) {
        self.breaker().told();
    }

    pub(super) fn heard(&self, opened: Option<Opened>) {
        let mut breaker = self.breaker();
        breaker.heard(self.now_ms(), opened);
        self.open.set(f64::from(u8::from(breaker.is_open())));
    }

    pub(super) fn is_open(&self) -> bool {
        self.breaker().is_open()
    }

    fn now_ms(&self) -> u64 {
        self.ms(Instant::now())
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
