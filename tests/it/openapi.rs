//! What is served is what the document says: real answers against its schemas.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, Stage, hook, stage, until_letters};
use crate::publishing::event;
use crate::servers::{client, shared};
use crate::sink::{Answer, Sink};

const LETTERS: &str = "/v1/dead-letters";

/// What is named may hold nothing that is not described.
fn strict(value: &mut Value, in_all_of: bool) {
    match value {
        Value::Object(map) => {
            if map.contains_key("$ref") && !in_all_of {
                map.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
            }
            map.iter_mut().for_each(|(key, value)| strict(value, key == "allOf"));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| strict(value, in_all_of)),
        _ => {}
    }
}

/// A running process and its document.
pub(crate) struct Served {
    pub(crate) worker: Worker,
    pub(crate) document: Value,
}

impl Served {
    pub(crate) async fn new(worker: Worker) -> Self {
        let document = worker.until("/v1/openapi.json", |document| document["openapi"] == "3.1.0").await;
        Self { worker, document }
    }

    /// What the document says of an answer.
    pub(crate) fn described(&self, method: &Method, route: &str, status: u16) -> &Value {
        let operation = &self.document["paths"][route][method.as_str().to_lowercase()];
        let answer = &operation["responses"][status.to_string()];
        assert!(!answer.is_null(), "{method} {route} answers {status}, of which its document knows nothing");
        match answer["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).unwrap(),
            None => answer,
        }
    }

    /// Asks `path`, which is an address of `route`, expects `status`, and holds the answer against the document.
    pub(crate) async fn check(
        &self,
        method: Method,
        (route, path): (&str, &str),
        body: Option<(&str, Vec<u8>)>,
        status: u16,
    ) -> Value {
        let mut request = client().request(method.clone(), self.worker.url(path));
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(body);
        }
        let answer = request.send().await.unwrap();
        let found = answer.status().as_u16();
        let header = answer.headers().get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
        let text = answer.text().await.unwrap();
        assert_eq!(found, status, "{method} {path}: {text}");
        let content = &self.described(&method, route, status)["content"];
        let kind = header.split(';').next().unwrap();
        assert!(content[kind].is_object(), "{method} {path} answers {kind}, described is {content}");
        if kind == "text/plain" {
            return Value::Null;
        }
        let body: Value = serde_json::from_str(&text).unwrap();
        let mut schema = json!({ "described": content[kind]["schema"], "components": self.document["components"] });
        strict(&mut schema, false);
        schema["$ref"] = json!("#/described");
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{method} {path} {status}: {errors:#?}\n{body:#}");
        body
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.check(Method::GET, (path, path), None, 200).await
    }
}

