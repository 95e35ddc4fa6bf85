//! Connections to receivers: opened within a bound, to addresses that the guard allows, and watched.
//!
//! What is watched: whether a connection has carried an answer, and how much came over it, so that a request without an
//! answer can be judged. And an answer is heard to its end although the receiver has closed the connection before it had
//! the whole request: many answer by the head alone. Sending then fails, while the answer is there to be read.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};
use tower::Service;

use super::super::egress::Guard;
use super::proxy::{Proxy, Stream, Through};

/// A host that does not even accept is given up before most deadlines.
pub(in crate::executor) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between probes of a connection that is silent, and how many may stay without an echo.
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES_MAX: u32 = 3;
/// What was sent has to be acknowledged within this.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

type BoxError = Box<dyn Error + Send + Sync>;

/// There was no connection within [`CONNECT_TIMEOUT`].
#[derive(Debug, thiserror::Error)]
#[error("no connection within {CONNECT_TIMEOUT:?}")]
pub(in crate::executor) struct NoConnection;

/// What is known of a connection. Shared by the connection and the requests on it.
#[derive(Debug)]
pub(super) struct Line {
    /// When it was connected.
    pub(super) since: Instant,
    /// Bytes that came, those of TLS itself not among them.
    read: AtomicU64,
    /// Answers whose head came.
    answers: AtomicU64,
    /// Sending has failed: it carries no other request.
    broken: AtomicBool,
}

impl Line {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            read: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        }
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Acquire)
    }

    /// Counts an answer, and says how many there are by now.
    pub(super) fn answered(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector<Guard>>,
    through: Option<Through>,
}

impl Connector {
    pub(super) fn new(guard: &Guard, proxy: Option<&Arc<Proxy>>, tls: Arc<rustls::ClientConfig>) -> Self {
        let http = watchful(HttpConnector::new_with_resolver(guard.clone()));
        let plain = || watchful(HttpConnector::new());
        let through = proxy.map(|proxy| Through::new(Arc::clone(proxy), guard.clone(), plain(), Arc::clone(&tls)));
        Self { https: HttpsConnector::from((http, tls)), through }
    }

    /// The proxy that targets are called through, if there is one.
    pub(super) fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.through.as_ref().map(|through| &through.proxy)
    }
}

/// Notices connections that lead nowhere any more.
fn watchful<R>(mut http: HttpConnector<R>) -> HttpConnector<R> {
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(PROBE_EVERY));
    http.set_keepalive_interval(Some(PROBE_EVERY));
    http.set_keepalive_retries(Some(PROBES_MAX));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN));
    http
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Watched<TokioIo<Stream>>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let through = self.through.as_ref().filter(|through| through.proxy.is_for(&to));
        let is_proxied = through.is_some() && to.scheme_str() == Some("http");
        let connecting: BoxFuture<'static, Result<Stream, BoxError>> = match through {
            Some(through) => through.connect(to),
            None => Box::pin(self.https.call(to)),
        };
        Box::pin(async move {
            let stream = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| NoConnection)??;
            Ok(TokioIo::new(Watched {
                inner: TokioIo::new(stream),
                line: Arc::new(Line::new()),
                is_proxied,
                unsent: None,
            }))
        })
    }
}

/// A connection that is watched.
pub(super) struct Watched<T> {
    inner: T,
    line: Arc<Line>,
    /// The other side is a proxy that reads requests.
    is_proxied: bool,
    /// Why sending failed. Told once there is nothing more to read.
    unsent: Option<io::Error>,
}

impl<T> Watched<T> {
    /// What became of sending: a receiver that has closed is not told of, until it is known what it said before.
    fn sent<V>(&mut self, polled: Poll<io::Result<V>>, instead: V) -> Poll<io::Result<V>> {
        match polled {
            Poll::Ready(Err(error)) if is_closed(error.kind()) => {
                self.line.broken.store(true, Ordering::Release);
                self.unsent = Some(error);
                Poll::Ready(Ok(instead))
            }
            other => other,
        }
    }
}

const fn is_closed(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (room, before) = (buffer.remaining(), buffer.filled().len());
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.line.read.fetch_add(read as u64, Ordering::AcqRel);
        match self.unsent.take_if(|_| read == 0 && room > 0) {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if self.line.is_broken() {
            return Poll::Ready(Ok(buffer.len()));
        }
        let polled = Pin::new(&mut self.inner).poll_write(cx, buffer);
        self.sent(polled, buffer.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = buffers.iter().map(|buffer| buffer.len()).sum();
        if self.line.is_broken() {
            return Poll::Ready(Ok(all));
        }
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, buffers);
        self.sent(polled, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.line.is_broken() {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.sent(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: Connection> Connection for Watched<T> {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.is_proxied).extra(Arc::clone(&self.line))
    }
}
