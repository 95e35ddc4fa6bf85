//! Bernstein's hooks: a project is taken over and followed, its documented examples run, and what it signs is taken.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::fleet::{Site, Worker};
use crate::pipeline::hook;
use crate::servers::client;
use crate::sink::Sink;
use crate::tls::Authority;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/imports/bernstein");
const MEDIA_TYPE: &str = "application/vnd.hookfleet.bernstein+json";
const PATIENCE: Duration = Duration::from_secs(30);

/// A program in the folder of a project.
fn script(site: &Site, path: &str, text: &str) {
    let path = site.folder.path().join("project").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn project(bernstein_yaml: &str) -> Site {
    let site = Site::embedded().with_gateway();
    let folder = site.folder.path().join("project");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("bernstein.yaml"), bernstein_yaml).unwrap();
    site.set("HOOKFLEET_CATALOG_DIALECT", "bernstein").set("HOOKFLEET_HOOKS", folder.to_str().unwrap())
}

/// Asks gates about an event: the verdict, its reason, and what is put in place of the data.
async fn ask(worker: &Worker, payload: &Value) -> (Value, Value, Value) {
    let request = client().post(worker.url("/v1/gates")).header("content-type", MEDIA_TYPE).body(payload.to_string());
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    (answer["verdict"].clone(), answer["reason"].clone(), answer["updated_input"].clone())
}

async fn publish(worker: &Worker, payload: &Value) -> u16 {
    let request = client().post(worker.url("/v1/hooks/bernstein")).body(payload.to_string());
    request.send().await.unwrap().status().as_u16()
}

fn lifecycle(event: &str, data: &Value) -> Value {
    json!({
        "event": event, "task": "T-1", "session_id": "S-1", "workdir": "/w", "env": {}, "timestamp": 1_712_345_678.0, "data": data,
    })
}

#[test]
fn a_project_is_taken_over() {
    let yaml = fs::read_to_string(Path::new(FIXTURES).join("bernstein.yaml")).unwrap();
    let site = project(&yaml).set("OPS_CHAT_URL", "https://chat.example.org/ops");
    let site = site.set("FORUM_URL", "https://forum.example.org/in").set("PAGER_TOKEN", "p").set("BOT_TOKEN", "b");
    let site = site.set("DONE_KEY", "k").set("WATCH_TOKEN", "w").set("HOOKFLEET_CATALOG_DIALECT", "native");
    script(&site, ".bernstein/hooks/pre_task.sh", "");
    script(&site, ".bernstein/hooks/on_task_failed/10-tell", "");
    fs::write(site.folder.path().join("project/.bernstein/hooks/on_task_failed/notes.txt"), "").unwrap();
    let out = site.ok(&["hooks", "import", "--from", "bernstein", "project", "--output", "taken.yaml"]);
    assert_eq!(out.trim_end(), "taken.yaml: 20 hooks, 1 of them switched off");
    let out = site.ok(&["hooks", "check", "taken.yaml"]);
    assert!(out.contains("taken.yaml: 20 hooks"), "{out}");
    let taken = fs::read_to_string(site.folder.path().join("taken.yaml")).unwrap();
    assert!(taken.contains("argv: [\"scripts/preflight.sh\"], cwd: \"project\""), "{taken}");
    let out = site.ok(&["hooks", "import", "--from", "bernstein", "project/bernstein.yaml", "--check"]);
    assert_eq!(
        out.trim_end(),
        "project/bernstein.yaml: 18 hooks, 1 of them switched off",
        "a file, without its folder"
    );
}

