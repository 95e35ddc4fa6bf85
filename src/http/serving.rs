//! An address that is served from the first moment, though the routes are known only once the process has started.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Json, Response};
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::access::Door;
use super::problem::Problem;
use super::{Kind, Routes};
use crate::telemetry::Registry;

/// What stands before the sentence that a process gives while it starts.
const STARTING: &str = "starting";
/// What is answered at once.
const PROBES: [&str; 3] = ["/healthz", "/metrics", "/readyz"];
/// How long any other request waits for the routes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds after which a client may ask again.
const RETRY_AFTER_S: &str = "2";

/// An address that is served. Dropped, it is closed.
pub struct Serving {
    pub address: SocketAddr,
    pub(super) kind: Kind,
    pub(super) door: Arc<Door>,
    pub(super) routes: Arc<Taken>,
    pub(super) closing: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl Serving {
    /// The kind of process that serves.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Serves these routes from now on. Only the first call counts.
    pub fn take(&self, served: Vec<Routes>) {
        let _ = self.routes.routes.set(super::routes(served, self.kind, &self.door));
        self.routes.there.notify_waiters();
    }

    /// Ends the serving: no new connection is taken from now on.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Completes when the serving has ended: after [`Serving::close`], once the requests under way are answered.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).fuse().await; // a panic was logged when it happened
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.closing.cancel();
        self.task.abort();
    }
}

/// The routes, once the process has started.
#[derive(Default)]
pub(super) struct Taken {
    routes: OnceLock<Router>,
    there: Notify,
}

impl Taken {
    /// The routes, which are waited for a little: most starts are short.
    async fn soon(&self) -> Option<&Router> {
        let there = self.there.notified(); // hears of what comes from here on
        if self.routes.get().is_none() {
            let _ = timeout(PATIENCE, there).await; // looked at below either way
        }
        self.routes.get()
    }
}

/// What answers while a process starts.
#[derive(Clone)]
pub(super) struct Starting {
    pub(super) metrics: Arc<Registry>,
    /// What it waits for.
    pub(super) waiting: watch::Receiver<Option<String>>,
}

impl Starting {
    fn reason(&self) -> String {
        match &*self.waiting.borrow() {
            Some(waiting) => format!("{STARTING}: waiting for {waiting}"),
            None => STARTING.to_owned(),
        }
    }

    fn answer(&self, path: &str) -> Response {
        match path {
            "/healthz" => "ok\n".into_response(),
            "/metrics" => super::probes::rendered(&self.metrics),
            "/readyz" => {
                let readiness = json!({ "ready": false, "reasons": [self.reason()] });
                (StatusCode::SERVICE_UNAVAILABLE, Json(readiness)).into_response()
            }
            _ => {
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, self.reason());
                ([(header::RETRY_AFTER, RETRY_AFTER_S)], problem).into_response()
            }
        }
    }
}

/// The routes once they are there, and until then what can be said without them.
pub(super) fn router(starting: Starting, taken: Arc<Taken>) -> Router {
    Router::new().fallback(answer).with_state((starting, taken))
}

async fn answer(State((starting, taken)): State<(Starting, Arc<Taken>)>, request: Request) -> Response {
    let is_probe = PROBES.contains(&request.uri().path());
    let routes = if is_probe { taken.routes.get() } else { taken.soon().await };
    match routes {
        Some(routes) => {
            let Ok(response) = routes.clone().oneshot(request).await;
            response
        }
        None => starting.answer(request.uri().path()),
    }
}
