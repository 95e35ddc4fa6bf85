//! What a worker says of itself, once a second, and what it hears of the one that keeps the dead letters.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::catalog;
use crate::catalog::watch::Refusal;
use crate::config::Settings;
use crate::domain::hook::HookLane;
use crate::flow::{Card, Flow, Kept, Refused};
use crate::http::process::Process;
use crate::operations::Operations;
use crate::telemetry::now_ms;

/// What this worker says of itself, whenever it is asked.
pub(super) fn heartbeat(settings: &Settings, process: &Process, operations: &Operations) -> impl Fn() -> Card + use<> {
    let serves = |lane: &&HookLane| settings.worker.lanes[**lane as usize];
    let fixed = Card {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        format: catalog::FORMAT,
        lanes: HookLane::ALL.iter().filter(serves).map(|lane| lane.name().to_owned()).collect(),
        since_ms: now_ms(),
        ..Card::default()
    };
    let (process, operations) = (process.clone(), operations.clone());
    move || Card {
        in_flight: process.in_flight(),
        revision: process.catalog.hooks.borrow().revision().to_string(),
        idle: process.idle(),
        keeper: operations.kept.borrow().clone(),
        counts: Some(process.counts()),
        refused: process.catalog.standing.borrow().refused.as_ref().map(refused),
        ..fixed.clone()
    }
}

fn refused(refusal: &Refusal) -> Refused {
    Refused { revision: refusal.revision.clone(), reason: refusal.reason.clone() }
}

/// Between two questions for what the keeper says.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Tells what the keeper of the dead letters says, for ever: this process if it is the one, else the worker of the fleet
/// that is. Without an answer it is as it was.
pub(super) async fn follow_keeper(
    flow: &dyn Flow,
    own: &watch::Sender<Option<Kept>>,
    told: &watch::Sender<Option<Kept>>,
) {
    loop {
        let own = own.borrow().clone();
        let kept = match own {
            Some(kept) => Some(Some(kept)),
            None => flow.crew().await.ok().map(|cards| cards.into_iter().find_map(|card| card.keeper)),
        };
        if let Some(kept) = kept {
            told.send_if_modified(|told| {
                let changed = *told != kept;
                *told = kept;
                changed
            });
        }
        sleep(ASK_EVERY).await;
    }
}
