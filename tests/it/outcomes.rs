//! What becomes of letters that are sent again: told, one letter over all its generations, and the oldest first.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::letters::{items, parsed};
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::{event, with_data};
use crate::servers::{client, shared};
use crate::sink::{Answer, Sink};

const ONE_ATTEMPT: &str = ", retry: { attempts: 1 }";

/// What a command printed, and how it ended.
fn said(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.run(&[&["dead-letters"], arguments].concat());
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), told)
}

/// The ids of letters, oldest first.
fn ids(site: &Site, filter: &[&str]) -> Vec<String> {
    let listed = items(site, &[&["list"], filter].concat());
    listed.iter().rev().map(|it| it["letter"]["id"].as_str().unwrap().to_owned()).collect()
}

fn sorted(ids: &[String]) -> BTreeSet<&String> {
    ids.iter().collect()
}

/// Three letters of hook `well` and three of hook `ill`, each older than the next, and `well` is well by now.
async fn failed(place: Place) -> (Sink, Stage) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let hooks = [hook(&sink, "well", "a", ONE_ATTEMPT), hook(&sink, "ill", "b", ONE_ATTEMPT)].join("\n");
    let stage = stage(place, site(place).await.hooks(&hooks).set("HOOKFLEET_BREAKER_FAILURES", "0")).await;
    for number in 0..6 {
        let kind = if number % 2 == 0 { "a" } else { "b" };
        stage.publisher.send(event(kind, &format!("e{number}"))).await;
        until_letters(&stage.site, number + 1, "open").await;
    }
    sink.behave(|hook, _| Answer::status(if hook == "ill" { 404 } else { 200 }));
    (sink, stage)
}

/// The letters of a hook that stays ill keep their ids, and show what happened to them.
fn one_letter(site: &Site, id: &str, generations: &[u64]) {
    let shown = parsed(&site.ok(&["dead-letters", "export", "--text", id, "--ndjson"]));
    let letter = &shown["letter"];
    assert_eq!((letter["id"].as_str(), letter["hook"].as_str()), (Some(id), Some("ill")), "{shown}");
    let attempts = letter["attempts"].as_array().unwrap();
    let found: Vec<u64> = attempts.iter().map(|it| it["generation"].as_u64().unwrap_or_default()).collect();
    assert_eq!(found, generations, "{shown}");
}

