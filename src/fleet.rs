//! One worker process: takes deliveries while it may, and stops in order.
//!
//! Stopping: consume no more, hand back what was not begun, let runs finish for the grace period, interrupt the rest
//! (their claims are released and their messages handed back), name what is left, close.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::broker::{Delivery, Wanted};
use crate::config::WhenAway;
use crate::domain::message::{Lane, Queue};
use crate::telemetry::Metric;
use crate::worker::Worker;

/// Time for interrupted runs to release their claims.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);
/// A process that has lived for so long takes suspects too. One that just started would have little else in hand: where
/// processes are killed soon after they start, whatever the reason, the innocent would be buried as poison.
const SUSPECTS_AFTER: Duration = Duration::from_secs(5);

/// A worker with what it consumes.
pub struct Fleet {
    pub worker: Arc<Worker>,
    pub wanted: Vec<Wanted>,
    /// Time that runs get to finish at shutdown.
    pub grace: Duration,
}

impl Fleet {
    /// Works until `shutdown` completes, then drains. Answers the names of what was cut off: it could neither be settled
    /// nor released in time.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Vec<String> {
        let tasks = TaskTracker::new();
        let watched = Arc::clone(&self.worker);
        let pinging = tokio::spawn(async move { watched.store.watch().await });
        tokio::select! {
            biased;
            () = shutdown => {}
            () = self.work(&tasks) => {}
        }
        let orphans = self.drain(&tasks).await;
        pinging.abort();
        self.worker.broker.close().await;
        orphans
    }

    /// Takes deliveries until the broker is closed, and follows the store of claims beside it.
    async fn work(&self, tasks: &TaskTracker) {
        let broker = &self.worker.broker;
        let mut away = self.worker.store.away();
        let holds = self.worker.rules.when_away == WhenAway::Hold;
        let settled_at = Instant::now() + SUSPECTS_AFTER;
        let taken = async {
            while let Some(delivery) = broker.receive().await {
                self.take(tasks, delivery);
            }
        };
        let followed = async {
            loop {
                let settled = Instant::now() >= settled_at;
                self.follow(holds && away.borrow_and_update().is_some(), settled);
                tokio::select! {
                    biased;
                    changed = away.changed() => if changed.is_err() { return },
                    () = sleep_until(settled_at), if !settled => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = taken => {}
            () = followed => {}
        }
    }

    /// Consumes, or closes the consumers while the fleet holds: nacks would go round at once, and count as deaths.
    fn follow(&self, hold: bool, settled: bool) {
        Metric::Holding.set(f64::from(u8::from(hold)));
        let is_due = |wanted: &&Wanted| settled || wanted.queue != Queue::Lane(Lane::Suspect);
        let wanted = if hold { Vec::new() } else { self.wanted.iter().filter(is_due).copied().collect() };
        self.worker.broker.want(wanted);
    }

    fn take(&self, tasks: &TaskTracker, delivery: Delivery) {
        let worker = Arc::clone(&self.worker);
        tasks.spawn(async move {
            if AssertUnwindSafe(worker.handle(&delivery)).catch_unwind().await.is_err() {
                tracing::error!(queue = %delivery.queue, "the pipeline panicked on a message");
                worker.panicked(&delivery).await;
            }
        });
    }

    async fn drain(&self, tasks: &TaskTracker) -> Vec<String> {
        let worker = &self.worker;
        tasks.close();
        let handed_back = async {
            for delivery in worker.broker.drain().await {
                worker.hand_back(&delivery).await;
            }
        };
        let finished = async {
            tokio::join!(handed_back, tasks.wait());
        };
        if timeout(self.grace, finished).await.is_ok() {
            return Vec::new();
        }
        tracing::warn!(runs = worker.running.names().len(), "the grace period is over, interrupting");
        worker.interrupt.cancel();
        let _ = timeout(INTERRUPT_GRACE, tasks.wait()).await;
        let left = worker.running.names();
        for run in &left {
            tracing::warn!(run, "cut off: another worker takes it over when its lease ends");
        }
        left
    }
}
