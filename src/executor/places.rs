//! Places of a process for hooks whose dialect bounds how many of one executor run at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::dialect;
use crate::domain::dialect::Dialect;
use crate::domain::hook::Hook;

/// The places of a process, which all of its executors share. They are made as they are asked for.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_executor: Mutex<HashMap<(Dialect, &'static str), Arc<Semaphore>>>,
}

/// One of them, until it is dropped. `None`: the hook needs none.
pub(super) type Place = Option<OwnedSemaphorePermit>;

impl Places {
    /// Waits for a place until the deadline. Cancel-safe; in the order of asking.
    ///
    /// # Errors
    /// How many there are: all of them were taken for all of the time.
    pub(super) async fn take(&self, hook: &Hook, deadline: Instant) -> Result<Place, usize> {
        let Some(width) = dialect::concurrency(hook.dialect, &hook.action) else { return Ok(None) };
        let places = {
            let mut by_executor = self.by_executor.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(width));
            Arc::clone(by_executor.entry((hook.dialect, hook.action.kind())).or_insert_with(new))
        };
        match timeout_at(deadline, places.acquire_owned()).await {
            Ok(place) => Ok(place.ok()), // it is never closed
            Err(_) => Err(width),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::hook::{Action, CommandAction, fixture};

    #[tokio::test(start_paused = true)]
    async fn as_many_as_the_dialect_has() {
        let places = Places::default();
        let hook = |dialect, action| Hook { action, dialect, ..fixture::hook("h") };
        let soon = || Instant::now() + Duration::from_secs(5);
        let kheish = hook(Dialect::Kheish, Action::Command(CommandAction::plain(&["x"])));
        let mut taken = Vec::new();
        for _ in 0..64 {
            taken.push(places.take(&kheish, soon()).await.unwrap().unwrap());
        }
        let began = Instant::now();
        assert_eq!(places.take(&kheish, soon()).await.unwrap_err(), 64);
        assert_eq!(began.elapsed(), Duration::from_secs(5), "it waits as long as it may");
        let callback = hook(Dialect::Kheish, Action::Callback("c".to_owned()));
        assert!(places.take(&callback, soon()).await.unwrap().is_some(), "other executors have places of their own");
        let ours = hook(Dialect::Native, Action::Command(CommandAction::plain(&["x"])));
        assert!(places.take(&ours, soon()).await.unwrap().is_none(), "hooks of ours need none");
        let waiting = async { places.take(&kheish, soon()).await.is_ok() };
        let leaving = async { drop(taken.pop()) };
        assert!(tokio::join!(waiting, leaving).0, "a place that is left is taken");
    }
}
