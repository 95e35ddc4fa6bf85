//! How a process is doing, or for a server the fleet, for people and their tools.

use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::fleet::Fleet;
use super::kheish::status::{self as kheish, Health, HooksStatus};
use super::process::Process;
use super::source::{KheishApi, Source};
use crate::catalog::watch::{Followed, Standing};
use crate::config::WhenAway;
use crate::domain::fold as letters;
use crate::flow::{Card, Kept, WorkCounts};
use crate::operations::Operations;
use crate::worker::admission::GateStatus;

/// Longest wait for the log of letters.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a process is doing; of a server, how the fleet is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    version: &'static str,
    /// Whether it can take work; of a server, events.
    ready: bool,
    /// Why not; of a server, what it cannot do meanwhile.
    reasons: Vec<String>,
    /// Why the fleet is paused, while it is.
    paused: Option<String>,
    /// up, or why it is away and what is done meanwhile
    store_of_claims: String,
    /// The hooks that have run in this process; with `http.kheish_api` Kheish's hooks in numbers.
    hooks: Hooks,
    /// With `http.kheish_api`: the hooks that have run in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks_run: Option<Vec<GateStatus>>,
    /// With `http.kheish_api`: what Kheish's tools show to operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
    /// The targets whose breakers are open, as this process sees it; of a server, as the fleet does.
    broken_targets: Vec<String>,
    catalog: CatalogStatus,
    counts: Counts,
    /// The workers of the fleet, by host and process; only servers tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<WorkerStatus>>,
    /// Why a server does not know the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers_read_error: Option<String>,
    /// What somebody should look at: `hook_dead_letters`, `hook_dead_letter_persist_failures`, and `unreadable_by_broker`,
    /// of which `hookfleet doctor` says what to do.
    warnings: Vec<&'static str>,
}

/// What `hooks` of a status says.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = StatusHooks)]
enum Hooks {
    Run(Vec<GateStatus>),
    OfKheish(HooksStatus),
}

/// A worker, as it described itself within the last seconds.
#[derive(Debug, Serialize, ToSchema)]
struct WorkerStatus {
    worker: String,
    host: String,
    pid: u32,
    /// Empty for a version that does not describe itself.
    version: String,
    lanes: Vec<String>,
    /// When it started, in milliseconds since 1970.
    since_ms: u64,
    /// Runs under way.
    in_flight: usize,
    /// The revision of its catalog.
    revision: String,
    /// Why it takes no new work, if it does not.
    idle: Vec<String>,
    /// The newer revision that it cannot use, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// Attempts that ended there, however; none of a version that does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_count: Option<u64>,
    /// Attempts that failed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_count: Option<u64>,
}

impl WorkerStatus {
    fn of(card: Card) -> Self {
        let Card { worker, host, pid, version, lanes, since_ms, in_flight, revision, idle, refused, counts, .. } = card;
        Self {
            refused: refused.map(|refused| format!("{}: {}", refused.revision, refused.reason)),
            execution_count: counts.as_ref().map(|counts| counts.attempts),
            failure_count: counts.map(|counts| counts.failed),
            worker,
            host,
            pid,
            version,
            lanes,
            since_ms,
            in_flight,
            revision,
            idle,
        }
    }
}

/// What has happened since the process began, of a server what has happened in the workers that are there: sums over all
/// hooks, which the `/metrics` of each worker have one by one.
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
    /// Runs under way.
    in_flight_count: usize,
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
    /// Messages that the broker could hand to no worker and keeps in a queue of their own, as the keeper of the
    /// letters says; none where no keeper is known.
    unreadable_by_broker_count: Option<u64>,
}

