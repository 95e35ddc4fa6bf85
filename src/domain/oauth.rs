//! Tokens by the grant of client credentials (RFC 6749, 4.4): what a hook says of it, the request, and how its answer is
//! read.
//!
//! The crate `oauth2` has the forms of requests and answers. It sends by a function that it is given. Here that function
//! sends nothing: sending is the executor's, whose client is guarded.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
    BasicTokenType,
};
use oauth2::http::StatusCode;
use oauth2::{
    AccessToken, AuthType, ClientId, ClientSecret, EndpointNotSet, HttpRequest, HttpResponse, RefreshToken,
    RequestTokenError, Scope, StandardRevocableToken, TokenResponse, TokenUrl, helpers,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded};

use super::excerpt::{excerpt, with_excerpt};
use super::secret::Secret;
use super::template::{Piece, Text};

pub mod life;

/// Where the id and the secret of a client stand in a request (RFC 6749, 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthStyle {
    /// As HTTP Basic, which every server has to understand.
    #[default]
    Header,
    /// As the parameters `client_id` and `client_secret`.
    Body,
}

impl AuthStyle {
    pub const ALL: [(&'static str, Self); 2] = [("header", Self::Header), ("body", Self::Body)];
}

/// How an http hook comes by its token. No text of it is a template.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientCredentials {
    /// The token endpoint: http or https, with a host, without user info and fragment. May hold a secret in path or query.
    pub url: Secret<Url>,
    /// The same as it is written.
    pub text: Text,
    pub client_id: Text,
    pub client_secret: Text,
    /// RFC 6749, 3.3. None: what the server grants by default.
    pub scopes: Vec<Text>,
    /// For whom the token is, by a name of the server's own.
    pub audience: Option<Text>,
    /// For whom the token is, as a URI (RFC 8707, 2).
    pub resource: Option<Text>,
    pub auth_style: AuthStyle,
}

/// What a token endpoint has granted (RFC 6749, 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Not empty, and fit for a header.
    pub secret: Secret<String>,
    /// In seconds. `None`: the server does not say.
    pub expires_in: Option<u64>,
}

type Client = oauth2::Client<
    BasicErrorResponse,
    Granted,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
>;

/// Nothing is sent here.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent")]
struct Unsent;

impl ClientCredentials {
    /// All that may hold values from outside.
    pub fn texts(&self) -> impl Iterator<Item = &Text> + Clone {
        let named = [&self.text, &self.client_id, &self.client_secret].into_iter();
        named.chain(&self.scopes).chain(&self.audience).chain(&self.resource)
    }

    /// The server that grants tokens, safe to show: scheme, host and port.
    #[must_use]
    pub fn server(&self) -> String {
        self.text.origin(self.url.expose())
    }

