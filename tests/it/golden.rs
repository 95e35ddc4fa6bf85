//! The golden record: what other programs and people see of hookfleet, byte for byte, in files under `tests/golden`.
//!
//! A refactoring changes none of these files. A deliberate change is accepted with `HOOKFLEET_TEST_ACCEPT=1`, which writes
//! what was found, and the diff of the commit shows it to the reviewer. Values that differ between runs stand as names in
//! braces, such as `{took_ms}`.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use similar::TextDiff;

use crate::servers::client;

mod callback;
#[cfg(target_os = "linux")] // programs are looked at in /proc
mod command;
mod exits;
mod help;
mod http;
mod message;
mod messages;
mod metrics;
mod publish;

/// The environment variable that accepts what was found.
const ACCEPT: &str = "HOOKFLEET_TEST_ACCEPT";
/// The media type of an event in structured mode.
const STRUCTURED: &str = "application/cloudevents+json";
/// Members of JSON objects whose values differ between runs.
const VARYING: [&str; 3] = ["at_ms", "took_ms", "until_ms"];

/// Compares with the file of this name.
fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    if recorded == found {
        return;
    }
    let header = format!("tests/golden/{name}");
    let diff = TextDiff::from_lines(recorded.as_str(), found).unified_diff().header(&header, "found now").to_string();
    assert!(
        std::env::var_os(ACCEPT).is_some(),
        "{header} differs:\n{diff}\nIf this change is meant, set {ACCEPT}=1, run the test, review the file."
    );
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, found).unwrap();
    panic!("{header} is rewritten: review it, and run the test again without {ACCEPT}:\n{diff}");
}

/// Names in place of the numbers that differ between runs.
fn masked(text: &str) -> String {
    VARYING.iter().fold(text.to_owned(), |text, member| masked_number(&text, member))
}

/// A name in place of every number of this member, in JSON without spaces.
fn masked_number(text: &str, member: &str) -> String {
    let mark = format!("\"{member}\":");
    let mut parts = text.split(mark.as_str());
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = &part[..part.len() - rest.len()];
        // A moment that is 0 was not given, in every run.
        let is_kept = number.is_empty() || number == "0" && member != "took_ms";
        let value = if is_kept { number.to_owned() } else { format!("{{{member}}}") };
        masked.extend([mark.as_str(), value.as_str(), rest]);
    }
    masked
}

/// Publishes an event over HTTP with these headers.
async fn post_event(port: u16, headers: &[(&str, &str)], body: &str) {
    let mut request = client().post(format!("http://127.0.0.1:{port}/v1/events")).body(Bytes::from(body.to_owned()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
}

/// The decision on an event, as the bytes of the answer.
async fn post_gate(port: u16, event: &str) -> String {
    let request =
        client().post(format!("http://127.0.0.1:{port}/v1/gates?deadline=30s")).header("content-type", STRUCTURED);
    let answer = request.body(Bytes::from(event.to_owned())).send().await.unwrap();
    let status = answer.status();
    let body = answer.text().await.unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

#[test]
fn numbers_are_masked() {
    let check = |text: &str, expected: &str| assert_eq!(masked(text), expected);
    check(r#"{"at_ms":17,"took_ms":0}"#, r#"{"at_ms":{at_ms},"took_ms":{took_ms}}"#);
    check(r#"{"at_ms":"17","other_ms":1,"until_ms":0}"#, r#"{"at_ms":"17","other_ms":1,"until_ms":0}"#);
}
