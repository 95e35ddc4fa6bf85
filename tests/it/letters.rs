//! Dead letters as operators meet them: found, grouped, understood, mended, sent again, closed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hookfleet::telemetry::now_ms;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::Site;
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::{event, with_data};
use crate::servers::{client, shared};
use crate::sink::{Answer, Sink};

const ONE_ATTEMPT: &str = ", retry: { attempts: 1 }";

pub(crate) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// The items of a listing.
pub(crate) fn items(site: &Site, arguments: &[&str]) -> Vec<Value> {
    let all: Vec<&str> = ["dead-letters"].iter().chain(arguments).chain(&["--json"]).copied().collect();
    parsed(&site.ok(&all))["items"].as_array().unwrap().clone()
}

/// Events that failed: eight of one hook, four of another one, which was refused for good.
async fn failed(place: Place) -> (Sink, Stage) {
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::status(if hook == "crm" { 503 } else { 404 }));
    let hooks = [hook(&sink, "crm", "order.*", ONE_ATTEMPT), hook(&sink, "mail", "mail.sent", ONE_ATTEMPT)];
    let stage = stage(place, site(place).await.hooks(&hooks.join("\n")).set("HOOKFLEET_BREAKER_FAILURES", "0")).await;
    for number in 0..12 {
        let kind = if number < 8 { "order.paid" } else { "mail.sent" };
        let data = json!({
            "session_id": format!("s{}", number % 2), "run_id": format!("r{}", number % 3), "amount": number,
        });
        stage.publisher.send(with_data(kind, &format!("e{number}"), &data)).await;
    }
    until_letters(&stage.site, 12, "open").await;
    (sink, stage)
}

async fn looking(place: Place) {
    let (sink, Stage { site, worker: _worker, .. }) = failed(place).await;
    let check = |filter: &[&str], expected: usize| {
        let all: Vec<&str> = ["list"].iter().chain(filter).copied().collect();
        assert_eq!(items(&site, &all).len(), expected, "{filter:?}");
    };
    check(&[], 12);
    check(&["--hook", "crm"], 8);
    check(&["--hook", "*m*", "--type", "mail.*"], 4);
    check(&["--class", "rejected"], 4);
    check(&["--state", "open", "--text", "E11"], 1);
    check(&["--event", "e11"], 1);
    check(&["--event", "e1"], 1);
    check(&["--session", "s1", "--class", "exhausted"], 4);
    check(&["--run", "nobody"], 0);
    check(&["--run", "r2"], 4);
    check(&["--run", "r2", "--session", "s1"], 2);
    check(&["--since", "1h"], 12);
    check(&["--until", "1h"], 0);

    let first = parsed(&site.ok(&["dead-letters", "list", "--limit", "7", "--json"]));
    let next = text(&first, "/next");
    let second = parsed(&site.ok(&["dead-letters", "list", "--limit", "7", "--after", next, "--json"]));
    let ids: HashSet<String> = [&first, &second]
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap().clone())
        .map(|entry| text(&entry, "/letter/id").to_owned())
        .collect();
    assert_eq!((ids.len(), second.get("next")), (12, None), "no letter twice, none left out");

    let groups = items(&site, &["groups"]);
    let found: Vec<_> =
        groups.iter().map(|group| (text(group, "/hook"), text(group, "/class"), &group["open"])).collect();
    assert_eq!(found, [("crm", "exhausted", &json!(8)), ("mail", "rejected", &json!(4))]);
    let table = site.ok(&["dead-letters", "groups"]);
    assert!(table.contains("GROUP") && table.contains(text(&groups[0], "/fingerprint")), "{table}");

    for_people(&site);

    // Closed by a filter; the first reason stays.
    let reason = "wrong address, token=hunter2";
    let closed = site.ok(&["dead-letters", "resolve", "--hook", "mail", "--reason", reason, "--by", "anna", "--yes"]);
    assert_eq!(closed.trim(), "4 letters resolved");
    let id = text(&items(&site, &["list", "--hook", "mail"])[0], "/letter/id").to_owned();
    assert_eq!(site.ok(&["dead-letters", "resolve", &id, "--reason", "another one"]).trim(), "0 letters resolved");
    let shown = parsed(&site.ok(&["dead-letters", "show", &id, "--body", "--json"]));
    assert_eq!((text(&shown, "/state"), text(&shown, "/mark/reason")), ("resolved", "wrong address, token=[REDACTED]"));
    assert!(shown["mark"]["at_ms"].is_u64() && shown["mark"]["by"] == "anna", "{shown}");
    assert!(text(&shown, "/letter/body/text").contains("\"amount\":"), "{shown}");

    sent_again(&site, &sink, &id, text(&groups[0], "/fingerprint")).await;
}

