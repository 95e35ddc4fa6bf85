//! How http hooks show who calls: signatures, credentials, tokens of an authorization server.

use super::conditions::check_warnings;
use super::http::check_http;
use super::*;
use crate::domain::oauth::AuthStyle;
use crate::domain::template::Text;
use crate::domain::tls::Tls;

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
