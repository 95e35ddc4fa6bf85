//! For probes and scrapers, which know no tokens: open to everybody who reaches the address. The status and the document
//! take the role `read`.

use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Door;
use super::source::{KheishApi, Source};
use super::{openapi, status};
use crate::domain::access::Role;
use crate::telemetry::Registry;

/// What the handlers work with.
#[derive(Clone)]
pub struct Probes {
    pub metrics: Arc<Registry>,
    pub source: Source,
    pub kheish_api: KheishApi,
}

impl FromRef<Probes> for Arc<Registry> {
    fn from_ref(probes: &Probes) -> Self {
        probes.metrics.clone()
    }
}

impl FromRef<Probes> for Source {
    fn from_ref(probes: &Probes) -> Self {
        probes.source.clone()
    }
}

impl FromRef<Probes> for KheishApi {
    fn from_ref(probes: &Probes) -> Self {
        probes.kheish_api
    }
}

/// The routes that every process serves.
pub(super) fn router(door: Option<&Arc<Door>>) -> OpenApiRouter<Probes> {
    let open = OpenApiRouter::default().routes(routes!(metrics)).routes(routes!(alive)).routes(routes!(ready));
    let reading = OpenApiRouter::default().routes(routes!(status::status)).merge(openapi::own(door));
    open.merge(openapi::behind(Role::Read, reading, door))
}

/// Counters of this process, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    responses((status = 200, description = "In Prometheus' text format", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(metrics): State<Arc<Registry>>) -> Response {
    rendered(&metrics)
}

/// The metrics as an answer.
pub(super) fn rendered(metrics: &Registry) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
}

/// The process is alive.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "alive",
    responses((status = 200, description = "It is", body = String, content_type = "text/plain"))
)]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Whether a process takes work; of a server, events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// Why it can take none; a server that is ready tells what it cannot do meanwhile.
    reasons: Vec<String>,
}

impl Source {
    fn readiness(&self) -> Readiness {
        match self {
            Self::Process(process) => {
                let reasons = process.troubles();
                Readiness { ready: reasons.is_empty(), reasons }
            }
            Self::Fleet(fleet) => Readiness { ready: fleet.is_ready(), reasons: fleet.troubles() },
        }
    }
}

/// Whether the process can take work. One that is paused could, and is ready: it is not to be replaced. A server is ready
/// while it reaches the broker.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    responses(
        (status = 200, description = "It takes work, or could", body = Readiness),
        (status = 503, description = "It cannot", body = Readiness),
    )
)]
pub(super) async fn ready(State(source): State<Source>) -> Response {
    let readiness = source.readiness();
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}
