//! Gates where workers die, where nobody is there, where the store is not, and where there is much else to do: whoever asks
//! is told one thing, or what holds then.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use hookfleet::{Event, Verdict};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{ALLOW, Asker, DIRECT, FREEZE, STRUCTURED, WITHIN, decide, gate, posted};
use crate::fleet::Site;
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::{Publisher, event, with_data};
use crate::servers::redis::Redis;
use crate::servers::{Make, Rabbit, client, shared};
use crate::sink::{Answer, Call, Sink};
use crate::tiers::sizes::GATE_DEATHS;

/// Every gap between two effects of a decision.
const POINTS: [&str; 5] = ["gate-claimed", "gate-asked", "gate-decided", "gate-replied", "gate-published"];
/// Requests for each death: the broker deals them out in turn, so that each of three workers gets one.
const REQUESTS: usize = 4;

/// Whether a decision is what the gate has said.
fn is_real(body: &str) -> bool {
    let decision: Value = serde_json::from_str(body).unwrap();
    decision["verdict"] == "allow" && decision["matched_hooks"] == json!(["gate"])
}

/// Two workers stay, a third dies of the first request that it gets, in each gap in turn: nearly everybody who asks is
/// answered in time, and nobody is told two things.
///
/// Requests expire after 20 s ([`WITHIN`]) and name no deadline: a death costs the rest of a lease of one second and what
/// the start of the next process takes from the others, which in a debug build on a busy machine may be seconds.
#[tokio::test]
async fn many_kills_and_never_two_decisions() {
    let sink = Sink::start().await;
    // Whoever is asked again says something else, so that no two decisions are alike by chance.
    sink.behave(|_, before| Answer {
        body: Some(json!({ "additional_contexts": [format!("answer {before}")] }).to_string()),
        ..Answer::status(200)
    });
    let hooks = [hook(&sink, "gate", "ask", ", mode: gate, on_failure: closed"), hook(&sink, "watch", "ask", "")];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let mut staying = [site.worker().await, site.worker().await];
    let mut asker = Asker::new(&site, DIRECT).await;
    let (deaths, began) = (GATE_DEATHS.count(), Instant::now());
    for death in 0..deaths {
        let point = POINTS[death % POINTS.len()];
        asker.until("gates", |_, consumers| consumers == 2).await;
        let mut dying = site.spawn(&[("HOOKFLEET_CRASH_AT", point)]);
        asker.until("gates", |_, consumers| consumers == 3).await;
        for number in 0..REQUESTS {
            let id = format!("{point}-{death}-{number}");
            asker.send("ask", &id, &with_data("ask", &id, &json!({}))).await;
        }
        assert_eq!(dying.ended(Duration::from_secs(60)).await, None, "aborted at {point}");
    }

    let (requests, until) = (deaths * REQUESTS, Instant::now() + WITHIN);
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    while told.len() < requests
        && let Some(reply) = asker.next(until).await
    {
        told.entry(reply.id).or_default().push(reply.body);
    }
    // Who observes is told of every request, whoever died between the reply and the confirm.
    let watched = |calls: &[Call]| {
        calls.iter().filter(|call| call.hook == "watch").map(|call| &call.event).collect::<HashSet<_>>().len()
    };
    sink.until("the observer", 3 * WITHIN, |calls| watched(calls) == requests).await;
    for worker in &mut staying {
        assert_eq!(worker.stop().await, Some(0), "{}", worker.log()); // what they were at is done
    }
    asker.until("gates", |_, consumers| consumers == 0).await;
    while let Some(reply) = asker.next(Instant::now()).await {
        told.entry(reply.id).or_default().push(reply.body); // what was said twice
    }

    let real = told.values().filter(|bodies| is_real(&bodies[0])).count();
    let replies: usize = told.values().map(Vec::len).sum();
    let (observed, calls): (Vec<_>, Vec<_>) = sink.calls().into_iter().partition(|call| call.hook == "watch");
    println!(
        "{deaths} deaths within {:.0} s: {requests} requests, {} answered, {real} by the gate; {replies} answers, {} \
         questions, {} told to the observer",
        began.elapsed().as_secs_f64(),
        told.len(),
        calls.len(),
        observed.len(),
    );
    for (id, bodies) in &told {
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{id} was told two things: {bodies:#?}");
    }
    is_told_the_same(&observed, &told);
    assert!(real * 100 >= requests * 99, "{real} of {requests} were decided");
    has_one_key(calls.into_iter().chain(observed));
}

/// Who observes a request is told what who asked was told, if they were.
fn is_told_the_same(observed: &[Call], told: &HashMap<String, Vec<String>>) {
    for call in observed {
        let payload: Value = serde_json::from_slice(&call.body).unwrap();
        let told = told.get(&call.event).map(|bodies| serde_json::from_str::<Value>(&bodies[0]).unwrap());
        let differs = told.is_some_and(|told| payload["decision"] != told);
        assert!(!differs, "{}: who observes is told another thing than who asked: {payload:#}", call.event);
    }
}

/// However often a hook was called for an event, it was with one key.
fn has_one_key(calls: impl Iterator<Item = Call>) {
    let mut keys: HashMap<String, HashSet<String>> = HashMap::new();
    for call in calls {
        keys.entry(format!("{} of {}", call.event, call.hook)).or_default().insert(call.key);
    }
    assert!(keys.values().all(|keys| keys.len() == 1), "one key an event and hook: {keys:#?}");
}

/// A backlog of slow work: who asks a gate does not stand behind it.
#[tokio::test]
async fn a_flood_of_events_leaves_gates_alone() {
    const EVENTS: usize = 2_000;
    const QUESTIONS: usize = 50;
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::after(Duration::from_millis(if hook == "slow" { 200 } else { 0 })));
    let hooks = [
        hook(&sink, "slow", "flood", ", concurrency: 8"),
        hook(&sink, "gate", "ask", ", mode: gate, on_failure: closed"),
    ];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let Stage { site, worker: _worker, publisher } = stage(Place::Servers, site).await;
    let library = hookfleet::Publisher::connect(&shared().await.0.url(), &site.namespace).await.unwrap();
    publisher.send_all((0..EVENTS).map(|number| event("flood", &format!("flood-{number}")))).await;
    sink.until("the flood", Duration::from_secs(60), |calls| calls.len() >= 8).await;
    let began = Instant::now();
    let decisions = join_all((0..QUESTIONS).map(|number| {
        let event = Event::builder("ask").source("/test").id(&format!("ask-{number}")).build().unwrap();
        let library = &library;
        async move { library.decide(&event, Duration::from_secs(10)).await }
    }));
    let decisions = decisions.await;
    let took = began.elapsed();
    let done = sink.calls().iter().filter(|call| call.hook == "slow" && call.finished.is_some()).count();
    println!("{QUESTIONS} requests decided within {:.2} s, {done} of {EVENTS} events done by then", took.as_secs_f64());
    for decision in decisions {
        let decision = decision.unwrap();
        assert_eq!((decision.verdict, &decision.matched_hooks[..]), (Verdict::Allow, &["gate".to_owned()][..]));
    }
    assert!(done < EVENTS, "the flood is over");
    library.close().await;
}

