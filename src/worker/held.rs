//! A delivery in hand: it is kept until none of its jobs needs it any more.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many jobs need a delivery.
pub(super) struct Held {
    needed: AtomicUsize,
    changed: Notify,
}

impl Held {
    pub(super) fn new(jobs: usize) -> Self {
        Self { needed: AtomicUsize::new(jobs), changed: Notify::new() }
    }

    /// One job needs it no more. Called once a job.
    pub(super) fn release(&self) {
        if self.needed.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.changed.notify_one();
        }
    }

    /// Every job has ended: what was not released by now never will be.
    pub(super) fn end(&self) {
        self.changed.notify_one();
    }

    /// Waits until it is needed no more. False if a job ended without saying so: then the delivery has to come again.
    pub(super) async fn released(&self) -> bool {
        if self.needed.load(Ordering::Relaxed) > 0 {
            self.changed.notified().await;
        }
        self.needed.load(Ordering::Relaxed) == 0
    }
}
