//! How this process is doing, for people and their tools.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Admin, Scope};
use crate::catalog::follow::Standing;
use crate::config::WhenAway;
use crate::domain::fold as letters;
use crate::telemetry::Totals;
use crate::worker::admission::GateStatus;

/// Longest wait for the log of letters.
const PATIENCE: Duration = Duration::from_secs(2);

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
    counts: Counts,
    /// What somebody should look at: `hook_dead_letters`, `hook_dead_letter_persist_failures`.
    warnings: Vec<&'static str>,
}

/// What has happened here since this process began: sums over all hooks, which `/metrics` has one by one.
#[derive(Debug, Serialize, ToSchema)]
struct Counts {
    /// Hooks of the catalog.
    configured_count: usize,
    /// Attempts that ended, however.
    execution_count: u64,
    /// Attempts that failed.
    failure_count: u64,
    retry_count: u64,
    dead_lettered_count: u64,
    /// Appends of letters that were not confirmed. They are repeated until they are.
    dead_letter_persist_failure_count: u64,
    last_dead_letter_at_ms: Option<u64>,
    /// None if it was about a whole event or message.
    last_dead_letter_hook: Option<String>,
    /// Letters of the whole fleet that are open or being replayed; this and what follows only where letters are served.
    unresolved_dead_lettered_count: Option<u64>,
    last_unresolved_dead_letter_at_ms: Option<u64>,
    last_unresolved_dead_letter_hook: Option<String>,
    /// Why the log of letters could not be read.
    dead_letter_read_error: Option<String>,
}

/// How it stands with the letters, if they are served here.
async fn letters(admin: &Admin) -> Option<Result<letters::Standing, String>> {
    if admin.scope == Scope::Operations {
        return None; // a worker keeps no index of them
    }
    let reading = timeout(PATIENCE, admin.desk.letters.lately()).await;
    Some(match reading {
        Ok(Ok(fold)) => Ok(fold.standing()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the log was not read within {PATIENCE:?}")),
    })
}

impl Counts {
    fn of(admin: &Admin, configured_count: usize, log: Option<Result<letters::Standing, String>>) -> Self {
        let Totals { attempts, failed, retries, letters, letters_unconfirmed } = &*admin.totals;
        let last = admin.parts.iter().filter_map(|part| part.worker.metrics.last_letter()).max();
        let (standing, dead_letter_read_error) = match log {
            Some(Ok(standing)) => (Some(standing), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let unresolved = standing.as_ref().and_then(|standing| standing.last_unresolved.as_ref());
        Self {
            unresolved_dead_lettered_count: standing.as_ref().map(|standing| standing.unresolved),
            last_unresolved_dead_letter_at_ms: unresolved.map(|last| last.at_ms),
            last_unresolved_dead_letter_hook: unresolved.and_then(|last| last.hook.as_deref().map(str::to_owned)),
            dead_letter_read_error,
            configured_count,
            execution_count: attempts.load(Relaxed),
            failure_count: failed.load(Relaxed),
            retry_count: retries.load(Relaxed),
            dead_lettered_count: letters.load(Relaxed),
            dead_letter_persist_failure_count: letters_unconfirmed.load(Relaxed),
            last_dead_letter_at_ms: last.as_ref().map(|last| last.at_ms),
            last_dead_letter_hook: last.and_then(|last| last.hook),
        }
    }

    fn warnings(&self) -> Vec<&'static str> {
        let warnings = [
            (self.unresolved_dead_lettered_count.unwrap_or(self.dead_lettered_count) > 0, "hook_dead_letters"),
            (self.dead_letter_persist_failure_count > 0, "hook_dead_letter_persist_failures"),
        ];
        warnings.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
    }
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

/// How this process is doing.
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
    let counts = Counts::of(&admin, hooks.hooks().len(), letters(&admin).await);
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
        warnings: counts.warnings(),
        counts,
    })
}