/// What people name stands in the table, and one letter says what, when, why, what was sent and what to do next.
fn for_people(site: &Site) {
    let table = site.ok(&["dead-letters", "list", "--event", "e3"]);
    let has = |text: &str, expected: &[&str]| {
        for expected in expected {
            assert!(text.contains(expected), "no {expected:?} in {text}");
        }
    };
    has(&table, &["EVENT", "SUBJECT", " e3 ", "order.paid"]);
    let shown = site.ok(&["dead-letters", "show", "e3"]);
    has(&shown, &["letter    ", "event     e3 of /test, type order.paid", "hook      crm, of catalog "]);
    has(&shown, &["why       exhausted: ", "request   http://", "idempotency-key: ", "session   s1", "run       r0"]);
    has(
        &shown,
        &["GENERATION  ATTEMPT", " 503 ", "next      when the target is well again: hookfleet dead-letters replay"],
    );
    let when = shown.lines().find(|line| line.starts_with("when ")).unwrap();
    assert!(when.contains('T') && when.contains("Z, generation 0"), "{when}");
    assert!(!shown.contains("\"amount\""), "the event is shown on request: {shown}");
    let whole = site.ok(&["dead-letters", "show", "e3", "--body"]);
    has(&whole, &["event     {", "\"amount\":3"]);
    let unknown = site.run(&["dead-letters", "show", "e99"]);
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(3), "{told}");
    has(&told, &["no letter has the id \"e99\", nor is of an event that has it"]);
}

/// One that is closed, two by their ids, and what is left of their group.
async fn sent_again(site: &Site, sink: &Sink, closed: &str, group: &str) {
    // What is closed runs again if it must, under a key of its own.
    sink.behave(|_, _| Answer::status(200));
    let keys = || sink.calls().into_iter().map(|call| call.key).collect::<HashSet<_>>();
    let before = keys().len();
    let refused = site.run(&["dead-letters", "replay", closed]).stderr;
    assert!(String::from_utf8_lossy(&refused).contains("--force runs it again under a key of its own"));
    assert!(site.ok(&["dead-letters", "replay", closed, "--force"]).contains(" as generation "));
    sink.until("the forced one", Duration::from_secs(20), |calls| {
        calls.iter().map(|call| &call.key).collect::<HashSet<_>>().len() > before
    })
    .await;

    // Two by their ids, as fast as is said, without a question.
    let of_crm = items(site, &["list", "--hook", "crm", "--limit", "2"]);
    let named: Vec<&str> = of_crm.iter().map(|entry| text(entry, "/letter/id")).collect();
    let began = Instant::now();
    let sent = site.ok(&["dead-letters", "replay", named[0], named[1], "--rate", "1/s"]);
    assert!(sent.starts_with("2 sent, 0 not sent") && began.elapsed() >= Duration::from_secs(1), "{sent}");

    // A preview sends nothing; the group is sent once it is mended.
    while items(site, &["list", "--state", "resolved"]).len() < 6 {
        assert!(began.elapsed() < Duration::from_secs(60), "four that were closed, and these two");
        sleep(Duration::from_millis(100)).await;
    }
    let before = sink.count();
    let preview = site.ok(&["dead-letters", "replay", "--group", group, "--dry-run"]);
    assert!(preview.contains("6 letters to send") && preview.contains("crm"), "{preview}");
    assert_eq!(sink.count(), before);
    let sent = site.ok(&["dead-letters", "replay", "--group", group, "--yes", "--rate", "100/s"]);
    assert!(sent.starts_with("6 sent, 0 not sent"), "{sent}");
    until_letters(site, 12, "resolved").await;
    assert_eq!(sink.count(), before + 6);
    let again = site.ok(&["dead-letters", "replay", "--group", group, "--yes"]);
    assert!(!again.contains("sent,"), "there is nothing left: {again}");
    assert_eq!(sink.count(), before + 6);
}

#[tokio::test]
async fn letters_are_found_and_sent_on_servers() {
    looking(Place::Servers).await;
}

