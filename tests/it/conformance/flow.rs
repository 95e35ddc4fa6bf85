//! What every [`Flow`] does, seen by two who use it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hookfleet::domain::flow::{Opened, Rate, open_time};
use hookfleet::domain::id::HookId;
use hookfleet::flow::{Card, Crew, Flow, GONE_AFTER, Pause};
use tokio::time::sleep;

fn hook(name: &str) -> HookId {
    HookId::new(&format!("{name}-{:08x}", fastrand::u32(..))).unwrap()
}

/// Every check, one after the other.
pub(crate) async fn suite(one: &dyn Flow, other: &dyn Flow) {
    slots_are_given_out_once(one, other).await;
    slots_have_an_end(one).await;
    shares_are_bounded(one).await;
    breakers_are_seen_by_all(one, other).await;
    a_pause_lasts(one, other).await;
    who_is_there_is_known(one, other).await;
}

/// Two workers that take as much as they can get no more than the rate in sum.
async fn slots_are_given_out_once(one: &dyn Flow, other: &dyn Flow) {
    let (hook, rate) = (hook("rate"), Rate::new(1000, Duration::from_secs(1)).unwrap());
    let began = Instant::now();
    let (mut earliest, mut latest) = (Duration::ZERO, Duration::ZERO);
    for round in 0..20 {
        let flow = if round % 2 == 0 { one } else { other };
        let asked = began.elapsed();
        let slots = flow.slots(&hook, rate, 20).await.unwrap();
        assert_eq!(slots.count, 20, "{round}: {slots:?}");
        // The wait is from a moment between question and answer.
        latest = began.elapsed() + slots.wait;
        assert!(latest + Duration::from_millis(5) >= earliest + rate.interval * 20 || round == 0, "{round}: {slots:?}");
        earliest = asked + slots.wait;
    }
    assert!(
        latest >= Duration::from_millis(375),
        "400 slots of a millisecond, the last 20 begin after 380: {latest:?}"
    );
}

async fn slots_have_an_end(flow: &dyn Flow) {
    let (hook, rate) = (hook("ahead"), Rate::new(10, Duration::from_secs(1)).unwrap());
    assert_eq!(flow.slots(&hook, rate, 30).await.unwrap().count, 30);
    let refused = flow.slots(&hook, rate, 1).await.unwrap();
    assert_eq!(refused.count, 0, "three seconds ahead is too much");
    assert!((Duration::from_millis(1500)..=Duration::from_secs(2)).contains(&refused.wait), "{refused:?}");
}

async fn shares_are_bounded(flow: &dyn Flow) {
    let hook = hook("share");
    assert_eq!(flow.share(&hook, 10, 4, 1).await.unwrap(), 4);
    assert_eq!(flow.share(&hook, 10, 40, 1).await.unwrap(), 10);
    assert_eq!(flow.share(&hook, 10, 0, 1).await.unwrap(), 0);
}

async fn breakers_are_seen_by_all(one: &dyn Flow, other: &dyn Flow) {
    let target = format!("http://h#{:08x}", fastrand::u32(..));
    let seen = async |flow: &dyn Flow| -> Option<Opened> {
        let opened: BTreeMap<String, Opened> = flow.opened().await.unwrap();
        opened.get(&target).copied()
    };
    assert_eq!(seen(other).await, None);
    one.open(&target, 3).await.unwrap();
    let opened = seen(other).await.unwrap();
    assert_eq!(opened.level, 3);
    assert!(opened.left <= open_time(3) && opened.left > Duration::from_secs(5), "{opened:?}");
    assert!(one.probe(&target).await.unwrap());
    assert!(!other.probe(&target).await.unwrap(), "one at a time");
    one.open(&target, 4).await.unwrap(); // it failed
    assert!(other.probe(&target).await.unwrap());
    other.close(&target).await.unwrap();
    assert_eq!(seen(one).await, None);
    assert!(one.probe(&target).await.unwrap());
}

async fn a_pause_lasts(one: &dyn Flow, other: &dyn Flow) {
    let pause = Pause { by: "me".to_owned(), at_ms: 17, message: Some("a \"reason\"".to_owned()) };
    assert_eq!(other.paused().await.unwrap(), None);
    one.pause(Some(&pause)).await.unwrap();
    assert_eq!(other.paused().await.unwrap(), Some(pause));
    other.pause(None).await.unwrap();
    assert_eq!(one.paused().await.unwrap(), None);
}

async fn who_is_there_is_known(one: &dyn Flow, other: &dyn Flow) {
    let card = |in_flight| Card {
        host: "h".to_owned(),
        version: "1".to_owned(),
        format: 1,
        lanes: vec!["slow".to_owned()],
        in_flight,
        idle: vec!["why".to_owned()],
        ..Card::default()
    };
    one.beat(&card(1)).await.unwrap();
    one.beat(&card(2)).await.unwrap();
    let crew = other.crew().await.unwrap();
    assert_eq!(crew.len(), 1, "{crew:?}");
    assert_eq!(Card { worker: String::new(), ..crew[0].clone() }, card(2), "what it said last");
    assert!(!crew[0].worker.is_empty());
}

/// What only a fleet of several has.
pub(crate) async fn workers_share(one: &dyn Flow, other: &dyn Flow) {
    let card = Card::default();
    assert_eq!(one.beat(&card).await.unwrap().workers, 1);
    let crews = [other.beat(&card).await.unwrap(), one.beat(&card).await.unwrap()];
    assert_eq!(one.crew().await.unwrap().len(), 2);
    assert!(crews.iter().all(|crew| crew.workers == 2), "{crews:?}");
    assert_eq!(crews.iter().map(|Crew { rank, .. }| rank).sum::<u32>(), 1, "{crews:?}");

    let hook = hook("share");
    assert_eq!(one.share(&hook, 5, 9, 2).await.unwrap(), 3, "half of it, rounded up");
    assert_eq!(other.share(&hook, 5, 9, 2).await.unwrap(), 2, "the rest");
    assert_eq!(one.share(&hook, 5, 1, 2).await.unwrap(), 1);
    assert_eq!(other.share(&hook, 5, 9, 2).await.unwrap(), 3);
    // A worker that is gone leaves its share.
    sleep(GONE_AFTER + Duration::from_millis(100)).await;
    assert_eq!(one.share(&hook, 5, 9, 1).await.unwrap(), 5);
    assert_eq!(one.crew().await.unwrap(), []);
    assert_eq!(one.beat(&card).await.unwrap(), Crew { workers: 1, rank: 0 });
}
