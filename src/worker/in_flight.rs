//! The invocations under way in a process: for the list of runs that a shutdown cuts off.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::Gauge;

use crate::domain::claim::Point;
use crate::domain::id::InvocationKey;
use crate::telemetry::Metric;

/// The invocations under way, by name.
#[derive(Default)]
pub struct InFlight {
    runs: Mutex<HashMap<u64, (InvocationKey, Point)>>,
    next: AtomicU64,
    count: OnceLock<Gauge>,
}

/// An invocation under way, until dropped.
pub(super) struct Entered<'a> {
    in_flight: &'a InFlight,
    id: u64,
}

impl InFlight {
    /// One invocation that has its permit, until what it came to is safe.
    pub(super) fn enter(&self, key: &InvocationKey, at: Point) -> Entered<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, (key.clone(), at));
        self.gauge().increment(1.0);
        Entered { in_flight: self, id }
    }

    /// Their names: for the list of orphans.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let name =
            |(key, at): &(InvocationKey, Point)| format!("{key} generation {} attempt {}", at.generation, at.attempt);
        self.lock().values().map(name).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn gauge(&self) -> &Gauge {
        self.count.get_or_init(|| Metric::InFlight.gauge(&[]))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (InvocationKey, Point)>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.id);
        self.in_flight.gauge().decrement(1.0);
    }
}
