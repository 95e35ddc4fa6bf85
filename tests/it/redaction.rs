//! Secrets that are planted wherever a hook can have them, and looked for wherever anybody can look.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::fleet::Site;
use crate::pipeline::{Place, Stage, site, stage, until_letters};
use crate::servers::{client, shared};

/// Every secret begins so.
const PLANTED: &str = "PLANTED";
const OPERATE: &str = "PLANTED-token-of-http";
/// In the data of the event.
const CARD: &str = "4111-1111-1111-1111";
/// The hooks that fail.
const HOOKS: [&str; 4] = ["refused", "failing", "err", "out"];

/// Says back all that it was told, with secrets of its own.
async fn parrot() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |request: Request| async move {
        let (uri, headers) = (request.uri().clone(), request.headers().clone());
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let status = if uri.path().contains("failing") { StatusCode::BAD_GATEWAY } else { StatusCode::FORBIDDEN };
        let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
        let body = if header("x-own-body").is_empty() { String::new() } else { String::from_utf8_lossy(&body).into() };
        let (key, way) = (header("x-key"), uri.path_and_query().unwrap().to_string());
        // An excerpt is short: each of these comes first in one of the attempts.
        let mut said = [
            format!("{way} {key}"),
            format!("Authorization: {}\r\nCookie: a=PLANTED-cookie; b=c", header("authorization")),
            "at https://PLANTED-user:PLANTED-password@x.example/PLANTED-way?q=PLANTED-query".to_owned(),
            format!("{{\"api_key\": \"PLANTED-json\"}} {body} {uri} {key}"),
        ];
        let turn = header("hookfleet-attempt").parse::<usize>().unwrap_or_default() % said.len();
        said.rotate_left(turn);
        (status, said.join("\n"))
    };
    let routes = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn planted(place: Place) -> Site {
    let address = parrot().await;
    let headers = "authorization: 'Bearer PLANTED-literal', x-key: '${env:OF_HEADER}'";
    let hooks = format!(
        "  - id: refused\n    on: a\n    run: {{ http: {{ url: 'http://{address}/PLANTED-path/${{env:OF_URL}}?q=PLANTED-q', \
         headers: {{ {headers}, x-own-body: told }}, body: '{{\"k\": \"${{env:OF_BODY}}\"}}' }} }}\n\
         \x20 - id: failing\n    on: a\n    retry: {{ attempts: 4, backoff: {{ initial: 250ms, factor: 1 }} }}\n    \
         run: {{ http: {{ url: 'http://{address}/failing/PLANTED-path?q=${{file:secret.txt}}', headers: {{ {headers} }} }} }}\n\
         \x20 - id: err\n    on: a\n    retry: {{ attempts: 1 }}\n    \
         run: {{ command: {{ argv: [sh, leak.sh, '2'], env: {{ PLAIN: '${{env:OF_COMMAND}}' }} }} }}\n\
         \x20 - id: out\n    on: a\n    retry: {{ attempts: 1 }}\n    \
         run: {{ command: {{ argv: [sh, leak.sh, '1'], env: {{ PLAIN: '${{env:OF_COMMAND}}' }} }} }}"
    );
    let site = site(place).await.with_gateway().hooks(&hooks);
    let write = |name: &str, text: &str| std::fs::write(site.folder.path().join(name), text).unwrap();
    write("secret.txt", "PLANTED-of-a-file\n");
    write(
        "leak.sh",
        "{ echo \"$PLAIN, and of another hook: PLANTED-of-header\"; echo password=PLANTED-word; \
         echo 'Authorization: Basic PLANTED-basic'; env; } >&$1; exit 3\n",
    );
    site.set("OF_HEADER", "PLANTED-of-header")
        .set("OF_URL", "PLANTED-of-url")
        .set("OF_BODY", "PLANTED-of-body")
        .set("OF_COMMAND", "PLANTED-of-command")
        .set("HOOKFLEET_COMMANDS_ALLOW", "sh")
        .set("HOOKFLEET_HTTP_TOKENS", &format!("operate:{OPERATE}"))
        .set("HOOKFLEET_REDACT_DATA", "/card/number")
        .set("HOOKFLEET_LOG", "hookfleet=trace")
}