/// Events that are taken and that are refused, by one and in batches.
async fn of_events(served: &Served) {
    let (ce, batch) = ("application/cloudevents+json", "application/cloudevents-batch+json");
    let publish = async |content_type: &str, body: &[u8], status: u16| {
        served.check(Method::POST, ("/v1/events", "/v1/events"), Some((content_type, body.to_vec())), status).await
    };
    publish(ce, &event("a.b", "1"), 202).await;
    let two = [event("a.b", "2"), event("a.b", "3")].map(|event| String::from_utf8(event.to_vec()).unwrap());
    publish(batch, format!("[{}]", two.join(",")).as_bytes(), 202).await;
    for refused in [
        "{}",
        r#"{"type": ""}"#,
        r#"{"type": "a", "id": ""}"#,
        r#"{"type": "a", "source": ""}"#,
        r#"{"type": "a", "specversion": "0.3"}"#,
        r#"{"type": 7}"#,
    ] {
        publish(ce, refused.as_bytes(), 422).await;
        assert!(refuses(served, "/v1/events", ce, refused.as_bytes()), "{refused}");
        publish(batch, format!("[{refused}]").as_bytes(), 422).await;
        assert!(refuses(served, "/v1/events", batch, format!("[{refused}]").as_bytes()), "{refused}");
    }
    for taken in [&event("a.b", "1")[..], br#"{"type": "unwanted", "other": 1}"#] {
        publish(ce, taken, 202).await;
        assert!(!refuses(served, "/v1/events", ce, taken));
    }
    publish(ce, br#"{"specversion":"1.0","id":"1","source":"/s","type":"typed","data":[]}"#, 422).await;
    publish("text/plain", b"x", 415).await;
    publish(ce, &vec![b' '; 1024 * 1024 + 1], 413).await;
}

/// Queries that cannot be understood.
async fn of_queries(served: &Served) {
    let of_cancel = "/v1/catalog/hooks/{hook}/cancel";
    let cancel = format!("/v1/catalog/hooks/h/cancel?event={}", "0".repeat(32));
    served.check(Method::POST, (of_cancel, &cancel), None, 404).await;
    served.check(Method::POST, (of_cancel, &format!("{cancel}&even_if_unknown=true")), None, 200).await;
    let events = async |query: &str, status| {
        served.check(Method::GET, ("/v1/events", &format!("/v1/events{query}")), None, status).await
    };
    events("?id=1&source=%2Ftest", 200).await;
    events("?id=none&source=%2Ftest", 404).await;
    for query in ["", "?source=x", "?id=1&sourc=x"] {
        events(query, 400).await;
    }
    for query in ["?event=x", "", "?event", "?events=1"] {
        let cancel = format!("/v1/catalog/hooks/h/cancel{query}");
        served.check(Method::POST, (of_cancel, &cancel), None, 400).await;
    }
    served.check(Method::POST, (of_cancel, "/v1/catalog/hooks/%ff/cancel?event=x"), None, 400).await;
    for query in ["?x=1", "?deadline=1", "?deadline=5s&deadline=6s", "?deadline="] {
        let body = Some(("application/cloudevents+json", event("a.b", "1").to_vec()));
        served.check(Method::POST, ("/v1/gates", &format!("/v1/gates{query}")), body, 400).await;
    }
}

#[tokio::test]
async fn answers_are_as_described() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let more = ", once_per: { key: event.id, window: 1m }, labels: { a: b }, rate: 50/s";
    let hooks = hook(&sink, "h", "a.*", more)
        + "\n  - { id: c, on: c, run: { command: { argv: [true, x], env: { A: b } } }, paused: true }";
    let events = "events: { typed: { schema: { type: object }, validate: strict } }";
    let site = Site::embedded().hooks(&hooks).set("HOOKFLEET_COMMANDS_ALLOW", "true");
    let text = std::fs::read_to_string(site.hooks_file()).unwrap();
    std::fs::write(site.hooks_file(), format!("{text}{events}\n")).unwrap();
    let Stage { site, worker, .. } = stage(Place::File, site).await;
    let served = Served::new(worker).await;
    for path in ["/metrics", "/healthz", "/readyz", "/v1/status", "/v1/openapi.json", "/v1/catalog", LETTERS] {
        served.get(path).await;
    }

    of_events(&served).await;
    let letters = until_letters(&site, 3, "open").await;
    let id = letters[0].pointer("/letter/id").unwrap().as_str().unwrap();
    assert_eq!(served.get(LETTERS).await["items"].as_array().unwrap().len(), 3);
    served.get("/v1/status").await;
    let (of_letter, of_replay) = (format!("{LETTERS}/{{id}}"), format!("{LETTERS}/{{id}}/replay"));
    let letter = served.check(Method::GET, (&of_letter, &format!("{LETTERS}/{id}")), None, 200).await;
    assert!(letter["letter"].get("body").is_none(), "{letter}");
    let letter = served.check(Method::GET, (&of_letter, &format!("{LETTERS}/{id}?body=true")), None, 200).await;
    assert!(letter["letter"].get("body").is_some(), "{letter}");
    served.check(Method::GET, (&of_letter, &format!("{LETTERS}/none")), None, 404).await;
    sink.behave(|_, _| Answer::status(200));
    served.check(Method::POST, (&of_replay, &format!("{LETTERS}/{id}/replay")), None, 200).await;
    served.check(Method::POST, (&of_replay, &format!("{LETTERS}/none/replay")), None, 404).await;
    served.worker.until(&format!("{LETTERS}/{id}"), |letter| letter["state"] == "resolved").await;
    served.check(Method::POST, (&of_replay, &format!("{LETTERS}/{id}/replay")), None, 409).await;
    of_many_letters(&served, letters[1].pointer("/letter/id").unwrap().as_str().unwrap()).await;

    of_queries(&served).await;
    let yaml = ("application/yaml", b"version: 1\nhooks: []\n".to_vec());
    served.check(Method::POST, ("/v1/catalog", "/v1/catalog"), Some(yaml), 409).await;

    // Nothing is described that is not there.
    for (path, item) in served.document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let url = served.worker.url(&path.replace("{id}", "none").replace("{hook}", "h"));
            let answer = client().request(method.clone(), url).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert!(!text.contains("no process serves") && status != 405, "{method} {path}: {status} {text}");
        }
    }
    let printed: Value = serde_json::from_str(&site.ok(&["openapi"])).unwrap();
    assert_eq!(without_tokens(printed), served.document);
}

