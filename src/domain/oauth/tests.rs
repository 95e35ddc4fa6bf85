use oauth2::http::Response;

use super::*;
use crate::domain::template::Form;

fn text(text: &str) -> Text {
    Text::new(vec![Piece::Hidden(Secret::new(text.to_owned()))], Form::Plain).unwrap()
}

fn literal(text: &str) -> Text {
    Text::new(vec![Piece::Literal(text.to_owned())], Form::Plain).unwrap()
}

/// A client whose secret begins with `hunter2`.
fn credentials() -> ClientCredentials {
    let url = "https://login.example.com/oauth2/token";
    ClientCredentials {
        url: Secret::new(url.parse().unwrap()),
        text: literal(url),
        client_id: literal("me"),
        client_secret: text("hunter2+/ :%é"),
        scopes: Vec::new(),
        audience: None,
        resource: None,
        auth_style: AuthStyle::Header,
    }
}

#[test]
fn requests() {
    let check = |credentials: &ClientCredentials, authorization: Option<&str>, body: &str| {
        let request = credentials.request().unwrap();
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(
            (request.method().as_str(), request.uri().to_string()),
            ("POST", credentials.text.prefix().to_owned())
        );
        assert_eq!(header("content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(header("accept"), Some("application/json"));
        assert_eq!(header("authorization"), authorization);
        assert_eq!(std::str::from_utf8(request.body()), Ok(body));
    };
    // id and secret are form-encoded before they become HTTP Basic: me:hunter2%2B%2F+%3A%25%C3%A9
    let basic = "Basic bWU6aHVudGVyMiUyQiUyRislM0ElMjUlQzMlQTk=";
    check(&credentials(), Some(basic), "grant_type=client_credentials");
    assert_eq!(credentials().secrets()[1], basic.strip_prefix("Basic ").unwrap());
    let all = ClientCredentials {
        scopes: vec![literal("read"), literal("write:all")],
        audience: Some(literal("the events")),
        resource: Some(literal("https://billing.example.com/")),
        ..credentials()
    };
    let more = "audience=the+events&resource=https%3A%2F%2Fbilling.example.com%2F";
    check(&all, Some(basic), &format!("grant_type=client_credentials&scope=read+write%3Aall&{more}"));
    let secret = "client_id=me&client_secret=hunter2%2B%2F+%3A%25%C3%A9";
    let body = format!("grant_type=client_credentials&scope=read+write%3Aall&{secret}&{more}");
    check(&ClientCredentials { auth_style: AuthStyle::Body, ..all }, None, &body);
}

fn answer(status: u16, content_type: &str, body: &str) -> HttpResponse {
    let answer = Response::builder().status(status).header("content-type", content_type);
    answer.body(body.as_bytes().to_vec()).unwrap()
}

#[test]
fn tokens() {
    let check = |status, body: &str, expires_in: Option<u64>| {
        let token = credentials().read(answer(status, "application/json;charset=UTF-8", body));
        assert_eq!(token, Ok(Token { secret: Secret::new("abc.d-e_f~+/=".to_owned()), expires_in }), "{body}");
    };
    check(200, r#"{"access_token":"abc.d-e_f~+/=","token_type":"Bearer","expires_in":3600}"#, Some(3600));
    check(
        200,
        r#"{"token_type":"bearer","expires_in":"3599","access_token":"abc.d-e_f~+/=","scope":["a"]}"#,
        Some(3599),
    );
    check(201, r#"{"access_token":"abc.d-e_f~+/=","token_type":"BEARER","expires_in":null,"x":{}}"#, None);
    check(200, r#"{"access_token":"abc.d-e_f~+/=","token_type":"Bearer","refresh_token":"r"}"#, None);
}

#[test]
fn what_is_no_token() {
    let check = |status, content_type: &str, body: &str, expected: &str| {
        let error = credentials().read(answer(status, content_type, body)).unwrap_err();
        assert_eq!(error, expected, "{status} {body}");
    };
    let no_token = "which is no token as RFC 6749, 5.1 has it: check `token_url`";
    let good = |body: &str, expected: &str| check(200, "application/json", body, expected);
    good(r#""hunter3""#, &format!("its answer is not a JSON object, {no_token}"));
    good("access_token=hunter3", &format!("its answer is not JSON, {no_token}"));
    good(r#"{"access_token":"hunter3"}"#, &format!("its answer has no `token_type`, {no_token}"));
    good(r#"{"token":"hunter3","token_type":"Bearer"}"#, &format!("its answer has no `access_token`, {no_token}"));
    good(
        r#"{"access_token":"hunter3","token_type":"Bearer","expires_in":"hunter4"}"#,
        &format!("`expires_in` of its answer is not what it should be, {no_token}"),
    );
    good(
        r#"{"access_token":["hunter3"],"token_type":"Bearer"}"#,
        &format!("`access_token` of its answer is not what it should be, {no_token}"),
    );
    good(
        r#"{"access_token":"hunter3","token_type":"MAC"}"#,
        "its token is of the type `mac`, and only `Bearer` can be sent: ask for that there",
    );
    for token in ["", "hunter\\n3", "hünter3", "hunter 3"] {
        good(
            &format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#),
            "its `access_token` is empty or has characters that a header cannot have",
        );
    }
    good("", &format!("server returned empty response body, {no_token}"));
    check(
        200,
        "text/html",
        "<p>hunter3",
        &format!("unexpected response Content-Type: \"text/html\", should be `application/json`, {no_token}"),
    );
}

#[test]
fn refusals() {
    let check = |status, body: &str, expected: &str| {
        for content_type in ["application/json", "text/html"] {
            let error = credentials().read(answer(status, content_type, body)).unwrap_err();
            assert_eq!(error, expected, "{status} {body}");
        }
    };
    check(
        401,
        r#"{"error":"invalid_client","error_description":"no client me with hunter2+/ :%é"}"#,
        "401 Unauthorized: invalid_client: no client me with [REDACTED]: check `client_id` and `client_secret`, and whether \
         the server wants them by `auth_style: body`",
    );
    check(400, r#"{"error":"invalid_scope"}"#, "400 Bad Request: invalid_scope: check `scopes`");
    check(400, r#"{"error":"invalid_target"}"#, "400 Bad Request: invalid_target: check `resource` and `audience`");
    check(
        400,
        r#"{"error":"unauthorized_client","error_description":null}"#,
        "400 Bad Request: unauthorized_client: allow this client the grant `client_credentials` at the server",
    );
    check(400, r#"{"error":"odd"}"#, "400 Bad Request: odd: check what `oauth2` of the hook says");
    check(404, "no page", "404 Not Found: no page: check `token_url`");
    check(302, "", "302 Found (redirects are not followed): check `token_url`");
    check(403, "<b>no", "403 Forbidden: <b>no: check `client_id`, `client_secret` and `auth_style`");
    check(503, "later", "503 Service Unavailable: later: it is asked again with the next attempt");
    let long = format!(r#"{{"error":"e","error_description":"{}"}}"#, "x".repeat(1_000));
    let said = format!("e: {}…", "x".repeat(197));
    check(400, &long, &format!("400 Bad Request: {said}: check what `oauth2` of the hook says"));
}

#[test]
fn who_gets_the_same_token() {
    let one = credentials();
    assert_eq!(one.digest(), credentials().digest());
    let others = [
        ClientCredentials { client_secret: text("other"), ..credentials() },
        ClientCredentials { client_id: literal("you"), ..credentials() },
        ClientCredentials { url: Secret::new("https://login.example.com/".parse().unwrap()), ..credentials() },
        ClientCredentials { scopes: vec![literal("a"), literal("b")], ..credentials() },
        ClientCredentials { scopes: vec![literal("ab")], ..credentials() },
        ClientCredentials { audience: Some(literal("ab")), ..credentials() },
        ClientCredentials { resource: Some(literal("ab")), ..credentials() },
        ClientCredentials { auth_style: AuthStyle::Body, ..credentials() },
    ];
    let digests: std::collections::HashSet<_> = others.iter().chain([&one]).map(ClientCredentials::digest).collect();
    assert_eq!(digests.len(), others.len() + 1);
    assert!(!format!("{one:?}").contains("hunter2"));
}