/// How it stands with the letters, if they are served here.
async fn letters(operations: Option<&Operations>) -> Option<Result<letters::Standing, String>> {
    let reading = timeout(PATIENCE, operations?.letters.lately()).await;
    Some(match reading {
        Ok(Ok(fold)) => Ok(fold.standing()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(unread()),
    })
}

impl Counts {
    fn of(
        work: WorkCounts,
        in_flight: usize,
        log: Option<Result<letters::Standing, String>>,
        kept: Option<&Kept>,
    ) -> Self {
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
            unreadable_by_broker_count: kept.map(|kept| kept.unreadable),
            configured_count: work.hooks,
            execution_count: work.attempts,
            failure_count: work.failed,
            retry_count: work.retries,
            dead_lettered_count: work.letters,
            in_flight_count: in_flight,
            dead_letter_persist_failure_count: work.letters_unconfirmed,
            last_dead_letter_at_ms: work.last_letter_at_ms,
            last_dead_letter_hook: work.last_letter_hook,
        }
    }

    fn warnings(&self) -> Vec<&'static str> {
        let warnings = [
            (self.unresolved_dead_lettered_count.unwrap_or(self.dead_lettered_count) > 0, "hook_dead_letters"),
            (self.dead_letter_persist_failure_count > 0, "hook_dead_letter_persist_failures"),
            (self.unreadable_by_broker_count.is_some_and(|count| count > 0), "unreadable_by_broker"),
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

impl CatalogStatus {
    fn of(catalog: &Followed) -> Self {
        let hooks = catalog.hooks.borrow().clone();
        let standing = catalog.standing.borrow().clone();
        Self { revision: hooks.revision().to_string(), hooks: hooks.hooks().len(), standing }
    }
}

/// How this process is doing; a server tells how the fleet is, as its workers describe themselves once a second.
///
/// With the setting `http.kheish_api` it is also what Kheish's tools look for.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "status",
    responses((status = 200, description = "How it is doing", body = Status))
)]
pub(super) async fn status(
    State(source): State<Source>,
    State(KheishApi(is_wanted)): State<KheishApi>,
) -> Json<Status> {
    let (mut status, work, hooks, operations) = match &source {
        Source::Process(process) => {
            let (work, hooks) = (process.counts(), process.catalog.hooks.borrow().clone());
            (of_process(process, work.clone()).await, work, hooks, process.letters.as_ref())
        }
        Source::Fleet(fleet) => {
            let (status, work) = of_fleet(fleet).await;
            (status, work, fleet.catalog.hooks.borrow().clone(), Some(&fleet.operations))
        }
    };
    if is_wanted {
        let letters = timeout(PATIENCE, kheish::letters(operations)).await;
        let letters = letters.unwrap_or_else(|_| Some(Err(unread())));
        let of_kheish = HooksStatus::of(&work, &hooks, letters);
        status.health = Some(of_kheish.health());
        if let Hooks::Run(run) = std::mem::replace(&mut status.hooks, Hooks::OfKheish(of_kheish)) {
            status.hooks_run = Some(run);
        }
    }
    Json(status)
}

fn unread() -> String {
    format!("the log was not read within {PATIENCE:?}")
}

async fn of_process(process: &Process, work: WorkCounts) -> Status {
    let reasons = process.troubles();
    let store = process.cells.iter().find_map(|cell| cell.store_away.borrow().clone());
    let log = letters(process.letters.as_ref()).await;
    let kept = process.kept.borrow().clone();
    let counts = Counts::of(work, process.in_flight(), log, kept.as_ref());
    Status {
        version: env!("CARGO_PKG_VERSION"),
        ready: reasons.is_empty(),
        reasons,
        paused: process.paused.borrow().clone(),
        store_of_claims: store.map_or_else(
            || "up".to_owned(),
            |reason| match process.when_away {
                WhenAway::Hold => format!("away, holding: {reason}"),
                WhenAway::Proceed => format!("away, proceeding without claims: {reason}"),
            },
        ),
        hooks: Hooks::Run(process.admission.hooks()),
        hooks_run: None,
        health: None,
        broken_targets: process.admission.broken(),
        catalog: CatalogStatus::of(&process.catalog),
        workers: None,
        workers_read_error: None,
        warnings: counts.warnings(),
        counts,
    }
}

async fn of_fleet(fleet: &Fleet) -> (Status, WorkCounts) {
    let (members, broken, log) = tokio::join!(fleet.flow.crew(), fleet.flow.opened(), letters(Some(&fleet.operations)));
    let (mut members, workers_read_error) = match members {
        Ok(members) => (members, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    members.sort_by(|one, other| (&one.host, one.pid).cmp(&(&other.host, other.pid)));
    let mut work = WorkCounts { hooks: fleet.catalog.hooks.borrow().hooks().len(), ..WorkCounts::default() };
    for counts in members.iter().filter_map(|member| member.counts.as_ref()) {
        work.add(counts);
    }
    let in_flight = members.iter().map(|member| member.in_flight).sum();
    let counts = Counts::of(work.clone(), in_flight, log, members.iter().find_map(|member| member.keeper.as_ref()));
    let away = fleet.redis_away.borrow().clone();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        ready: fleet.is_ready(),
        reasons: fleet.troubles(),
        paused: fleet.paused.borrow().clone(),
        store_of_claims: away.map_or_else(|| "up".to_owned(), |reason| format!("away: {reason}")),
        hooks: Hooks::Run(Vec::new()),
        hooks_run: None,
        health: None,
        broken_targets: broken.map(|targets| targets.into_keys().collect()).unwrap_or_default(),
        catalog: CatalogStatus::of(&fleet.catalog),
        workers: workers_read_error.is_none().then(|| members.into_iter().map(WorkerStatus::of).collect()),
        workers_read_error,
        warnings: counts.warnings(),
        counts,
    };
    (status, work)
}
