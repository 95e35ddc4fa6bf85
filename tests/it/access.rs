//! Who may do what over HTTP: tokens with roles, and without them loopback only.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::fleet::{Site, Worker};
use crate::pipeline::hook;
use crate::publishing::event;
use crate::servers::{client, free_port};
use crate::sink::{Answer, Sink};

const READ: &str = "read-0123456789abcdef";
const PUBLISH: &str = "publish-0123456789abcdef";
const DECIDE: &str = "decide-0123456789abcdef";
const OPERATE: &str = "operate-0123456789abcdef";
const LETTERS: &str = "/v1/dead-letters";

/// The routes that take a role, with a body where one is needed, and the role.
fn routes(letter: &str) -> Vec<(Method, String, Option<Vec<u8>>, &'static str)> {
    let digest = "0".repeat(32);
    vec![
        (Method::GET, "/v1/status".into(), None, READ),
        (Method::GET, "/v1/catalog".into(), None, READ),
        (Method::GET, LETTERS.into(), None, READ),
        (Method::GET, format!("{LETTERS}/{letter}"), None, READ),
        (Method::GET, "/v1/events?id=one".into(), None, READ),
        (Method::POST, "/v1/events".into(), Some(event("b.c", "by-http").to_vec()), PUBLISH),
        (Method::POST, "/v1/gates".into(), Some(event("b.c", "asked").to_vec()), DECIDE),
        (Method::POST, format!("{LETTERS}/{letter}/replay"), None, OPERATE),
        (Method::POST, format!("/v1/catalog/hooks/h/cancel?event={digest}"), None, OPERATE),
        (Method::POST, "/v1/catalog".into(), Some(b"version: 1".to_vec()), OPERATE),
    ]
}

async fn ask(
    url: &str,
    method: &Method,
    body: Option<Vec<u8>>,
    token: Option<&str>,
) -> (StatusCode, Option<String>, Value) {
    let mut request = client().request(method.clone(), url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, challenge, kind) = (answer.status(), header("www-authenticate"), header("content-type"));
    let body: Value = answer.json().await.unwrap_or_default();
    if status.is_client_error() {
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{url} {body}");
        assert_eq!(body["status"], status.as_u16(), "{url} {body}");
    }
    (status, challenge, body)
}

async fn probes_are_open(worker: &Worker) {
    for path in ["/metrics", "/healthz", "/readyz"] {
        let answer = client().get(worker.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
}

/// A site whose one hook refuses, with the tokens of all roles.
fn locked(sink: &Sink) -> Site {
    sink.behave(|_, _| Answer::status(404));
    Site::embedded()
        .hooks(&hook(sink, "h", "a.*", ""))
        .set("HOOKFLEET_HTTP_TOKENS", &format!("read:{READ},publish:{PUBLISH},decide:{DECIDE},operate:{OPERATE}"))
}

#[tokio::test]
async fn a_token_opens_what_its_role_covers() {
    let sink = Sink::start().await;
    let site = locked(&sink);
    let mut worker = site.worker().await;
    probes_are_open(&worker).await;
    // The command line finds the tokens where the process did.
    site.ok(&["publish", "--type", "a.b", "--id", "one"]);
    let letters = crate::pipeline::until_letters(&site, 1, "open").await;
    let id = letters[0].pointer("/letter/id").unwrap().as_str().unwrap();

    for (method, path, body, needed) in routes(id) {
        let url = worker.url(&path);
        let role = needed.split('-').next().unwrap();
        for (token, challenge) in [(None, ""), (Some("wrong-0123456789abcdef"), ", error=\"invalid_token\"")] {
            let (status, found, problem) = ask(&url, &method, body.clone(), token).await;
            let expected = format!("Bearer realm=\"hookfleet\"{challenge}");
            assert_eq!((status.as_u16(), found), (401, Some(expected)), "{method} {path} {token:?}: {problem}");
        }
        for token in [READ, PUBLISH, DECIDE, OPERATE] {
            let (status, _, answer) = ask(&url, &method, body.clone(), Some(token)).await;
            if token == needed || token == OPERATE {
                assert!(!matches!(status.as_u16(), 401 | 403), "{method} {path} with {token}: {status} {answer}");
            } else {
                assert_eq!(status, 403, "{method} {path} with {token}: {answer}");
                assert!(answer["detail"].as_str().unwrap().contains(role), "{answer}");
            }
        }
    }

    let hidden = site.ok(&["dead-letters", "show", id]) + &site.ok(&["settings"]) + &worker.log();
    for token in [READ, PUBLISH, DECIDE, OPERATE] {
        assert!(!hidden.contains(token), "{hidden}");
    }
    // Who has other settings than the process is told what is missing.
    let other = site.clone().set("HOOKFLEET_HTTP_TOKENS", "");
    let output = other.run(&["dead-letters", "list"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("a token of role read or operate"), "{told}");
    let reader = site.clone().set("HOOKFLEET_HTTP_TOKENS", &format!("read:{READ}"));
    reader.ok(&["dead-letters", "list"]);
    let told = String::from_utf8_lossy(&reader.run(&["dead-letters", "replay", id]).stderr).into_owned();
    assert!(told.contains("a token of role operate"), "{told}");
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn tokens_change_while_the_process_runs() {
    let sink = Sink::start().await;
    let site = Site::embedded().hooks(&hook(&sink, "h", "a.*", ""));
    let file = site.folder.path().join("tokens");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(&format!("# before the change\nread:{READ}\n"));
    let site = site.set("HOOKFLEET_HTTP_TOKENS_FILE", file.to_str().unwrap());
    let worker = site.worker().await;
    let status = async |token: &str| ask(&worker.url("/v1/status"), &Method::GET, None, Some(token)).await.0.as_u16();
    assert_eq!((status(READ).await, status(OPERATE).await), (200, 401));
    write(&format!("operate:{OPERATE}\n"));
    let began = std::time::Instant::now();
    while (status(READ).await, status(OPERATE).await) != (401, 200) {
        assert!(began.elapsed().as_secs() < 30, "{}", worker.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(site.ok(&["dead-letters", "list"]).contains("no letters"));
}

/// Others can reach the address: probes are answered, and nothing else is.
#[tokio::test]
async fn without_tokens_it_is_loopback_only() {
    let sink = Sink::start().await;
    let site = Site::embedded().hooks(&hook(&sink, "h", "a.*", "")).set("HOOKFLEET_HTTP_EXPOSE", "true");
    let port = free_port();
    let mut worker = site.spawn(&[("HOOKFLEET_HTTP_BIND", &format!("0.0.0.0:{port}"))]);
    worker.port = port;
    worker.until_ready().await;
    probes_are_open(&worker).await;
    for (method, path, body, _) in routes("4be1c5b0a4b1d26e5f0c3a77") {
        for token in [None, Some(OPERATE)] {
            let (status, _, problem) = ask(&worker.url(&path), &method, body.clone(), token).await;
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(status == 403 && detail.contains("set http.tokens"), "{method} {path}: {status} {problem}");
        }
    }
    assert!(worker.log().contains("there are no tokens"), "{}", worker.log());

    let refused = site.set("HOOKFLEET_HTTP_EXPOSE", "false").spawn(&[("HOOKFLEET_HTTP_BIND", "0.0.0.0:0")]);
    let mut refused = refused;
    assert_eq!(refused.ended(std::time::Duration::from_secs(30)).await, Some(64));
    assert!(refused.log().contains("set `http.tokens` or `http.tokens_file`"), "{}", refused.log());
}
