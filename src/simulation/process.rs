//! Whether a process lives. A dead one is frozen where it stands: nothing it asks for is done, nothing comes back.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The life of one process.
#[derive(Clone, Default)]
pub(super) struct Life(Arc<AtomicBool>);

impl Life {
    pub(super) fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on only in a process that lives.
    pub(super) async fn check(&self) {
        if self.is_over() {
            pending::<()>().await;
        }
    }
}
