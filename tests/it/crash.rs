//! One test a row of the crash table in `worker.rs`: the process is killed in that gap, another goes on.

use std::time::Duration;

use crate::pipeline::{Place, hook, site, until_letters};
use crate::publishing::{Publisher, event};
use crate::servers::shared;
use crate::sink::{Answer, Sink};

/// What the sink and the letters show at the end.
struct Expected {
    /// Calls at the sink for the event of this test.
    calls: usize,
    /// States of its letters.
    letters: &'static [&'static str],
}

/// Kills the first worker at `point` while it handles one event, starts a second, and compares. `status` is what the
/// target answers, always.
async fn check(place: Place, point: &str, status: u16, expected: Expected) {
    let sink = Sink::start().await;
    sink.behave(move |_, _| Answer::status(status));
    let policy = ", retry: { attempts: 2, backoff: { initial: 250ms } }";
    let site = site(place).await.hooks(&hook(&sink, "h", "a", policy)).set("HOOKFLEET_IDEMPOTENCY_LEASE", "2s");

    // Published before the worker that dies is up: into a file, its answer would die with it.
    match place {
        Place::Servers => Publisher::amqp(&shared().await.0, &site).await.send(event("a", "1")).await,
        Place::File => drop(site.ok(&["publish", "--type", "a", "--id", "1"])),
    }
    let mut first = site.spawn(&[("HOOKFLEET_CRASH_AT", point)]);
    assert_eq!(first.ended(Duration::from_secs(20)).await, None, "aborted at {point}");
    let mut second = site.worker().await;
    sink.until(point, Duration::from_secs(30), |calls| calls.len() >= expected.calls).await;
    until_idle(&site, expected.letters).await;
    assert_eq!(second.stop().await, Some(0), "{}", second.log());

    let calls = sink.calls();
    assert_eq!(calls.len(), expected.calls, "killed at {point}: {calls:#?}");
    assert!(calls.iter().all(|call| call.key == calls[0].key), "one key: {calls:#?}");
    let letters = site.letters();
    let found: Vec<&str> = letters.iter().map(|letter| letter.get("state").unwrap().as_str().unwrap()).collect();
    assert_eq!(found, expected.letters);
}

/// Waits for the expected letters; where none are expected, for a while in which none may come.
async fn until_idle(site: &crate::fleet::Site, letters: &'static [&'static str]) {
    match letters {
        // Long enough for a lease and two trips: whatever a crash left behind comes within it.
        [] => tokio::time::sleep(Duration::from_secs(4)).await,
        [state, ..] => drop(until_letters(site, letters.len(), state).await),
    }
}

const DONE: &[&str] = &[];
const OPEN: &[&str] = &["open"];

macro_rules! rows {
    ($($name:ident: $point:literal, $status:literal, $calls:literal, $letters:ident;)*) => {
        mod servers { use super::*; $(
            #[tokio::test]
            async fn $name() {
                check(Place::Servers, $point, $status, Expected { calls: $calls, letters: $letters }).await;
            }
        )* }
        mod file { use super::*; $(
            #[tokio::test]
            async fn $name() {
                check(Place::File, $point, $status, Expected { calls: $calls, letters: $letters }).await;
            }
        )* }
    };
}

rows! {
    // point, status of the target, calls at the sink, letters
    received_before_the_claim: "received", 200, 1, DONE;
    claimed_before_the_run: "claimed", 200, 1, DONE;
    ran_before_the_record: "ran", 200, 2, DONE; // the one gap in which an action is seen twice
    recorded_done_before_the_ack: "marked", 200, 1, DONE;
    failed_and_recorded_before_the_confirm: "recorded", 500, 2, OPEN; // published again, not run again
    confirmed_before_the_mark: "published", 500, 2, OPEN;
    marked_before_the_ack: "marked", 500, 2, OPEN;
}

/// A long run: the guard is out, the ack is not. One of the two messages wins, the other is dropped.
#[tokio::test]
async fn guarded_before_the_ack() {
    let sink = Sink::start().await;
    sink.behave(|_, before| Answer::after(Duration::from_secs(if before == 0 { 8 } else { 0 })));
    let site = site(Place::Servers)
        .await
        .hooks(&hook(&sink, "h", "a", ", timeout: 20s"))
        .set("HOOKFLEET_IDEMPOTENCY_LEASE", "2s")
        .set("HOOKFLEET_WORKER_HOLD", "1s");
    let mut first = site.spawn(&[("HOOKFLEET_CRASH_AT", "guarded")]);
    first.until_ready().await;
    let publisher = Publisher::amqp(&shared().await.0, &site).await;
    publisher.send(event("a", "1")).await;
    assert_eq!(first.ended(Duration::from_secs(20)).await, None);
    let mut second = site.worker().await;
    sink.until("the takeover", Duration::from_secs(30), |calls| calls.len() == 2).await;
    tokio::time::sleep(Duration::from_secs(4)).await; // the second message has come round by then
    assert_eq!(second.stop().await, Some(0));
    let calls = sink.calls();
    assert_eq!(calls.len(), 2, "{calls:#?}");
    assert_eq!(calls[0].key, calls[1].key);
    assert!(site.letters().is_empty());
}
