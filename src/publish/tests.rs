//! The publisher over a broker that fails on demand, on tokio's paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use tokio::time::sleep;

use super::*;

/// Confirms after a second what is not told to fail; counts what is under way.
#[derive(Default)]
struct Fake {
    tries: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
    /// Tries that fail before one works.
    failing: usize,
    hangs: bool,
    too_large: bool,
}

#[async_trait]
impl Route for Arc<Fake> {
    async fn send(&self, _: &Event) -> Result<(), PublishError> {
        if self.too_large {
            return Err(PublishError::TooLarge("no".to_owned()));
        }
        let tries = self.tries.fetch_add(1, Ordering::Relaxed);
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(under_way, Ordering::Relaxed);
        sleep(Duration::from_secs(if self.hangs { 3600 } else { 1 })).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        if tries < self.failing { Err(PublishError::Away("gone".to_owned())) } else { Ok(()) }
    }

    async fn close(&self) {}
}

fn publisher(fake: Fake) -> (Arc<Fake>, Publisher) {
    let fake = Arc::new(fake);
    let options = PublisherOptions { window: 10, patience: Duration::from_secs(30), body_bytes_max: 1000 };
    (Arc::clone(&fake), Publisher::over(Box::new(fake), options))
}

fn event() -> Event {
    Event::builder("a").id("7").build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_window_bounds_what_is_under_way() {
    let (fake, publisher) = publisher(Fake::default());
    let began = Instant::now();
    let events = stream::iter((0..100).map(|_| event()));
    let confirmed = publisher.publish_all(events).filter(|result| std::future::ready(result.is_ok())).count().await;
    assert_eq!((confirmed, fake.most.load(Ordering::Relaxed)), (100, 10));
    assert_eq!(began.elapsed().as_secs(), 10);
    let many =
        futures_util::future::join_all((0..50).map(|_| async { publisher.publish(&event()).await.is_ok() })).await;
    assert!(many.into_iter().all(|confirmed| confirmed));
    assert_eq!(fake.most.load(Ordering::Relaxed), 10);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_repeated_until_patience_is_over() {
    let (fake, patient) = publisher(Fake { failing: 5, ..Fake::default() });
    patient.publish(&event()).await.unwrap();
    assert_eq!(fake.tries.load(Ordering::Relaxed), 6);

    let began = Instant::now();
    let (_, failing) = publisher(Fake { failing: usize::MAX, ..Fake::default() });
    let error = failing.publish(&event()).await.unwrap_err();
    assert!(began.elapsed() <= Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(error.event.id(), "7");
    let said = "the broker is away: gone; publish the same event again: it is handled once";
    assert_eq!(error.to_string(), said);

    let began = Instant::now();
    let (_, hanging) = publisher(Fake { hangs: true, ..Fake::default() });
    let error = hanging.publish(&event()).await.unwrap_err();
    assert!(matches!(error.error, PublishError::Unconfirmed));
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_final() {
    let (_, refusing) = publisher(Fake { too_large: true, ..Fake::default() });
    assert!(refusing.publish(&event()).await.unwrap_err().is_final());
    let (fake, small) = publisher(Fake::default());
    let error = small.publish(&Event::builder("a").data(&"x".repeat(1000)).build().unwrap()).await.unwrap_err();
    assert!(error.is_final() && error.to_string().contains("the limit is 1000 (events.body_bytes_max)"), "{error}");
    assert_eq!(fake.tries.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_is_under_way() {
    let (fake, publisher) = publisher(Fake::default());
    let (one, event) = (event(), event());
    let (sent, ()) = tokio::join!(publisher.publish(&one), async {
        sleep(Duration::from_millis(1)).await;
        publisher.close().await;
        assert_eq!(fake.under_way.load(Ordering::Relaxed), 0);
    });
    sent.unwrap();
    let error = publisher.publish(&event).await.unwrap_err();
    assert!(error.to_string().starts_with("the broker is away: closed"), "{error}");
}
