use super::*;
use crate::flow::Pause;
use crate::flow::local::LocalFlow;
use crate::flow::redis::RedisFlow;
use crate::redis::connection::fixture::nowhere;

#[tokio::test]
async fn who_holds_waits_for_an_answer() {
    let away = RedisFlow::new(nowhere(), "fleet");
    assert_eq!(*pause(&away, WhenAway::Proceed).await.borrow(), None);
    let told = pause(&away, WhenAway::Hold).await;
    assert!(told.borrow().as_ref().is_some_and(|reason| reason.contains("not known yet")), "{:?}", told.borrow());

    let flow = LocalFlow::default();
    let mut seen = told.subscribe();
    tokio::select! {
        () = follow_pause(&flow, &told) => {}
        known = seen.wait_for(Option::is_none) => assert!(known.is_ok()),
    }
    flow.pause(Some(&Pause { by: "me".to_owned(), at_ms: 0, message: None })).await.unwrap();
    for when_away in [WhenAway::Hold, WhenAway::Proceed] {
        assert_eq!(pause(&flow, when_away).await.borrow().as_deref(), Some("paused by me"));
    }
}
