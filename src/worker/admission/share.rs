//! This worker's part of what a hook may run at a time in the whole fleet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::ration::Ration;
use crate::domain::id::HookId;

/// Between two requests for a greater share, while some wait for one.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// This worker's part of a limit of the fleet.
pub(super) struct Share {
    limit: u32,
    state: Mutex<ShareState>,
    /// A run has ended, or more was granted.
    freed: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct ShareState {
    granted: u32,
    in_use: u32,
    waiting: u32,
}

impl Share {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, state: Mutex::default(), freed: Notify::new() }
    }

    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn granted(&self) -> u32 {
        self.state().granted
    }

    /// A run has ended.
    pub(super) fn give_back(&self) {
        self.state().in_use -= 1;
        self.freed.notify_one();
    }

    pub(super) fn take(&self) -> bool {
        let mut state = self.state();
        let free = state.in_use < state.granted;
        state.in_use += u32::from(free);
        free
    }

    pub(super) async fn wait(&self, hook: &HookId, ration: &Ration) {
        let _waiting = Waiting::new(self);
        while !self.take() {
            let freed = self.freed.notified();
            self.ask(hook, ration).await;
            if self.take() {
                return;
            }
            tokio::select! {
                () = freed => {}
                () = sleep(ASK_AGAIN) => {}
            }
        }
    }

    pub(super) async fn ask(&self, hook: &HookId, ration: &Ration) {
        let want = {
            let state = self.state();
            state.in_use + state.waiting
        };
        let granted = ration.share(hook, self.limit, want).await;
        let more = {
            let mut state = self.state();
            std::mem::replace(&mut state.granted, granted) < granted
        };
        if more {
            self.freed.notify_waiters();
        }
    }

    pub(super) fn is_of_use(&self) -> bool {
        let state = self.state();
        state.granted + state.in_use + state.waiting > 0
    }

    fn state(&self) -> MutexGuard<'_, ShareState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts those who wait for a share.
struct Waiting<'a>(&'a Share);

impl<'a> Waiting<'a> {
    fn new(share: &'a Share) -> Self {
        share.state().waiting += 1;
        Self(share)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}
