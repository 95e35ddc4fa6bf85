//! What a worker says of itself, once a second, and what it hears of the one that keeps the dead letters.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

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
    let pace = Mutex::new(Pace::default());
    move || Card {
        attempts_per_second: pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .of(process.counts().attempts, Instant::now()),
        failing: process.admission.failing(),
        in_flight: process.in_flight(),
        revision: process.catalog.hooks.borrow().revision().to_string(),
        idle: process.idle(),
        keeper: operations.kept.borrow().clone(),
        counts: Some(process.counts()),
        refused: process.catalog.standing.borrow().refused.as_ref().map(refused),
        ..fixed.clone()
    }
}

/// Attempts a second over the last [`PACE_OVER`].
#[derive(Debug, Default)]
struct Pace {
    /// When so many had ended: oldest first.
    seen: VecDeque<(Instant, u64)>,
}

impl Pace {
    fn of(&mut self, attempts: u64, now: Instant) -> f64 {
        self.seen.push_back((now, attempts));
        while self.seen.len() > 2 && now.duration_since(self.seen[1].0) >= PACE_OVER {
            self.seen.pop_front();
        }
        let (since, before) = self.seen[0];
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds < 0.5 {
            return 0.0;
        }
        let more = u32::try_from(attempts.saturating_sub(before)).map_or(f64::from(u32::MAX), f64::from);
        (more / seconds * 10.0).round() / 10.0
    }
}

fn refused(refusal: &Refusal) -> Refused {
    Refused { revision: refusal.revision.clone(), reason: refusal.reason.clone() }
}

/// The time over which attempts a second are told.
const PACE_OVER: Duration = Duration::from_secs(10);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_seconds() {
        let (began, mut pace) = (Instant::now(), Pace::default());
        let mut check = |second: u64, attempts: u64, expected: f64| {
            let found = pace.of(attempts, began + Duration::from_secs(second));
            assert!((found - expected).abs() < f64::EPSILON, "{found} after {second} s, not {expected}");
        };
        check(0, 1_000, 0.0);
        check(1, 1_050, 50.0);
        check(10, 1_100, 10.0);
        check(20, 1_100, 0.0); // what is older is forgotten
        check(21, 1_131, 2.8);
    }
}
