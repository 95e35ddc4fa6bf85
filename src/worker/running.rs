//! What is under way in this process: for the list of what a shutdown cuts off.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::domain::claim::Point;
use crate::domain::invocation::InvocationKey;
use crate::telemetry::Metric;

/// The invocations under way, by name.
#[derive(Default)]
pub struct Running {
    runs: Mutex<HashMap<u64, String>>,
    next: AtomicU64,
}

/// An invocation under way, until dropped.
pub(super) struct Entered<'a> {
    running: &'a Running,
    id: u64,
}

impl Running {
    /// One invocation that has its permit, until what it came to is safe.
    pub(super) fn enter(&self, key: &InvocationKey, at: Point) -> Entered<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, format!("{key} generation {} attempt {}", at.generation, at.attempt));
        Metric::InFlight.add(1.0);
        Entered { running: self, id }
    }

    /// Their names: for the list of orphans.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.running.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        Metric::InFlight.add(-1.0);
    }
}