    /// Equal for those that are granted the same token; shows nothing of them.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let named = [
            (0, self.url.expose().as_str()),
            (1, self.client_id.prefix()),
            (2, self.client_secret.prefix()),
            (3 + self.auth_style as u8, ""),
        ];
        let scopes = self.scopes.iter().map(|scope| (5, scope.prefix()));
        let others = [(6, &self.audience), (7, &self.resource)];
        let others = others.into_iter().filter_map(|(kind, text)| Some((kind, text.as_ref()?.prefix())));
        for (kind, text) in named.into_iter().chain(scopes).chain(others) {
            digest.update([kind]);
            digest.update(Sha256::digest(text));
        }
        digest.finalize().into()
    }

    /// The secret, and how it stands in a header.
    #[must_use]
    pub fn secrets(&self) -> [String; 2] {
        let (id, secret) = (self.client_id.prefix(), self.client_secret.prefix());
        [secret.to_owned(), STANDARD.encode(format!("{}:{}", form_encoded(id), form_encoded(secret)))]
    }

    /// All that its server could repeat and no error may show.
    #[must_use]
    pub fn unshown(&self) -> Vec<String> {
        let url = self.url.expose();
        let hidden = self.texts().flat_map(Text::pieces).filter_map(|piece| match piece {
            Piece::Hidden(value) => Some(value.expose().as_str()),
            Piece::Literal(_) | Piece::Unknown { .. } => None,
        });
        let others = [url.path()].into_iter().chain(url.query()).chain(hidden).map(str::to_owned);
        self.secrets().into_iter().chain(others).collect()
    }

    /// The request for a token.
    ///
    /// # Errors
    /// One sentence: it cannot be built.
    pub fn request(&self) -> Result<HttpRequest, String> {
        let taken = RefCell::new(None);
        // The answer to a request that is kept here is that nothing was sent.
        drop(self.exchange(|request| {
            taken.replace(Some(request));
            Err(Unsent)
        }));
        taken.into_inner().ok_or_else(|| "the request for a token cannot be built".to_owned())
    }

    /// Reads an answer to [`ClientCredentials::request`], whole.
    ///
    /// # Errors
    /// One sentence without secrets: what the server said, and what to do about it.
    pub fn read(&self, mut answer: HttpResponse) -> Result<Token, String> {
        let status = answer.status();
        if status.is_success() {
            *answer.status_mut() = StatusCode::OK; // what RFC 6749 asks for; some send 201
        }
        match self.exchange(|_| Ok(answer.clone())) {
            Ok(granted) => granted.token(),
            Err(error) if status.is_success() => Err(format!(
                "{}, which is no token as RFC 6749, 5.1 has it: check `token_url`",
                self.unreadable(&error)
            )),
            Err(RequestTokenError::ServerResponse(refusal)) => {
                let code = refusal.error().as_ref();
                let said = with_excerpt(code.to_owned(), refusal.error_description().map_or("", String::as_str));
                Err(self.refused(status, said.as_bytes(), advice_on(refusal.error())))
            }
            Err(_) => Err(self.refused(status, answer.body(), advice(status))),
        }
    }

    /// A request, and what is read of the answer that `send` brings.
    fn exchange(
        &self,
        send: impl Fn(HttpRequest) -> Result<HttpResponse, Unsent>,
    ) -> Result<Granted, RequestTokenError<Unsent, BasicErrorResponse>> {
        let style = match self.auth_style {
            AuthStyle::Header => AuthType::BasicAuth,
            AuthStyle::Body => AuthType::RequestBody,
        };
        let client = Client::new(ClientId::new(self.client_id.prefix().to_owned()))
            .set_client_secret(ClientSecret::new(self.client_secret.prefix().to_owned()))
            .set_auth_type(style)
            .set_token_uri(TokenUrl::from_url(self.url.expose().clone()));
        let scopes = self.scopes.iter().map(|scope| Scope::new(scope.prefix().to_owned()));
        let mut request = client.exchange_client_credentials().add_scopes(scopes);
        for (name, text) in [("audience", &self.audience), ("resource", &self.resource)] {
            if let Some(text) = text {
                request = request.add_extra_param(name, text.prefix());
            }
        }
        request.request(&send)
    }

    fn refused(&self, status: StatusCode, said: &[u8], advice: &str) -> String {
        let note = if status.is_redirection() { " (redirects are not followed)" } else { "" };
        let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
        let head = format!("{}{reason}{note}", status.as_u16());
        format!("{}: {advice}", with_excerpt(head, &excerpt(said, self.unshown())))
    }

    /// Of a good answer nothing is shown but its form: it may hold a token.
    fn unreadable(&self, error: &RequestTokenError<Unsent, BasicErrorResponse>) -> String {
        match error {
            RequestTokenError::Parse(error, _) if !error.inner().is_data() => "its answer is not JSON".to_owned(),
            RequestTokenError::Parse(error, _) => {
                let what = error.inner().to_string();
                let missing = what.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
                match (missing, error.path().to_string().as_str()) {
                    (Some(field), _) => format!("its answer has no `{field}`"),
                    (None, ".") => "its answer is not a JSON object".to_owned(),
                    (None, field) => {
                        let field = excerpt(field.as_bytes(), Vec::new());
                        format!("`{field}` of its answer is not what it should be")
                    }
                }
            }
            // Of the type or the lack of a body, not of what is in it.
            RequestTokenError::Other(what) => excerpt(what.as_bytes(), self.unshown()),
            RequestTokenError::ServerResponse(_) | RequestTokenError::Request(_) => {
                "its answer cannot be read".to_owned()
            }
        }
    }
}

/// As the id and the secret are written before they become HTTP Basic (RFC 6749, 2.3.1).
fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What to do about a status that comes without a reason in the form of RFC 6749, 5.2.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 | 404 | 405 | 410 => "check `token_url`",
        400 | 401 | 403 => "check `client_id`, `client_secret` and `auth_style`",
        _ => "it is asked again with the next attempt",
    }
}

/// What to do about a reason (RFC 6749, 5.2; RFC 8707, 2).
fn advice_on(reason: &BasicErrorResponseType) -> &'static str {
    match reason {
        BasicErrorResponseType::InvalidClient => {
            "check `client_id` and `client_secret`, and whether the server wants them by `auth_style: body`"
        }
        BasicErrorResponseType::InvalidScope => "check `scopes`",
        BasicErrorResponseType::UnauthorizedClient | BasicErrorResponseType::UnsupportedGrantType => {
            "allow this client the grant `client_credentials` at the server"
        }
        BasicErrorResponseType::Extension(reason) if reason == "invalid_target" => "check `resource` and `audience`",
        BasicErrorResponseType::InvalidGrant
        | BasicErrorResponseType::InvalidRequest
        | BasicErrorResponseType::Extension(_) => "check what `oauth2` of the hook says",
    }
}

/// A good answer. Unlike the one of `oauth2` it takes `expires_in` as a text too, as some servers write it, and leaves
/// what nobody reads here alone.
#[derive(Debug, Deserialize, Serialize)]
struct Granted {
    access_token: AccessToken,
    #[serde(deserialize_with = "helpers::deserialize_untagged_enum_case_insensitive")]
    token_type: BasicTokenType,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
}

impl TokenResponse for Granted {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<std::time::Duration> {
        self.expires_in.map(std::time::Duration::from_secs)
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        None // this grant has none (RFC 6749, 4.4.3)
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

impl Granted {
    fn token(self) -> Result<Token, String> {
        if self.token_type != BasicTokenType::Bearer {
            let kind = excerpt(self.token_type.as_ref().as_bytes(), Vec::new());
            return Err(format!(
                "its token is of the type `{kind}`, and only `Bearer` can be sent: ask for that there"
            ));
        }
        let secret = self.access_token.into_secret();
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its `access_token` is empty or has characters that a header cannot have".to_owned());
        }
        Ok(Token { secret: Secret::new(secret), expires_in: self.expires_in })
    }
}

/// A whole number of seconds, as a number or as a text.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    let seconds = match Value::deserialize(value)? {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    seconds.map(Some).ok_or_else(|| D::Error::custom("no whole number of seconds"))
}

#[cfg(test)]
mod tests;
