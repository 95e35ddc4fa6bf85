//! One worker process: takes deliveries while it may, and stops in order.
//!
//! Stopping: consume no more, hand back what was not begun, let runs finish for the grace period, interrupt the rest
//! (their claims are released and their messages handed back), name what is left, close.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::broker::{Delivery, Wanted};
use crate::config::WhenAway;
use crate::telemetry::Metric;
use crate::worker::Worker;

/// Time for interrupted runs to release their claims.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);
/// A delivery that the broker has sent already shows up within this.
const LAST_DELIVERY: Duration = Duration::from_millis(100);

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
        let mut tasks = JoinSet::new();
        let watched = Arc::clone(&self.worker);
        let pinging = tokio::spawn(async move { watched.store.watch().await });
        tokio::select! {
            () = shutdown => {}
            () = self.work(&mut tasks) => {}
        }
        let orphans = self.drain(&mut tasks).await;
        pinging.abort();
        self.worker.broker.close().await;
        orphans
    }

    async fn work(&self, tasks: &mut JoinSet<()>) {
        let broker = &self.worker.broker;
        let mut away = self.worker.store.away();
        let holds = self.worker.rules.when_away == WhenAway::Hold;
        self.follow(holds && away.borrow_and_update().is_some());
        loop {
            tokio::select! {
                delivery = broker.receive() => match delivery {
                    Some(delivery) => self.take(tasks, delivery),
                    None => return,
                },
                changed = away.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow(holds && away.borrow_and_update().is_some());
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// Consumes, or closes the consumers while the fleet holds: nacks would go round at once, and count as deaths.
    fn follow(&self, hold: bool) {
        Metric::Holding.set(f64::from(u8::from(hold)));
        self.worker.broker.want(if hold { Vec::new() } else { self.wanted.clone() });
    }

    fn take(&self, tasks: &mut JoinSet<()>, delivery: Delivery) {
        let worker = Arc::clone(&self.worker);
        tasks.spawn(async move {
            if AssertUnwindSafe(worker.handle(&delivery)).catch_unwind().await.is_err() {
                tracing::error!(queue = %delivery.queue, "the pipeline panicked on a message");
                worker.panicked(&delivery).await;
            }
        });
    }

    async fn drain(&self, tasks: &mut JoinSet<()>) -> Vec<String> {
        let worker = &self.worker;
        worker.broker.want(Vec::new());
        let handed_back = async {
            while let Ok(Some(delivery)) = timeout(LAST_DELIVERY, worker.broker.receive()).await {
                worker.hand_back(&delivery).await;
            }
        };
        let finished = async {
            let ended = async { while tasks.join_next().await.is_some() {} };
            tokio::join!(handed_back, ended);
        };
        if timeout(self.grace, finished).await.is_ok() {
            return Vec::new();
        }
        tracing::warn!(runs = worker.running.names().len(), "the grace period is over, interrupting");
        worker.interrupt.cancel();
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(INTERRUPT_GRACE, ended).await;
        let left = worker.running.names();
        for run in &left {
            tracing::warn!(run, "cut off: another worker takes it over when its lease ends");
        }
        left
    }
}