/// The document of a process that takes no tokens, but for what it says of them.
fn without_tokens(mut document: Value) -> Value {
    let about =
        document["info"]["description"].as_str().unwrap().split(" Where the settings").next().unwrap().to_owned();
    document["info"]["description"] =
        (about + " This process has no tokens and serves all of this on loopback only.").into();
    let components = document["components"].as_object_mut().unwrap();
    assert!(components.remove("securitySchemes").is_some() && components.remove("responses").is_some());
    for operation in document["paths"]
        .as_object_mut()
        .unwrap()
        .values_mut()
        .flat_map(|item| item.as_object_mut().unwrap().values_mut())
    {
        operation.as_object_mut().unwrap().remove("security");
        let answers = operation["responses"].as_object_mut().unwrap();
        answers.retain(|status, _| !matches!(status.as_str(), "401" | "403"));
    }
    document
}

/// What the document knows of a body that is refused for its form.
fn refuses(served: &Served, route: &str, content_type: &str, body: &[u8]) -> bool {
    let content = &served.document["paths"][route]["post"]["requestBody"]["content"][content_type];
    assert!(content["schema"].is_object(), "{route} {content_type}");
    let mut schema = json!({ "described": content["schema"], "components": served.document["components"] });
    schema["$ref"] = json!("#/described");
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    serde_json::from_slice(body).is_ok_and(|body: Value| !validator.is_valid(&body))
}

