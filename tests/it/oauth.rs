//! Hooks whose tokens come from a server, by OAuth 2 client credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, Stage, site, stage, until_letters};
use crate::publishing::event;
use crate::servers::{client, slots};

/// Every secret begins so.
const PLANTED: &str = "PLANTED";
const SECRET: &str = "PLANTED-secret";
/// Of tokens for the client `short`. They are renewed a fifth of a second before their end.
const SHORT_S: u64 = 2;
const HOOKS: &str = r#"
  - id: long
    on: a
    retry: { attempts: 20, backoff: { initial: 250ms, factor: 1 } }
    run: { http: { url: "http://@/long", auth: { oauth2: { token_url: "http://@/token", client_id: long, client_secret: "${env:SECRET}" } } } }
  - id: short
    on: b
    run: { http: { url: "http://@/short", auth: { oauth2: { token_url: "http://@/token", client_id: short, client_secret: "${env:SECRET}", scopes: [x, y], auth_style: body } } } }
  - id: unknown
    on: c
    retry: { attempts: 2, backoff: { initial: 250ms } }
    run: { http: { url: "http://@/unknown", auth: { oauth2: { token_url: "http://@/token?PLANTED-query", client_id: nobody, client_secret: PLANTED-literal } } } }
"#;

/// One request that a hook sent.
#[derive(Debug, Clone)]
struct Call {
    hook: String,
    event: String,
    attempt: String,
    token: String,
    status: u16,
}

#[derive(Default)]
struct Seen {
    is_down: bool,
    /// Clients, in the order of their requests for tokens.
    fetches: Vec<String>,
    good: BTreeSet<String>,
    calls: Vec<Call>,
}

/// A server that grants tokens and takes what hooks send with them.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    async fn start() -> Self {
        slots::take();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let routes = Router::new().route("/token", post(grant)).route("/{hook}", post(take)).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        server
    }

    fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    async fn until(&self, what: &str, enough: impl Fn(&Seen) -> bool) {
        let waiting = async {
            while !self.see(|seen| enough(seen)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(Duration::from_secs(60), waiting).await.is_err() {
            self.see(|seen| panic!("waited for {what}: {:?}, {:#?}", seen.fetches, seen.calls));
        }
    }

    fn fetches(&self, client: &str) -> usize {
        self.see(|seen| seen.fetches.iter().filter(|name| *name == client).count())
    }

    /// Of one event, in their order.
    fn calls(&self, event: &str) -> Vec<Call> {
        self.see(|seen| seen.calls.iter().filter(|call| call.event == event).cloned().collect())
    }
}

fn done(seen: &Seen, event: &str) -> bool {
    seen.calls.iter().any(|call| call.event == event && call.status == 204)
}

/// Id and secret as HTTP Basic has them, or the form.
fn shown(headers: &HeaderMap, form: &Value) -> (String, String) {
    let text = |name: &str| form[name].as_str().unwrap_or_default().to_owned();
    let Some(basic) = headers.get(header::AUTHORIZATION) else { return (text("client_id"), text("client_secret")) };
    let names = ["long", "short", "nobody"].map(|name| [(name, SECRET), (name, "PLANTED-literal")]);
    let found = names.as_flattened().iter().find(|(name, secret)| {
        let request = client().get("http://a.example").basic_auth(name, Some(secret)).build().unwrap();
        request.headers().get(header::AUTHORIZATION).unwrap() == basic
    });
    found.map(|(name, secret)| ((*name).to_owned(), (*secret).to_owned())).unwrap()
}

async fn grant(State(server): State<Server>, headers: HeaderMap, form: String) -> Response {
    let form = json!(url::form_urlencoded::parse(form.as_bytes()).collect::<BTreeMap<_, _>>());
    assert_eq!(form["grant_type"], "client_credentials");
    let (client, secret) = shown(&headers, &form);
    let (is_down, number) = server.see(|seen| {
        seen.fetches.push(client.clone());
        (seen.is_down, seen.fetches.len())
    });
    sleep(Duration::from_millis(100)).await; // others come meanwhile
    if is_down {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("no {secret}")).into_response();
    }
    if client == "nobody" {
        let said = format!("no client with {secret}, {:?}", headers.get(header::AUTHORIZATION));
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client", "error_description": said })))
            .into_response();
    }
    assert_eq!(secret, SECRET);
    let is_short = client == "short";
    assert_eq!(form["scope"], if is_short { json!("x y") } else { Value::Null });
    let token = format!("PLANTED-token-{number}");
    server.see(|seen| seen.good.insert(token.clone()));
    let expires_in = if is_short { SHORT_S } else { 600 };
    Json(json!({ "access_token": token, "token_type": "bearer", "expires_in": expires_in })).into_response()
}

