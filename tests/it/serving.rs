//! `hookfleet server`: processes without workers, any number of them, that serve one fleet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::openapi::Served;
use crate::pipeline::hook;
use crate::publishing::{event, with_data};
use crate::servers::{client, free_port, shared};
use crate::sink::{Answer, Sink};

const HOOKS: &str = "/v1/catalog";
const LETTERS: &str = "/v1/dead-letters";
const STRUCTURED: &str = "application/cloudevents+json";
const PATIENCE: Duration = Duration::from_secs(60);
/// Events while a server is killed.
const EVENTS: usize = 300;

/// Two servers and three workers, with a catalog that came through the first server.
struct Fleet {
    site: Site,
    servers: [Served; 2],
    workers: Vec<Worker>,
    sink: Sink,
}

impl Fleet {
    async fn start() -> Self {
        let (rabbit, redis) = shared().await;
        let sink = Sink::start().await;
        sink.behave(|hook, _| Answer::status(if hook == "broken" { 404 } else { 200 }));
        let site = Site::servers(rabbit, redis).set("HOOKFLEET_CATALOG_FROM", "redis");
        let site = site.set("HOOKFLEET_HTTP_KHEISH_API", "true");
        let site = site.set("HOOKFLEET_COMMANDS_ALLOW", "sh");
        let workers: Vec<Worker> = (0..3).map(|_| site.spawn(&[])).collect();
        let servers = [Served::new(site.server().await).await, Served::new(site.server().await).await];
        let fleet = Self { site, servers, workers, sink };
        let applied = fleet.servers[0].check(Method::POST, (HOOKS, HOOKS), Some(fleet.catalog("")), 200).await;
        assert_eq!(applied["revision"], "r1", "{applied}");
        for worker in &fleet.workers {
            worker.until_ready().await;
        }
        fleet.until_in_force("r1").await;
        fleet
    }

    /// A catalog with hooks that work, fail and decide, and this one more.
    fn catalog(&self, more: &str) -> (&'static str, Vec<u8>) {
        let gate = "touch \"$HOOKFLEET_EVENT_ID.$$\"; grep -q prod && { echo not today >&2; exit 2; }; exit 0";
        let gate =
            format!("  - {{ id: freeze, on: deploy, mode: gate, run: {{ command: {{ shell: {} }} }} }}", json!(gate));
        let hooks = [
            hook(&self.sink, "works", "a.*", ", labels: { of: first }"),
            hook(&self.sink, "broken", "b.*", ", retry: { attempts: 2, backoff: { initial: 50ms } }"),
            gate,
            more.to_owned(),
        ];
        let events = "events: { typed: { schema: { type: object }, validate: strict } }";
        let text = format!("version: 1\nhooks:\n{}\n{events}\n", hooks.join("\n"));
        ("application/yaml", text.into_bytes())
    }

