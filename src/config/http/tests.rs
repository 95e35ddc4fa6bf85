use super::super::tests::{check, check_file, read};
use super::ServerCertificate;

#[test]
fn the_address_is_loopback_unless_told_otherwise() {
    for bind in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8733"] {
        assert!(read("", &[("HOOKFLEET_HTTP_BIND", bind)], &[]).is_ok(), "{bind}");
    }
    let problem =
        "HOOKFLEET_HTTP_BIND http.bind: expected a loopback address such as 127.0.0.1:8733, found \"0.0.0.0:1\"";
    check("", &[("HOOKFLEET_HTTP_BIND", "0.0.0.0:1")], &[], &[problem]);
    for tokens in ["http: { tokens: ['read:0123456789abcdef'] }", "http: { tokens_file: t }", "http: { expose: true }"]
    {
        assert!(read(tokens, &[("HOOKFLEET_HTTP_BIND", "0.0.0.0:1")], &[]).is_ok(), "{tokens}");
    }
    check_file(
        "http: { bind: localhost }",
        &["1:15 http.bind: expected an address and port such as 127.0.0.1:8733, found \"localhost\""],
    );
}

#[test]
fn tokens() {
    let text = "http:\n  tokens: [read:hunter2-hunter2-1, \"operate:hunter2-hunter2+/=\"]\n";
    let settings = read(text, &[("HOOKFLEET_HTTP_TOKENS_FILE", "/run/secrets/tokens")], &[]).unwrap();
    assert_eq!((settings.http.tokens.len(), settings.http.has_tokens()), (2, true));
    for shown in [settings.shown(), format!("{settings:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(settings.shown().contains("  tokens: [read:***, operate:***] "), "{}", settings.shown());
    let settings = read("", &[("HOOKFLEET_HTTP_TOKENS", "read:hunter2-hunter2-1, publish:hunter2-hunter2-2")], &[]);
    assert_eq!(settings.unwrap().http.tokens.len(), 2);

    check_file(
        "http: { tokens: [read:hunter2, 'admin:hunter2-hunter2-1', 'hunter2-hunter2-1', 'read:hunter2 hunter2 ..'] }",
        &[
            "1:18 http.tokens[0]: expected a token of 16 to 1024 characters behind the colon, found one of 7",
            "1:32 http.tokens[1]: expected a role (read, publish, decide or operate), a colon and a token, found something else",
            "1:59 http.tokens[2]: expected a role (read, publish, decide or operate), a colon and a token, found something else",
            "1:80 http.tokens[3]: expected a token of letters, digits and -._~+/ as a header can carry it, with = at its \
             end only, found other characters",
        ],
    );
    let short =
        "HOOKFLEET_HTTP_TOKENS http.tokens: expected a token of 16 to 1024 characters behind the colon, found one of 7";
    check("", &[("HOOKFLEET_HTTP_TOKENS", "read:hunter2")], &[], &[short]);
}

#[test]
fn tls_takes_both_files() {
    let settings = read("http: { tls_cert: c.pem, tls_key: k.pem }", &[], &[]).unwrap();
    let expected = ServerCertificate { chain: "c.pem".into(), key: "k.pem".into() };
    assert_eq!(settings.http.certificate, Some(expected));
    assert_eq!(read("", &[("HOOKFLEET_HTTP_TLS_CERT", "")], &[]).unwrap().http.certificate, None);
    check_file(
        "http: { tls_cert: c.pem }",
        &["1:19 http.tls_cert: expected `http.tls_key` to be set too, found it unset"],
    );
    check_file(
        "http: { tls_key: k.pem }",
        &["1:18 http.tls_key: expected `http.tls_cert` to be set too, found it unset"],
    );
}