/// Nobody is there to decide: who asks has said what holds then, and who observes the event is told that nobody did.
#[tokio::test]
async fn an_undecided_request_is_told_to_observers() {
    let sink = Sink::start().await;
    let hooks = [hook(&sink, "gate", "deploy", ", mode: gate, on_failure: closed"), hook(&sink, "watch", "deploy", "")];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    for (id, otherwise, code, verdict) in
        [("1", "fail", 75, Value::Null), ("2", "allow", 0, json!("allow")), ("3", "deny", 2, json!("deny"))]
    {
        let (ended, decision, said) =
            decide(&site, id, &Value::Null, &["--deadline", "8s", "--on-unavailable", otherwise]);
        assert_eq!((ended, &decision["verdict"]), (Some(code), &verdict), "{said}");
        let shown = format!("{said}{decision}");
        assert!(shown.contains("no gate has answered within 8s: is a worker up?"), "{shown}");
    }
    Asker::new(&site, DIRECT).await.until("gates.expired", |messages, _| messages == 3).await;
    let mut worker = site.worker().await;
    sink.until("the observer", Duration::from_secs(60), |calls| calls.len() >= 3).await;
    assert_eq!(worker.stop().await, Some(0));
    let calls = sink.calls();
    assert!(calls.len() == 3 && calls.iter().all(|call| call.hook == "watch"), "{calls:#?}");
    for call in calls {
        let payload: Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(payload.get("decision"), Some(&Value::Null), "{payload:#}");
    }
    assert!(site.letters().is_empty());
}