    /// Waits until both servers and, as they say, all workers have this revision.
    async fn until_in_force(&self, revision: &str) {
        let has = |status: &Value| {
            let workers = status["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let all = workers.iter().all(|worker| worker["revision"] == revision && worker["idle"] == json!([]));
            status["catalog"]["revision"] == revision && workers.len() == 3 && all
        };
        for server in &self.servers {
            server.worker.until("/v1/status", has).await;
        }
    }

    async fn get(&self, server: usize, path: &str) -> Value {
        let route = path.split('?').next().unwrap();
        self.servers[server].check(Method::GET, (route, path), None, 200).await
    }

    async fn post(&self, server: usize, (route, path): (&str, &str), body: Value, status: u16) -> Value {
        let body = Some(("application/json", body.to_string().into_bytes()));
        let at = |path: &str| format!("{LETTERS}{path}");
        self.servers[server].check(Method::POST, (&at(route), &at(path)), body, status).await
    }

    /// The decision on a deployment, asked through this server.
    async fn decide(&self, server: usize, id: &str, target: &str) -> Value {
        let body = with_data("deploy", id, &json!({ "target": target })).to_vec();
        let path = ("/v1/gates", "/v1/gates?deadline=30s");
        self.servers[server].check(Method::POST, path, Some((STRUCTURED, body)), 200).await
    }

    /// Waits until the letters that a server lists are in these states, and answers their ids by state.
    async fn until_letters(&self, server: usize, expected: &[(&str, usize)]) -> BTreeMap<String, Vec<String>> {
        let began = Instant::now();
        loop {
            let listed = self.get(server, LETTERS).await;
            let mut found = BTreeMap::<String, Vec<String>>::new();
            for item in listed["items"].as_array().unwrap() {
                let text = |pointer: &str| item.pointer(pointer).unwrap().as_str().unwrap().to_owned();
                found.entry(text("/state")).or_default().push(text("/letter/id"));
            }
            let is_so = |(state, count): &(&str, usize)| found.get(*state).map_or(0, Vec::len) == *count;
            let total: usize = expected.iter().map(|(_, count)| *count).sum();
            if expected.iter().all(is_so) && found.values().map(Vec::len).sum::<usize>() == total {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "waited for {expected:?}: {found:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn two_servers_serve_three_workers() {
    let mut fleet = Fleet::start().await;
    events(&fleet).await;
    gates(&fleet).await;
    letters(&fleet).await;
    catalog(&fleet).await;
    every_route(&fleet).await;
    sums(&fleet).await;
    killed(&mut fleet).await;
    for worker in &mut fleet.workers {
        assert_eq!(worker.stop().await, Some(0), "{}", worker.log());
    }
    assert_eq!(fleet.servers[1].worker.stop().await, Some(0), "{}", fleet.servers[1].worker.log());
}

/// Events that one of them takes are delivered, and what is no event is refused.
async fn events(fleet: &Fleet) {
    let path = ("/v1/events", "/v1/events");
    for (server, served) in fleet.servers.iter().enumerate() {
        let publish = async |body: &[u8], status: u16| {
            served.check(Method::POST, path, Some((STRUCTURED, body.to_vec())), status).await
        };
        let id = format!("by-{server}");
        publish(&event("a.b", &id), 202).await;
        let misfit = publish(br#"{"specversion":"1.0","id":"1","source":"/s","type":"typed","data":[]}"#, 422).await;
        assert!(misfit["misfits"].is_array(), "{misfit}");
        publish(b"{}", 422).await;
        fleet.sink.until(&id, PATIENCE, |calls| calls.iter().any(|call| call.event == id)).await;
    }
}

/// Whoever asks about one event is told one decision, through whichever server.
async fn gates(fleet: &Fleet) {
    for (target, verdict) in [("lab", "allow"), ("prod", "deny")] {
        let (one, other) = tokio::join!(fleet.decide(0, target, target), fleet.decide(1, target, target));
        assert_eq!(one["verdict"], verdict, "{one}");
        assert_eq!(one, other);
        assert_eq!(one, fleet.decide(1, target, target).await, "once more");
        let names = std::fs::read_dir(fleet.site.folder.path()).unwrap();
        let asked = names.filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with(&format!("{target}."))
        });
        assert_eq!(asked.count(), 1, "the gate is asked once about {target}");
    }
    for served in &fleet.servers {
        let refused = async |query: &str, body: &[u8], status: u16| {
            let path = format!("/v1/gates{query}");
            served.check(Method::POST, ("/v1/gates", &path), Some((STRUCTURED, body.to_vec())), status).await
        };
        refused("?deadline=soon", &event("deploy", "late"), 400).await;
        refused("", br#"{"specversion":"1.0","id":"1","source":"/s","type":"typed","data":[]}"#, 422).await;
        refused("", b"{}", 422).await;
        let nothing_wants_it = refused("", &event("nobody.asks", "free"), 200).await;
        assert_eq!(nothing_wants_it["verdict"], "allow");
    }
}

/// Letters are listed, replayed, edited and resolved through either.
async fn letters(fleet: &Fleet) {
    let body = |id: &str| Some((STRUCTURED, event("b.c", id).to_vec()));
    for (at, id) in ["1", "2", "3", "4"].into_iter().enumerate() {
        fleet.servers[at % 2].check(Method::POST, ("/v1/events", "/v1/events"), body(id), 202).await;
    }
    let open = fleet.until_letters(0, &[("open", 4)]).await;
    assert_eq!(open, fleet.until_letters(1, &[("open", 4)]).await);
    assert_eq!(fleet.get(1, &format!("{LETTERS}/groups")).await["items"][0]["open"], 4);
    let [first, second, third, _] = open["open"].as_slice() else { unreachable!() };
    fleet.sink.behave(|_, _| Answer::status(200));
    fleet.post(0, ("/{id}/replay", &format!("/{first}/replay")), json!({}), 200).await;
    fleet.post(1, ("/{id}/edit", &format!("/{second}/edit")), json!({ "data": { "a": 1 } }), 200).await;
    fleet.post(1, ("/{id}/resolve", &format!("/{third}/resolve")), json!({ "reason": "seen to" }), 200).await;
    fleet.until_letters(0, &[("open", 1), ("resolved", 3)]).await;
    fleet.post(1, ("/replay", "/replay"), json!({ "all": true, "to_hook": "nobody" }), 400).await;
    let job = fleet.post(1, ("/replay", "/replay"), json!({ "all": true }), 202).await;
    let (route, path) = (format!("{LETTERS}/jobs/{{id}}"), format!("{LETTERS}/jobs/{}", job["id"].as_str().unwrap()));
    fleet.servers[1].check(Method::GET, (&route, &path), None, 200).await;
    let elsewhere = fleet.servers[0].check(Method::GET, (&route, &path), None, 404).await;
    assert!(elsewhere["detail"].as_str().unwrap().starts_with("no job"), "{elsewhere}");
    fleet.until_letters(0, &[("resolved", 4)]).await;
    fleet.until_letters(1, &[("resolved", 4)]).await;
    // The command line does the same over connections of its own.
    assert_eq!(fleet.site.letters().len(), 4);
}

/// A catalog that one server takes is in force for all.
async fn catalog(fleet: &Fleet) {
    let more = hook(&fleet.sink, "late", "c.*", "");
    let path = (HOOKS, "/v1/catalog?expected_revision=1");
    let applied = fleet.servers[1].check(Method::POST, path, Some(fleet.catalog(&more)), 200).await;
    assert_eq!((&applied["revision"], &applied["changed"]), (&json!("r2"), &json!(true)), "{applied}");
    let stale = fleet.servers[0].check(Method::POST, path, Some(fleet.catalog("")), 409).await;
    assert_eq!(stale["current"]["number"], 2, "{stale}");
    fleet.until_in_force("r2").await;
    for server in 0..2 {
        let hooks = fleet.get(server, HOOKS).await;
        let ids: Vec<_> = hooks["hooks"].as_array().unwrap().iter().map(|hook| hook["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["works", "broken", "freeze", "late"]);
    }
    let body = Some((STRUCTURED, event("c.d", "of-r2").to_vec()));
    fleet.servers[0].check(Method::POST, ("/v1/events", "/v1/events"), body, 202).await;
    fleet.sink.until("the new hook", PATIENCE, |calls| calls.iter().any(|call| call.hook == "late")).await;
}

/// Every route of the document is there, at either server; a worker says where it is.
async fn every_route(fleet: &Fleet) {
    for (path, item) in fleet.servers[0].document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let at = path.replace("{id}", "none").replace("{hook}", "h");
            let ask = async |process: &Worker| {
                let answer = client().request(method.clone(), process.url(&at)).send().await.unwrap();
                (answer.status().as_u16(), answer.text().await.unwrap())
            };
            for served in &fleet.servers {
                let (status, text) = ask(&served.worker).await;
                assert!(!text.contains("no process serves") && status != 405, "{method} {path}: {status} {text}");
                let _ = served.described(&method, path, status);
            }
            let (status, text) = ask(&fleet.workers[0]).await;
            let is_workers =
                matches!(path.as_str(), "/metrics" | "/healthz" | "/readyz" | "/v1/status" | "/v1/openapi.json");
            let says_where = text.contains("is served by `hookfleet server` and `hookfleet up`");
            assert_eq!((status == 404, says_where), (!is_workers, !is_workers), "{method} {path}: {status} {text}");
        }
    }
    let url = fleet.servers[0].worker.url("/v1/gates");
    let wrong = client().delete(url).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), &wrong.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(wrong.headers()["content-type"], "application/problem+json");
}

/// The status of a server has the sums over all workers.
async fn sums(fleet: &Fleet) {
    let names = ["execution_count", "failure_count", "retry_count", "dead_lettered_count"];
    let mut expected = json!({});
    for name in names {
        let mut sum = 0;
        for worker in &fleet.workers {
            sum += worker.ask("/v1/status").await["counts"][name].as_u64().unwrap();
        }
        expected[name] = sum.into();
    }
    assert!(expected["execution_count"].as_u64().unwrap() > 8 && expected["dead_lettered_count"] == 4, "{expected}");
    for served in &fleet.servers {
        let is_sum = |status: &Value| names.iter().all(|name| status["counts"][name] == expected[name]);
        let status = served.worker.until("/v1/status", is_sum).await;
        let of_workers: u64 = status["workers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|worker| worker["execution_count"].as_u64().unwrap())
            .sum();
        assert_eq!(status["counts"]["execution_count"], of_workers);
        assert_eq!(
            (&status["counts"]["configured_count"], &status["hooks_run"]),
            (&json!(4), &json!([])),
            "{status:#}"
        );
        assert_eq!(status["hooks"]["configured_count"], 0, "none of them is Kheish's: {status:#}");
        assert_eq!((&status["ready"], &status["store_of_claims"]), (&json!(true), &json!("up")), "{status:#}");
        served.get("/v1/status").await;
    }
}

/// One server is killed in the middle: what was confirmed is delivered, and who publishes goes on with the other.
async fn killed(fleet: &mut Fleet) {
    let [first, second] = &mut fleet.servers;
    let urls = [first.worker.url("/v1/events"), second.worker.url("/v1/events")];
    let is_killed = AtomicBool::new(false);
    let publish = async |number: usize| {
        let body = event("a.killed", &format!("killed-{number}"));
        for url in urls.iter().cycle().skip(number % 2) {
            let sent = client().post(url).header("content-type", STRUCTURED).body(body.clone()).send().await;
            if sent.is_ok_and(|answer| answer.status() == 202) {
                return;
            }
            assert!(is_killed.load(Ordering::Relaxed), "both servers are there");
        }
    };
    let killing = async {
        let half = |calls: &[crate::sink::Call]| {
            calls.iter().filter(|call| call.event.starts_with("killed-")).count() > EVENTS / 3
        };
        fleet.sink.until("a part of the events", PATIENCE, half).await;
        is_killed.store(true, Ordering::Relaxed);
        first.worker.process.kill();
    };
    let publishing = stream::iter(0..EVENTS).map(publish).buffer_unordered(8).collect::<()>();
    tokio::join!(publishing, killing);
    fleet
        .sink
        .until("every event", PATIENCE, |calls| {
            let ids = calls.iter().filter(|call| call.event.starts_with("killed-")).map(|call| &call.event);
            ids.collect::<std::collections::BTreeSet<_>>().len() == EVENTS
        })
        .await;
    let calls = fleet.sink.calls();
    let keys: std::collections::HashSet<_> =
        calls.iter().filter(|call| call.event.starts_with("killed-")).map(|call| &call.key).collect();
    assert_eq!(keys.len(), EVENTS, "each under its own key");
}

/// Without Redis a server takes events, and says what it cannot do.
#[tokio::test]
async fn a_server_works_without_redis() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).hooks(&hook(&sink, "h", "a.*", ""));
    let mut worker = site.worker().await;
    let away = site.clone().set("HOOKFLEET_REDIS_URL", &format!("redis://127.0.0.1:{}", free_port()));
    let served = Served::new(away.server().await).await;
    let ready = served.get("/readyz").await;
    let reasons = ready["reasons"].to_string();
    assert!(ready["ready"] == true && reasons.contains("redis: "), "{ready}");
    let body = Some((STRUCTURED, event("a.b", "1").to_vec()));
    served.check(Method::POST, ("/v1/events", "/v1/events"), body, 202).await;
    sink.until("the event", PATIENCE, |calls| calls.len() == 1).await;
    let status = served.get("/v1/status").await;
    assert!(status["workers_read_error"].is_string() && status["workers"].is_null(), "{status:#}");
    assert!(status["store_of_claims"].as_str().unwrap().starts_with("away: "), "{status:#}");
    let body = Some((STRUCTURED, event("nobody.asks", "1").to_vec()));
    let decision = served.check(Method::POST, ("/v1/gates", "/v1/gates"), body, 200).await;
    assert_eq!(decision["verdict"], "allow");
    assert_eq!(worker.stop().await, Some(0));
}

/// A fleet that is paused decides nothing; servers say so at once.
#[tokio::test]
async fn servers_know_of_a_pause() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).hooks("");
    let served = Served::new(site.server().await).await;
    site.ok(&["fleet", "pause", "--message", "the target moves"]);
    let is_paused =
        |status: &Value| status["paused"].as_str().is_some_and(|reason| reason.contains("the target moves"));
    served.worker.until("/v1/status", is_paused).await;
    let body = || Some((STRUCTURED, event("deploy", "1").to_vec()));
    let refused = served.check(Method::POST, ("/v1/gates", "/v1/gates"), body(), 503).await;
    assert!(refused["detail"].as_str().unwrap().contains("paused by"), "{refused}");
    assert_eq!(served.get("/readyz").await["ready"], true, "it is not to be replaced");
    site.ok(&["fleet", "resume"]);
    served.worker.until("/v1/status", |status| status["paused"].is_null()).await;
    let late = served.check(Method::POST, ("/v1/gates", "/v1/gates?deadline=500ms"), body(), 504).await;
    assert!(late["detail"].as_str().unwrap().contains("not decided within 500ms"), "{late}");
}

/// A server has no file of its own: its settings have to name servers.
#[test]
fn a_server_takes_servers() {
    let output = Site::embedded().hooks("").run(&["server"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains("set broker.url and redis.url"), "{said}");
}
