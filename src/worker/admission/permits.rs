//! The permits of a hook: fewer while its target says that it is overloaded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};

pub(super) struct Permits {
    width: usize,
    semaphore: Arc<Semaphore>,
    cut: Mutex<Cut>,
}

/// What is missing of the width.
#[derive(Default)]
struct Cut {
    /// Out of circulation.
    taken: usize,
    /// To be taken out when runs that have them now end.
    owed: usize,
}

impl Permits {
    pub(super) fn new(width: usize) -> Self {
        Self { width, semaphore: Arc::new(Semaphore::new(width)), cut: Mutex::default() }
    }

    pub(super) const fn width(&self) -> usize {
        self.width
    }

    pub(super) fn try_take(self: &Arc<Self>) -> Result<OwnPermit, TryAcquireError> {
        let permit = Arc::clone(&self.semaphore).try_acquire_owned()?;
        Ok(OwnPermit { of: Arc::clone(self), permit: Some(permit) })
    }

    /// Cancel-safe.
    pub(super) async fn take(self: &Arc<Self>) -> Result<OwnPermit, AcquireError> {
        let permit = Arc::clone(&self.semaphore).acquire_owned().await?;
        Ok(OwnPermit { of: Arc::clone(self), permit: Some(permit) })
    }

    /// Lets so many run at a time from now on; those above that which run already go on.
    pub(super) fn narrow_to(&self, allowed: usize) {
        let mut cut = self.cut();
        let (wanted, found) = (self.width.saturating_sub(allowed), cut.taken + cut.owed);
        if wanted > found {
            let taken = self.semaphore.forget_permits(wanted - found);
            cut.taken += taken;
            cut.owed += wanted - found - taken;
        } else {
            let remitted = cut.owed.min(found - wanted);
            cut.owed -= remitted;
            let returned = found - wanted - remitted;
            cut.taken -= returned;
            self.semaphore.add_permits(returned);
        }
    }

    pub(super) fn in_use(&self) -> usize {
        let taken = self.cut().taken;
        self.width.saturating_sub(self.semaphore.available_permits() + taken)
    }

    /// How many may run at a time now.
    pub(super) fn allowed(&self) -> usize {
        let cut = self.cut();
        self.width - cut.taken - cut.owed
    }

    fn cut(&self) -> MutexGuard<'_, Cut> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them; given back, or taken out of circulation, when dropped.
pub(super) struct OwnPermit {
    of: Arc<Permits>,
    /// Taken when dropped.
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for OwnPermit {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut cut = self.of.cut();
        if cut.owed > 0 {
            cut.owed -= 1;
            cut.taken += 1;
            permit.forget();
        } else {
            drop(permit); // before anyone can owe it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_comes_back() {
        let permits = Arc::new(Permits::new(8));
        let mut held: Vec<_> = (0..6).map(|_| permits.try_take().unwrap()).collect();
        permits.narrow_to(4); // two are free, and taken; two are owed
        assert_eq!((permits.in_use(), permits.allowed()), (6, 4));
        assert!(permits.try_take().is_err());
        for left in [5, 4] {
            held.pop();
            assert_eq!(permits.in_use(), left);
            assert!(permits.try_take().is_err(), "owed");
        }
        held.pop();
        held.push(permits.try_take().unwrap());
        permits.narrow_to(1);
        permits.narrow_to(2);
        permits.narrow_to(8);
        assert_eq!((permits.in_use(), permits.allowed()), (4, 8));
        held.extend((0..4).map(|_| permits.try_take().unwrap()));
        assert!(permits.try_take().is_err());
        held.clear();
        assert_eq!(permits.in_use(), 0);
    }
}
