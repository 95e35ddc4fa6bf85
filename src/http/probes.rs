//! For probes and scrapers: open to whoever reaches the address.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;

/// Counters of this process, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    responses((status = 200, description = "In Prometheus' text format", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics.render()).into_response()
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

/// Whether a process takes work.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// Why it can take none.
    reasons: Vec<String>,
}

/// Whether the process can take work. One that is paused could, and is ready: it is not to be replaced.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    responses(
        (status = 200, description = "It takes work, or could", body = Readiness),
        (status = 503, description = "It cannot", body = Readiness),
    )
)]
pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    let reasons = admin.troubles();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { ready: reasons.is_empty(), reasons })).into_response()
}
