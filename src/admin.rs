//! HTTP for people and probes: metrics, health, and where asked for the event gateway and the dead letters.

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::broker::{Broker, Health};
use crate::catalog::follow::Followed;
use crate::catalog::revisions::{BYTES_MAX, Revisions};
use crate::config::WhenAway;
use crate::desk::Desk;
use crate::domain::access::Role;
use crate::domain::event::Reading;
use crate::flow::Flow;
use crate::idempotency::Idempotency;
use crate::publish::Publisher;
use crate::worker::Worker;
use crate::worker::admission::Admission;

pub mod access;
mod browser;
mod events;
mod hooks;
mod invocations;
mod letters;
mod problem;

use access::Door;
use browser::Loopback;
pub use events::publisher;

/// What the handlers work with.
#[derive(Clone)]
pub struct Admin {
    pub metrics: PrometheusHandle,
    pub broker: Arc<dyn Broker>,
    /// What readiness asks, a cell each.
    pub parts: Vec<Part>,
    pub when_away: WhenAway,
    pub catalog: Followed,
    /// The fleet's catalog, if that is what is followed.
    pub revisions: Option<Arc<Revisions>>,
    pub flow: Arc<dyn Flow>,
    /// Why the fleet is paused, while it is.
    pub paused: watch::Receiver<Option<String>>,
    /// Longest `Retry-After` that hooks honour.
    pub hint_max: Duration,
    pub reading: Reading,
    pub admission: Arc<Admission>,
    /// See [`publisher`].
    pub publisher: Arc<Publisher>,
    pub desk: Desk,
    pub claims: Arc<dyn Idempotency>,
    /// How long an invocation is remembered that an operator cancelled.
    pub cancelled_for: Duration,
}

/// How one cell is doing.
#[derive(Clone)]
pub struct Part {
    pub health: watch::Receiver<Health>,
    /// Why the store of claims is away, while it is.
    pub store_away: watch::Receiver<Option<String>>,
    pub worker: Arc<Worker>,
}

/// Which parts are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Metrics and health.
    Operations,
    /// The event gateway and the dead letters too.
    Everything,
}

/// Serves until the process ends.
///
/// # Errors
/// The listener broke.
pub async fn serve(listener: TcpListener, admin: Admin, scope: Scope, door: Arc<Door>) -> std::io::Result<()> {
    let loopback = Loopback(listener.local_addr()?.ip().is_loopback());
    let guarded = router(admin, scope, &door).layer(from_fn_with_state(loopback, browser::guard));
    axum::serve(listener, guarded).into_future().await
}

/// Every route, behind the role that it takes. What is open tells of health, to probes that know no tokens.
fn router(admin: Admin, scope: Scope, door: &Arc<Door>) -> Router {
    let behind = |role: Role, routes: Router<Admin>| {
        routes.route_layer(from_fn_with_state((Arc::clone(door), role), access::guard))
    };
    let open = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready));
    let operations = open.merge(behind(Role::Read, Router::new().route("/v1/status", get(status))));
    let routes = match scope {
        Scope::Operations => operations,
        Scope::Everything => operations
            .merge(behind(Role::Publish, Router::new().route("/v1/events", post(events::publish))))
            .merge(behind(Role::Read, reading()))
            .merge(behind(Role::Operate, operating())),
    };
    routes.with_state(admin)
}

fn reading() -> Router<Admin> {
    Router::new()
        .route("/v1/runtime/hooks", get(hooks::show))
        .route("/v1/runtime/hooks/dead-letter", get(letters::list))
        .route("/v1/runtime/hooks/dead-letter/{id}", get(letters::show))
}

fn operating() -> Router<Admin> {
    Router::new()
        .route("/v1/runtime/hooks", post(hooks::apply).layer(DefaultBodyLimit::max(2 * BYTES_MAX)))
        .route("/v1/runtime/hooks/{hook}/cancel", post(invocations::cancel))
        .route("/v1/runtime/hooks/dead-letter/{id}/replay", post(letters::replay))
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics.render()).into_response()
}

impl Admin {
    /// Why this process can take no work, if it cannot: each reason once, whichever cells have it.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for part in &self.parts {
            if let Health::Down(reason) = &*part.health.borrow() {
                troubles.push(format!("broker: {reason}"));
            }
            // While it proceeds work goes on: the status says so.
            if let (Some(reason), WhenAway::Hold) = (&*part.store_away.borrow(), self.when_away) {
                troubles.push(format!("holding: {reason}"));
            }
        }
        troubles.extend(self.catalog.halt.borrow().iter().map(|reason| format!("catalog: {reason}")));
        troubles.sort();
        troubles.dedup();
        troubles
    }

    /// Why this process takes no work: it cannot, or shall not.
    #[must_use]
    pub fn idle(&self) -> Vec<String> {
        self.paused.borrow().iter().cloned().chain(self.troubles()).collect()
    }

    /// Runs under way, in all cells.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.parts.iter().map(|part| part.worker.running.count()).sum()
    }
}

/// A process that is paused could work, and is ready: it is not to be replaced by another one.
async fn ready(State(admin): State<Admin>) -> Response {
    let troubles = admin.troubles();
    let code = if troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": troubles.is_empty(), "reasons": troubles }))).into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    let hooks = admin.catalog.hooks.borrow().clone();
    let standing = admin.catalog.standing.borrow().clone();
    let troubles = admin.troubles();
    let store = admin.parts.iter().find_map(|part| part.store_away.borrow().clone());
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": troubles.is_empty(),
        "reasons": troubles,
        "paused": *admin.paused.borrow(),
        "store_of_claims": store.map_or_else(|| "up".to_owned(), |reason| match admin.when_away {
            WhenAway::Hold => format!("away, holding: {reason}"),
            WhenAway::Proceed => format!("away, proceeding without claims: {reason}"),
        }),
        "hooks": admin.admission.hooks(),
        "broken_targets": admin.admission.broken(),
        "catalog": {
            "revision": hooks.revision().to_string(),
            "hooks": hooks.hooks().len(),
            "from": standing.from,
            "cached": standing.cached,
            "applied": standing.applied,
            "refused": standing.refused,
            "away": standing.away,
        },
    }))
    .into_response()
}