async fn take(
    State(server): State<Server>,
    Path(hook): Path<String>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let body: Value = serde_json::from_str(&body).unwrap();
    let token = text("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
    server.see(|seen| {
        let status = if seen.good.contains(&token) { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED };
        let event = body.pointer("/event/id").unwrap().as_str().unwrap().to_owned();
        let said = format!("the token {token} is not good");
        let attempt = text("hookfleet-attempt");
        seen.calls.push(Call { hook, event, attempt, token, status: status.as_u16() });
        (status, if status == StatusCode::NO_CONTENT { String::new() } else { said })
    })
}

async fn tokens(place: Place) {
    let server = Server::start().await;
    let hooks = HOOKS.replace('@', &server.address.to_string());
    let site = site(place).await.hooks(&hooks).set("SECRET", SECRET).set("HOOKFLEET_LOG", "hookfleet=trace");
    let site = site.set("HOOKFLEET_BREAKER_FAILURES", "1"); // the first failure of a target would open its breaker
    let Stage { site, mut worker, publisher } = stage(place, site).await;

    publisher.send_all((0..50).map(|number| event("a", &format!("a{number}")))).await;
    server.until("all events", |seen| (0..50).all(|number| done(seen, &format!("a{number}")))).await;
    assert_eq!(server.fetches("long"), 1);

    // One after the other, for as long as a token lasts.
    let began = Instant::now();
    let mut number = 0;
    while server.fetches("short") < 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was renewed");
        let id = format!("b{number}");
        publisher.send(event("b", &id)).await;
        server.until(&id, |seen| done(seen, &id)).await;
        number += 1;
    }
    server.see(|seen| assert!(seen.calls.iter().all(|call| call.status == 204), "{:#?}", seen.calls));

    // The target has forgotten all tokens: it gets another one within the same attempt.
    server.see(|seen| seen.good.clear());
    publisher.send(event("a", "revoked")).await;
    server.until("another token", |seen| done(seen, "revoked")).await;
    let found: Vec<_> = server.calls("revoked").into_iter().map(|call| (call.attempt, call.status)).collect();
    assert_eq!(found, [("1".to_owned(), 401), ("1".to_owned(), 204)]);
    assert_eq!(server.fetches("long"), 2);

    refused_and_down(&server, &publisher).await;
    publisher.send(event("c", "unknown")).await;
    let letters = until_letters(&site, 1, "open").await;
    assert!(server.calls("unknown").is_empty());
    said(&letters[0], &server);
    shows_nothing(&site, &worker, letters[0].pointer("/letter/id").unwrap().as_str().unwrap()).await;
    assert_eq!(worker.stop().await, Some(0));
}

/// While there are no tokens, invocations are tried again, and the target's breaker hears of nothing.
async fn refused_and_down(server: &Server, publisher: &crate::publishing::Publisher) {
    let granted = Instant::now();
    while granted.elapsed() < Duration::from_secs(1) {
        sleep(Duration::from_millis(50)).await; // a younger token that is refused is not replaced
    }
    let before = server.fetches("long");
    server.see(|seen| {
        seen.good.clear();
        seen.is_down = true;
    });
    publisher.send(event("a", "down")).await;
    server
        .until("three attempts", |seen| seen.fetches.iter().filter(|name| *name == "long").count() >= before + 3)
        .await;
    server.see(|seen| seen.is_down = false);
    server.until("the end", |seen| done(seen, "down")).await;
    let calls = server.calls("down");
    assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [401, 204], "{calls:#?}");
    assert!(calls[1].attempt.parse::<u32>().unwrap() > 3, "{calls:#?}");
    assert!(calls.iter().all(|call| call.hook == "long" && call.token.starts_with(PLANTED)));
}

fn said(letter: &Value, server: &Server) {
    assert_eq!(letter.pointer("/letter/class").unwrap(), "exhausted", "{letter:#}");
    let error = letter.pointer("/letter/error").unwrap().as_str().unwrap();
    let begin = format!("token endpoint http://{}: 401 Unauthorized: invalid_client: no client with ", server.address);
    assert!(error.starts_with(&begin) && error.contains("check `client_id` and `client_secret`"), "{error}");
}

async fn shows_nothing(site: &Site, worker: &Worker, letter: &str) {
    for series in [r#"outcome="granted""#, r#"outcome="refused""#, r#"outcome="failed""#] {
        assert!(worker.metric("hookfleet_token_fetches_total", series).await > 0.5, "{series}");
    }
    for name in ["hookfleet_breaker_open", "hookfleet_parked_total"] {
        assert!(worker.metric(name, "").await < 0.5, "{name}");
    }
    let mut places = vec![("the log".to_owned(), worker.log())];
    for path in ["/metrics", "/v1/status", "/v1/catalog", "/v1/dead-letters"] {
        let answer = client().get(worker.url(path)).send().await.unwrap().text().await.unwrap();
        places.push((path.to_owned(), answer));
    }
    for command in
        [&["dead-letters", "show", letter, "--body"][..], &["dead-letters", "list"], &["hooks", "list", "--json"]]
    {
        places.push((format!("{command:?}"), site.ok(command)));
    }
    for (name, text) in places {
        assert!(!text.contains(PLANTED), "{name} shows a secret: {text}");
    }
}

#[tokio::test]
async fn tokens_by_client_credentials_on_servers() {
    tokens(Place::Servers).await;
}

#[tokio::test]
async fn tokens_by_client_credentials_in_a_file() {
    tokens(Place::File).await;
}
