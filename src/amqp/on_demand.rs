//! A connection that is opened when it is wanted, and again when it is lost. Everyone who wants it at a time shares it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// An open connection, with whatever is used on it.
pub trait Usable: Send + Sync + 'static {
    /// Whether it can be handed to the next who wants one.
    fn is_of_use(&self) -> bool;
}

/// Opens connections one at a time.
pub struct OnDemand<T, E> {
    /// A failure is the answer for so long. Then the connection is tried again.
    repeat_after: Duration,
    /// The connection of now, or the one that is being opened.
    current: Mutex<Option<Opening<T, E>>>,
}

type Opening<T, E> = watch::Receiver<Option<Result<Arc<T>, Failure<E>>>>;

#[derive(Clone)]
struct Failure<E> {
    error: E,
    at: Instant,
}

impl<T: Usable, E: Clone + Send + Sync + 'static> OnDemand<T, E> {
    /// Nothing is opened yet.
    pub const fn new(repeat_after: Duration) -> Self {
        Self { repeat_after, current: Mutex::new(None) }
    }

    /// The connection, opened by `open` if none is of use; `None`: the process is ending. A caller that stops waiting
    /// does not stop the opening, since half a connection would be lost.
    pub async fn get<F>(&self, open: impl FnOnce() -> F) -> Option<Result<Arc<T>, E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut opening = self.opening(open);
        let opened = opening.wait_for(Option::is_some).await.ok()?.clone()?;
        Some(opened.map_err(|failure| failure.error))
    }

    /// Whether the connection is of no use now: it is being opened, could not be opened, or `judge` says so. One that was
    /// never wanted is none.
    pub fn is_away(&self, judge: impl FnOnce(&T) -> bool) -> bool {
        let current = self.current();
        let Some(opening) = current.as_ref() else { return false };
        match &*opening.borrow() {
            Some(Ok(connection)) => judge(connection),
            Some(Err(_)) | None => true,
        }
    }

    /// Takes the connection out, if there is one.
    pub fn take(&self) -> Option<Arc<T>> {
        let opening = self.current().take()?;
        let opened = opening.borrow().clone()?;
        opened.ok()
    }

    fn opening<F>(&self, open: impl FnOnce() -> F) -> Opening<T, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut current = self.current();
        if let Some(opening) = current.as_ref().filter(|opening| self.is_of_use(opening)) {
            return opening.clone();
        }
        let (sender, opening) = watch::channel(None);
        let open = open();
        tokio::spawn(async move {
            let opened = open.await.map(Arc::new).map_err(|error| Failure { error, at: Instant::now() });
            let _ = sender.send(Some(opened)); // everyone may have stopped waiting
        });
        current.insert(opening).clone()
    }

    fn is_of_use(&self, opening: &Opening<T, E>) -> bool {
        match &*opening.borrow() {
            None => opening.has_changed().is_ok(), // under way, unless its task has died
            Some(Ok(connection)) => connection.is_of_use(),
            Some(Err(failure)) => failure.at.elapsed() < self.repeat_after,
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Opening<T, E>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    struct Fake {
        number: u32,
        is_lost: AtomicBool,
    }

    impl Usable for Fake {
        fn is_of_use(&self) -> bool {
            !self.is_lost.load(Ordering::Relaxed)
        }
    }

    /// Counts what is opened; each takes a second.
    #[derive(Clone, Default)]
    struct Opener {
        opened: Arc<AtomicU32>,
        fails: Arc<AtomicBool>,
    }

    impl Opener {
        async fn open(self) -> Result<Fake, u32> {
            let number = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
            sleep(Duration::from_secs(1)).await;
            if self.fails.load(Ordering::Relaxed) {
                return Err(number);
            }
            Ok(Fake { number, is_lost: AtomicBool::new(false) })
        }
    }

    fn numbered(got: Option<Result<Arc<Fake>, u32>>) -> Result<u32, u32> {
        got.unwrap().map(|fake| fake.number)
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_shared_until_it_is_lost() {
        let (connections, opener) = (OnDemand::new(Duration::from_secs(1)), Opener::default());
        let get = || connections.get(|| opener.clone().open());
        let (first, second) = tokio::join!(get(), get());
        let first = first.unwrap().unwrap();
        assert_eq!(numbered(second), Ok(1));
        assert_eq!(numbered(get().await), Ok(1));
        first.is_lost.store(true, Ordering::Relaxed);
        assert_eq!(numbered(get().await), Ok(2));
        assert_eq!(connections.take().map(|fake| fake.number), Some(2));
        assert!(connections.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_the_answer_for_a_while() {
        let (connections, opener) = (OnDemand::new(Duration::from_secs(1)), Opener::default());
        assert!(!connections.is_away(|_| true)); // never wanted
        opener.fails.store(true, Ordering::Relaxed);
        let get = || connections.get(|| opener.clone().open());
        assert_eq!(numbered(get().await), Err(1));
        assert_eq!(numbered(get().await), Err(1));
        assert!(connections.is_away(|_| false));
        sleep(Duration::from_secs(1)).await;
        opener.fails.store(false, Ordering::Relaxed);
        assert_eq!(numbered(get().await), Ok(2));
        assert!(!connections.is_away(|_| false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_opened_survives_who_wanted_it() {
        let (connections, opener) = (OnDemand::new(Duration::from_secs(1)), Opener::default());
        let get = || connections.get(|| opener.clone().open());
        assert!(timeout(Duration::from_millis(500), get()).await.is_err());
        assert!(connections.is_away(|_| false));
        assert_eq!(numbered(get().await), Ok(1));
    }
}
