//! One worker process: takes deliveries while it may, and stops in order.
//!
//! Stopping: consume no more, hand back what was not begun, let runs finish for the grace period, interrupt the rest
//! (their claims are released and their messages handed back), name what is left, close.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::broker::{Delivery, Wanted};
use crate::config::WhenAway;
use crate::domain::message::{Lane, Queue};
use crate::flow::Flow;
use crate::telemetry::Metric;
use crate::worker::Worker;

/// Time for interrupted runs to release their claims.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);
/// A process that has lived for so long takes suspects too. One that just started would have little else in hand: where
/// processes are killed soon after they start, whatever the reason, the innocent would be buried as poison.
const SUSPECTS_AFTER: Duration = Duration::from_secs(5);

/// Reasons to take no new work, beside a store of claims that is away. Each is told while it lasts.
#[derive(Debug, Clone)]
pub struct Halts {
    /// There is no catalog, or not the one that there should be.
    pub catalog: watch::Receiver<Option<String>>,
    /// Somebody wishes it.
    pub pause: watch::Receiver<Option<String>>,
}

impl Halts {
    /// Nothing ever halts this worker.
    #[must_use]
    pub fn never() -> Self {
        let never = || watch::channel(None).1;
        Self { catalog: never(), pause: never() }
    }

    fn any(&mut self) -> bool {
        [&mut self.catalog, &mut self.pause].map(|halt| halt.borrow_and_update().is_some()).contains(&true)
    }

    async fn changed(&mut self) {
        tokio::select! {
            biased; // a simulation has to be the same twice
            () = changed(&mut self.catalog) => {}
            () = changed(&mut self.pause) => {}
        }
    }
}

/// Whose sender is gone never changes again.
async fn changed(halt: &mut watch::Receiver<Option<String>>) {
    if halt.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Between two looks at whether the fleet is paused.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Whether the fleet is paused at the start. Who holds without Redis holds until it is known.
pub async fn pause(flow: &dyn Flow, when_away: WhenAway) -> watch::Sender<Option<String>> {
    let paused = match (flow.paused().await, when_away) {
        (Ok(paused), _) => paused.map(|pause| pause.to_string()),
        (Err(_), WhenAway::Hold) => Some("it is not known yet whether the fleet is paused".to_owned()),
        (Err(_), WhenAway::Proceed) => None,
    };
    watch::Sender::new(paused)
}

/// Tells when the fleet is paused and when that ends, for ever. Without an answer it is as it was.
pub async fn follow_pause(flow: &dyn Flow, told: &watch::Sender<Option<String>>) {
    loop {
        sleep(ASK_EVERY).await;
        let Ok(paused) = flow.paused().await else { continue };
        let paused = paused.map(|pause| pause.to_string());
        told.send_if_modified(|told| {
            let changed = *told != paused;
            if changed {
                if let Some(reason) = &paused {
                    tracing::warn!(reason, "the fleet is paused: no new work is taken");
                } else {
                    tracing::info!("the fleet goes on");
                }
                *told = paused;
            }
            changed
        });
    }
}

/// A worker with what it consumes.
pub struct Fleet {
    pub worker: Arc<Worker>,
    pub wanted: Vec<Wanted>,
    /// Takes no work while the store of claims is away, unless the fleet goes on without it.
    pub waits_for_store: bool,
    pub halts: Halts,
    /// Time that runs get to finish at shutdown.
    pub grace: Duration,
}

impl Fleet {
    /// Works until `shutdown` completes, then drains. Answers the names of what was cut off: it could neither be settled
    /// nor released in time.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Vec<String> {
        let tasks = self.worker.tasks.clone();
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

    /// Takes deliveries until the broker is closed, and follows whatever says that it may not beside it.
    async fn work(&self, tasks: &TaskTracker) {
        let broker = &self.worker.broker;
        let mut away = self.worker.store.away();
        let mut halts = self.halts.clone();
        let holds = self.waits_for_store && self.worker.rules.when_away == WhenAway::Hold;
        let settled_at = Instant::now() + SUSPECTS_AFTER;
        let taken = async {
            while let Some(delivery) = broker.receive().await {
                self.take(tasks, delivery);
            }
        };
        let followed = async {
            loop {
                let settled = Instant::now() >= settled_at;
                let held = holds & away.borrow_and_update().is_some();
                self.follow(held | halts.any(), settled);
                tokio::select! {
                    biased;
                    () = halts.changed() => {}
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
        if self.waits_for_store {
            Metric::Holding.set(f64::from(u8::from(hold))); // the gates' cell, which does not, would say that all is well
        }
        let is_due = |wanted: &&Wanted| settled || wanted.queue != Queue::Lane(Lane::Suspect);
        let wanted = if hold { Vec::new() } else { self.wanted.iter().filter(is_due).copied().collect() };
        self.worker.broker.want(wanted);
    }

    fn take(&self, tasks: &TaskTracker, delivery: Delivery) {
        let worker = Arc::clone(&self.worker);
        tasks.spawn(async move {
            let taken = async {
                if delivery.hand_back { worker.hand_back(&delivery).await } else { worker.handle(&delivery).await }
            };
            if AssertUnwindSafe(taken).catch_unwind().await.is_err() {
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
        tracing::warn!(runs = worker.in_flight.names().len(), "the grace period is over, interrupting");
        worker.interrupt.cancel();
        let _ = timeout(INTERRUPT_GRACE, tasks.wait()).await;
        let left = worker.in_flight.names();
        for run in &left {
            tracing::warn!(run, "cut off: another worker takes it over when its lease ends");
        }
        left
    }
}

#[cfg(test)]
mod tests;