#[tokio::test]
async fn letters_are_found_and_sent_in_a_file() {
    looking(Place::File).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.hooks(&hook(&sink, "crm", "order.*", ""));
    let Stage { site, mut worker, .. } = stage(Place::File, site).await;
    let check = |arguments: &[&str], expected: &str| {
        let all: Vec<&str> = ["dead-letters"].iter().chain(arguments).copied().collect();
        let output = site.run(&all);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(expected), "{arguments:?}: {error}");
    };
    for owned in [true, false] {
        check(&["show", "nobody"], "no letter has the id \"nobody\", nor is of an event that has it: see `hookfleet");
        check(&["list", "--class", "rejcted"], "`rejected`");
        check(
            &["list", "--state", "closed"],
            "expected all, unresolved, open, replaying or resolved, found \"closed\"",
        );
        check(&["list", "--since", "yesterday"], "expected a time such as");
        check(&["list", "--after", "7"], "expected the cursor");
        check(&["list", "--limit", "0"], "expected 1 to 1000");
        check(&["replay"], "expected ids of letters, a filter, or all, found nothing");
        check(&["replay", "--all", "--hook", "x", "--yes"], "one of them, found several");
        check(&["replay", "nobody"], "no letter has the id nobody: see `hookfleet dead-letters list`");
        check(&["replay", "--all", "--rate", "fast"], "such as 50/s");
        check(&["replay", "--all", "--limit", "0"], "'0' for '--limit <N>'");
        check(&["replay", "--all", "--wait=soon"], "expected a duration such as 500ms");
        check(&["replay", "--all", "--to-hook", "a b", "--yes"], "to_hook");
        check(&["resolve", "--all", "--reason", "x"], "Give --yes");
        check(&["edit", "nobody", "--patch", "{"], "--patch: expected JSON");
        if owned {
            http(&worker.url("/v1/dead-letters")).await;
            worker.process.kill();
        }
    }
}

