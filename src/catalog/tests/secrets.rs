//! Values that do not stand in hooks files, and texts that no problem shows.

use super::http::check_http;
use super::*;

/// A line that is shown for something else may have any part of a file on it.
#[test]
fn what_nobody_looks_at_is_covered() {
    let hook = r#"id: a, on: x, run: { http: { url: "https://x/hunter2", headers: { a: "hunter2" } } }"#;
    for text in [
        format!("{{ version: 2, hooks: [{{ {hook} }}] }}"),
        format!("{{ version: 1, hooks: {{ a: {{ {hook} }} }} }}"),
        format!("{{ version: 1, hooks: [[{{ {hook} }}]] }}"),
        format!("{{ version: {{ {hook} }} }}"),
        format!("[{{ {hook} }}]"),
        "version: 2 # hunter2\nhooks:".to_owned(),
        "# hunter2".to_owned(),
    ] {
        let shown = read(&text).unwrap_err().to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn unresolved_secrets() {
    let check = |value: &str, expected: &str| {
        check_http(
            &format!("{{ url: 'http://a', headers: {{ x: '{value}' }} }}"),
            &[&format!("5:51 hooks[0].run.http.headers.x: {expected}")],
        );
    };
    check("Bearer ${env:NO}", "expected an environment variable that is set, found `NO`, which is not set");
    check("${hunter2}", "expected `${env:NAME}` or `${file:PATH}`, found another `${...}`");
    check("${env:TOKEN", "expected `}` after `${`, found none");
    check(
        "${file:/no/such/file}",
        "expected a file that can be read, found No such file or directory (os error 2) at `/no/such/file`",
    );
}

#[test]
fn secrets_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let check = |content: &str, expected: &str| {
        let path = folder.path().join("secret");
        std::fs::write(&path, content).unwrap();
        let outside = Outside {
            values: Values::Here(&env),
            egress: Some(&[]),
            callbacks: None,
            files: RefCell::default(),
            secrets: RefCell::default(),
        };
        let resolved = secret::resolve(&format!("<${{file:{}}}>", path.display()), &outside);
        assert_eq!(outside.files.into_inner(), BTreeSet::from([path]));
        assert_eq!(resolved.unwrap(), format!("<{expected}>"));
    };
    check("hunter2", "hunter2");
    check("hunter2\n", "hunter2");
    check("hunter2\r\n", "hunter2");
    check("hunter2\n\n", "hunter2\n");
    check("${env:TOKEN}", "${env:TOKEN}"); // what comes from outside is not looked at again
    check("", "");
}

#[test]
fn a_misspelt_field_shows_no_secret() {
    check(
        "run: { http: { url: 'http://a', header: { authorization: hunter2 }, tokens: [hunter2] } }",
        &[
            "5:37 hooks[0].run.http.header: expected one of `url`, `target`, `path`, `method`, `headers`, `auth`, `body`, `sign`, `tls`, `compress`, `format`, found `header`",
            "5:73 hooks[0].run.http.tokens: expected one of `url`, `target`, `path`, `method`, `headers`, `auth`, `body`, `sign`, `tls`, `compress`, `format`, found `tokens`",
        ],
    );
}

/// What `${...}` stands for is not known where catalogs are applied: that is no mistake, and hides none.
#[test]
fn what_others_know_is_not_judged() {
    let check = |url: &str, expected: &[&str]| {
        let text = format!("version: 1\nhooks: [{{ id: a, on: a, run: {{ http: {{ url: \"{url}\" }} }} }}]");
        let documents = [Document::native("t.yaml", text)];
        let found = match read_for_others(&documents, Duration::ZERO) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.list().iter().map(|problem| problem.found.clone()).collect(),
        };
        assert_eq!(found, expected, "{url}");
    };
    check("${env:URL}", &[]);
    check("${file:/run/secrets/url}", &[]);
    check("https://h:${env:PORT}/", &[]);
    check("https://example.${env:TLD}/${env:PATH}", &[]);
    check("ftp://${env:HOST}/", &["another scheme"]);
    check("https://${env:USER}:${env:PASSWORD}@host", &["some"]);
    check("https://h/${env:X", &["none"]);
    check("https://h/${vault:X}", &["another `${...}`"]);

    let hooks_of = |url: &str| {
        let text = format!("version: 1\nhooks: [{{ id: a, on: a, run: {{ http: {{ url: \"{url}\" }} }} }}]");
        read_for_others(&[Document::native("t.yaml", text)], Duration::ZERO).unwrap().hooks.hooks().to_vec()
    };
    let target = |url: &str| hooks_of(url)[0].action.target();
    assert_eq!(target("${env:URL}/a"), "${env:URL}");
    assert_eq!(target("${file:/run/secrets/url}"), "${file:/run/secrets/url}");
    assert_eq!(target("https://h.${env:TLD}:1/${env:PATH}"), "https://h.${env:TLD}:1");
    assert_eq!(target("https://h:1/${env:PATH}"), "https://h:1");
    let hooks = |name: &str| hooks_of(&format!("${{env:{name}}}"));
    assert_eq!(hooks("A"), hooks("A"));
    assert_ne!(hooks("A"), hooks("B"), "another name is another hook");
}

/// Another value that is not known here makes another hook, whatever it is for; none of them is shown.
#[test]
fn what_others_know_tells_hooks_apart() {
    let hook = |more: &str| {
        let text = format!("version: 1\nhooks: [{{ id: a, on: a, run: {{ http: {{ url: 'https://h/', {more} }} }} }}]");
        let read = read_for_others(&[Document::native("t.yaml", text)], Duration::ZERO);
        read.unwrap_or_else(|problems| panic!("{more}: {problems}")).hooks.hooks()[0].clone()
    };
    let same = "auth: { basic: { user: 'a', password: '${env:P}' } }";
    assert_eq!(hook(same), hook(same));
    for pair in [
        [same, "auth: { basic: { user: b, password: '${env:P}' } }"],
        [
            "auth: { basic: { user: '${env:U}', password: hunter2 } }",
            "auth: { basic: { user: '${env:U}', password: a } }",
        ],
        ["auth: { bearer: '${env:P}' }", "auth: { bearer: '${env:Q}' }"],
        ["auth: { bearer: hunter2 }", "auth: { bearer: a }"],
        [
            "auth: { oauth2: { token_url: 'https://b/', client_id: c, client_secret: '${env:P}' } }",
            "auth: { oauth2: { token_url: 'https://b/', client_id: c, client_secret: '${env:Q}' } }",
        ],
        [
            "auth: { oauth2: { token_url: 'https://b/', client_id: c, client_secret: hunter2 } }",
            "auth: { oauth2: { token_url: 'https://b/', client_id: c, client_secret: a } }",
        ],
        ["tls: { cert: '${file:a}', key: '${file:b}' }", "tls: { cert: '${file:c}', key: '${file:b}' }"],
        ["tls: { ca: '${file:a}' }", "tls: { ca: '${file:a}', cert: '${file:c}', key: '${file:b}' }"],
        ["tls: { ca: '${file:a}' }", "tls: { ca: '${file:b}' }"],
    ] {
        let [one, other] = pair.map(hook);
        assert_ne!(one, other, "{pair:?}");
        assert!(!format!("{one:?}").contains("hunter2"));
    }
    let partly = hook("tls: { cert: '${file:a}', key: '${env:K}' }");
    let Action::Http(action) = &partly.action else { panic!("{partly:?}") };
    assert_eq!(action.tls.unknown().collect::<Vec<_>>(), ["${file:a}", "${env:K}"]);
}