async fn outcomes(place: Place) {
    let (sink, Stage { site, worker, .. }) = failed(place).await;
    let of_ill = ids(&site, &["--hook", "ill"]);
    let (code, told) = said(&site, &["replay", "--all", "--yes", "--wait"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("6 sent, 0 not sent\n  3 done\n  3 failed again\n"), "{told}");
    assert_eq!(told.matches("as generation 1: done").count(), 3, "{told}");
    assert_eq!(told.matches("as generation 1: failed again (rejected): ").count(), 3, "{told}");
    let again = ids(&site, &["--state", "open"]);
    assert_eq!(sorted(&again), sorted(&of_ill), "the same letters");
    let of_ill = again; // in the order in which they failed again
    one_letter(&site, &of_ill[0], &[0, 1]);

    // The oldest first, and then the next, though these fail once more.
    let (code, preview) = said(&site, &["replay", "--hook", "ill", "--limit", "2", "--dry-run"]);
    let expected = "2 letters to send, the oldest of 3; the same command again takes the next";
    assert!(code == Some(0) && preview.contains(expected), "{preview}");
    let two = |site: &Site| {
        let arguments = ["replay", "--hook", "ill", "--limit", "2", "--yes", "--wait", "--json"];
        let output = site.run(&[&["dead-letters"], &arguments[..]].concat());
        let told = parsed(&String::from_utf8_lossy(&output.stdout));
        let letters = told["letters"].as_array().unwrap();
        let sent: Vec<String> = letters.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
        (output.status.code(), sent, told)
    };
    let (code, sent, told) = two(&site);
    assert_eq!((code, &told["failed"], sorted(&sent)), (Some(1), &json!(2), sorted(&of_ill[..2])), "{told}");
    one_letter(&site, &of_ill[1], &[0, 1, 2]);
    let (code, sent, told) = two(&site);
    assert!(code == Some(1) && sent.contains(&of_ill[2]), "the one whose turn it is, and one of the others: {told}");

    sink.behave(|_, _| Answer::status(200));
    if place == Place::File {
        over_http(&worker).await;
    } else {
        let (code, told) = said(&site, &["replay", "--all", "--yes", "--wait=60s"]);
        assert!(code == Some(0) && told.contains("3 sent, 0 not sent\n  3 done\n"), "{told}");
    }
    assert!(ids(&site, &["--state", "unresolved"]).is_empty());
    let (code, told) = said(&site, &["replay", "nobody"]);
    assert!(code == Some(3) && told.contains("no letter has the id nobody"), "{told}");
}

/// A job that waits ends when all it sent has ended.
async fn over_http(worker: &Worker) {
    let base = worker.url("/v1/dead-letters");
    let asked = json!({ "all": true, "wait": true }).to_string();
    let job = client().post(format!("{base}/replay")).body(asked).send().await.unwrap();
    let job: Value = job.json().await.unwrap();
    let path = format!("/v1/dead-letters/jobs/{}", job["id"].as_str().unwrap());
    let ended = worker.until(&path, |job| job["running"] == false).await;
    assert_eq!((&ended["sent"], &ended["done"], &ended["failed"]), (&json!(3), &json!(3), &json!(0)), "{ended}");
    let letters = ended["letters"].as_array().unwrap();
    assert!(letters.len() == 3 && letters.iter().all(|it| it["outcome"] == "done"), "{ended}");
}

#[tokio::test]
async fn replays_tell_what_became_of_each_on_servers() {
    outcomes(Place::Servers).await;
}

#[tokio::test]
async fn replays_tell_what_became_of_each_in_a_file() {
    outcomes(Place::File).await;
}

/// What cannot be sent is named beforehand and takes nobody's place; what nobody runs is still out.
#[tokio::test]
async fn what_cannot_be_sent_is_told_before_anything_is_sent() {
    let sink = Sink::start().await;
    let hooks = hook(&sink, "ill", "b", ONE_ATTEMPT);
    let stage = stage(Place::Servers, site(Place::Servers).await.hooks(&hooks)).await;
    let Stage { site, mut worker, publisher } = stage;
    let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let (events, options) = (format!("{}.events", site.namespace), BasicPublishOptions::default());
    let sent = channel.basic_publish(events.as_str().into(), "b".into(), options, b"{", BasicProperties::default());
    sent.await.unwrap().await.unwrap();
    until_letters(&site, 1, "open").await;
    let unreadable = ids(&site, &[]).remove(0);
    sink.behave(|_, _| Answer::status(404));
    publisher.send(event("b", "e1")).await;
    until_letters(&site, 2, "open").await;

    let preview = parsed(&site.ok(&["dead-letters", "replay", "--all", "--dry-run", "--json"]));
    assert_eq!((&preview["letters"], &preview["matching"], &preview["refused"]), (&json!(1), &json!(2), &json!(1)));
    assert_eq!(preview["refusals"][0]["id"], unreadable.as_str(), "{preview}");
    let told = site.ok(&["dead-letters", "replay", "--all", "--dry-run"]);
    assert!(told.contains("1 cannot be sent as they are:\n") && told.contains("is no event"), "{told}");
    let (code, told) = said(&site, &["replay", &unreadable]);
    assert!(code == Some(1) && told.contains("\n1 cannot be sent") && told.contains("is no event"), "{told}");

    assert_eq!(worker.stop().await, Some(0));
    let (code, told) = said(&site, &["replay", "--all", "--limit", "1", "--yes", "--wait=300ms", "--json"]);
    assert_eq!(code, Some(1), "one is refused: {told}");
    let oldest = ids(&site, &["--state", "replaying"]).remove(0);
    let (code, told) = said(&site, &["replay", &oldest, "--wait=300ms"]);
    assert_eq!(code, Some(75), "{told}");
    assert!(told.contains("1 sent, 0 not sent\n  1 still out"), "{told}");
    let (code, told) = said(&site, &["replay", &oldest, "--no-wait"]);
    assert!(code == Some(0) && told.contains("was not waited for: --wait does"), "{told}");
}

/// A hook that is not there, or that no event runs, takes no letters: they stay open.
async fn another_hook_has_to_be_there(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let hooks = [hook(&sink, "old", "a", ONE_ATTEMPT), hook(&sink, "off", "b", ", enabled: false")].join("\n");
    let Stage { site, worker, publisher } = stage(place, site(place).await.hooks(&hooks)).await;
    publisher.send(event("a", "e1")).await;
    until_letters(&site, 1, "open").await;
    let id = ids(&site, &[]).remove(0);
    let check = |more: &[&str], expected: &str| {
        for what in [&id[..], "--all"] {
            let (code, told) = said(&site, &[&["replay", what, "--yes"], more].concat());
            assert!(code == Some(1) && told.contains(expected), "{what} {more:?}: {told}");
        }
    };
    check(&["--to-hook", "nosuch"], "to_hook: the catalog has no hook nosuch in revision ");
    check(&["--to-hook", "off"], "hook off is run by no event in revision ");
    match place {
        Place::Servers => {
            check(
                &["--to-hook", "old", "--hooks", "/nowhere/hooks.yaml"],
                "whether the catalog has a hook old is not known",
            );
            let file = site.hooks_file();
            site.ok(&["hooks", "apply", file.to_str().unwrap()]);
            check(&["--to-hook", "nosuch", "--set", "catalog.from=redis"], "no hook nosuch in revision r1");
        }
        Place::File => {
            let url = worker.url(&format!("/v1/dead-letters/{id}/replay"));
            let answer = client().post(url).body(r#"{"to_hook":"nosuch"}"#).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 400);
            assert!(answer.text().await.unwrap().contains("the catalog has no hook nosuch"));
        }
    }
    assert_eq!(ids(&site, &["--state", "open"]), std::slice::from_ref(&id));
    let ben = site.clone().set("HOOKFLEET_BY", "ben");
    ben.ok(&["dead-letters", "resolve", &id, "--reason", "seen to"]);
    assert_eq!(items(&site, &["list"])[0]["mark"]["by"], "ben");
}

#[tokio::test]
async fn another_hook_has_to_be_there_on_servers() {
    another_hook_has_to_be_there(Place::Servers).await;
}

#[tokio::test]
async fn another_hook_has_to_be_there_in_a_file() {
    another_hook_has_to_be_there(Place::File).await;
}

/// Data that the target refuses are mended, as a new event. The letter is closed when that is done, and is its letter should
/// it fail too.
async fn edits(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(422));
    let site = site(place).await.hooks(&hook(&sink, "crm", "order.*", ONE_ATTEMPT));
    let Stage { site, worker: _worker, publisher } = stage(place, site).await;
    publisher.send(with_data("order.paid", "e1", &json!({ "amount": "seven", "note": "x" }))).await;
    let letter = until_letters(&site, 1, "open").await.remove(0);
    let id = letter["letter"]["id"].as_str().unwrap().to_owned();
    let sent = parsed(&site.ok(&["dead-letters", "edit", &id, "--patch", r#"{"amount":6}"#, "--json"]));
    let (first, source) = (sent["event"]["id"].as_str().unwrap(), sent["event"]["source"].as_str().unwrap());
    assert!(first.starts_with("edited-") && source == "/test" && sent["generation"] == 1, "{sent}");
    sink.until("the edited one", Duration::from_secs(20), |calls| calls.len() == 2).await;
    assert_eq!(sink.calls()[1].event, first);
    let again = until_letters(&site, 1, "open").await.remove(0);
    let of_first = &again["letter"];
    assert_eq!((&of_first["id"], &of_first["generation"]), (&json!(id), &json!(1)), "the same letter: {again}");
    assert_eq!((&of_first["event"]["id"], &of_first["edited_from"]["id"]), (&json!(first), &json!("e1")), "{again}");
    assert_eq!(of_first["attempts"].as_array().unwrap().len(), 2, "{again}");

    sink.behave(|_, _| Answer::status(200));
    let told = site.ok(&["dead-letters", "edit", &id, "--patch", r#"{"amount":7}"#]);
    sink.until("the mended one", Duration::from_secs(20), |calls| calls.len() == 3).await;
    let call = sink.calls().remove(2);
    assert!(told.contains(&call.event) && told.contains("as generation 2"), "{told}");
    let body = parsed(&String::from_utf8_lossy(&call.body)).to_string();
    assert!(body.contains("\"amount\":7") && body.contains("\"note\":\"x\""), "{body}");
    let closed = until_letters(&site, 1, "resolved").await.remove(0);
    assert!(closed["mark"]["reason"].as_str().unwrap().contains(&call.event), "{closed}");
    let (code, told) = said(&site, &["edit", &id, "--patch", r#"{"amount":7}"#]);
    assert!(code == Some(1) && told.contains("is resolved"), "{told}");
}

#[tokio::test]
async fn a_letter_is_mended_on_servers() {
    edits(Place::Servers).await;
}

#[tokio::test]
async fn a_letter_is_mended_in_a_file() {
    edits(Place::File).await;
}
