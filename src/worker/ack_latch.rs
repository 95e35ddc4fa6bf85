//! Reference count of the hooks that still use a delivery; at zero it may be acked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The latch of one delivery.
pub(super) struct AckLatch {
    users: AtomicUsize,
    changed: Notify,
}

/// One hook's use of a delivery.
pub(super) struct AckHold<'l> {
    latch: &'l AckLatch,
    held: AtomicBool,
}

impl AckLatch {
    /// A latch for so many hooks. Each takes its hold with [`AckLatch::hold`].
    pub(super) fn new(hooks: usize) -> Self {
        Self { users: AtomicUsize::new(hooks), changed: Notify::new() }
    }

    /// The hold of one of the hooks.
    pub(super) const fn hold(&self) -> AckHold<'_> {
        AckHold { latch: self, held: AtomicBool::new(true) }
    }

    /// Every hook has come to its end: a hold that was not released by now never will be.
    pub(super) fn end(&self) {
        self.changed.notify_one();
    }

    /// Waits until no hook uses the delivery. False if a hook ended without its release: then the delivery has to come again.
    pub(super) async fn released(&self) -> bool {
        if self.users.load(Ordering::Relaxed) > 0 {
            self.changed.notified().await;
        }
        self.users.load(Ordering::Relaxed) == 0
    }
}

impl AckHold<'_> {
    /// The hook needs the delivery no more. A second call changes nothing. A drop alone is no release: a hook that ends by a
    /// panic has settled nothing.
    pub(super) fn release(&self) {
        if self.held.swap(false, Ordering::Relaxed) && self.latch.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.latch.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_opens_when_every_hold_is_released() {
        let latch = AckLatch::new(2);
        let holds = [latch.hold(), latch.hold()];
        holds[0].release();
        holds[0].release();
        assert_eq!(latch.users.load(Ordering::Relaxed), 1, "a second release counts once");
        holds[1].release();
        assert!(latch.released().await);
        assert!(AckLatch::new(0).released().await, "an event without hooks");
    }

    #[tokio::test]
    async fn a_hook_that_ends_without_a_release_keeps_it_shut() {
        let latch = AckLatch::new(1);
        let _ = latch.hold();
        latch.end();
        assert!(!latch.released().await);
    }
}
