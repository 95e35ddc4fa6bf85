//! What http hooks call: URLs, targets, headers, templates.

use super::conditions::check_warnings;
use super::*;
use crate::domain::hook::Compression;

/// The problems of the http action of an otherwise good hook.
pub(super) fn check_http(http: &str, expected: &[&str]) {
    check(&format!("run: {{ http: {http} }}"), expected);
}

#[test]
fn unsafe_targets() {
    let warning =
        "3:34 hooks[0].run.http: expected a target that this process may call, found a loopback address (127.0.0.0/8)";
    check_warnings("  - { id: a, on: a, run: { http: { url: 'http://127.1/hunter2' } } }", &[warning]);
    check_warnings("  - { id: a, on: a, run: { http: { url: 'http://localhost/hunter2' } } }", &[]);
}

#[test]
fn header_names_that_receivers_drop() {
    let warning = |at: &str, path: &str, name: &str| {
        let found = format!("`{name}`, which nginx, gunicorn and others drop without a word");
        format!("3:{at} hooks[0].run.http.{path}: expected a header name without underscores, found {found}")
    };
    let check = |http: &str, expected: &str| {
        let hooks = format!("  - {{ id: a, on: a, run: {{ http: {{ url: 'https://a.example/', {http} }} }} }}");
        check_warnings(&hooks, &[expected]);
    };
    check("headers: { X_Token: hunter2, x-b: c }", &warning("74", "headers.X_Token", "x_token"));
    check(
        "sign: { hmac: { header: hub_signature, key: hunter2 } }",
        &warning("87", "sign.hmac.header", "hub_signature"),
    );
}