/// A worker that is told to stop in the middle of a decision gives it, and its event reaches who observes it.
async fn stopped_in_the_middle(place: Place) {
    let sink = Sink::start().await;
    let hooks = [gate("slow", "deploy", "touch began; sleep 2", ""), hook(&sink, "watch", "deploy", "")];
    let site = site(place).await.with_gateway().hooks(&hooks.join("\n")).set(ALLOW, "sh");
    let mut worker = site.worker().await;
    let url = worker.url("/v1/gates?deadline=20s");
    let asked = client().post(url).header("content-type", STRUCTURED).body(with_data("deploy", "1", &Value::Null));
    let asking = tokio::spawn(asked.send());
    while !site.folder.path().join("began").exists() {
        assert!(!asking.is_finished(), "answered: {:?}", asking.await);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(worker.stop().await, Some(0), "{}", worker.log());
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let mut worker = site.worker().await;
    sink.until("the observer", Duration::from_secs(30), |calls| !calls.is_empty()).await;
    assert_eq!(worker.stop().await, Some(0));
    let payload: Value = serde_json::from_slice(&sink.calls()[0].body).unwrap();
    assert_eq!(payload["decision"]["matched_hooks"], json!(["slow"]), "{payload:#}");
}

#[tokio::test]
async fn who_stops_decides_to_the_end_on_servers() {
    stopped_in_the_middle(Place::Servers).await;
}

#[tokio::test]
async fn who_stops_decides_to_the_end_in_a_file() {
    stopped_in_the_middle(Place::File).await;
}

/// Without the store of claims a closed gate refuses, in time, and says why; once it is back, gates are asked again.
#[tokio::test]
async fn the_store_goes_away() {
    let mut redis = Redis::start().await;
    let hooks = gate("freeze", "deploy", FREEZE, ", on_failure: closed");
    let site = Site::servers(&shared().await.0, &redis).hooks(&hooks).set(ALLOW, "sh");
    let mut worker = site.worker().await;
    let mut asker = Asker::new(&site, DIRECT).await;
    let data = json!({ "target": "lab" });
    assert_eq!(asker.ask("deploy", "before", &data).await["verdict"], "allow");
    redis.kill();
    let decision = asker.ask("deploy", "while", &data).await;
    assert_eq!(decision["verdict"], "deny", "{decision:#}");
    let reason = decision["reason"].as_str().unwrap();
    assert!(reason.contains("`freeze`") && reason.contains("the store of claims is away"), "{reason}");
    redis.restart().await;
    assert_eq!(asker.ask("deploy", "after", &data).await["verdict"], "allow");
    assert_eq!(asker.ask("deploy", "while", &data).await, decision, "who asks again is told the same");
    until_letters(&site, 1, "open").await;
    assert_eq!(worker.stop().await, Some(0));
}

/// One node has the queue of requests. While that is down nobody is asked over AMQP, and everything else goes on, with
/// workers that start meanwhile too: events, and requests over HTTP. Once it is back, so are requests over AMQP.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_has_the_requests_is_killed() {
    let mut rabbit = Rabbit::make(Make { cluster: true, ..Make::of_environment() }).await;
    let sink = Sink::start().await;
    let hooks = [hook(&sink, "gate", "deploy", ", mode: gate, on_failure: closed"), hook(&sink, "watch", "order", "")];
    let site = Site::servers(&rabbit, &shared().await.1).with_gateway().hooks(&hooks.join("\n"));
    let asked = |id: &str, deadline| decide(&site, id, &Value::Null, &["--deadline", deadline]);
    let mut workers = vec![site.worker().await];
    let (ended, decision, said) = asked("before", "30s");
    assert_eq!((ended, &decision["matched_hooks"]), (Some(0), &json!(["gate"])), "{said}");
    let home = rabbit.leader(&format!("{}.gates", site.namespace));
    rabbit.kill_node(home);

    workers.push(site.worker().await);
    for (number, worker) in workers.iter().enumerate() {
        let id = format!("while-{number}");
        let decision = posted(worker, with_data("deploy", &id, &Value::Null)).await;
        assert_eq!(decision["matched_hooks"], json!(["gate"]), "{decision:#}");
        Publisher::http(worker.port).send(event("order", &id)).await;
    }
    sink.until("events", Duration::from_secs(60), |calls| {
        calls.iter().filter(|call| call.hook == "watch").count() == 2
    })
    .await;
    let (ended, _, said) = asked("while", "2s");
    assert_eq!(ended, Some(75), "{said}");

    rabbit.restart().await;
    let began = Instant::now();
    for number in 0.. {
        let (ended, decision, said) = asked(&format!("after-{number}"), "5s");
        if ended == Some(0) {
            assert_eq!(decision["matched_hooks"], json!(["gate"]), "{decision:#}");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "requests are not back: {said}");
    }
    for worker in &mut workers {
        assert_eq!(worker.stop().await, Some(0), "{}", worker.log());
    }
}

/// The deadline of a request is over when it arrives: it is not asked, and who observes is told that nobody has decided, once
/// another worker that may still have been at it would have told them otherwise.
#[tokio::test]
async fn a_request_that_comes_too_late_is_not_asked() {
    let sink = Sink::start().await;
    let hooks = [hook(&sink, "gate", "ask", ", mode: gate, on_failure: closed"), hook(&sink, "watch", "ask", "")];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let mut worker = site.worker().await;
    let mut asker = Asker::new(&site, DIRECT).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let past = i64::try_from(now.as_millis()).unwrap() - 10_000;
    let mut headers = FieldTable::default();
    headers.insert("hookfleet-deadline".into(), AMQPValue::LongLongInt(past));
    // No expiration: beside one, a deadline that is over for so long would be taken for a clock that is wrong.
    let properties = BasicProperties::default()
        .with_content_type(STRUCTURED.into())
        .with_reply_to(DIRECT.into())
        .with_correlation_id("late".into())
        .with_headers(headers);
    let began = Instant::now();
    asker.publish("ask", &with_data("ask", "late", &Value::Null), properties).await;
    sink.until("the observer", Duration::from_secs(90), |calls| !calls.is_empty()).await;
    assert!(began.elapsed() > Duration::from_secs(30), "told too soon to be sure: {:?}", began.elapsed());
    assert_eq!(worker.stop().await, Some(0));
    let calls = sink.calls();
    let payload: Value = serde_json::from_slice(&calls[0].body).unwrap();
    assert_eq!((calls.len(), &calls[0].hook[..], payload.get("decision")), (1, "watch", Some(&Value::Null)));
    assert!(asker.next(Instant::now()).await.is_none(), "nobody waits for a late answer");
}
