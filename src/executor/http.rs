//! Runs a hook by an HTTP request: a transport, which sends what the hook's dialect encodes and hands back the reply.
//!
//! Where the dialect asks for no body the head of a good reply is enough; the rest is read for a moment only, so that the
//! connection can be used again, and the beginning of a refusal is kept for the error text.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper_util::client::legacy;
use tokio::time::{Instant, timeout_at};

use super::clients::{Clients, Outbound};
use super::compress::gzipped;
use super::hint::retry_after;
use super::replies::{REPLY_BYTES_MAX, chunk, whole};
use super::tokens::{Need, Tokens};
use super::unanswered::{self, is_ours};
use super::{Attempt, US, secrets, shortage};
use crate::domain::contract::{Body, Raw, Reply};
use crate::domain::failure::Class;
use crate::domain::headers::{AUTHORIZATION, is_framing};
use crate::domain::hook::{Compression, HttpAction, Method};
use crate::domain::outcome::Outcome;
use crate::domain::request::Request;
use crate::telemetry::{Metric, now_ms};

/// How long is waited for the rest of a reply once its head is there.
const REPLY_WAIT: Duration = Duration::from_millis(250);
/// As much of a refusal's body as the excerpt is made from.
const REFUSAL_BYTES_MAX: usize = 8 * 1024;
/// Shorter words in values hide nothing.
const SECRET_WORD_BYTES_MIN: usize = 8;

/// The http executor.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) clients: Arc<Clients>,
    pub(super) tokens: Arc<Tokens>,
}

impl Http {
    /// Sends the request of one attempt and reads the reply. Ends at the attempt's deadline.
    pub(super) async fn run(&self, action: &HttpAction, attempt: &Attempt<'_>) -> Result<Reply, Outcome> {
        let request = Request::new(action, attempt.hook, attempt.invocation, attempt.key)
            .map_err(|error| Outcome::never(Class::Invalid, error))?; // it would be the same next time
        let (raw, request) = match &action.oauth {
            None => (self.exchange(action, attempt, &request).await?, request),
            Some(credentials) => {
                let need = Need { credentials, tls: &action.tls, attempt, clients: &self.clients };
                Box::pin(self.authorized(action, request, &need)).await? // next to a token a box is nothing
            }
        };
        attempt.read(raw, || known_secrets(action, &request))
    }

    /// Sends the request with a token, and once more with another one if the target refuses the first. Answers what came of
    /// the last request.
    async fn authorized<'r>(
        &self,
        action: &HttpAction,
        request: Request<'r>,
        need: &Need<'_>,
    ) -> Result<(Raw, Request<'r>), Outcome> {
        let with = |token: &str| {
            let mut request = request.clone();
            request.headers.push((AUTHORIZATION, Cow::Owned(format!("Bearer {token}"))));
            request
        };
        self.clients.guard.check(&request.url).map_err(|refused| Outcome::from(&refused))?; // before anybody is asked
        let began = self.tokens.now_ms();
        let held = self.tokens.token(need, None).await?;
        let first = with(held.secret.expose());
        let raw = self.exchange(action, need.attempt, &first).await?;
        let is_refused = matches!(raw, Raw::Http { status: 401, .. });
        if !is_refused || !held.life.is_worth_another(began, self.tokens.now_ms()) {
            return Ok((raw, first));
        }
        let second = with(self.tokens.token(need, Some(held.number)).await?.secret.expose());
        Ok((self.exchange(action, need.attempt, &second).await?, second))
    }

    async fn exchange(
        &self,
        action: &HttpAction,
        attempt: &Attempt<'_>,
        request: &Request<'_>,
    ) -> Result<Raw, Outcome> {
        self.clients.guard.check(&request.url).map_err(|refused| Outcome::from(&refused))?;
        let ready =
            async { Ok::<_, String>((self.clients.of(&action.tls)?, outbound(action, attempt, request).await?)) };
        let (client, outbound) = match timeout_at(attempt.deadline, ready).await {
            Err(_) => return Err(attempt.timed_out("")),
            Ok(Err(error)) => return Err(Outcome::never(Class::Invalid, error)),
            Ok(Ok(ready)) => ready,
        };
        let sent = usize::try_from(outbound.body().size_hint().lower()).unwrap_or(usize::MAX);
        let resent = || Metric::HttpResent.count(&[("hook", attempt.hook.id.to_string())]);
        let exchange = || client.send(&outbound, resent);
        let late = || {
            unreplied(attempt, "timeout");
            attempt.timed_out("")
        };
        let is_short = |error: &legacy::Error| is_ours(error, &request.url);
        let reply = shortage::outlasted(attempt.hook.id.as_str(), attempt.deadline, exchange, is_short, late).await?;
        let (head, rest) = reply.map_err(|error| broken(&error, action, attempt, request))?.into_parts();
        let status = head.status;
        let retry_after =
            head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value.as_bytes(), SystemTime::now()));
        let body = if status.is_success() && attempt.exchange.reads_body {
            let read = timeout_at(attempt.deadline, whole(rest)).await.map_err(|_| attempt.timed_out(""))?;
            read.map_err(|error| broken(&error, action, attempt, request))?
        } else {
            let keep = if status.is_success() { 0 } else { REFUSAL_BYTES_MAX };
            Body::Beginning(drain(rest, keep, attempt.deadline).await)
        };
        Ok(Raw::Http { status: status.as_u16(), reason: status.canonical_reason(), retry_after, body, sent })
    }
}

