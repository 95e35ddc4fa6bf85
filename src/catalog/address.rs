//! The URLs that http hooks call.

use url::Url;

use super::Outside;
use super::secret::guessed;
use crate::domain::address::{literal, refusal};
use crate::domain::template::{Form, Piece, Text};
use crate::yaml::problem::Mismatch;
use crate::yaml::value::Value;

/// What a URL could begin with that is not known here.
const GUESS_OF_URL: &str = "https://unknown.invalid";

/// A URL whose server is known before any event.
pub(super) fn address(pieces: &[Piece]) -> Result<(Url, Text), Mismatch> {
    guessed(pieces, GUESS_OF_URL, known_address)
}

/// No message repeats a part of it: all of it may be secret.
fn known_address(pieces: Vec<Piece>) -> Result<(Url, Text), Mismatch> {
    let text = Text::new(pieces, Form::Url)?;
    let prefix = text.prefix();
    let has_server = prefix.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?', '#']));
    if text.is_template() && !has_server {
        let mismatch =
            Mismatch::new("scheme, host and port written out, before the first `{{`").found("a template among them");
        return Err(mismatch.help("which servers may be called, and which are broken, is known by these"));
    }
    let url = parse_url(prefix)?;
    Ok((url, text))
}

fn parse_url(text: &str) -> Result<Url, Mismatch> {
    let expected = || Mismatch::new("an http or https URL with a host");
    let url = Url::parse(text).map_err(|error| expected().found(format!("something else ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(expected().found("another scheme"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let mismatch = Mismatch::new("a URL without user and password").found("some");
        return Err(mismatch.help("send them as `auth: { basic: { user: ..., password: ... } }`"));
    }
    Ok(url)
}

/// Another process may allow the target: no reason to refuse all hooks.
pub(super) fn warn_of_address(value: &Value<'_>, url: &Url, outside: &Outside<'_>) {
    if let Some(class) = literal(url).and_then(|ip| refusal(ip, outside.egress?)) {
        let mismatch = Mismatch::new("a target that this process may call").found(class);
        value.warn(mismatch.help("allow it with `egress.allow`, or every run becomes a letter `target_blocked`"));
    }
}
