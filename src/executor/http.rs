//! Runs a hook by an HTTP request: a transport, which sends what the hook's dialect encodes and hands back the reply.
//!
//! Where the dialect asks for no body the head of a good reply is enough; the rest is read for a moment only, so that the
//! connection can be used again, and the beginning of a refusal is kept for the error text.

use std::error::Error;
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper_util::client::legacy;
use tokio::time::{Instant, timeout_at};
use url::Host;

use super::clients::{CONNECT_TIMEOUT, Clients, NoConnection, NotLed, Outbound};
use super::compress::gzipped;
use super::egress::{Refused, Unresolved};
use super::hint::retry_after;
use super::{Attempt, secrets, shortage};
use crate::domain::contract::{Body, Raw, Reply};
use crate::domain::excerpt::excerpt;
use crate::domain::failure::Class;
use crate::domain::headers::is_framing;
use crate::domain::hook::{Compression, HttpAction, Method};
use crate::domain::outcome::Outcome;
use crate::domain::request::Request;
use crate::error_chain::{causes, root};
use crate::telemetry::{Metric, now_ms};

/// A reply is read up to here; a connection with more on it is closed.
const REPLY_BYTES_MAX: usize = 128 * 1024;
/// How long is waited for the rest of a reply once its head is there.
const REPLY_WAIT: Duration = Duration::from_millis(250);
/// As much of a refusal's body as the excerpt is made from.
const REFUSAL_BYTES_MAX: usize = 8 * 1024;
const US: &str = concat!("hookfleet/", env!("CARGO_PKG_VERSION"));
/// Shorter words in values hide nothing.
const SECRET_WORD_BYTES_MIN: usize = 8;

/// The http executor.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) clients: Arc<Clients>,
}

impl Http {
    /// Sends the request of one attempt and reads the reply. Ends at the attempt's deadline.
    pub(super) async fn run(&self, action: &HttpAction, attempt: &Attempt<'_>) -> Result<Reply, Outcome> {
        let request = Request::new(action, attempt.hook, attempt.invocation, attempt.key)
            .map_err(|error| Outcome::never(Class::Invalid, error))?; // it would be the same next time
        let raw = self.exchange(action, attempt, &request).await?;
        attempt.read(raw, || known_secrets(action, &request))
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
            unanswered(attempt, "timeout");
            attempt.timed_out("")
        };
        let is_short = |error: &legacy::Error| is_ours(error, request);
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

/// All of a reply's body, up to the limit.
async fn whole(mut rest: Incoming) -> hyper::Result<Body> {
    let mut body = Vec::new();
    while let Some(chunk) = chunk(&mut rest).await? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
            return Ok(Body::TooLarge { beginning: body, bytes_max: REPLY_BYTES_MAX });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

/// The next bytes of a reply's body. Trailers are passed over.
async fn chunk(rest: &mut Incoming) -> hyper::Result<Option<Bytes>> {
    while let Some(frame) = rest.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A request that got no reply.
fn broken(error: &(dyn Error + 'static), action: &HttpAction, attempt: &Attempt<'_>, request: &Request<'_>) -> Outcome {
    if let Some(refused) = causes(error).find_map(|cause| cause.downcast_ref::<Refused>()) {
        return Outcome::from(refused);
    }
    let why = why(error);
    unanswered(attempt, why);
    if causes(error).any(<dyn Error>::is::<NoConnection>) {
        return Outcome::later(format!("timeout: no connection within {CONNECT_TIMEOUT:?}"));
    }
    let cause = excerpt(root(error).to_string().as_bytes(), known_secrets(action, request));
    match causes(error).find(|cause| cause.is::<NotLed>()) {
        Some(not_led) => Outcome::later(format!("{why}: {not_led}: {cause}")),
        None => Outcome::later(format!("{why}: {cause}")),
    }
}

/// Whether a shortage of this machine is in the way, and not the target. A machine without IPv6 answers a connection to an
/// IPv6 address with the error of a machine that has no port left. That is no shortage.
fn is_ours(error: &(dyn Error + 'static), request: &Request<'_>) -> bool {
    let has_family = || match request.url.host() {
        Some(Host::Ipv6(_)) => std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
        _ => true,
    };
    let is_unresolved = || causes(error).any(<dyn Error>::is::<Unresolved>);
    shortage::is_shortage(error) && has_family() || is_unresolved() && shortage::has_no_handle()
}

fn unanswered(attempt: &Attempt<'_>, why: &str) {
    Metric::HttpUnanswered.count(&[("hook", attempt.hook.id.to_string()), ("why", why.to_owned())]);
}

fn why(error: &(dyn Error + 'static)) -> &'static str {
    let is = |test: fn(&(dyn Error + 'static)) -> bool| causes(error).any(test);
    if is(<dyn Error>::is::<Unresolved>) {
        "dns"
    } else if is(<dyn Error>::is::<rustls::Error>) {
        "tls"
    } else if is(is_timeout) {
        "timeout"
    } else if is(|cause| cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)) {
        "connect"
    } else if is(is_reset) {
        "reset"
    } else {
        "transport"
    }
}

fn is_timeout(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<NoConnection>()
        || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
        || cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn is_reset(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof))
        || cause
            .downcast_ref::<h2::Error>()
            .is_some_and(|error| error.is_remote() && (error.is_go_away() || error.is_reset()))
        || cause.to_string().starts_with("connection closed before message completed") // hyper's words for it
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
