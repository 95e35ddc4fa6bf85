//! HTTP for people and probes: metrics, health, and where asked for the event gateway and the dead letters.

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::broker::{Broker, Health};
use crate::catalog::follow::Followed;
use crate::catalog::revisions::Revisions;
use crate::config::WhenAway;
use crate::desk::Desk;
use crate::desk::jobs::Jobs;
use crate::domain::access::Role;
use crate::domain::event::Reading;
use crate::domain::redaction::Pointer;
use crate::flow::Flow;
use crate::idempotency::Idempotency;
use crate::publish::Publisher;
use crate::telemetry::Totals;
use crate::worker::Worker;
use crate::worker::admission::Admission;

pub mod access;
pub mod api;
mod browser;
mod events;
mod gates;
mod health;
mod hooks;
mod invocations;
mod letters;
mod problem;
mod status;

use access::Door;
use browser::Loopback;
pub use events::publisher;

/// What the handlers work with.
#[derive(Clone)]
pub struct Admin {
    pub metrics: PrometheusHandle,
    pub totals: Arc<Totals>,
    pub broker: Arc<dyn Broker>,
    /// Where gates are asked, if this process asks any.
    pub gates: Option<Part>,
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
    /// Which parts are served here.
    pub scope: Scope,
    pub desk: Desk,
    pub jobs: Jobs,
    pub claims: Arc<dyn Idempotency>,
    /// Places in the data of events that nobody is shown.
    pub redact: Arc<[Pointer]>,
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
    /// Its thread.
    pub runtime: Handle,
    /// It does nothing but ask gates: without it the process takes events all the same.
    pub is_of_gates: bool,
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
pub async fn serve(listener: TcpListener, admin: Admin, door: Arc<Door>) -> std::io::Result<()> {
    let loopback = Loopback(listener.local_addr()?.ip().is_loopback());
    let (routes, _) = routes_of(admin.scope, Some(&door)).split_for_parts();
    let guarded = routes.with_state(admin).layer(from_fn_with_state(loopback, browser::guard));
    axum::serve(listener, guarded).into_future().await
}

/// Every route, with its document, behind the role that it takes. What is open tells of health, to probes that know no
/// tokens.
fn routes_of(scope: Scope, door: Option<&Arc<Door>>) -> OpenApiRouter<Admin> {
    let open =
        api::base().routes(routes!(health::metrics)).routes(routes!(health::alive)).routes(routes!(health::ready));
    let reading = OpenApiRouter::default().routes(routes!(status::status)).merge(api::own());
    match scope {
        Scope::Operations => open.merge(api::behind(Role::Read, reading, door)),
        Scope::Everything => open
            .merge(api::behind(Role::Read, reading.merge(hooks::reading()).merge(letters::reading()), door))
            .merge(api::behind(Role::Publish, events::publishing().merge(gates::asking()), door))
            .merge(api::behind(Role::Operate, operating(), door)),
    }
}

fn operating() -> OpenApiRouter<Admin> {
    hooks::operating().merge(invocations::operating()).merge(letters::operating())
}

impl Admin {
    /// Why this process can take no work, if it cannot: each reason once, whichever cells have it.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for part in self.parts.iter().filter(|part| !part.is_of_gates) {
            if let Health::Down(reason) = &*part.health.borrow() {
                troubles.push(format!("broker: {reason}"));
            }
            // While it proceeds work goes on: the status says so.
            if let (Some(reason), WhenAway::Hold) = (&*part.store_away.borrow(), self.when_away) {
                troubles.push(format!("holding: {reason}"));
            }
        }
        troubles.extend(self.halted());
        troubles.sort();
        troubles.dedup();
        troubles
    }

    fn halted(&self) -> Option<String> {
        self.catalog.halt.borrow().as_ref().map(|reason| format!("catalog: {reason}"))
    }

    /// Why this process takes no work: it cannot, or shall not.
    #[must_use]
    pub fn idle(&self) -> Vec<String> {
        self.paused.borrow().iter().cloned().chain(self.troubles()).collect()
    }

    /// Why it decides nothing. Without the store of claims it does, as the gates' `on_failure` says, and a broker that is away
    /// may be back in time.
    fn undecided(&self) -> Option<String> {
        self.paused.borrow().clone().or_else(|| self.halted())
    }

    /// Runs under way, in all cells.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.parts.iter().map(|part| part.worker.in_flight.count()).sum()
    }
}
