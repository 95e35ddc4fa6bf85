//! What a worker says of itself, once a second.

use crate::catalog;
use crate::catalog::watch::Refusal;
use crate::config::Settings;
use crate::domain::hook::HookLane;
use crate::flow::{Card, Refused};
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
        keeper: *operations.kept.borrow(),
        counts: Some(process.counts()),
        refused: process.catalog.standing.borrow().refused.as_ref().map(refused),
        ..fixed.clone()
    }
}

fn refused(refusal: &Refusal) -> Refused {
    Refused { revision: refusal.revision.clone(), reason: refusal.reason.clone() }
}
