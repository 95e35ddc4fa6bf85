//! `oauth2` of `auth`: the grant of client credentials (RFC 6749, 4.4).

use url::{Host, Url};

use super::Outside;
use super::address::{address, warn_of_address};
use super::secret::{hidden, pieces};
use crate::domain::oauth::{AuthStyle, ClientCredentials};
use crate::domain::secret::Secret;
use crate::domain::template::{Form, Piece, Text};
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::one_of;
use crate::yaml::value::Value;

pub(super) fn read(value: &Value<'_>, outside: &Outside<'_>) -> Option<ClientCredentials> {
    let mut fields = value.clone().secret_unless_map().fields()?;
    let endpoint = fields.require("token_url").map(Value::secret).and_then(|place| {
        let (url, text) = place.read(|text| endpoint(text, outside))?;
        warn_of_address(&place, &url, outside);
        warn_of_plain(&place, &url);
        Some((url, text))
    });
    let client_id = fields.require("client_id").and_then(|id| id.secret().read(|text| fixed(text, outside)));
    let client_secret = fields.require("client_secret").and_then(|secret| {
        secret.secret().read(|text| {
            let pieces = filled(text, outside)?;
            Ok(Text::new(pieces.iter().map(hidden).collect(), Form::Plain)?)
        })
    });
    let scopes = fields.get("scopes");
    let scopes = scopes.map_or(Some(Vec::new()), |all| all.list(|one| one.read(|text| scope(text, outside))));
    let audience = fields.get("audience");
    let audience = audience.map_or(Some(None), |name| name.read(|text| fixed(text, outside)).map(Some));
    let resource = fields.get("resource");
    let resource = resource.map_or(Some(None), |uri| uri.read(|text| absolute(text, outside)).map(Some));
    let auth_style = fields.read_or("auth_style", AuthStyle::default(), one_of(&AuthStyle::ALL));
    fields.end();
    let ((url, text), client_id, client_secret) = (endpoint?, client_id?, client_secret?);
    let (scopes, audience, resource, auth_style) = (scopes?, audience?, resource?, auth_style?);
    let url = Secret::new(url);
    let read = ClientCredentials { url, text, client_id, client_secret, scopes, audience, resource, auth_style };
    if [&read.client_id, &read.client_secret].into_iter().all(|text| is_known(text.pieces())) {
        outside.secrets.borrow_mut().extend(read.secrets());
    }
    Some(read)
}

/// RFC 6749, 3.2.
fn endpoint(text: &str, outside: &Outside<'_>) -> Result<(Url, Text), Mismatch> {
    let (url, text) = address(&pieces(text, outside)?)?;
    if url.fragment().is_some() {
        return Err(Mismatch::new("a URL without a fragment").found("one behind `#`"));
    }
    Ok((url, without_template(text)?))
}

/// Secret and token are anybody's to read who is on the way.
fn warn_of_plain(value: &Value<'_>, url: &Url) {
    let stays_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !stays_here {
        let mismatch = Mismatch::new("an https URL, as RFC 6749, 3.2 asks for").found("http");
        value.warn(mismatch.help("the client's secret and its tokens can be read by everybody on the way"));
    }
}

/// Neither empty nor with control characters.
fn filled(text: &str, outside: &Outside<'_>) -> Result<Vec<Piece>, Mismatch> {
    let pieces = pieces(text, outside)?;
    let expected = || Mismatch::new("a text without control characters");
    if pieces.iter().any(|piece| piece.value().chars().any(char::is_control)) {
        return Err(expected().found("one with such"));
    }
    if pieces.iter().all(|piece| piece.value().is_empty()) {
        return Err(expected().found("an empty one"));
    }
    Ok(pieces)
}

/// The same for all events.
fn fixed(text: &str, outside: &Outside<'_>) -> Result<Text, Mismatch> {
    without_template(Text::new(filled(text, outside)?, Form::Plain)?)
}

fn without_template(text: Text) -> Result<Text, Mismatch> {
    if text.is_template() {
        let mismatch = Mismatch::new("a text without templates").found("one with a template");
        return Err(mismatch.help("a token is for many events"));
    }
    Ok(text)
}

/// RFC 6749, 3.3.
fn scope(text: &str, outside: &Outside<'_>) -> Result<Text, Mismatch> {
    let text = fixed(text, outside)?;
    if text.prefix().bytes().all(|byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~')) {
        return Ok(text);
    }
    let mismatch = Mismatch::new("one scope: printable ASCII without spaces, `\"` and `\\`").found("another text");
    Err(mismatch.help("write several scopes as items of the list"))
}

/// RFC 8707, 2.
fn absolute(text: &str, outside: &Outside<'_>) -> Result<Text, Mismatch> {
    let text = fixed(text, outside)?;
    let expected = || Mismatch::new("an absolute URI without a fragment");
    match Url::parse(text.prefix()) {
        Ok(url) if url.fragment().is_some() => Err(expected().found("one with a fragment")),
        Err(error) if is_known(text.pieces()) => Err(expected().found(format!("something else ({error})"))),
        Ok(_) | Err(_) => Ok(text),
    }
}

fn is_known(pieces: &[Piece]) -> bool {
    !pieces.iter().any(|piece| matches!(piece, Piece::Unknown { .. }))
}
