//! What an http hook shows of itself to its target, and what it trusts: tokens, passwords, certificates.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::secret::{hidden, pieces};
use super::{Outside, headers, oauth};
use crate::domain::oauth::ClientCredentials;
use crate::domain::secret::Secret;
use crate::domain::template::{Form, Piece, Text};
use crate::domain::tls::{Credentials, Identity, Tls};
use crate::yaml::problem::Mismatch;
use crate::yaml::value::Value;

/// What `auth` stands for.
pub(super) enum Auth {
    /// The header `authorization` (RFC 6750, 2.1; RFC 7617, 2).
    Header(Text),
    /// The same with a token that has to be fetched.
    Token(Arc<ClientCredentials>),
}

/// `auth`.
pub(super) fn read_auth(value: &Value<'_>, outside: &Outside<'_>) -> Option<Auth> {
    let mut fields = value.clone().secret_unless_map().fields()?;
    let bearer = fields.get("bearer").map(Value::secret);
    let (basic, oauth) = (fields.get("basic"), fields.get("oauth2"));
    fields.end();
    match (bearer, basic, oauth) {
        (Some(bearer), None, None) => read_bearer(&bearer, outside).map(Auth::Header),
        (None, Some(basic), None) => read_basic(&basic, outside).map(Auth::Header),
        (None, None, Some(oauth)) => oauth::read(&oauth, outside).map(Arc::new).map(Auth::Token),
        (bearer, basic, oauth) => {
            let is_empty = bearer.is_none() && basic.is_none() && oauth.is_none();
            [basic, oauth].into_iter().flatten().for_each(|unread| drop(unread.secret())); // nobody covers what is in it
            let found = if is_empty { "none" } else { "several" };
            value.wrong(Mismatch::new("one of `bearer`, `basic` and `oauth2`").found(found));
            None
        }
    }
}

fn read_bearer(bearer: &Value<'_>, outside: &Outside<'_>) -> Option<Text> {
    bearer.read(|text| {
        let scheme = || [Piece::Literal("Bearer ".to_owned())].into_iter();
        let token = pieces(text, outside)?;
        let text = Text::new(scheme().chain(token.clone()).collect(), Form::Plain)?;
        headers::check_value(text.prefix())?;
        if text.is_template() {
            return Ok(text);
        }
        if !token.iter().any(|piece| matches!(piece, Piece::Unknown { .. })) {
            outside.secrets.borrow_mut().insert(token.iter().map(Piece::value).collect());
        }
        Ok(Text::new(scheme().chain(token.iter().map(hidden)).collect(), Form::Plain)?)
    })
}

fn read_basic(value: &Value<'_>, outside: &Outside<'_>) -> Option<Text> {
    let mut fields = value.clone().secret_unless_map().fields()?;
    let user = fields.require("user").and_then(|user| {
        user.secret().read(|text| {
            let user = pieces(text, outside)?;
            if user.iter().any(|piece| piece.value().chars().any(|c| c == ':' || c.is_control())) {
                return Err(Mismatch::new("a user name without `:` and control characters").found("one with such"));
            }
            Ok(user)
        })
    });
    let password = fields.require("password").map(Value::secret);
    fields.end();
    let user = user?;
    password?.read(|text| {
        let password = pieces(text, outside)?;
        if password.iter().any(|piece| piece.value().chars().any(char::is_control)) {
            return Err(Mismatch::new("a password without control characters").found("one with such"));
        }
        let colon = Piece::Literal(":".to_owned());
        let mut credentials: Vec<Piece> = user.iter().chain([&colon]).chain(&password).map(hidden).collect();
        if !credentials.iter().any(|piece| matches!(piece, Piece::Unknown { .. })) {
            let encoded = STANDARD.encode(credentials.iter().map(Piece::value).collect::<String>());
            outside.secrets.borrow_mut().extend([password.iter().map(Piece::value).collect(), encoded.clone()]);
            credentials = vec![Piece::Hidden(Secret::new(encoded))];
        }
        credentials.insert(0, Piece::Literal("Basic ".to_owned()));
        Ok(Text::new(credentials, Form::Plain)?)
    })
}

/// `tls`.
pub(super) fn read_tls(value: &Value<'_>, outside: &Outside<'_>) -> Option<Tls> {
    let mut fields = value.clone().secret_unless_map().fields()?;
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| fields.get(name).map(Value::secret));
    fields.end();
    if cert.is_some() != key.is_some() || ca.is_none() && cert.is_none() {
        let found = match (&cert, &key) {
            (Some(_), None) => "`cert` without `key`",
            (None, Some(_)) => "`key` without `cert`",
            _ => "none of them",
        };
        value.wrong(Mismatch::new("`ca`, or `cert` and `key`, or all three").found(found));
        return None;
    }
    let text = |value: Option<Value<'_>>| match value {
        None => Some(Vec::new()),
        Some(value) => value.read(|text| Ok(pieces(text, outside)?.iter().map(hidden).collect::<Vec<_>>())),
    };
    let is_there = [ca.is_some(), cert.is_some()];
    let (ca, cert, key) = (text(ca), text(cert), text(key));
    let texts = [ca?, cert?, key?];
    if texts.iter().flatten().any(|piece| matches!(piece, Piece::Unknown { .. })) {
        return Some(Tls::Unknown(Box::new(texts)));
    }
    let [ca, cert, key] = texts.map(|pieces| pieces.iter().map(Piece::value).collect::<String>());
    let ca = is_there[0].then_some(ca);
    let (cert, key) = (is_there[1].then_some(cert), is_there[1].then_some(key));
    let identity = cert.as_deref().zip(key.as_deref()).map(|(cert, key)| Identity { cert, key });
    match Credentials::new(ca.as_deref(), identity.as_ref()) {
        Ok(credentials) => Some(Tls::Own(Arc::new(credentials))),
        Err(refusal) => {
            value.wrong(refusal.into());
            None
        }
    }
}
