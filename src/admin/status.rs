//! How this process is doing, for people and their tools.

use axum::extract::State;
use axum::response::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use crate::catalog::follow::Standing;
use crate::config::WhenAway;
use crate::worker::admission::GateStatus;

/// How a process is doing.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    version: &'static str,
    /// Whether it can take work.
    ready: bool,
    /// Why not.
    reasons: Vec<String>,
    /// Why the fleet is paused, while it is.
    paused: Option<String>,
    /// up, or why it is away and what is done meanwhile
    store_of_claims: String,
    /// The hooks that have run here.
    hooks: Vec<GateStatus>,
    /// The targets whose breakers are open, as this process sees it.
    broken_targets: Vec<String>,
    catalog: CatalogStatus,
}

/// The catalog that is in force here.
#[derive(Debug, Serialize, ToSchema)]
struct CatalogStatus {
    revision: String,
    /// How many there are.
    hooks: usize,
    #[serde(flatten)]
    standing: Standing,
}

/// `GET /v1/status`: how this process is doing.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "status",
    responses((status = 200, description = "How it is doing", body = Status))
)]
pub(super) async fn status(State(admin): State<Admin>) -> Json<Status> {
    let hooks = admin.catalog.hooks.borrow().clone();
    let reasons = admin.troubles();
    let store = admin.parts.iter().find_map(|part| part.store_away.borrow().clone());
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        ready: reasons.is_empty(),
        reasons,
        paused: admin.paused.borrow().clone(),
        store_of_claims: store.map_or_else(
            || "up".to_owned(),
            |reason| match admin.when_away {
                WhenAway::Hold => format!("away, holding: {reason}"),
                WhenAway::Proceed => format!("away, proceeding without claims: {reason}"),
            },
        ),
        hooks: admin.admission.hooks(),
        broken_targets: admin.admission.broken(),
        catalog: CatalogStatus {
            revision: hooks.revision().to_string(),
            hooks: hooks.hooks().len(),
            standing: admin.catalog.standing.borrow().clone(),
        },
    })
}
