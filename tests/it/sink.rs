//! The receiver of the tests: records every call, and behaves as a test wishes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::servers::slots;

/// Calls whose bodies are kept.
const BODIES_MAX: usize = 1000;

/// One call that the sink received.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) hook: String,
    pub(crate) event: String,
    pub(crate) key: String,
    pub(crate) attempt: u64,
    /// Of the header `x-revision`, which a hook may set.
    pub(crate) revision: String,
    /// Of the first calls only: a long test would fill the memory.
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
    pub(crate) status: u16,
    /// Set once the whole answer was given to the server.
    pub(crate) finished: Option<Instant>,
}

/// What to answer: status, wait before it, headers, body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) wait: Duration,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Option<String>,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, wait: Duration::ZERO, retry_after: None, body: None }
    }

    pub(crate) fn after(wait: Duration) -> Self {
        Self { wait, ..Self::status(200) }
    }
}

/// Decides the answer from the hook's name and how often this key was called before.
type Behaviour = Box<dyn Fn(&str, usize) -> Answer + Send + Sync>;

struct Inner {
    calls: Mutex<Vec<Call>>,
    by_key: Mutex<HashMap<String, usize>>,
    behaviour: Mutex<Behaviour>,
    came: Notify,
    hangs_up: AtomicBool,
}

/// A running sink; every hook has the path `/{its name}`. On a thread of its own: it answers while a test waits for a
/// command.
#[derive(Clone)]
pub(crate) struct Sink {
    inner: Arc<Inner>,
    pub(crate) address: SocketAddr,
    /// It ends with the last of these.
    _serving: Arc<oneshot::Sender<()>>,
}

impl Sink {
    /// Answers 200 at once until told otherwise.
    pub(crate) async fn start() -> Self {
        slots::take();
        let inner = Arc::new(Inner {
            calls: Mutex::default(),
            by_key: Mutex::default(),
            behaviour: Mutex::new(Box::new(|_, _| Answer::status(200))),
            came: Notify::new(),
            hangs_up: AtomicBool::new(false),
        });
        let (serving, ended) = oneshot::channel();
        let (bound, address) = oneshot::channel();
        let routes = Router::new().route("/{hook}", post(receive)).with_state(Arc::clone(&inner));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = axum::serve(listener, routes) => served.unwrap(),
                    _ = ended => {}
                }
            });
        });
        Self { inner, address: address.await.unwrap(), _serving: Arc::new(serving) }
    }

    pub(crate) fn behave(&self, behaviour: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) {
        *self.inner.behaviour.lock().unwrap() = Box::new(behaviour);
    }

    /// From now on every connection ends with its answer.
    pub(crate) fn hang_up(&self) {
        self.inner.hangs_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn url(&self, hook: &str) -> String {
        format!("http://{}/{hook}", self.address)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.inner.calls.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.calls.lock().unwrap().len()
    }

    /// Waits until `enough` says so of the calls; panics after `limit`.
    pub(crate) async fn until(&self, what: &str, limit: Duration, enough: impl Fn(&[Call]) -> bool) {
        let waiting = async {
            loop {
                let came = self.inner.came.notified();
                if enough(&self.inner.calls.lock().unwrap()) {
                    return;
                }
                tokio::select! {
                    () = came => {}
                    () = sleep(Duration::from_millis(200)) => {} // a notification may fall between two looks
                }
            }
        };
        if timeout(limit, waiting).await.is_err() {
            let calls = self.calls();
            let tail: Vec<_> = calls.iter().rev().take(5).collect();
            panic!("waited {limit:?} for {what}; the sink has {} calls, the last: {tail:#?}", calls.len());
        }
    }
}

async fn receive(
    State(inner): State<Arc<Inner>>,
    Path(hook): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| headers.get(name).map(|text| text.to_str().unwrap().to_owned()).unwrap_or_default();
    let key = text("idempotency-key");
    let payload: Value = serde_json::from_slice(&body).unwrap_or_default();
    let before = {
        let mut by_key = inner.by_key.lock().unwrap();
        let count = by_key.entry(key.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let answer = (inner.behaviour.lock().unwrap())(&hook, before);
    let index = {
        let mut calls = inner.calls.lock().unwrap();
        let body = if calls.len() < BODIES_MAX { body } else { Bytes::new() };
        calls.push(Call {
            hook,
            event: payload.pointer("/event/id").and_then(Value::as_str).unwrap_or_default().to_owned(),
            key,
            revision: text("x-revision"),
            attempt: payload.get("attempt").and_then(Value::as_u64).unwrap_or_default(),
            body,
            at: Instant::now(),
            status: answer.status,
            finished: None,
        });
        calls.len() - 1
    };
    inner.came.notify_waiters();
    sleep(answer.wait).await;
    inner.calls.lock().unwrap()[index].finished = Some(Instant::now());
    inner.came.notify_waiters();
    let status = StatusCode::from_u16(answer.status).unwrap();
    let mut response = answer.body.map_or_else(|| status.into_response(), |body| (status, body).into_response());
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert("retry-after", seconds.parse().unwrap());
    }
    if inner.hangs_up.load(Ordering::Relaxed) {
        response.headers_mut().insert("connection", "close".parse().unwrap());
    }
    response
}