/// What is stored of letters: the bytes of the file, or of the stream's messages.
async fn stored(place: Place, site: &Site) -> Vec<(String, Vec<u8>)> {
    if place == Place::File {
        let files = std::fs::read_dir(site.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("hookfleet.db"));
        return files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect();
    }
    let (rabbit, _) = shared().await;
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(100, BasicQosOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let queue = format!("{}.dead", site.namespace);
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, arguments).await.unwrap();
    let mut records = Vec::new();
    while records.iter().filter(|(_, record): &&(_, Vec<u8>)| contains(record, "\"record\":\"letter\"")).count()
        < HOOKS.len()
    {
        let delivery = consumer.next().await.unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        records.push((format!("record {}", records.len()), delivery.data));
    }
    records
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn nowhere(place: Place) {
    let site = planted(place).await;
    let Stage { site, worker, publisher } = stage(place, site).await;
    let event =
        format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","data":{{"card":{{"number":"{CARD}"}}}}}}"#);
    if place == Place::File {
        let sent = client().post(worker.url("/v1/events")).bearer_auth(OPERATE);
        let sent = sent.header("content-type", "application/cloudevents+json").body(event).send().await.unwrap();
        assert_eq!(sent.status(), 202);
    } else {
        publisher.send_all([bytes::Bytes::from(event)]).await;
    }
    let letters = until_letters(&site, HOOKS.len(), "open").await;
    let ids: Vec<&str> = letters.iter().map(|letter| letter.pointer("/letter/id").unwrap().as_str().unwrap()).collect();

    let get = async |path: &str| {
        let answer = client().get(worker.url(path)).bearer_auth(OPERATE).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        (path.to_owned(), answer.bytes().await.unwrap().to_vec())
    };
    let mut places = Vec::new();
    for path in ["/metrics", "/v1/status", "/v1/catalog", "/v1/dead-letters"] {
        places.push(get(path).await);
    }
    for id in &ids {
        places.push(get(&format!("/v1/dead-letters/{id}?body=true")).await);
        for show in [&["dead-letters", "show", id, "--body"][..], &["dead-letters", "show", id, "--body", "--json"]] {
            places.push(("show".to_owned(), site.ok(show).into_bytes()));
        }
    }
    for command in [&["dead-letters", "list"][..], &["hooks", "list", "--json"], &["settings"]] {
        places.push((format!("{command:?}"), site.ok(command).into_bytes()));
    }
    places.push(("the log".to_owned(), worker.log().into_bytes()));
    let views = places.len();
    places.extend(stored(place, &site).await);
    search(&places, views);
    tell(&letters, &serde_json::from_slice(&places[1].1).unwrap());
    assert!((worker.metric("hookfleet_letters_total", "hook=\"err\"").await - 1.0).abs() < f64::EPSILON);
}

/// The first so many places are views, the others are what is stored.
fn search(places: &[(String, Vec<u8>)], views: usize) {
    for (number, (name, bytes)) in places.iter().enumerate() {
        let text = String::from_utf8_lossy(bytes);
        if let Some(at) = text.find(PLANTED) {
            let before: Vec<char> = text[..at].chars().rev().take(300).collect();
            let after = text[at..].chars().take(200);
            panic!("{name} shows a secret: {}", before.into_iter().rev().chain(after).collect::<String>());
        }
        assert!(number >= views || !contains(bytes, CARD), "{name} shows the card: {text}");
    }
    assert!(places[views..].iter().any(|(_, bytes)| contains(bytes, CARD)), "what is stored is not whole");
}

/// What is left still says what happened.
fn tell(letters: &[Value], status: &Value) {
    let error = |letter: &Value| letter.pointer("/letter/error").unwrap().as_str().unwrap().to_owned();
    let errors: Vec<String> = letters.iter().map(error).collect();
    for expected in ["403 Forbidden", "502 Bad Gateway", "exit 3", "[REDACTED]"] {
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected}: {errors:#?}");
    }
    let counts = &status["counts"];
    for (name, count) in [
        ("configured_count", 4),
        ("execution_count", 7),
        ("failure_count", 7),
        ("retry_count", 3),
        ("dead_lettered_count", 4),
        ("dead_letter_persist_failure_count", 0),
    ] {
        assert_eq!(counts[name], count, "{counts}");
    }
    assert!(HOOKS.iter().any(|hook| counts["last_dead_letter_hook"] == *hook), "{counts}");
    assert!(counts["last_dead_letter_at_ms"].as_u64().unwrap() > 1_600_000_000_000, "{counts}");
    assert_eq!(status["warnings"], serde_json::json!(["hook_dead_letters"]));
}

#[tokio::test]
async fn secrets_are_nowhere_on_servers() {
    nowhere(Place::Servers).await;
}

#[tokio::test]
async fn secrets_are_nowhere_in_a_file() {
    nowhere(Place::File).await;
}