/// The request as it is sent, however often.
async fn outbound(action: &HttpAction, attempt: &Attempt<'_>, request: &Request<'_>) -> Result<Outbound, String> {
    let (mut headers, body) = content(action, attempt, request).await?;
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(US));
    let mut outbound = hyper::Request::new(Full::new(body));
    *outbound.method_mut() = method(action);
    *outbound.uri_mut() = request
        .url
        .as_str()
        .parse::<hyper::Uri>()
        .map_err(|error| format!("the hook's URL cannot be sent: {error}"))?;
    *outbound.headers_mut() = headers;
    Ok(outbound)
}

/// What is sent: headers and body. Signatures are over the body as the receiver has it once it is decompressed.
async fn content(
    action: &HttpAction,
    attempt: &Attempt<'_>,
    request: &Request<'_>,
) -> Result<(HeaderMap, Bytes), String> {
    let body = match (action.method, &request.body) {
        (Method::Get, _) => Bytes::new(),
        (_, Some(body)) => body.to_string().into(),
        (_, None) => attempt.exchange.body.clone(),
    };
    let mut headers = signed(headers(request, attempt)?, action, attempt, &body)?;
    if action.compression == Compression::Gzip
        && let Some(smaller) = gzipped(&body).await
    {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return Ok((headers, smaller));
    }
    Ok((headers, body))
}

/// The hook's headers over the defaults of its dialect, and over them those that the dialect insists on. An error names the
/// header only.
fn headers(request: &Request<'_>, attempt: &Attempt<'_>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(request.headers.len() + 4);
    for (name, value) in &request.headers {
        let invalid = || format!("the hook's header `{}` is not valid in HTTP", name.escape_debug());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        if is_framing(name.as_str()) {
            return Err(format!("the hook's header `{name}` is set by the HTTP client alone"));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        value.set_sensitive(true); // kept out of `Debug` output and of HTTP/2's compression tables
        headers.append(name, value);
    }
    let text = |name: &str, value: &str| {
        let value = HeaderValue::from_str(value).map_err(|_| format!("the header `{name}` is not valid in HTTP"))?;
        Ok::<_, String>(value)
    };
    for (name, value) in &attempt.exchange.default_headers {
        headers.entry(HeaderName::from_static(name)).or_insert(text(name, value)?);
    }
    for (name, value) in &attempt.exchange.headers {
        let invalid = |_| format!("the header `{}` is not valid in HTTP", name.escape_debug());
        headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(invalid)?, text(name, value)?);
    }
    Ok(headers)
}

/// With the signatures of this attempt, over exactly these bytes.
fn signed(
    mut headers: HeaderMap,
    action: &HttpAction,
    attempt: &Attempt<'_>,
    body: &[u8],
) -> Result<HeaderMap, String> {
    for (name, value) in action.signing.sign(attempt.key, now_ms() / 1000, body)? {
        let invalid = || format!("the signature `{}` is not valid in HTTP", name.escape_debug());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

const fn method(action: &HttpAction) -> hyper::Method {
    match action.method {
        Method::Post => hyper::Method::POST,
        Method::Put => hyper::Method::PUT,
        Method::Patch => hyper::Method::PATCH,
        Method::Delete => hyper::Method::DELETE,
        Method::Get => hyper::Method::GET,
    }
}

/// Reads the rest of a reply for a moment, so that its connection can be used again. What goes wrong here is nobody's
/// failure. Returns the beginning of what was read.
async fn drain(mut rest: Incoming, keep: usize, deadline: Instant) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut read = 0;
    let reading = async {
        while let Ok(Some(chunk)) = chunk(&mut rest).await {
            let room = keep - kept.len();
            kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
            read += chunk.len();
            if read > REPLY_BYTES_MAX {
                return;
            }
        }
    };
    let _ = timeout_at(deadline.min(Instant::now() + REPLY_WAIT), reading).await;
    kept
}

/// A request that got no reply.
fn broken(error: &(dyn Error + 'static), action: &HttpAction, attempt: &Attempt<'_>, request: &Request<'_>) -> Outcome {
    if unanswered::refused(error).is_none() {
        unreplied(attempt, unanswered::why(error));
    }
    unanswered::outcome(error, known_secrets(action, request))
}

fn unreplied(attempt: &Attempt<'_>, why: &str) {
    Metric::HttpUnanswered.count(&[("hook", attempt.hook.id.to_string()), ("why", why.to_owned())]);
}

/// What a target could repeat to us and no error may show: header values, the URL behind its host, and every value from
/// outside of the hooks file, wherever it was put in.
fn known_secrets(action: &HttpAction, request: &Request<'_>) -> Vec<String> {
    let hidden = secrets::of_texts(action.texts());
    let url = &request.url;
    let values = request.headers.iter().map(|(_, value)| value.as_ref());
    let parameters = url.query_pairs().map(|(_, value)| value.into_owned());
    let whole = values.clone().chain(hidden.clone()).chain([url.path()]).chain(url.query()).map(str::to_owned);
    let words = values.chain(hidden).flat_map(str::split_whitespace).chain(url.path().split('/'));
    let words = words.filter(|word| word.len() >= SECRET_WORD_BYTES_MIN).map(str::to_owned);
    secrets::long_enough(whole.chain(parameters)).chain(words).collect()
}

#[cfg(test)]
mod tests;
