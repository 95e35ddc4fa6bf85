//! A program against the library as it is: whatever is here compiles unchanged with every later version that is not a
//! breaking one. What is not here is not the library's (see `tidy::the_library_is_small`).

use std::fmt::{Debug, Display};
use std::future::Future;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _, stream};
use hookfleet::{
    Answer, Asked, Call, ConnectError, Decision, Event, EventBuilder, EventName, Failed, Fleet, FleetError, Header,
    HookInvocation, InvalidEvent, Json, OnUnavailable, PermissionRule, Problems, PublishError, Publisher,
    PublisherOptions, Scope, Settings, Undecided, Unpublished, Verdict,
};

/// What any thread may have, and may be told of.
fn shared<T: Debug + Send + Sync + 'static>() {}

fn error<T: std::error::Error + Send + Sync + 'static>() {}

fn sendable<T: Send>(value: T) -> T {
    value
}

#[test]
fn types_go_anywhere() {
    shared::<Event>();
    shared::<EventBuilder>();
    shared::<Header>();
    shared::<Call>();
    shared::<Failed>();
    shared::<Settings>();
    shared::<PublisherOptions>();
    shared::<Fleet>();
    shared::<Answer>();
    shared::<Decision>();
    shared::<OnUnavailable>();
    shared::<HookInvocation<'static>>();
    shared::<EventName>();
    for check in [
        error::<ConnectError>,
        error::<FleetError>,
        error::<InvalidEvent>,
        error::<Problems>,
        error::<PublishError>,
        error::<Undecided>,
        error::<Unpublished>,
    ] {
        check();
    }
}

#[test]
fn events() {
    let builder: EventBuilder = Event::builder("a.b");
    let builder = builder.source("/s").subject("x").id("1").time(SystemTime::UNIX_EPOCH).data(&[1]);
    let builder = builder.extension("t", "text").extension("n", 3).extension("f", true);
    let builder = builder.extension("h", Header::Text("x".to_owned()));
    let event: Result<Event, InvalidEvent> = builder.build();
    let event = event.unwrap();
    let parts: (&str, &str, &str, &[u8]) = (event.id(), event.source(), event.kind(), event.json());
    assert_eq!((parts.0, parts.1, parts.2), ("1", "/s", "a.b"));
    assert!(parts.3.starts_with(b"{") && event == event.clone());
}

#[allow(dead_code, reason = "it is there to be compiled")]
async fn publishing(event: Event) {
    let options = PublisherOptions {
        window: 8,
        patience: Duration::from_secs(1),
        body_bytes_max: 1 << 20,
        on_unavailable: OnUnavailable::Deny,
    };
    let options = PublisherOptions { window: 9, ..options };
    let publisher: Result<Publisher, ConnectError> = sendable(Publisher::connect("amqp://h", "n")).await;
    match publisher {
        Ok(publisher) => drop(publisher),
        Err(ConnectError::Settings(sentence) | ConnectError::Away(sentence)) => drop(sentence),
        Err(other) => drop(other.to_string()),
    }
    let publisher: Publisher = Publisher::connect_with("amqp://h", "n", options).await.unwrap();
    if let Err(Unpublished { event, error }) = sendable(publisher.publish(&event)).await {
        let event: Box<Event> = event;
        let sentence = match error {
            PublishError::Away(why) | PublishError::Refused(why) => why,
            PublishError::TooLarge(why) | PublishError::Invalid(why) => format!("final: {why}"),
            PublishError::Unconfirmed => event.id().to_owned(),
            other => other.to_string(),
        };
        drop(sentence);
    }
    let mut answers = Box::pin(answers(publisher.publish_all(stream::iter([event]))));
    assert!(answers.next().await.is_some());
    drop(answers);
    publisher.close().await;
}

fn answers<'a>(
    answers: impl Stream<Item = Result<Event, Unpublished>> + 'a,
) -> impl Stream<Item = Result<Event, Unpublished>> + 'a {
    answers
}

async fn audit(call: Call) -> Result<(), Failed> {
    let Call { key, hook, attempt, generation, .. } = &call;
    let numbers: (&String, &String, u32, u32) = (key, hook, *attempt, *generation);
    let parts: (&str, &str, &str, Option<&str>, &[u8]) =
        (call.id(), call.source(), call.kind(), call.subject(), call.event());
    let data: serde_json::Result<Vec<u8>> = call.data();
    match (data, numbers.2, parts.3) {
        (Err(error), ..) => Err(Failed::never(error)),
        (_, 1, _) => Err(Failed::after(Duration::from_secs(1), "once more")),
        (_, 2, _) => Err(Failed::later(format_args!("{} {}", numbers.0, parts.0))),
        (_, 3, None) => Err(std::io::Error::other("any error is tried again"))?,
        _ => Ok(()),
    }
}

#[allow(dead_code, reason = "it is there to be compiled")]
async fn deciding(publisher: Publisher, event: Event) -> String {
    let decided: Result<Decision, Undecided> = sendable(publisher.decide(&event, Duration::from_secs(1))).await;
    match decided {
        Ok(Decision { verdict: Verdict::Allow, updated_input: Some(input), .. }) => Json::as_str(&input).to_owned(),
        Ok(Decision { verdict: Verdict::Ask, updated_permissions, .. }) => {
            let rules: Vec<PermissionRule> = updated_permissions;
            let forever = rules.iter().filter(|rule| rule.scope == Scope::User && rule.behavior == Verdict::Allow);
            forever.map(|rule| rule.tool_name_pattern.clone()).collect()
        }
        Ok(decision) => {
            let hooks: &Vec<Asked> = &decision.hooks;
            decision.reason.clone().unwrap_or_else(|| hooks.iter().map(|asked| asked.hook.clone()).collect())
        }
        Err(Undecided::Unanswered(after)) => format!("{after:?}"),
        Err(Undecided::Unavailable(why) | Undecided::Refused(why)) => why,
        Err(other) => other.to_string(),
    }
}

async fn freeze(call: Call) -> Result<Answer, Failed> {
    let decided: Option<Decision> = call.decision();
    if decided.is_some() { Ok(Answer::default()) } else { Ok(Answer::refusal("a freeze is on")) }
}

#[allow(dead_code, reason = "it is there to be compiled")]
async fn working(shutdown: impl Future<Output = ()> + Send) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let settings: Result<Settings, Problems> = Settings::of_process();
    let fleet: Fleet = Fleet::builder(settings?).callback("audit", audit).callback("none", |_call| async { Ok(()) });
    let fleet = fleet.gate("freeze", freeze);
    let left: Result<Vec<String>, FleetError> = fleet.run(shutdown).await;
    drop(left?);
    Ok(())
}

#[test]
fn settings() {
    fn shown(value: &dyn Display) -> String {
        value.to_string()
    }
    let settings: Settings = Settings::from_yaml("namespace: shop").unwrap().clone();
    assert!(format!("{settings:?}").contains("shop"));
    let problems: Problems = Settings::from_yaml("namespace: UPPER").unwrap_err();
    assert!(shown(&problems).contains("expected 1 to 40 of a-z"), "{problems}");
}
