//! What http hooks call: URLs, targets, headers, templates.

use super::conditions::check_warnings;
use super::*;
use crate::domain::hook::Compression;
use crate::domain::oauth::AuthStyle;
use crate::domain::template::Text;
use crate::domain::tls::Tls;

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
fn methods_and_signatures() {
    let text = r#"
version: 1
targets:
  chat: { url: "https://chat.example.com/", sign: { standard: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw } }
hooks:
  - { id: shared, on: a, run: { http: { target: chat, method: PUT } } }
  - id: own
    on: a
    run:
      http:
        target: chat
        sign:
          standard: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, "whsk_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="]
          hmac: { header: X-Hub-Signature-256, key: "${env:TOKEN}", prefix: sha256= }
"#;
    let set = read(text).unwrap();
    let action = |number: usize| match &set.hooks()[number].action {
        Action::Http(http) => http,
        _ => panic!("{set:?}"),
    };
    let names = |number: usize| action(number).signing.headers().collect::<Vec<_>>();
    assert_eq!(action(0).method.name(), "PUT");
    assert_eq!(names(0), ["webhook-id", "webhook-timestamp", "webhook-signature"]);
    assert_eq!(names(1), ["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256"]);
    let signed = action(1).signing.sign("k", 7, b"{}").unwrap();
    let value = |name: &str| signed.iter().find(|(found, _)| *found == name).unwrap().1.clone();
    assert_eq!(
        value("webhook-signature").split(' ').map(|one| one.split(',').next()).collect::<Vec<_>>(),
        [Some("v1"), Some("v1a")]
    );
    assert!(value("x-hub-signature-256").starts_with("sha256="));
    assert!(!format!("{:?}", set.hooks()).contains("hunter2"));
}

#[test]
fn wrong_methods_and_signatures() {
    let check = |sign: &str, expected: &[&str]| check_http(&format!("{{ url: 'http://a', sign: {sign} }}"), expected);
    check_http(
        "{ url: 'http://a', method: post }",
        &["5:45 hooks[0].run.http.method: expected `POST` or `PUT` or `PATCH` or `DELETE` or `GET`, found \"post\""],
    );
    check_http(
        "{ url: 'http://a', method: GET, body: x }",
        &["5:56 hooks[0].run.http.body: expected `body` with a method that sends one, found it beside `method: GET`"],
    );
    check("{}", &["5:43 hooks[0].run.http.sign: expected `standard` or `hmac`, found neither"]);
    check("hunter2", &["5:43 hooks[0].run.http.sign: expected a map, found another value"]);
    let key = "5:55 hooks[0].run.http.sign.standard:";
    check(
        "{ standard: hunter2 }",
        &[&format!("{key} expected a signing key that begins with `whsec_` or `whsk_`, found another beginning")],
    );
    check(
        "{ standard: whsec_hunter2 }",
        &[&format!("{key} expected base64 behind the prefix of the key, found another text")],
    );
    check(
        "{ hmac: { header: content length, kee: hunter2 } }",
        &[
            "5:51 hooks[0].run.http.sign.hmac: expected a field `key`, found none",
            "5:61 hooks[0].run.http.sign.hmac.header: expected the name of an HTTP header, found another text",
            "5:77 hooks[0].run.http.sign.hmac.kee: expected one of `header`, `prefix`, `encoding`, `algorithm`, `key`, \
             found `kee`",
        ],
    );
    check_http(
        "{ url: 'http://a', headers: { X-Sig: a }, sign: { hmac: { header: x-sig, key: hunter2 } } }",
        &[
            "5:66 hooks[0].run.http.sign: expected headers that are either signatures or the hook's own, found `x-sig` as both",
        ],
    );
}