/// The same over HTTP, as problem details.
async fn http(base: &str) {
    let check = async |method: &str, path: &str, body: &str, status: u16, expected: &str| {
        let request = client().request(method.parse().unwrap(), format!("{base}{path}")).body(body.to_owned());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with(if status < 300 { "application/json" } else { "application/problem+json" }), "{kind}");
        let answer = answer.text().await.unwrap();
        assert!(answer.contains(expected), "{method} {path}: {answer}");
    };
    check("GET", "", "", 200, "\"items\":[]").await;
    check("GET", "/groups?hook=x", "", 200, "\"items\":[]").await;
    check("GET", "?colour=red", "", 400, "colour").await;
    check("GET", "?class=red", "", 400, "`rejected`").await;
    check("GET", "/nobody", "", 404, "no letter has the id nobody").await;
    check("POST", "/nobody/replay", "", 404, "no letter has the id nobody").await;
    check("POST", "/nobody/resolve", r#"{"reason":"x"}"#, 404, "no letter").await;
    check("POST", "/nobody/edit", "{}", 400, "found neither").await;
    check("POST", "/replay", "{", 400, "expected a body in JSON").await;
    check("POST", "/replay", r#"{"filter":{"hok":"x"}}"#, 400, "hok").await;
    check("POST", "/replay", r#"{"all":true,"rate":-1}"#, 400, "letters a second").await;
    check("POST", "/replay", r#"{"all":true,"limit":0}"#, 400, "limit: expected at least 1").await;
    check("POST", "/replay", r#"{"all":true,"dry_run":true}"#, 200, "\"letters\":0").await;
    check("POST", "/resolve", r#"{"all":true,"reason":"x"}"#, 200, "\"resolved\":0").await;
    check("GET", "/jobs/nobody", "", 404, "no job nobody").await;
    check("POST", "/jobs/nobody/cancel", "", 404, "no job nobody").await;
}

/// A job over HTTP: seen under way, stopped, and gone on with.
#[tokio::test]
async fn a_job_is_stopped_and_gone_on_with() {
    let (sink, Stage { site, worker, .. }) = failed(Place::File).await;
    sink.behave(|_, _| Answer::status(200));
    let base = worker.url("/v1/dead-letters");
    let post = async |path: &str, body: &str| {
        let answer = client().post(format!("{base}{path}")).body(body.to_owned()).send().await.unwrap();
        parsed(&answer.text().await.unwrap())
    };
    let job = post("/replay", r#"{"all":true,"rate":4,"by":"anna"}"#).await;
    assert_eq!((&job["total"], &job["running"], text(&job, "/by")), (&json!(12), &json!(true), "anna"), "{job}");
    let path = format!("/jobs/{}", text(&job, "/id"));
    sink.until("the first two", Duration::from_secs(20), |calls| {
        calls.iter().filter(|call| call.status == 200).count() >= 2
    })
    .await;
    post(&format!("{path}/cancel"), "").await;
    let began = Instant::now();
    let ended = loop {
        let shown = parsed(&client().get(format!("{base}{path}")).send().await.unwrap().text().await.unwrap());
        if shown["running"] == false {
            break shown;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{shown}");
        sleep(Duration::from_millis(50)).await;
    };
    let sent = ended["sent"].as_u64().unwrap();
    assert!((2..12).contains(&sent) && ended["ended"] == "stopped", "{ended}");
    let rest = post("/replay", r#"{"all":true}"#).await;
    assert_eq!(rest["total"].as_u64().unwrap(), 12 - sent, "what is out is not sent again: {rest}");
    until_letters(&site, 12, "resolved").await;
    assert_eq!(sink.calls().iter().filter(|call| call.status == 200).count(), 12, "each once");
}

/// Records that nobody can read, and what others put into the log, are letters beside the others; they can be closed.
#[tokio::test]
async fn foreign_records_are_listed() {
    let (_sink, Stage { site, worker: _worker, .. }) = failed(Place::Servers).await;
    let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let exchange = format!("{}.dead", site.namespace);
    let mut ours = FieldTable::default();
    ours.insert("hookfleet-record".into(), AMQPValue::Boolean(true));
    let newer = br#"{"v":9,"record":"letter","what":"else"}"#;
    for (body, headers) in [
        (&b"{ no json"[..], ours.clone()),
        (newer, ours.clone()),
        (newer, ours),
        (&b"a stranger's"[..], FieldTable::default()),
    ] {
        let properties = BasicProperties::default().with_headers(headers);
        let (to, options) = (exchange.as_str().into(), BasicPublishOptions::default());
        channel.basic_publish(to, "".into(), options, body, properties).await.unwrap().await.unwrap();
    }
    // As from an older version: the keeper passes them on.
    let count = |entries: &[Value]| entries.iter().map(|entry| entry["count"].as_u64().unwrap()).sum::<u64>();
    let began = Instant::now();
    let foreign = loop {
        let found = items(&site, &["list", "--class", "unreadable"]);
        if count(&found) >= 4 {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{found:#?}");
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(count(&foreign), 4, "{foreign:#?}");
    assert!(foreign.iter().all(|entry| entry["letter"]["offset"].as_u64().unwrap() >= 12), "{foreign:#?}");
    assert_eq!(items(&site, &["list", "--hook", "*"]).len(), 12, "the others are there");
    let id = text(&foreign[0], "/letter/id");
    let error = site.run(&["dead-letters", "replay", id]).stderr;
    assert!(String::from_utf8_lossy(&error).contains("is no event"), "{}", String::from_utf8_lossy(&error));
    site.ok(&["dead-letters", "resolve", "--class", "unreadable", "--reason", "of the other fleet", "--yes"]);
    assert!(items(&site, &["list", "--class", "unreadable", "--state", "unresolved"]).is_empty());
}

/// What the broker dead-letters while nobody looks has the time at which it did, not that of its finding, and never none.
#[tokio::test]
async fn what_the_broker_made_has_its_time() {
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ""));
    assert_eq!(site.worker().await.stop().await, Some(0)); // it has declared the queues
    let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let properties = BasicProperties::default().with_content_type("application/cloudevents+json".into());
    let (events, options) = (format!("{}.events", site.namespace), BasicPublishOptions::default());
    let (began_ms, body) = (now_ms(), event("a", "1"));
    let properties = properties.with_expiration("1".into());
    let sent = channel.basic_publish(events.as_str().into(), "a".into(), options, &body, properties);
    sent.await.unwrap().await.unwrap();
    let buried = format!("{}.buried", site.namespace);
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let began = Instant::now();
    loop {
        let queue = channel.queue_declare(buried.as_str().into(), passive, FieldTable::default()).await.unwrap();
        if queue.message_count() == 1 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it does not expire");
        sleep(Duration::from_millis(50)).await;
    }
    let died_ms = now_ms();
    while now_ms() < died_ms + 2000 {
        sleep(Duration::from_millis(50)).await; // the broker says it to the second
    }
    let worker = site.worker().await;
    let letter = until_letters(&site, 1, "open").await.remove(0);
    let at_ms = letter["letter"]["at_ms"].as_u64().unwrap();
    assert!((began_ms - 1000..=died_ms).contains(&at_ms), "between {began_ms} and {died_ms}: {letter}");
    assert!(letter["letter"]["found_ms"].as_u64().unwrap() > died_ms, "{letter}");
    assert_eq!(items(&site, &["list", "--since", "1h"]).len(), 1);
    worker.until_metric("hookfleet_letters_open", "expired", 1.0).await;
    let age = worker.metric("hookfleet_letters_oldest_open_seconds", "").await;
    assert!((1.0..600.0).contains(&age), "{age}");
}

/// A letter about a whole event, some hooks of which had finished: those are not run again, the others are, and the letter is
/// resolved by the worker.
#[tokio::test]
async fn a_whole_event_is_replayed_for_what_has_not_finished() {
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::status(if hook == "done" { 200 } else { 404 }));
    let hooks = [hook(&sink, "done", "order.*", ONE_ATTEMPT), hook(&sink, "fails", "order.*", ONE_ATTEMPT)];
    let Stage { site, worker, publisher } =
        stage(Place::Servers, site(Place::Servers).await.hooks(&hooks.join("\n"))).await;
    publisher.send(event("order.paid", "e1")).await;
    until_letters(&site, 1, "open").await;
    // The broker has no queue for the event.
    let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let properties = BasicProperties::default().with_content_type("application/cloudevents+json".into());
    let events = format!("{}.events", site.namespace);
    let events = events.as_str();
    channel.queue_unbind(events.into(), events.into(), "#".into(), FieldTable::default()).await.unwrap();
    let body = event("order.paid", "e1");
    let sent =
        channel.basic_publish(events.into(), "order.paid".into(), BasicPublishOptions::default(), &body, properties);
    sent.await.unwrap().await.unwrap();
    let bound = channel.queue_bind(
        events.into(),
        events.into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    let added = hook(&sink, "added", "order.*", ONE_ATTEMPT);
    let site = site.hooks(&[hooks[0].clone(), hooks[1].clone(), added].join("\n"));
    let began = Instant::now();
    while !client().get(worker.url("/v1/status")).send().await.unwrap().text().await.unwrap().contains("\"hooks\":3") {
        assert!(began.elapsed() < Duration::from_secs(20), "the new hook is not known");
        sleep(Duration::from_millis(50)).await;
    }
    let whole = loop {
        let whole = items(&site, &["list", "--class", "unrouted"]);
        if !whole.is_empty() {
            break whole;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no letter of the event: {}", worker.log());
        sleep(Duration::from_millis(100)).await;
    };
    sink.behave(|_, _| Answer::status(200));
    site.ok(&["dead-letters", "replay", text(&whole[0], "/letter/id")]);
    sink.until("the new hook", Duration::from_secs(20), |calls| calls.iter().any(|call| call.hook == "added")).await;
    while items(&site, &["list", "--class", "unrouted", "--state", "resolved"]).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", worker.log());
        sleep(Duration::from_millis(100)).await;
    }
    let hooks: Vec<String> = sink.calls().into_iter().map(|call| call.hook).collect();
    assert_eq!(hooks.iter().filter(|hook| *hook == "done").count(), 1, "{hooks:?}");
    assert_eq!(
        hooks.iter().filter(|hook| *hook == "fails").count(),
        1,
        "what was given up has a letter of its own: {hooks:?}"
    );
}

/// The hook of a letter is gone: another one takes its work.
async fn to_hook(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::status(if hook == "old" { 404 } else { 200 }));
    let site = site(place).await.hooks(&hook(&sink, "old", "order.*", ONE_ATTEMPT));
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    publisher.send_all((0..3).map(|number| event("order.paid", &format!("e{number}")))).await;
    until_letters(&site, 3, "open").await;
    assert_eq!(worker.stop().await, Some(0));
    let site = site.hooks(&hook(&sink, "new", "nothing", ONE_ATTEMPT));
    let _worker = site.worker().await;
    let sent = site.ok(&["dead-letters", "replay", "--hook", "old", "--to-hook", "new", "--yes"]);
    assert!(sent.starts_with("3 sent"), "{sent}");
    sink.until("the new hook", Duration::from_secs(20), |calls| {
        calls.iter().filter(|it| it.hook == "new").count() == 3
    })
    .await;
    let closed = until_letters(&site, 3, "resolved").await;
    assert!(closed.iter().all(|letter| text(letter, "/mark/reason") == "sent to hook new"), "{closed:#?}");
}

#[tokio::test]
async fn another_hook_takes_letters_on_servers() {
    to_hook(Place::Servers).await;
}

#[tokio::test]
async fn another_hook_takes_letters_in_a_file() {
    to_hook(Place::File).await;
}
