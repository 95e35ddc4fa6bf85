//! The state of a process with workers, for probes, the status and gates.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::broker::Health;
use crate::catalog::watch::Followed;
use crate::config::WhenAway;
use crate::flow::{Kept, WorkCounts};
use crate::operations::Operations;
use crate::telemetry::Totals;
use crate::worker::Worker;
use crate::worker::admission::Admission;

/// Why a process takes no work that has been told to end.
pub(super) const STOPPING: &str = "stopping";

/// The state of one cell, and the way to its worker.
#[derive(Clone)]
pub struct CellView {
    pub health: watch::Receiver<Health>,
    /// Why the store of claims is away, while it is.
    pub store_away: watch::Receiver<Option<String>>,
    pub worker: Arc<Worker>,
    /// Its thread.
    pub runtime: Handle,
    /// It does nothing but ask gates: without it the process takes events all the same.
    pub is_of_gates: bool,
}

/// A process with workers.
#[derive(Clone)]
pub struct Process {
    pub cells: Vec<CellView>,
    pub when_away: WhenAway,
    pub catalog: Followed,
    /// Why the fleet is paused, while it is.
    pub paused: watch::Receiver<Option<String>>,
    /// What the keeper of the dead letters says, if there is one.
    pub kept: watch::Receiver<Option<Kept>>,
    pub admission: Arc<Admission>,
    pub totals: Arc<Totals>,
    /// Cancelled when the process begins to stop.
    pub stop: CancellationToken,
    /// The dead letters, where they are served: a worker keeps no index of them.
    pub letters: Option<Operations>,
}

impl Process {
    /// Why this process can take no work, if it cannot: each reason once, whichever cells have it.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        if self.stop.is_cancelled() {
            return vec![STOPPING.to_owned()]; // what its parts say while they end is of no use to anybody
        }
        let mut troubles = Vec::new();
        for cell in &self.cells {
            match &*cell.health.borrow() {
                Health::Limping(reason) => troubles.push(format!("broker: {reason}")),
                Health::Down(reason) if !cell.is_of_gates => troubles.push(format!("broker: {reason}")),
                Health::Up | Health::Down(_) => {}
            }
        }
        for cell in self.cells.iter().filter(|cell| !cell.is_of_gates) {
            // While it proceeds work goes on: the status says so.
            if let (Some(reason), WhenAway::Hold) = (&*cell.store_away.borrow(), self.when_away) {
                troubles.push(format!("holding: {reason}"));
            }
        }
        troubles.extend(self.kept.borrow().as_ref().and_then(Kept::retries_still));
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
    #[must_use]
    pub fn undecided(&self) -> Option<String> {
        self.paused.borrow().clone().or_else(|| self.halted())
    }

    /// What has happened here since the process began.
    #[must_use]
    pub fn counts(&self) -> WorkCounts {
        let Totals { attempts, failed, retries, letters, letters_unconfirmed } = &*self.totals;
        let last = self.cells.iter().filter_map(|cell| cell.worker.metrics.last_letter()).max();
        WorkCounts {
            hooks: self.catalog.hooks.borrow().hooks().len(),
            attempts: attempts.load(Relaxed),
            failed: failed.load(Relaxed),
            retries: retries.load(Relaxed),
            letters: letters.load(Relaxed),
            letters_unconfirmed: letters_unconfirmed.load(Relaxed),
            last_letter_at_ms: last.as_ref().map(|last| last.at_ms),
            last_letter_hook: last.and_then(|last| last.hook),
        }
    }

    /// Runs under way, in all cells.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.cells.iter().map(|cell| cell.worker.in_flight.count()).sum()
    }
}