/// Two letters are open, of which one has this id.
async fn of_many_letters(served: &Served, id: &str) {
    let at = |route: &str| format!("{LETTERS}{route}");
    let get = async |route: &str, query: &str, status| {
        served.check(Method::GET, (&at(route), &format!("{}{query}", at(route))), None, status).await
    };
    let post = async |route: &str, path: &str, body: Value, status| {
        let body = Some(("application/json", body.to_string().into_bytes()));
        served.check(Method::POST, (&at(route), &at(path)), body, status).await
    };
    assert!(get("", "?limit=1&state=open", 200).await["next"].is_string());
    get("", "?limit=0", 400).await;
    get("/groups", "?hook=h", 200).await;
    get("/groups", "?hoo=h", 400).await;
    post("/replay", "/replay", json!({ "all": true, "dry_run": true }), 200).await;
    post("/replay", "/replay", json!({}), 400).await;
    post("/replay", "/replay", json!({ "ids": ["none"] }), 404).await;
    post("/replay", "/replay", json!({ "all": true, "to_hook": "nobody" }), 400).await;
    post("/{id}/replay", &format!("/{id}/replay"), json!({ "dry_run": true }), 400).await;
    post("/{id}/replay", &format!("/{id}/replay"), json!({ "force": true, "to_hook": "h" }), 400).await;
    let edited = format!("/{id}/edit");
    post("/{id}/edit", &edited, json!({ "data": {}, "patch": {} }), 400).await;
    post("/{id}/edit", &edited, json!({ "data": { "a": 1 }, "by": "me" }), 200).await;
    post("/{id}/edit", &edited, json!({ "data": { "a": 1 } }), 409).await;
    post("/{id}/edit", "/none/edit", json!({ "data": 1 }), 404).await;
    post("/{id}/resolve", &format!("/{id}/resolve"), json!({ "reason": "x" }), 200).await;
    post("/{id}/resolve", "/none/resolve", json!({ "reason": "x" }), 404).await;
    let job = post("/replay", "/replay", json!({ "all": true, "rate": 100.0 }), 202).await;
    let job = job["id"].as_str().unwrap();
    served.check(Method::GET, (&at("/jobs/{id}"), &at(&format!("/jobs/{job}"))), None, 200).await;
    served.check(Method::GET, (&at("/jobs/{id}"), &at("/jobs/none")), None, 404).await;
    post("/jobs/{id}/cancel", &format!("/jobs/{job}/cancel"), json!(null), 200).await;
    post("/resolve", "/resolve", json!({ "filter": { "hook": "h" }, "reason": "x" }), 200).await;
    post("/resolve", "/resolve", json!({ "ids": ["none"] }), 404).await;
}

#[tokio::test]
async fn answers_about_a_shared_catalog_are_as_described() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).with_gateway().set("HOOKFLEET_CATALOG_FROM", "redis");
    let sink = Sink::start().await;
    let served = Served::new(site.spawn(&[])).await;
    let path = ("/v1/catalog", "/v1/catalog");
    let text = format!("version: 1\nhooks:\n{}\n", hook(&sink, "h", "a", ", retry: { attempts: 3 }"));
    let yaml = |text: &str| Some(("application/yaml", text.as_bytes().to_vec()));
    assert_eq!(served.check(Method::POST, path, yaml(&text), 200).await["changed"], true);
    assert_eq!(served.check(Method::POST, path, yaml(&text), 200).await["changed"], false);
    let dry = ("/v1/catalog", "/v1/catalog?dry_run=true");
    assert_eq!(served.check(Method::POST, dry, yaml("version: 1\nhooks: []"), 200).await["applied"], Value::Null);
    let problems = served.check(Method::POST, path, yaml("version: 1\nhook: []"), 400).await;
    assert!(!problems["problems"].as_array().unwrap().is_empty(), "{problems}");
    served.check(Method::POST, path, Some(("text/plain", text.into())), 415).await;
    let stale = ("/v1/catalog", "/v1/catalog?expected_revision=7");
    served.check(Method::POST, stale, yaml("version: 1\nhooks: []"), 409).await;
    served.worker.until("/v1/status", |status| status["catalog"]["revision"] == "r1").await;
    served.get("/v1/status").await;
    served.get("/v1/catalog").await;
}

/// A route that is added past the document would be behind no role either.
#[test]
fn no_route_goes_past_the_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(root.join("http")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.chain([root.join("http.rs")]).filter(|path| path.is_file()).collect();
    assert!(files.len() > 8);
    // What no route takes, and what answers before there are any.
    let is_fallback = |path: &PathBuf| path.ends_with("unknown.rs") || path.ends_with("serving.rs");
    let (fallback, files): (Vec<_>, Vec<_>) = files.into_iter().partition(is_fallback);
    assert_eq!(fallback.len(), 2);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for way in [".route(", ".nest(", ".route_service(", ".fallback("] {
            assert!(!text.contains(way), "{} has {way}", file.display());
        }
    }
}
