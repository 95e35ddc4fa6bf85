//! Who may run now: permits of a hook and of the process. Saturated hooks wait elsewhere, so that others go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::meters::HookMeters;
use crate::domain::hook::{Hook, HookId};

/// The right to run once; given back when dropped.
pub struct Permit {
    _hook: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

/// What a process keeps of one hook, as long as its width does not change.
pub struct OfHook {
    width: usize,
    permits: Arc<Semaphore>,
    pub(super) meters: HookMeters,
}

/// All permits of a process.
pub struct Permits {
    process: Arc<Semaphore>,
    /// Places to wait in. Few, so that deliveries of a saturated hook do not fill the prefetch of all.
    waiting: Arc<Semaphore>,
    hooks: Mutex<HashMap<HookId, Arc<OfHook>>>,
}

impl Permits {
    /// `process`: runs at a time over all hooks. `waiting`: invocations that may wait for a permit in memory.
    #[must_use]
    pub fn new(process: usize, waiting: usize) -> Self {
        Self {
            process: Arc::new(Semaphore::new(process)),
            waiting: Arc::new(Semaphore::new(waiting.max(1))),
            hooks: Mutex::new(HashMap::new()),
        }
    }

    /// A permit for one run of this hook, at once or before `until`; `None` means that it has to wait elsewhere.
    pub async fn admit(&self, hook: &OfHook, until: Instant) -> Option<Permit> {
        if let Ok(own) = Arc::clone(&hook.permits).try_acquire_owned()
            && let Ok(process) = Arc::clone(&self.process).try_acquire_owned()
        {
            return Some(Permit { _hook: own, _process: process });
        }
        let _place = self.waiting.try_acquire().ok()?;
        let both = async {
            let own = Arc::clone(&hook.permits).acquire_owned().await.ok()?;
            let process = Arc::clone(&self.process).acquire_owned().await.ok()?;
            Some(Permit { _hook: own, _process: process })
        };
        timeout_at(until, both).await.ok().flatten()
    }

    /// What is kept of a hook; new when the catalog has changed its width. Runs under the old one finish beside it.
    pub fn of_hook(&self, hook: &Hook) -> Arc<OfHook> {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        match hooks.get(&hook.id) {
            Some(found) if found.width == hook.concurrency => Arc::clone(found),
            _ => {
                let permits = Arc::new(Semaphore::new(hook.concurrency));
                let meters = HookMeters::new(&hook.id);
                let new = Arc::new(OfHook { width: hook.concurrency, permits, meters });
                hooks.insert(hook.id.clone(), Arc::clone(&new));
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::hook::{Action, CommandAction, Pattern};
    use crate::domain::retry::RetryPolicy;

    fn hook(id: &str, concurrency: usize) -> Hook {
        Hook {
            id: HookId::new(id).unwrap(),
            on: vec![Pattern::new("a").unwrap()],
            action: Action::Command(CommandAction { argv: vec!["true".into()], env: [].into(), cwd: None }),
            timeout: Duration::from_secs(1),
            retry: RetryPolicy::default(),
            concurrency,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_saturated_hook_waits_and_others_go_on() {
        let permits = Permits::new(10, 1);
        let soon = || Instant::now() + Duration::from_secs(5);
        let (slow, quick) = (permits.of_hook(&hook("slow", 1)), permits.of_hook(&hook("quick", 1)));
        let first = permits.admit(&slow, soon()).await.unwrap();
        let (waiting, turned_away, other) = tokio::join!(
            async {
                let began = Instant::now();
                (permits.admit(&slow, soon()).await.is_some(), began.elapsed())
            },
            permits.admit(&slow, soon()),
            permits.admit(&quick, soon()),
        );
        assert_eq!(waiting, (false, Duration::from_secs(5))); // held as long as one may
        assert!(turned_away.is_none()); // no place to wait
        assert!(other.is_some());
        drop(first);
        assert!(permits.admit(&slow, soon()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_process_has_a_bound_of_its_own() {
        let permits = Permits::new(1, 1);
        let now = Instant::now();
        let (a, b) = (permits.of_hook(&hook("a", 5)), permits.of_hook(&hook("b", 5)));
        let first = permits.admit(&a, now).await;
        assert!(first.is_some());
        assert!(permits.admit(&b, now).await.is_none());
    }
}