/// A folder with `bernstein.yaml` and scripts is the catalog. What is added to it counts at once.
#[tokio::test]
async fn a_project_is_followed() {
    let sink = Sink::start().await;
    let yaml = format!(
        "hooks:\n  preToolUse:\n    - script: scripts/rewrite.sh\n      if: Bash(make *)\n    - script: scripts/deny.sh\n      if: Bash(git push *)\n    - scripts/note.sh\n    - \
         scripts/see.sh\nnotifications:\n  sinks:\n    - {{ id: log, kind: webhook, url: \"{}\", severities: [error], \
         status_proof: false }}\n",
        sink.url("log")
    );
    let allowed =
        "scripts/rewrite.sh,scripts/deny.sh,scripts/note.sh,scripts/see.sh,.bernstein/hooks/on_task_failed/tell";
    let site = project(&yaml).set("HOOKFLEET_COMMANDS_ALLOW", allowed).set("HOOKFLEET_EGRESS_ALLOW", "127.0.0.0/8");
    let seen = site.folder.path().join("seen");
    let pushes = r#"{"decision": "mutate", "data": {"tool": "Bash", "args": {"command": "git push origin"}}}"#;
    script(&site, "scripts/rewrite.sh", &format!("#!/bin/sh\necho '{pushes}'\n"));
    script(&site, "scripts/deny.sh", "#!/bin/sh\necho '{\"decision\": \"deny\", \"reason\": \"no pushes\"}'\n");
    script(&site, "scripts/note.sh", "#!/bin/sh\necho '{\"decision\": \"annotate\", \"data\": {\"noted\": true}}'\n");
    script(&site, "scripts/see.sh", &format!("#!/bin/sh\ncat > {}\n", seen.display()));
    let mut worker = site.worker().await;

    let data = |command: &str| json!({ "tool": "Bash", "args": { "command": command } });
    let (verdict, reason, _) = ask(&worker, &lifecycle("preToolUse", &data("git push origin"))).await;
    assert_eq!((verdict, reason), (json!("deny"), json!("no pushes")));
    let (verdict, reason, _) = ask(&worker, &lifecycle("preToolUse", &data("make release"))).await;
    assert_eq!((verdict, reason), (json!("deny"), json!("no pushes")), "a filter looks at what others have made of it");
    let (verdict, _, input) = ask(&worker, &lifecycle("preToolUse", &data("git status"))).await;
    let noted = json!({ "tool": "Bash", "args": { "command": "git status" }, "noted": true });
    assert_eq!((verdict, input), (json!("allow"), noted.clone()));
    let stdin: Value = serde_json::from_str(&fs::read_to_string(&seen).unwrap()).unwrap();
    assert_eq!(
        (&stdin["data"], &stdin["task"]),
        (&noted, &json!("T-1")),
        "the third script gets what the second has made"
    );

    for (id, severity) in [("n-1", "info"), ("n-2", "error"), ("n-2", "error")] {
        let payload = json!({
            "event_id": id, "kind": "post_task", "title": "t", "body": "é", "severity": severity, "task_id": "T-1",
            "session_id": null, "run_id": null, "timestamp": 1.5, "labels": {}, "details": {},
        });
        assert_eq!(publish(&worker, &payload).await, 202);
    }
    sink.until("the notification", PATIENCE, |calls| calls.len() == 1).await;
    let body = String::from_utf8_lossy(&sink.calls()[0].body).into_owned();
    assert!(body.contains("\"body\":\"é\",") && body.contains("\"event_id\":\"n-2\","), "compact UTF-8: {body}");

    let told = site.folder.path().join("told");
    script(&site, ".bernstein/hooks/on_task_failed/tell", &format!("#!/bin/sh\ncat > {}\n", told.display()));
    let is_there = |status: &Value| status["hooks"].as_array().is_some_and(|hooks| hooks.len() == 6);
    worker.until("/v1/catalog", is_there).await;
    let arguments = r#"{"task_id": "T-1", "role": "qa", "error": "tests failed"}"#;
    let request = client().post(worker.url("/v1/hooks/bernstein")).header("hook-event", "on_task_failed");
    assert_eq!(request.body(arguments).send().await.unwrap().status(), 202);
    let until = tokio::time::Instant::now() + PATIENCE;
    while !fs::read_to_string(&told).is_ok_and(|text| text.ends_with('}')) {
        assert!(tokio::time::Instant::now() < until, "{}", worker.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fs::read_to_string(&told).unwrap(), arguments);
    assert_eq!(worker.stop().await, Some(0));
}

/// Starts a proxy that answers for hooks.slack.com itself, over TLS. Gives its port, and the request that it was sent.
fn slack(folder: &Path) -> (u16, mpsc::Receiver<String>) {
    let authority = Authority::new(folder, "ca");
    authority.sign(folder, "slack", &["hooks.slack.com"], false);
    let chain = CertificateDer::pem_file_iter(folder.join("slack.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("slack-key.pem")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let (port, (sender, receiver)) = (listener.local_addr().unwrap().port(), mpsc::channel());
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut head = BufReader::new(socket.try_clone().unwrap());
        let mut line = String::new();
        while head.read_line(&mut line).unwrap() > 2 {
            assert!(!line.is_empty() && line.len() < 4096);
            if line.ends_with("\r\n\r\n") {
                break;
            }
        }
        assert!(line.starts_with("CONNECT hooks.slack.com:443 "), "{line}");
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let mut connection = ServerConnection::new(config).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        let is_whole = |request: &[u8]| {
            let text = String::from_utf8_lossy(request);
            text.split_once("\r\n\r\n").is_some_and(|(_, body)| serde_json::from_str::<Value>(body).is_ok())
        };
        while !is_whole(&request) {
            let count = stream.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").unwrap();
        let _ = stream.flush();
        let _ = sender.send(String::from_utf8_lossy(&request).into_owned());
    });
    (port, receiver)
}

/// The examples of Bernstein's documentation, as they are: a notification of Slack, and a gate that validates tasks.
#[tokio::test]
async fn documented_examples_run_as_they_are() {
    let yaml = "hooks:\n  task.failed:\n    - type: script\n      command: \"python3 scripts/notify_slack.py\"\n  \
                task.created:\n    - type: blocking_script\n      command: \"python3 scripts/validate_task.py\"\n      \
                timeout_s: 5\n";
    let site = project(yaml).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    for name in ["notify_slack.py", "validate_task.py"] {
        script(
            &site,
            &format!("scripts/{name}"),
            &fs::read_to_string(Path::new(FIXTURES).join("scripts").join(name)).unwrap(),
        );
    }
    let (port, sent) = slack(site.folder.path());
    let certificate = site.folder.path().join("ca.pem").display().to_string();
    let site = site
        .set("HOOKFLEET_COMMANDS_ENV", "PATH,HOME,SSL_CERT_FILE,https_proxy")
        .set("SSL_CERT_FILE", &certificate)
        .set("https_proxy", &format!("http://127.0.0.1:{port}"));
    let mut worker = site.worker().await;
    let payload = json!({ "event": "task.failed", "timestamp": 1_712_345_678.0, "task_id": "task-abc123", "role": "qa",
                          "title": "x", "error": "Test suite failed" });
    assert_eq!(publish(&worker, &payload).await, 202);
    let request = tokio::task::spawn_blocking(move || sent.recv_timeout(PATIENCE)).await.unwrap();
    let request = request.unwrap_or_else(|error| panic!("{error}: {}", worker.log()));
    assert!(request.starts_with("POST /services/T.../B.../... HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(":x: Task `task-abc123` failed: Test suite failed"), "{request}");

    let task = |data: &Value| json!({ "event": "task.created", "timestamp": 1_712_345_678.0, "data": data });
    for (data, verdict, reason) in [
        (json!({ "task_id": "t1", "goal": "Short" }), "deny", "ERROR: Tasks must have a scope defined"),
        (json!({ "task_id": "t1", "goal": "Short", "scope": ["src/"] }), "deny", "ERROR: Task goal too short"),
        (json!({ "task_id": "t1", "goal": "Implement feature X", "scope": ["src/"] }), "allow", ""),
    ] {
        let (found, why, _) = ask(&worker, &task(&data)).await;
        assert_eq!((found, why.as_str().unwrap_or_default()), (json!(verdict), reason), "{data}");
    }
    assert_eq!(worker.stop().await, Some(0));
}

fn signature(key: &str, parts: &[&str]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    let mac = parts.iter().fold(mac, Mac::chain_update);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

async fn posted(worker: &Worker, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let request = client().post(worker.url(path)).body(body.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

/// A signature is as good as a token, and where nothing else shows who asks it is needed.
#[tokio::test]
async fn payloads_are_taken_by_their_signature() {
    let body = json!({ "event": "task.completed", "timestamp": 1.0, "task_id": "t1", "role": "a", "title": "x" });
    let (body, path) = (body.to_string(), "/v1/hooks/bernstein");
    let good = signature("s3cret", &[&body]);
    for (tokens, unsigned) in [("", 401), ("publish:publish-publish-publish", 401)] {
        let site = Site::embedded().with_gateway().set("HOOKFLEET_HTTP_BERNSTEIN_SECRET", "s3cret");
        let mut worker = site.set("HOOKFLEET_HTTP_TOKENS", tokens).hooks("").worker().await;
        assert_eq!(posted(&worker, path, &[("x-bernstein-signature", &good)], &body).await.0, 202);
        let upper = good.to_uppercase();
        assert_eq!(posted(&worker, path, &[("x-bernstein-signature", &upper)], &body).await.0, 202);
        for wrong in [&good[..70], &signature("other", &[&body]), ""] {
            assert_eq!(posted(&worker, path, &[("x-bernstein-signature", wrong)], &body).await.0, 401, "{wrong}");
        }
        let no_text = client().post(worker.url(path)).header("x-bernstein-signature", &b"\xff"[..]).body(body.clone());
        assert_eq!(no_text.send().await.unwrap().status(), 401, "a header that is no text lets nobody in");
        assert_eq!(posted(&worker, path, &[], &body).await.0, unsigned);
        let token = posted(&worker, path, &[("authorization", "Bearer publish-publish-publish")], &body).await.0;
        assert_eq!(token, if tokens.is_empty() { 401 } else { 202 });
        assert!(!worker.log().contains("s3cret"));
        assert_eq!(worker.stop().await, Some(0));
    }
}

#[tokio::test]
async fn hooks_of_agents_are_events() {
    let sink = Sink::start().await;
    let site = Site::embedded().with_gateway().set("HOOKFLEET_HTTP_BERNSTEIN_HOOK_SECRET", "test-hook-secret");
    let mut worker = site.hooks(&hook(&sink, "seen", "claude-code.*", "")).worker().await;
    let post = async |path: &str, signature: &str, body: &str| {
        posted(&worker, path, &[("x-bernstein-hook-signature-256", signature)], body).await.0
    };
    // The vector of its own tests.
    let stop = r#"{"hook_event_name": "Stop"}"#;
    let vector = "sha256=389bcbf1a6e04dbfefbf6a9d7be7fdc18a24f7c2311ebaf16437fbc3afea3491";
    assert_eq!(post("/hooks/sess-1_X", vector, stop).await, 202);
    let used = r#"{"hook_event_name": "PostToolUse", "tool_name": "Bash", "tool_use_id": "toolu_1"}"#;
    for _ in 0..2 {
        assert_eq!(post("/hooks/sess-1_X", &signature("test-hook-secret", &[used]), used).await, 202, "reported twice");
    }
    assert_eq!(post("/hooks/-", &signature("test-hook-secret", &[""]), "").await, 202);
    for (path, body, status) in
        [("/hooks/a.b", stop, 400), ("/hooks/h%C3%A9", stop, 400), ("/hooks/s", "[]", 422), ("/hooks/s", "x", 422)]
    {
        assert_eq!(post(path, &signature("test-hook-secret", &[body]), body).await, status, "{path} {body}");
    }
    assert_eq!(post("/hooks/a.b", "", stop).await, 401, "a signature is looked at first");
    assert_eq!(posted(&worker, "/webhook", &[], "{}").await.0, 404);
    sink.until("the events", PATIENCE, |calls| calls.len() == 3).await;
    let events: Vec<Value> = sink.calls().iter().map(|call| serde_json::from_slice(&call.body).unwrap()).collect();
    let mut types: Vec<&str> = events.iter().map(|event| event["event"]["type"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, ["claude-code.PostToolUse", "claude-code.Stop", "claude-code.Unknown"]);
    assert!(events.iter().any(|event| event["event"]["subject"] == "sess-1_X"), "{events:#?}");
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn tasks_are_events() {
    let sink = Sink::start().await;
    let site = Site::embedded().with_gateway().set("HOOKFLEET_HTTP_BERNSTEIN_WEBHOOK_SECRET", "w");
    let mut worker = site.hooks(&hook(&sink, "seen", "bernstein.webhook", "")).worker().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let body = r#"{"title": "t", "description": "d"}"#;
    let post = async |timestamp: &str, signature: &str, id: &str| {
        let headers = [
            ("x-bernstein-timestamp", timestamp),
            ("x-bernstein-webhook-signature-256", signature),
            ("x-bernstein-trigger-id", id),
        ];
        posted(&worker, "/webhook", &headers, body).await.0
    };
    let signed = |timestamp: u64| signature("w", &[&format!("{timestamp}."), body]);
    for (timestamp, id) in [(now, "id-1"), (now - 200, "id-1"), (now + 200, "id-2")] {
        assert_eq!(post(&timestamp.to_string(), &signed(timestamp), id).await, 202, "{timestamp}");
    }
    assert_eq!(post(&(now - 400).to_string(), &signed(now - 400), "id-3").await, 401, "too old");
    assert_eq!(post(&(now * 1000).to_string(), &signed(now * 1000), "id-3").await, 401, "milliseconds");
    assert_eq!(post(&now.to_string(), &signature("w", &[body]), "id-3").await, 401, "of the body alone");
    assert_eq!(post(&now.to_string(), "", "id-3").await, 401);
    sink.until("the events", PATIENCE, |calls| calls.len() == 2).await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.calls().len(), 2, "sent twice under one id: one event");
}

/// Every invocation, its payload and what came of it are logged, and no secret.
#[tokio::test]
async fn a_debug_log_tells_all_but_secrets() {
    let sink = Sink::start().await;
    let gate = "  - id: g\n    on: bernstein.task.created\n    dialect: bernstein\n    mode: gate\n    run: { command: { argv: \
                [sh, -c, 'echo no hunter2 >&2; exit 1'], env: { KEY: \"${env:KEY}\" } } }\n";
    let site = Site::embedded().with_gateway().set("KEY", "hunter2").set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let site = site.set("HOOKFLEET_LOG", "debug").set("HOOKFLEET_LOG_PAYLOADS", "true");
    let site = site.set("HOOKFLEET_REDACT_DATA", "/title");
    let observer = hook(&sink, "o", "bernstein.task.completed", "");
    let mut worker = site.hooks(&format!("{gate}{observer}")).worker().await;
    let payload = |event: &str| json!({ "event": event, "timestamp": 1.0, "task_id": "task-17", "role": "hunter2", "title": "of-a-customer" });
    assert_eq!(ask(&worker, &payload("task.created")).await.0, "deny");
    assert_eq!(publish(&worker, &payload("task.completed")).await, 202);
    sink.until("the event", PATIENCE, |calls| calls.len() == 1).await;
    assert_eq!(worker.stop().await, Some(0));
    let log = worker.log();
    let lines = |part: &str| log.lines().filter(|line| line.contains(part)).collect::<Vec<_>>();
    for part in ["asking a gate", "running"] {
        let found = lines(part);
        assert!(found.len() == 1 && found[0].contains("task-17"), "{part}: {log}");
    }
    assert!(lines("a gate has answered").len() == 1 && lines(": done").len() == 1, "{log}");
    assert!(!log.contains("hunter2") && !log.contains("of-a-customer"), "{log}");
}