#[test]
fn targets_and_templates() {
    let text = r#"
version: 1
targets:
  chat: { url: "https://chat.example.com/${env:TOKEN}/", headers: { authorization: "Bearer ${env:TOKEN}", x-a: shared } }
hooks:
  - id: whole
    on: a.b
    run: { http: { target: chat } }
  - id: behind
    on: a.b
    run: { http: { target: chat, path: "/rooms/{{ event.data.room }}", headers: { X-A: own }, body: '{"text":"{{ event.subject }}"}' } }
  - id: written
    on: a.b
    run: { http: { url: "https://x.example.com:8443/{{ event.id }}", headers: { content-type: text/plain }, body: "{{ event.subject }}" } }
"#;
    let set = read(text).unwrap();
    let actions: Vec<_> = set
        .hooks()
        .iter()
        .map(|hook| {
            let Action::Http(http) = &hook.action else { panic!("{hook:?}") };
            http
        })
        .collect();
    let [whole, behind, _] = actions.as_slice() else { panic!("{set:?}") };
    assert_eq!(whole.url.expose().as_str(), "https://chat.example.com/hunter2/");
    assert_eq!(behind.url.expose().as_str(), "https://chat.example.com/hunter2/rooms/");
    let headers = |http: &HttpAction| {
        http.headers.iter().map(|(name, value)| format!("{name}: {}", value.prefix())).collect::<Vec<_>>()
    };
    assert_eq!(headers(whole), ["authorization: Bearer hunter2", "x-a: shared"]);
    assert_eq!(headers(behind), ["x-a: own", "authorization: Bearer hunter2"]);

    let body =
        r#"{"specversion":"1.0","id":"e/1","source":"/s","type":"a.b","subject":"say \"hi\"","data":{"room":"a b"}}"#;
    let message = Message { body: body.into(), ..Message::default() };
    let event = std::sync::Arc::new(Event::decode(&message, &event::Reading::default()).unwrap());
    let request = |number: usize| {
        let hook = &set.hooks()[number];
        let invocation = Invocation::first(std::sync::Arc::clone(&event), hook.id.clone(), "r".into());
        let request = Request::new(actions[number], hook, &invocation, "k").unwrap();
        let shown = Shown::new(actions[number], hook, &invocation, "k").unwrap();
        assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
        (request.url.to_string(), request.body.map(String::from), shown.url)
    };
    let url = |url: &str| url.to_owned();
    assert_eq!(request(0), (url("https://chat.example.com/hunter2/"), None, url("https://chat.example.com/[hidden]/")));
    assert_eq!(
        request(1),
        (
            url("https://chat.example.com/hunter2/rooms/a%20b"),
            Some(url(r#"{"text":"say \"hi\""}"#)),
            url("https://chat.example.com/[hidden]/rooms/a%20b"),
        )
    );
    assert_eq!(
        request(2),
        (url("https://x.example.com:8443/e%2F1"), Some(url(r#"say "hi""#)), url("https://x.example.com:8443/e%2F1"),)
    );
}

#[test]
fn wrong_targets_and_templates() {
    check_http(
        "{ url: 'https://{{ event.data.host }}/' }",
        &[
            "5:25 hooks[0].run.http.url: expected scheme, host and port written out, before the first `{{`, found a template among them",
        ],
    );
    check_http(
        "{ url: 'https://a{{ event.data.host }}/' }",
        &[
            "5:25 hooks[0].run.http.url: expected scheme, host and port written out, before the first `{{`, found a template among them",
        ],
    );
    check_http(
        "{ url: 'https://a/{{ evnt.id }}', headers: { a: '{{ x }}' }, body: '{% set x = 1 %}' }",
        &[
            "5:25 hooks[0].run.http.url: expected names that exist: `event`, `hook`, `key`, `attempt`, found `evnt`",
            "5:66 hooks[0].run.http.headers.a: expected names that exist: `event`, `hook`, `key`, `attempt`, found `x`",
            "5:85 hooks[0].run.http.body: expected statements that exist (if, elif, else, endif, for, endfor), found `set`",
        ],
    );
    check_http(
        "{ target: chat }",
        &["5:28 hooks[0].run.http.target: expected the name of one of the `targets`, found \"chat\""],
    );
    check_http(
        "{ url: 'https://a/', path: /x }",
        &["5:45 hooks[0].run.http.path: expected `path` with `target` only, found it beside `url`"],
    );
    check_file(
        "version: 1\ntargets: { chat: { url: 'ftp://hunter2' } }\nhooks: [{ id: a, on: a, run: { http: { target: chat } } }]",
        &["2:25 targets.chat.url: expected an http or https URL with a host, found another scheme"],
    );
    check_file(
        "version: 1\ntargets: { chat: { url: 'http://a' } }\nhooks: [{ id: a, on: a, run: { http: { target: chat, path: x } } }]",
        &[
            "3:60 hooks[0].run.http.path: expected what comes behind the URL of the target, from `/` or `?` on, found another beginning",
        ],
    );
    let unused = "version: 1\ntargets: { chat: { url: 'http://a' } }";
    let warnings = parse(unused, "hooks.yaml", &TERMS).unwrap().warnings;
    assert_eq!(
        warnings.iter().map(|warning| format!("{warning:#}")).collect::<Vec<_>>(),
        ["2:18 targets.chat: expected targets that hooks use, found `chat`, which none uses",]
    );
}

#[test]
fn urls() {
    let url = "5:25 hooks[0].run.http.url: expected an http or https URL with a host, found";
    check_http("{ url: hooks.example.com }", &[&format!("{url} something else (relative URL without a base)")]);
    check_http("{ url: 'http://' }", &[&format!("{url} something else (empty host)")]);
    check_http("{ url: 'ftp://hunter2' }", &[&format!("{url} another scheme")]);
    check_http("{ url: [hunter2] }", &[&format!("{url} a list")]);
    check_http("{ headers: {} }", &["5:18 hooks[0].run.http: expected either `url` or `target`, found neither"]);
    for url in ["'https://a:hunter2@b/'", "'https://hunter2@b/'", "'${env:USER_URL}'"] {
        let expected = "5:25 hooks[0].run.http.url: expected a URL without user and password, found some";
        check_http(&format!("{{ url: {url} }}"), &[expected]);
    }
}

#[test]
fn headers() {
    let check =
        |headers: &str, expected: &[&str]| check_http(&format!("{{ url: 'http://a', headers: {headers} }}"), expected);
    let value = "expected a header value of printable ASCII, found one with another character, such as a line break";
    check(
        "{ a b: hunter2, Idempotency-Key: hunter2, x-a: 1, X-A: 2 }",
        &[
            "5:48 hooks[0].run.http.headers.a b: expected the name of an HTTP header, found \"a b\"",
            "5:62 hooks[0].run.http.headers.Idempotency-Key: expected a header that a hook may set, found \
             \"Idempotency-Key\"",
            "5:96 hooks[0].run.http.headers.X-A: expected each header once, in any case of its letters, found \"X-A\"",
        ],
    );
    check("{ x: '${env:BROKEN}' }", &[&format!("5:51 hooks[0].run.http.headers.x: {value}")]);
    check("{ x: \"hunter2\\n\" }", &[&format!("5:51 hooks[0].run.http.headers.x: {value}")]);
    check("hunter2", &["5:46 hooks[0].run.http.headers: expected a map, found another value"]);
    check("{ x: { y: hunter2 } }", &["5:51 hooks[0].run.http.headers.x: expected a text, found a map"]);
    check("{ x: }", &["5:49 hooks[0].run.http.headers.x: expected a text, found nothing"]);
}

#[test]
fn a_misplaced_url_is_not_shown() {
    check("run: https://hunter2/", &["5:10 hooks[0].run: expected a map, found another value"]);
    check("run: { http: https://hunter2/ }", &["5:18 hooks[0].run.http: expected a map, found another value"]);
    check("run: { command: curl hunter2 }", &["5:21 hooks[0].run.command: expected a map, found another value"]);
}

#[test]
fn compression() {
    let text = "
version: 1
targets: { large: { url: 'http://a', compress: gzip }, small: { url: 'http://b' } }
hooks:
  - { id: theirs, on: a, run: { http: { target: large } } }
  - { id: not-theirs, on: a, run: { http: { target: large, compress: none } } }
  - { id: own, on: a, run: { http: { target: small, compress: gzip } } }
  - { id: none, on: a, run: { http: { target: small } } }
";
    let set = read(text).unwrap();
    let found = set.hooks().iter().map(|hook| match &hook.action {
        Action::Http(http) => http.compression,
        _ => panic!("{set:?}"),
    });
    let (none, gzip) = (Compression::None, Compression::Gzip);
    assert_eq!(found.collect::<Vec<_>>(), [gzip, none, gzip, none]);
    let at = "5:47 hooks[0].run.http.compress: expected";
    check_http("{ url: 'http://a', compress: br }", &[&format!("{at} `none` or `gzip`, found \"br\"")]);
    check_http(
        "{ url: 'http://a', compress: gzip, headers: { Content-Encoding: br } }",
        &[&format!("{at} `compress` or the header `content-encoding`, found both")],
    );
}

#[test]
fn formats_of_cloudevents() {
    let hooks = r#"version: 1
targets:
  hub: { url: "https://hub.example.com/", format: cloudevents }
hooks:
  - { id: a, on: x, run: { http: { url: "https://a.example.com/" } } }
  - { id: b, on: x, run: { http: { url: "https://a.example.com/", format: cloudevents-binary } } }
  - { id: c, on: x, run: { http: { target: hub } } }
  - { id: d, on: x, run: { http: { target: hub, format: native } } }
  - { id: e, on: x, run: { http: { target: hub, body: "{}" } } }
  - { id: f, on: x, run: { http: { target: hub, method: GET } } }
"#;
    let set = read(hooks).unwrap();
    let formats = set.hooks().iter().map(|hook| {
        let Action::Http(http) = &hook.action else { panic!("{hook:?}") };
        http.format.name()
    });
    let expected = ["native", "cloudevents-binary", "cloudevents", "native", "native", "native"];
    assert_eq!(formats.collect::<Vec<_>>(), expected);
    let check = |more: &str, found: &str| {
        let place = "5:45 hooks[0].run.http.format: expected";
        check_http(&format!("{{ url: 'http://a', format: cloudevents, {more} }}"), &[&format!("{place} {found}")]);
    };
    check("body: x", "either `body` or a `format` of CloudEvents, found both");
    check("method: GET", "a `format` of CloudEvents with a method that sends a body, found it beside `method: GET`");
    let headers = "a `format` of CloudEvents, which sets the headers of the event, found the header";
    check("headers: { Content-Type: a/b }", &format!("{headers} `content-type` beside it"));
    check("headers: { CE-Id: a }", &format!("{headers} `ce-id` beside it"));
    check_http(
        "{ url: 'http://a', format: cloudevent }",
        &[
            "5:45 hooks[0].run.http.format: expected `native` or `cloudevents` or `cloudevents-binary` or `envelope`, found \"cloudevent\"",
        ],
    );
}