#[test]
fn credentials() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let pem = |text: String| text.replace('\n', "\\n");
    let (cert, key) = (pem(cert.pem()), pem(signing_key.serialize_pem()));
    let text = format!(
        r#"
version: 1
targets:
  chat: {{ url: "https://chat.example.com/", auth: {{ bearer: "${{env:TOKEN}}" }}, tls: {{ ca: "{cert}" }} }}
hooks:
  - {{ id: shared, on: a, run: {{ http: {{ target: chat }} }} }}
  - id: own
    on: a
    run:
      http:
        target: chat
        auth: {{ basic: {{ user: Aladdin, password: open sesame }} }}
        tls: {{ cert: "{cert}", key: "{key}" }}
"#
    );
    let set = read(&text).unwrap();
    let action = |number: usize| match &set.hooks()[number].action {
        Action::Http(http) => http,
        _ => panic!("{set:?}"),
    };
    let authorization = |number: usize| {
        let all = action(number).headers.iter().filter(|(name, _)| name == "authorization");
        all.map(|(_, text)| text.prefix().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(authorization(0), ["Bearer hunter2"]);
    assert_eq!(authorization(1), ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="], "RFC 7617, 2");
    let own = |number: usize| match &action(number).tls {
        Tls::Own(credentials) => (credentials.ca.is_some(), credentials.identity.is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!((own(0), own(1)), ((true, false), (false, true)));
    let shown = format!("{:?}", set.hooks());
    for secret in ["hunter2", "QWxhZGRpbjpvcGVuIHNlc2FtZQ", "PRIVATE KEY"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn wrong_credentials() {
    let check = |more: &str, expected: &str| check_http(&format!("{{ url: 'http://a', {more} }}"), &[expected]);
    let at = "5:43 hooks[0].run.http.auth:";
    check("auth: {}", &format!("{at} expected one of `bearer`, `basic` and `oauth2`, found none"));
    check("auth: hunter2", &format!("{at} expected a map, found another value"));
    check(
        "auth: { bearer: a, basic: { user: b, password: c } }",
        &format!("{at} expected one of `bearer`, `basic` and `oauth2`, found several"),
    );
    check(
        "auth: { bearer: \"hunter\\n2\" }",
        "5:53 hooks[0].run.http.auth.bearer: expected a header value of printable ASCII, found one with another \
         character, such as a line break",
    );
    check(
        "auth: { basic: { user: 'a:b', password: hunter2 } }",
        "5:60 hooks[0].run.http.auth.basic.user: expected a user name without `:` and control characters, found one with \
         such",
    );
    check(
        "auth: { bearer: a }, headers: { Authorization: b }",
        &format!("{at} expected `auth` or the header `authorization`, found both"),
    );
    let at = "5:42 hooks[0].run.http.tls:";
    let expected = "expected `ca`, or `cert` and `key`, or all three, found";
    check("tls: {}", &format!("{at} {expected} none of them"));
    check("tls: { cert: a }", &format!("{at} {expected} `cert` without `key`"));
    check("tls: { ca: a, key: hunter2 }", &format!("{at} {expected} `key` without `cert`"));
    check("tls: { ca: hunter2 }", &format!("{at} expected certificates of authorities in PEM, found something else"));
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
            "5:45 hooks[0].run.http.format: expected `native` or `cloudevents` or `cloudevents-binary`, found \"cloudevent\"",
        ],
    );
}

#[test]
fn tokens_by_client_credentials() {
    let text = r#"
version: 1
targets:
  billing:
    url: "https://billing.example.com/"
    headers: { x-a: b }
    auth:
      oauth2:
        token_url: "https://login.example.com/${env:TOKEN}/token"
        client_id: me
        client_secret: "a${env:TOKEN}{{ b }}"
        scopes: [read, "write:${env:TOKEN}"]
        audience: events
        resource: https://billing.example.com/
        auth_style: body
hooks:
  - { id: shared, on: a, run: { http: { target: billing } } }
  - { id: own, on: a, run: { http: { target: billing, auth: { bearer: mine } } } }
  - { id: header, on: a, run: { http: { target: billing, headers: { Authorization: mine } } } }
  - { id: none, on: a, run: { http: { url: "https://a/" } } }
  - id: other
    on: a
    run: { http: { url: "https://a/", auth: { oauth2: { token_url: "https://b/", client_id: 1, client_secret: 2 } } } }
"#;
    let set = read(text).unwrap();
    let action = |number: usize| match &set.hooks()[number].action {
        Action::Http(http) => http,
        _ => panic!("{set:?}"),
    };
    let shared = action(0).oauth.as_deref().unwrap();
    let values: Vec<&str> = shared.texts().map(Text::prefix).collect();
    assert_eq!(
        values,
        [
            "https://login.example.com/hunter2/token",
            "me",
            "ahunter2{{ b }}",
            "read",
            "write:hunter2",
            "events",
            "https://billing.example.com/"
        ]
    );
    assert_eq!((shared.server().as_str(), shared.auth_style), ("https://login.example.com", AuthStyle::Body));
    assert_eq!(action(4).oauth.as_deref().map(|other| other.auth_style), Some(AuthStyle::Header));
    let authorization = |number: usize| {
        let header = action(number).headers.iter().find(|(name, _)| name == "authorization");
        (action(number).oauth.is_some(), header.map(|(_, text)| text.prefix()))
    };
    let found = [0, 1, 2, 3].map(authorization);
    assert_eq!(found, [(true, None), (false, Some("Bearer mine")), (false, Some("mine")), (false, None)]);
    assert!(!format!("{:?}", set.hooks()).contains("hunter2"));
    let said = "said ahunter2{{ b }} and bWU6YWh1bnRlcjIlN0IlN0IrYislN0QlN0Q=";
    let shown = crate::domain::redaction::redact(said, set.secrets());
    assert_eq!(shown, "said [REDACTED] and [REDACTED]");
}

#[test]
fn wrong_client_credentials() {
    let check = |oauth: &str, expected: &[&str]| {
        check_http(&format!("{{ url: 'http://a', auth: {{ oauth2: {oauth} }} }}"), expected);
    };
    let at = "5:53 hooks[0].run.http.auth.oauth2:";
    check("hunter2", &[&format!("{at} expected a map, found another value")]);
    check("[hunter2]", &[&format!("{at} expected a map, found a list")]);
    check(
        "{}",
        &[
            &format!("{at} expected a field `token_url`, found none"),
            &format!("{at} expected a field `client_id`, found none"),
            &format!("{at} expected a field `client_secret`, found none"),
        ],
    );
    let more = |more: &str| format!("{{ token_url: 'https://b/', client_id: c, client_secret: hunter2, {more} }}");
    let at = "5:118 hooks[0].run.http.auth.oauth2";
    check(
        &more("secret: hunter2"),
        &[&format!(
            "{at}.secret: expected one of `token_url`, `client_id`, `client_secret`, `scopes`, `audience`, `resource`, \
             `auth_style`, found `secret`"
        )],
    );
    check(&more("scopes: a b"), &["5:126 hooks[0].run.http.auth.oauth2.scopes: expected a list, found \"a b\""]);
    check(
        &more("scopes: [a b]"),
        &[
            "5:127 hooks[0].run.http.auth.oauth2.scopes[0]: expected one scope: printable ASCII without spaces, `\"` and \
           `\\`, found another text",
        ],
    );
    check(
        &more("auth_style: basic"),
        &["5:130 hooks[0].run.http.auth.oauth2.auth_style: expected `header` or `body`, found \"basic\""],
    );
    check(
        &more("resource: billing"),
        &[
            "5:128 hooks[0].run.http.auth.oauth2.resource: expected an absolute URI without a fragment, found something \
           else (relative URL without a base)",
        ],
    );
    check(
        &more("audience: '{{ event.type }}'"),
        &["5:128 hooks[0].run.http.auth.oauth2.audience: expected a text without templates, found one with a template"],
    );
    check_http(
        "{ url: 'http://a', auth: { bearer: a, oauth2: { client_secret: hunter2 } } }",
        &["5:43 hooks[0].run.http.auth: expected one of `bearer`, `basic` and `oauth2`, found several"],
    );
    check_http(
        "{ url: 'http://a', sign: { hmac: { header: authorization, key: k } }, auth: { oauth2: { token_url: 'https://b/', \
         client_id: c, client_secret: d } } }",
        &["5:43 hooks[0].run.http.sign: expected headers that are either signatures or the hook's own, found \
           `authorization` as both"],
    );
}

#[test]
fn wrong_token_urls() {
    let check = |url: &str, expected: &str| {
        let at = "5:66 hooks[0].run.http.auth.oauth2.token_url:";
        let oauth = format!("{{ token_url: '{url}', client_id: c, client_secret: d }}");
        check_http(&format!("{{ url: 'http://a', auth: {{ oauth2: {oauth} }} }}"), &[&format!("{at} {expected}")]);
    };
    check("ftp://b/hunter2", "expected an http or https URL with a host, found another scheme");
    check("https://b/#hunter2", "expected a URL without a fragment, found one behind `#`");
    check("https://b/{{ event.type }}", "expected a text without templates, found one with a template");
}

#[test]
fn token_urls_that_are_odd() {
    let hook = |url: &str| {
        let oauth = format!("{{ token_url: '{url}', client_id: c, client_secret: d }}");
        format!("  - {{ id: a, on: a, run: {{ http: {{ url: 'https://a', auth: {{ oauth2: {oauth} }} }} }} }}")
    };
    let at = "3:83 hooks[0].run.http.auth.oauth2.token_url: expected";
    check_warnings(&hook("https://b/"), &[]);
    check_warnings(&hook("http://localhost/"), &[]);
    check_warnings(&hook("http://b/"), &[&format!("{at} an https URL, as RFC 6749, 3.2 asks for, found http")]);
    let blocked = format!("{at} a target that this process may call, found a loopback address (127.0.0.0/8)");
    check_warnings(&hook("http://127.0.0.1/"), &[&blocked]);
}
