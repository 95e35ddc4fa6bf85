//! Whether a process lives. A dead one is frozen where it stands: nothing it asks for is done, nothing comes back. A
//! stopped one (SIGSTOP, a machine that swaps, a pause of its host) goes on where it was, some time later.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The life of one process.
#[derive(Clone, Default)]
pub(super) struct Life(Arc<State>);

#[derive(Default)]
struct State {
    over: AtomicBool,
    stopped_until: Mutex<Option<Instant>>,
}

impl Life {
    pub(super) fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    pub(super) fn stop_for(&self, time: Duration) {
        *self.0.stopped_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + time);
    }

    fn stopped_until(&self) -> Option<Instant> {
        self.0.stopped_until.lock().unwrap_or_else(PoisonError::into_inner).filter(|until| *until > Instant::now())
    }

    /// Goes on only in a process that lives, and that runs.
    pub(super) async fn check(&self) {
        while let Some(until) = self.stopped_until() {
            sleep_until(until).await;
        }
        if self.is_over() {
            pending::<()>().await;
        }
    }
}
