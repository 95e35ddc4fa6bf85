//! One request and its answer, over a connection that may have been idle.
//!
//! A request goes out again at once, on a new connection, where the connection that it was given ended before a byte of an
//! answer and had been there before the request; see [`crate::domain::reuse`]. The pool of hyper does that by itself as
//! long as it has not begun to write, which is the smaller part: a closing that is on its way shows after a round trip.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, PROXY_AUTHORIZATION};
use hyper::http::Extensions;
use hyper::{Request, Response};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client as Pool, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep};

use super::connection::{Connector, Line};
use super::proxy::Proxy;
use crate::domain::reuse::{IDLE_MAX, Unanswered, idle_max, was_too_late};
use crate::error_chain::causes;

/// As many as may run at a time: what is closed beyond that is opened again for the next run.
const IDLE_PER_HOST_MAX: usize = 1024;
/// A connection of HTTP/2 whose other side is gone without a word would take every run to its deadline: while runs are on
/// it, it has to answer pings this often, within as long.
pub(super) const PING_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A request that can be sent more than once.
pub(in crate::executor) type Outbound = Request<Full<Bytes>>;

/// An HTTP client. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Client {
    pooled: Pool<Connector, Full<Bytes>>,
    /// Opens a connection for every request.
    fresh: Pool<Connector, Full<Bytes>>,
    proxy: Option<Arc<Proxy>>,
}

/// The connection that a request was given.
struct Used {
    line: Arc<Line>,
    /// It was open before the request.
    reused: bool,
    /// What had come over it by then.
    read: u64,
    is_http2: bool,
}

impl Client {
    pub(super) fn new(connector: &Connector) -> Self {
        let pool = |idle| {
            Pool::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_MAX)
                .pool_max_idle_per_host(idle)
                .http2_keep_alive_interval(PING_EVERY)
                .http2_keep_alive_timeout(PING_EVERY)
                .build(connector.clone())
        };
        Self { pooled: pool(IDLE_PER_HOST_MAX), fresh: pool(0), proxy: connector.proxy().cloned() }
    }

    /// The head of the answer to a request, which goes out more than once where its connection turns out to have been
    /// closed before; `resent` hears of it each time. Cancel-safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// There is no answer.
    pub(in crate::executor) async fn send(
        &self,
        request: &Outbound,
        resent: impl Fn(),
    ) -> Result<Response<Incoming>, Error> {
        let login = self.proxy.as_ref().and_then(|proxy| proxy.header_for(request.uri()));
        let mut resends = 0;
        loop {
            let client = if resends == 0 { &self.pooled } else { &self.fresh };
            let mut request = request.clone();
            if let Some(login) = &login {
                request.headers_mut().insert(PROXY_AUTHORIZATION, login.clone());
            }
            let (ended, used) = exchange(client, request).await;
            match ended {
                Ok(response) if is_too_late(&response, used.as_ref(), resends) => {}
                Err(error) if unanswered(&error, used.as_ref()).goes_again(resends) => {
                    tracing::debug!(%error, "a connection had been closed: its request goes out again");
                }
                ended => return ended,
            }
            resends += 1;
            resent();
        }
    }
}

async fn exchange(
    client: &Pool<Connector, Full<Bytes>>,
    mut request: Outbound,
) -> (Result<Response<Incoming>, Error>, Option<Used>) {
    let captured = capture_connection(&mut request);
    let began = Instant::now();
    let mut sending = pin!(client.request(request));
    let mut used: Option<Used> = None;
    let ended = poll_fn(|cx| {
        let polled = sending.as_mut().poll(cx);
        // Right behind its being given a connection, before anything can have come over it.
        if let Some((line, is_http2)) = line_of(&captured)
            && used.as_ref().is_none_or(|used| !Arc::ptr_eq(&used.line, &line))
        {
            let (reused, read) = (line.answers() > 0 || line.since < began, line.read());
            used = Some(Used { line, reused, read, is_http2 });
        }
        polled
    })
    .await;
    if let (Ok(response), Some(used)) = (&ended, &used) {
        limit_idleness(response, used, captured);
    }
    (ended, used)
}

/// The connection that a request has by now, and whether it speaks HTTP/2.
fn line_of(captured: &CaptureConnection) -> Option<(Arc<Line>, bool)> {
    let connected = captured.connection_metadata();
    let connected = connected.as_ref()?;
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    Some((extras.remove::<Arc<Line>>()?, connected.is_negotiated_h2()))
}

/// A connection whose receiver closes it sooner than others do is used for as long only. The pool knows one time for all:
/// what is over before that is taken out of it.
fn limit_idleness(response: &Response<Incoming>, used: &Used, captured: CaptureConnection) {
    let answers = used.line.answered();
    let idle =
        response.headers().get_all(KEEP_ALIVE).iter().filter_map(|value| value.to_str().ok()).map(idle_max).min();
    let idle = if used.line.is_broken() { Some(Duration::ZERO) } else { idle };
    let Some(idle) = idle.filter(|idle| *idle < IDLE_MAX && !used.is_http2) else { return };
    let line = Arc::clone(&used.line);
    let not_used_again = move || {
        if line.answers() == answers
            && let Some(connected) = captured.connection_metadata().as_ref()
        {
            connected.poison();
        }
    };
    if idle.is_zero() {
        return not_used_again();
    }
    tokio::spawn(async move {
        sleep(idle).await;
        not_used_again();
    });
}

fn is_too_late(response: &Response<Incoming>, used: Option<&Used>, resends: u32) -> bool {
    let reused = used.is_some_and(|used| used.reused);
    was_too_late(response.status().as_u16(), closes(response.headers()), reused, resends)
}

fn closes(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
}

fn unanswered(error: &Error, used: Option<&Used>) -> Unanswered {
    let http2 = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>());
    if let Some(error) = http2.filter(|error| error.is_remote())
        && (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)
            || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
    {
        return Unanswered::Unprocessed;
    }
    match used {
        Some(used) if !error.is_connect() && !http2.is_some_and(h2::Error::is_reset) => Unanswered::Cut {
            reused: used.reused,
            heard: !used.is_http2 && used.line.read() > used.read, // with HTTP/2 it may have been for others
        },
        _ => Unanswered::Alone,
    }
}
