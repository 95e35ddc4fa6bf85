//! The receiver of `verify`: keeps the book, takes a moment for each event, and refuses some at first.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use tokio::time::sleep;

use super::book::{Book, Call};
use crate::cli::trial::{number, receiver};

/// How long each event takes: so faults meet runs that are under way.
const WORK: Duration = Duration::from_millis(50);

/// A running receiver.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    began: Instant,
    book: Mutex<Book>,
}

impl Receiver {
    pub(super) fn start(book: Book) -> anyhow::Result<Self> {
        let inner = Arc::new(Inner { began: Instant::now(), book: Mutex::new(book) });
        let routes = Router::new().route("/", post(receive)).with_state(Arc::clone(&inner));
        Ok(Self { address: receiver::serve(routes)?, inner })
    }

    /// The time in the book.
    pub(super) fn now(&self) -> Duration {
        self.inner.began.elapsed()
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book()
    }
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, headers: &HeaderMap, body: &[u8]) -> Option<(usize, bool)> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let event = number(body)?;
        let key = text("idempotency-key")?;
        let attempt = text("hookfleet-attempt")?.parse().ok()?;
        let mut book = self.book();
        let at = self.began.elapsed(); // under the lock: so the times are in order
        Some((event, book.call(Call { event, key, attempt, at })?))
    }
}

async fn receive(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some((event, taken)) = inner.call(&headers, &body) else { return StatusCode::BAD_REQUEST };
    sleep(WORK).await; // a caller that dies meanwhile gets no answer: this future ends with its connection
    if !taken {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    inner.book().answered(event);
    StatusCode::NO_CONTENT
}
