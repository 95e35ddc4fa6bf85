//! The connections of a process: how many there may be, and for how long a client may be silent.
//!
//! Every connection takes a file handle, of which the process has few, and which its work needs. So connections may take a
//! part of them only. Where that part is used up, the connection that has waited longest for its client makes room for a new
//! one. A client that opens connections and says nothing keeps out neither the work nor the probes.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tower_http::timeout::TimeoutBody;

use super::Kind;
use super::tls::Certificate;
use patient::Patient;

mod patient;

/// Longest time for the handshake of TLS, and from there to the end of the head of the first request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from an answer to the end of the head of the next request. Longer than most clients keep connections that
/// they do not use, so that it is them who close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest time between two parts of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for which a client may take nothing of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// No more than this, whatever the process may open.
const CONNECTIONS_MAX: usize = 1024;
/// No less, however little it may open.
const CONNECTIONS_MIN: usize = 8;
/// Before connections are accepted again that could not be.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How many connections a process of this kind takes: a quarter of the files that it may open, and half where it runs no
/// hooks. The rest is for its work.
pub(super) fn bound(kind: Kind) -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    bound_of(kind, files.unwrap_or(usize::MAX))
}

fn bound_of(kind: Kind, files: usize) -> usize {
    let part = match kind {
        Kind::Server => files / 2,
        Kind::Worker | Kind::Up => files / 4,
    };
    part.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// An address, and what is served there.
pub(super) struct Site {
    pub(super) listener: TcpListener,
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) routes: Router,
    /// Connections at a time.
    pub(super) bound: usize,
}

impl Site {
    /// Serves until `shutdown` completes and the requests under way are answered.
    pub(super) async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, certificate, routes, bound } = self;
        let (crowd, tasks, ending) = (Crowd::new(bound), TaskTracker::new(), CancellationToken::new());
        let accepting = async {
            loop {
                let stream = accept(&listener).await;
                let room = crowd.room().await;
                let member = Member::new(&crowd, room);
                let (certificate, routes, ending) = (certificate.clone(), routes.clone(), ending.clone());
                tasks.spawn(async move {
                    // A client that goes is nobody's failure.
                    let served = async {
                        match certificate {
                            None => talk(stream, routes, &member, &ending).await,
                            Some(certificate) => {
                                let Some(stream) = handshake(stream, &certificate, &member).await else { return };
                                talk(stream, routes, &member, &ending).await;
                            }
                        }
                    };
                    served.await;
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
        drop(listener);
        ending.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

/// The next connection. One that was given up before it was accepted is passed over.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for now (http.bind)");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// TLS, or nothing where the client does not get through with it in time.
async fn handshake(
    stream: TcpStream,
    certificate: &Certificate,
    member: &Member,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let shaken = async { TlsAcceptor::from(certificate.config().await).accept(stream).await };
    tokio::select! {
        shaken = timeout(HEAD_TIMEOUT, shaken) => match shaken {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "a connection without TLS"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
        () = member.makes_room() => {}
    }
    None
}

/// Answers what is asked on a connection, until either side ends it.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    member: &Arc<Member>,
    ending: &CancellationToken,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (routes, answering) = (routes.clone(), Answering::new(member));
        let request = request.map(|body| Body::new(TimeoutBody::new(BODY_TIMEOUT, body)));
        async move {
            let answer = routes.oneshot(request).await;
            answer.map(|answer: Response<Body>| answer.map(|body| Tracked { body, _answering: answering }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(Patient::new(stream, ANSWER_TIMEOUT)), service);
    let mut connection = pin!(connection);
    let too_late = async {
        sleep(HEAD_TIMEOUT).await;
        if member.has_asked() {
            pending::<()>().await;
        }
    };
    let mut too_late = pin!(too_late);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = &mut too_late => return,
        () = member.makes_room() => if !member.is_answering() { return },
        () = ending.cancelled() => if !member.is_answering() && !member.has_asked() { return },
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = too_late => {}
    }
}

/// The connections that there are.
struct Crowd {
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    /// One has begun to wait for its client.
    waits: Notify,
}

/// Those that wait for their clients, in the order in which they began to.
#[derive(Default)]
struct Waiting {
    last: u64,
    connections: BTreeMap<u64, CancellationToken>,
}

impl Crowd {
    fn new(bound: usize) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(bound.max(1)));
        Arc::new(Self { room, waiting: Mutex::default(), waits: Notify::new() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more: free, or of the one that has waited longest for its client. While all are being answered, until
    /// one is no longer.
    async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
                return room;
            }
            let waits = self.waits.notified();
            let longest = self.waiting().connections.pop_first();
            if let Some((_, connection)) = longest {
                tracing::debug!("a connection that waits for its client makes room for another");
                connection.cancel();
            }
            tokio::select! {
                room = Arc::clone(&self.room).acquire_owned() => if let Ok(room) = room { return room },
                () = waits => {}
            }
        }
    }
}

/// A connection among the others. It waits for its client, or is answering.
struct Member {
    crowd: Arc<Crowd>,
    place: Mutex<Option<u64>>,
    makes_room: CancellationToken,
    requests: AtomicUsize,
    answering: AtomicUsize,
    _room: OwnedSemaphorePermit,
}

impl Member {
    fn new(crowd: &Arc<Crowd>, room: OwnedSemaphorePermit) -> Arc<Self> {
        let (makes_room, none) = (CancellationToken::new(), AtomicUsize::default);
        let crowd = Arc::clone(crowd);
        let member =
            Self { crowd, place: Mutex::default(), makes_room, requests: none(), answering: none(), _room: room };
        member.wait();
        Arc::new(member)
    }

    async fn makes_room(&self) {
        self.makes_room.cancelled().await;
    }

    fn has_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }

    fn place(&self) -> MutexGuard<'_, Option<u64>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        {
            let mut waiting = self.crowd.waiting();
            waiting.last += 1;
            let place = waiting.last;
            waiting.connections.insert(place, self.makes_room.clone());
            *self.place() = Some(place);
        }
        self.crowd.waits.notify_one();
    }

    fn wait_no_more(&self) {
        let place = self.place().take(); // its lock is free again before the other is taken
        if let Some(place) = place {
            self.crowd.waiting().connections.remove(&place);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.wait_no_more();
    }
}

/// A request that is being answered, from its head to the end of its answer.
struct Answering(Arc<Member>);

impl Answering {
    fn new(member: &Arc<Member>) -> Self {
        member.requests.fetch_add(1, Ordering::Relaxed);
        member.answering.fetch_add(1, Ordering::Relaxed);
        member.wait_no_more();
        Self(Arc::clone(member))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.0.answering.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.wait();
        }
    }
}

/// The body of an answer: once all of it is handed over the connection waits again.
struct Tracked {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
