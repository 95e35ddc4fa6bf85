//! The dice of one simulation, and how bad the world is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

/// What goes wrong in one seed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    /// Publishes and appends that fail: half of them after the broker has them.
    pub(super) broker: f64,
    /// Requests to the store that are not answered: half of them after it has done them.
    pub(super) store: f64,
    /// Connections to the broker that are cut.
    pub(super) cuts: u32,
    /// Workers that die.
    pub(super) deaths: u32,
    /// Workers that stand still for some seconds, often longer than a lease.
    pub(super) freezes: u32,
    /// Workers that are stopped in order, and replaced.
    pub(super) restarts: u32,
    /// Times that the store is away for some seconds.
    pub(super) absences: u32,
    /// Times that the broker takes no messages for some seconds.
    pub(super) alarms: u32,
    /// Times that the store forgets everything.
    pub(super) losses: u32,
    /// Times that the catalog changes.
    pub(super) changes: u32,
}

impl Weather {
    /// A third of everything, each by itself: most seeds have some of it, few have all.
    pub(super) fn of(rng: &mut fastrand::Rng) -> Self {
        let mut share = |most: f64| if rng.u8(..3) == 0 { rng.f64() * most } else { 0.0 };
        let (broker, store) = (share(0.2), share(0.2));
        let mut times = |most: u32| if rng.u8(..3) == 0 { rng.u32(1..=most) } else { 0 };
        Self {
            broker,
            store,
            cuts: times(4),
            deaths: times(6),
            freezes: times(3),
            restarts: times(4),
            absences: times(2),
            alarms: times(2),
            losses: u32::from(rng.u8(..8) == 0),
            changes: u32::from(rng.u8(..3) == 0),
        }
    }

    /// Whether a worker may be unable to end its work within its grace period.
    pub(super) fn may_hang(&self) -> bool {
        self.absences > 0 || self.alarms > 0 || self.freezes > 0
    }

    /// Whether an event may be delivered again that was begun: it is matched against the catalog of who takes it then.
    pub(super) fn may_rematch(&self) -> bool {
        self.deaths > 0 || self.cuts > 0 || self.restarts > 0 || self.may_hang()
    }

    /// Whether anything may make an action happen twice: without, none does.
    pub(super) fn may_repeat(&self) -> bool {
        self.deaths > 0 || self.freezes > 0 || self.absences > 0 || self.losses > 0 || self.store > 0.0
    }
}

/// Shared by everything in one simulation.
pub(super) struct Chance {
    rng: Mutex<fastrand::Rng>,
    weather: Weather,
    calm: AtomicBool,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    /// Nobody has heard of it.
    Lost,
    /// It was carried out, and nobody hears of that.
    Unanswered,
}

impl Chance {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self { rng: Mutex::new(fastrand::Rng::with_seed(seed)), weather, calm: AtomicBool::new(false) }
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub(super) fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of_broker(&self) -> Fate {
        self.fate(self.weather.broker)
    }

    pub(super) fn of_store(&self) -> Fate {
        self.fate(self.weather.store)
    }

    /// How long a worker takes to follow a new catalog: mostly less than a second, seldom longer than it may.
    pub(super) fn learning(&self, most: Duration) -> Duration {
        let mut rng = self.rng();
        let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(match rng.u8(..10) {
            0 => rng.u64(..most_ms),
            1..3 => rng.u64(..most_ms / 4),
            _ => rng.u64(..1_000),
        })
    }

    fn fate(&self, share: f64) -> Fate {
        if self.calm.load(Ordering::Relaxed) || self.rng().f64() >= share {
            Fate::Good
        } else if self.rng().bool() {
            Fate::Lost
        } else {
            Fate::Unanswered
        }
    }

    /// What a way over the network takes.
    pub(super) async fn travel(&self) {
        let us = {
            let mut rng = self.rng();
            if rng.u8(..50) == 0 { rng.u64(..400_000) } else { rng.u64(..3_000) }
        };
        sleep(Duration::from_micros(us)).await;
    }
}
