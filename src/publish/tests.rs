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

    async fn ask(&self, event: &Event, _: Duration) -> Result<Option<Answered>, PublishError> {
        match event.kind() {
            "denied" => {
                Ok(Some(Answered::Decision(r#"{"verdict":"deny","stop":false,"retry":false,"new":1}"#.to_owned())))
            }
            "refused" => Ok(Some(Answered::Refused("no event".to_owned()))),
            "odd" => Ok(Some(Answered::Decision("?".to_owned()))),
            "away" => Err(PublishError::Away("gone".to_owned())),
            _ => Ok(None),
        }
    }

    async fn close(&self) {}
}

fn publisher(fake: Fake) -> (Arc<Fake>, Publisher) {
    let fake = Arc::new(fake);
    let options = PublisherOptions {
        window: 10,
        patience: Duration::from_secs(30),
        body_bytes_max: 1000,
        ..PublisherOptions::default()
    };
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

#[tokio::test]
async fn what_is_decided() {
    let ask = async |kind: &str, on_unavailable: OnUnavailable| {
        let options = PublisherOptions { on_unavailable, ..PublisherOptions::default() };
        let publisher = Publisher::over(Box::new(Arc::new(Fake::default())), options);
        let event = Event::builder(kind).build().unwrap();
        match publisher.decide(&event, Duration::from_secs(5)).await {
            Ok(decision) => format!("{:?} {}", decision.verdict, decision.reason.unwrap_or_default()),
            Err(undecided) => undecided.to_string(),
        }
    };
    let unanswered = "no gate has answered within 5s: is a worker up?";
    assert_eq!(ask("denied", OnUnavailable::Allow).await, "Deny ");
    assert_eq!(ask("silent", OnUnavailable::Fail).await, unanswered);
    assert_eq!(ask("silent", OnUnavailable::Allow).await, format!("Allow {unanswered}"));
    assert_eq!(ask("away", OnUnavailable::Deny).await, "Deny the gates cannot be asked: the broker is away: gone");
    assert!(ask("odd", OnUnavailable::Fail).await.starts_with("the gates cannot be asked: the answer is no decision"));
    // What is wrong with the request is no question of who is there.
    assert_eq!(ask("refused", OnUnavailable::Allow).await, "the request was refused: no event");
}
