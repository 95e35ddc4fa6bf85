use proptest::prelude::*;
use serde_json::json;

use super::*;

fn secrets(values: &[&str]) -> Secrets {
    Secrets::new(values.iter().map(ToString::to_string))
}

#[test]
fn what_looks_like_a_secret() {
    let check = |text: &str, expected: &str| {
        assert_eq!(redact_unknown(text), expected, "{text}");
        assert_eq!(redact_unknown(expected), expected, "once more");
    };
    check("404 Not Found: no such customer", "404 Not Found: no such customer");
    check("token=abc done", "token=[REDACTED] done");
    check("x api_key:abc,y api-key:abc", "x api_key=[REDACTED] api-key=[REDACTED]");
    check("MY_SECRET_2=abc&x=1 auth=abc author=me", "MY_SECRET_2=[REDACTED] auth=[REDACTED] author=me");
    check("a=1&password=abc", "a=1&password=[REDACTED]");
    check("password: abc next", "password=[REDACTED] next");
    check("password = abc next", "password = abc next");
    check(r#"{"access_token":"abc","a":1}"#, r#"{"access_token=[REDACTED]"#);
    check(r#"{"client_secret": "abc", "a": 1}"#, r#"{"client_secret=[REDACTED] "a": 1}"#);
    check("got Authorization: Bearer abc.def== why", "got Authorization=[REDACTED] why");
    check("Authorization: Basic dXNlcjpwYXNz\r\nnext line", "Authorization=[REDACTED] next line");
    check("authorization:Bearer abc", "authorization=[REDACTED]");
    check("Proxy-Authorization=abc", "Proxy-Authorization=[REDACTED]");
    check("sent Bearer abc and more", "sent Bearer [REDACTED] and more");
    check("Set-Cookie: a=b; c=d\nnext: fine", "Set-Cookie=[REDACTED] next: fine");
    check("cookie: a=b; c=d", "cookie=[REDACTED]");
    check("at https://u:p@x.example:8080/a/b?c=d#e now", "at https://x.example:8080 now");
    check("<a href=\"https://x.example/way\">here</a>", "<a href=\"https://x.example\">here</a>");
    check("amqp://guest:guest@mq/%2f, redis://:p@r", "amqp://mq redis://r");
    check("the hook's header `authorization`: bad", "the hook's header `authorization`: bad");
    check("  two\tlines\n\u{1b}[31mred\u{202e} ", "two lines [31mred");
}

#[test]
fn what_is_known_to_be_one() {
    let check = |text: &str, known: &[&str], expected: &str| {
        assert_eq!(redact(text, &secrets(known)), expected, "{text} {known:?}");
    };
    check("using s3cret-s3 and s3cret", &["s3cret", "s3cret-s3", "", "abc"], "using [REDACTED] and [REDACTED]");
    check("a%2Fb%26c a/b&c", &["a/b&c"], "[REDACTED] [REDACTED]");
    check(r#"said \"a\\b\"#, &["\"a\\b"], r"said [REDACTED]\");
    check("s3\u{200b}cret split", &["s3cret"], "[REDACTED] split");
    check("it ends in s3cr", &["s3cret"], "it ends in [REDACTED]");
    check("s3", &["s3cret"], "s3"); // so little may be anything
    check("", &["s3cret"], "");
    check("BEGIN\n  first-line-of-it\n", &["first-line-of-it\nsecond-line-of-it\n"], "BEGIN [REDACTED]");
    check("two words of it", &["two words"], "[REDACTED] of it");
    check("two\nwords of it", &["two words"], "[REDACTED] of it");
    check("REDA [REDACTED]", &["REDA"], "REDA [REDACTED]"); // the mark stays a mark
    assert_eq!(redact(&"ä".repeat(5000), &secrets(&["s3cret"])).chars().count(), ERROR_CHARS_MAX);
}

/// Case D5: what real stacks make of a secret when they say it back, in one another too.
#[test]
fn d5_other_spellings() {
    const SECRET: &str = "kä/y+s3&cr=e t\"<1>";
    let check = |spelled: &str| {
        for (text, expected) in [
            (format!("said {spelled}"), "said [REDACTED]".to_owned()),
            (format!("said {spelled}, again {spelled}!"), "said [REDACTED], again [REDACTED]!".to_owned()),
        ] {
            assert_eq!(redact(&text, &secrets(&[SECRET])), expected, "{text}");
        }
    };
    check(r#"k\u00e4\/y+s3&cr=e t\"<1>"#); // PHP
    check(r#"kä/y+s3\u0026cr=e t\"\u003c1\u003e"#); // Go
    check(r"k\u00E4/y\u002Bs3\u0026cr=e t\u0022\u003C1\u003E"); // .NET
    check(r#"k\xe4/y+s3&cr=e t"<1>"#); // Python, repr
    check(r#"k\xc3\xa4/y+s3&cr=e t"<1>"#); // Python, bytes
    check(r#"k\303\244/y+s3&cr=e t"<1>"#); // octal
    check(r#"k\u{e4}/y+s3&cr=e t"<1>"#); // JavaScript, Ruby
    check("k&auml;/y+s3&amp;cr=e t&quot;&lt;1&gt;"); // PHP, htmlentities
    check("kä/y+s3&amp;cr=e t&#34;&lt;1&gt;"); // Go, html
    check("k&#xE4;&#x2F;y&#43;s3&#38;cr&#x3D;e t&#x22;&#x3c;1&#62;");
    check("k%C3%A4%2Fy%2Bs3%26cr%3De%20t%22%3C1%3E"); // encodeURIComponent
    check("k%c3%a4%2fy%2bs3%26cr%3de+t%22%3c1%3e"); // lower case, Python's and .NET's forms
    check("k%E4/y+s3%26cr%3De%20t%22%3C1%3E"); // escape
    check("k%u00E4/y+s3%26cr%3De%20t%22%3C1%3E");
    let json = |text: &str| Value::from(text).to_string();
    let within = redact(&format!("said {}", json(&json(SECRET))), &secrets(&[SECRET])); // JSON in JSON
    assert_eq!(within, r#"said "\"[REDACTED]\"""#);
    check(&json(r#"k\u00e4\/y+s3\u0026cr=e t\"<1>"#).trim_matches('"').replace('/', "\\/"));
    check("k%25C3%25A4%252Fy%252Bs3%2526cr%253De%2520t%2522%253C1%253E"); // twice
    check("k&amp;auml;/y+s3&amp;amp;cr=e t&amp;quot;&amp;lt;1&amp;gt;");
}

/// Encoded words are hidden whole, with what else is in them.
#[test]
fn d5_encoded_secrets() {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    const SECRET: &str = "s3cret~~ÿ>?";
    let check = |encoded: &str| {
        let shown = redact(&format!("said {encoded} to us"), &secrets(&[SECRET]));
        assert!(!shown.contains(&encoded[..8]) && shown.starts_with("said [REDACTED]"), "{encoded}: {shown}");
        assert!(shown.ends_with("to us"), "{encoded}: {shown}");
    };
    for before in ["", "u", "us", "user:"] {
        let text = format!("{before}{SECRET}");
        check(STANDARD.encode(&text).trim_end_matches('='));
        check(&STANDARD_NO_PAD.encode(format!("{text}, and more")));
        check(&URL_SAFE_NO_PAD.encode(&text));
        check(&STANDARD_NO_PAD.encode(json!({ "password": text }).to_string()));
        check(&STANDARD_NO_PAD.encode(STANDARD.encode(&text)));
        check(&hex::encode(&text));
        check(&hex::encode_upper(&text));
        let encoded = STANDARD.encode(format!("{text}, and more, which takes another line in a message"));
        let lines: Vec<&str> = encoded.as_bytes().chunks(20).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let shown = redact(&format!("said {}", lines.join("\r\n")), &secrets(&[SECRET]));
        assert!(!shown.contains(lines[0]) && !shown.contains(lines[1]), "{shown}");
    }
    let utf16: Vec<u8> = "s3cret".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let shown = redact(&format!("-EncodedCommand {}", STANDARD.encode(utf16)), &secrets(&["s3cret"]));
    assert!(shown.starts_with("-EncodedCommand [REDACTED]"), "{shown}");
}

/// Cut off in the middle of a spelling, as texts are that were too long.
#[test]
fn d5_cut_off() {
    let check = |text: &str, expected: &str| assert_eq!(redact(text, &secrets(&["ab/cd&ef-gh"])), expected, "{text}");
    check(r"said ab\/cd\u00", "said [REDACTED]");
    check("said ab%2Fcd%2", "said [REDACTED]");
    check("said ab&#47;cd&am", "said [REDACTED]");
    check("said ab&#47;", "said ab&#47;"); // so little may be anything
    check("AT&T said \\ 50% and a%zz &nothing; \\u12 %u12", "AT&T said \\ 50% and a%zz &nothing; \\u12 %u12");
}

fn in_ascii(json: &str) -> String {
    json.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }).collect()
}

proptest! {
    /// Layers of spellings, in any order.
    #[test]
    fn d5_layers_never_save_a_secret(
        secret in "[a-zA-Z0-9+/=&\"\\\\ äß{}:_.<>-]{6,40}",
        layers in proptest::collection::vec(0..5_u8, 0..4),
    ) {
        let secret = secret.trim();
        prop_assume!(secret.len() >= 6 && !REDACTED.contains(secret) && spelling::sought(secret).len() >= 4);
        let mut text = secret.to_owned();
        for layer in layers {
            text = match layer {
                0 => Value::from(text).to_string(),
                1 => url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20"),
                2 => text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;"),
                3 => in_ascii(&Value::from(text).to_string()),
                _ => text.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02x}")),
            };
        }
        let shown = redact(&format!("it said: {text}."), &secrets(&[secret]));
        prop_assert!(shown.contains(REDACTED), "{text:?} is shown as {shown:?}");
    }

    /// Nothing breaks it, and nothing takes long.
    #[test]
    fn d5_any_text(text in "(\\\\|%|&|u|#|x|;|[0-9a-fA-F]|d83d|amp|\\PC){0,200}") {
        let shown = redact(&text, &secrets(&["s3cret-s3cret"]));
        prop_assert!(!shown.contains("s3cret-s3cret"));
    }
}

proptest! {
    /// Wherever it is planted, in whichever form, and wherever the text is cut.
    #[test]
    fn a_planted_secret_never_survives(
        secret in "[a-zA-Z0-9+/=&\"\\\\ äß{}:_.-]{4,40}",
        before in ".{0,60}",
        after in ".{0,60}",
        form in 0..4,
        cut in 0..200usize,
    ) {
        prop_assume!(!REDACTED.contains(secret.trim()) && secret.trim().len() >= 4);
        let planted = match form {
            0 => secret.clone(),
            1 => url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            2 => Value::from(secret.as_str()).to_string(),
            _ => secret.chars().flat_map(|c| [c, '\u{200b}']).collect(),
        };
        prop_assume!(![&before, &after].iter().any(|text| text.contains(secret.trim())));
        let text: String = format!("{before}{planted}{after}").chars().take(before.chars().count() + cut).collect();
        let shown = redact(&text, &secrets(&[&secret]));
        prop_assert!(!shown.contains(secret.trim()), "{text:?} is shown as {shown:?}");
        prop_assert!(shown.chars().count() <= ERROR_CHARS_MAX);
        prop_assert!(!shown.contains(char::is_control));
    }

    /// Nobody knows it to be one, and it stands behind a name.
    #[test]
    fn a_value_behind_its_name_never_survives(
        secret in "[a-zA-Z0-9]{12,40}",
        name in "(x[_-])?(token|secret|api[_-]key|apikey|password|authorization)([_-][a-z]{1,4})?|auth|AUTH|Token",
        sign in "=|:|: |:Bearer |: Basic |\": \"|\":\"",
        before in "[a-z ,.{(&]{0,20}",
        after in "[ \",})][a-z ,.}]{0,20}",
    ) {
        let text = format!("{before} {name}{sign}{secret}{after}");
        let shown = redact_unknown(&text);
        prop_assert!(!shown.contains(&secret), "{text:?} is shown as {shown:?}");
    }

    /// Of a URL.
    #[test]
    fn ways_and_users_never_survive(
        user in "[a-z0-9]{8,12}", password in "[A-Z0-9]{8,12}", way in "[a-z]{8,12}", query in "[0-9]{8,12}",
    ) {
        let shown = redact_unknown(&format!("at (https://{user}:{password}@x.example/a/{way}?q={query}#{way}), again"));
        for hidden in [user, password, way, query] {
            prop_assert!(!shown.contains(&hidden), "{shown}");
        }
        prop_assert!(shown.contains("https://x.example"));
    }
}

#[test]
fn data() {
    let check = |data: Value, pointers: &[&str], expected: Value| {
        let pointers: Vec<Pointer> = pointers.iter().map(|text| Pointer::parse(text).unwrap()).collect();
        assert_eq!(redact_data(&data, &pointers), expected, "{pointers:?}");
    };
    let card =
        || json!({ "card": { "number": "4111", "name": "Ada" }, "items": [{ "price": 1 }, { "price": 2 }], "a/b": 1 });
    let hidden = REDACTED;
    check(card(), &[], card());
    check(card(), &["/card/number", "/a~1b"], {
        let mut expected = card();
        expected["card"]["number"] = hidden.into();
        expected["a/b"] = hidden.into();
        expected
    });
    check(card(), &["/items/*/price"], {
        let mut expected = card();
        expected["items"] = json!([{ "price": hidden }, { "price": hidden }]);
        expected
    });
    check(card(), &["/items/1", "/none/at/all", "/card/number/deeper"], {
        let mut expected = card();
        expected["items"][1] = hidden.into();
        expected
    });
    check(
        json!({ "a": { "x": 1 }, "b": { "x": 2 } }),
        &["/*/x"],
        json!({ "a": { "x": hidden }, "b": { "x": hidden } }),
    );
    check(json!("text"), &["/a"], json!("text"));
    let pointers = [Pointer::parse("/card").unwrap()];
    let check = |event: &str, expected: &str| assert_eq!(redact_event(event, &pointers), expected);
    check(
        r#"{"specversion":"1.0","card":1,"data":{"card":4111}}"#,
        r#"{"card":1,"data":{"card":"[REDACTED]"},"specversion":"1.0"}"#,
    );
    check(r#"{"data_base64":"NDExMQ==","specversion":"1.0"}"#, r#"{"data_base64":"[REDACTED]","specversion":"1.0"}"#);
    check(r#"{"card":4111,"data":{"card":1}}"#, r#"{"card":"[REDACTED]","data":{"card":1}}"#);
    check("4111 is no JSON", REDACTED);
    assert_eq!(redact_event("as it is", &[]), "as it is");
    assert!(Pointer::parse("card").is_err() && Pointer::parse("").is_err());
}
