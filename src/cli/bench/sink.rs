//! The receiver of a bench: answers 204, and notes when what arrived.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::cli::trial::{number, receiver};

/// A running receiver.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    log: Arc<Log>,
}

struct Log {
    began: Instant,
    hooks: u32,
    /// Microseconds since `began` at which each event was given to the publisher.
    sent: Vec<AtomicU64>,
    /// Arrivals by event and hook.
    seen: Vec<AtomicU32>,
    /// Microseconds from sent to arrived; first arrivals only.
    latencies: Mutex<Vec<u64>>,
    distinct: AtomicU64,
    duplicated: AtomicU64,
    last_us: AtomicU64,
    all: Notify,
}

/// What has arrived.
pub(super) struct Arrived {
    pub(super) distinct: u64,
    pub(super) duplicated: u64,
    /// When the last one came, from the first that was sent.
    pub(super) last: Duration,
    latencies_us: Vec<u64>,
}

impl Sink {
    pub(super) fn start(events: u32, hooks: u32) -> anyhow::Result<Self> {
        let log = Arc::new(Log {
            began: Instant::now(),
            hooks,
            sent: std::iter::repeat_with(AtomicU64::default).take(events as usize).collect(),
            seen: std::iter::repeat_with(AtomicU32::default).take(events as usize * hooks as usize).collect(),
            latencies: Mutex::default(),
            distinct: AtomicU64::default(),
            duplicated: AtomicU64::default(),
            last_us: AtomicU64::default(),
            all: Notify::new(),
        });
        let routes = Router::new().route("/{hook}", post(receive)).with_state(Arc::clone(&log));
        Ok(Self { address: receiver::serve(routes)?, log })
    }

    /// An event is given to the publisher now.
    pub(super) fn sent(&self, event: u32) {
        self.log.sent[event as usize].store(self.log.now_us(), Ordering::Relaxed);
    }

    /// Completes when every event has arrived at every hook.
    pub(super) async fn all(&self) {
        while self.log.distinct.load(Ordering::Acquire) < self.log.seen.len() as u64 {
            self.log.all.notified().await;
        }
    }

    pub(super) fn arrived(&self) -> Arrived {
        let mut latencies_us = self.log.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        latencies_us.sort_unstable();
        let first = self.log.sent.first().map_or(0, |sent| sent.load(Ordering::Relaxed));
        Arrived {
            distinct: self.log.distinct.load(Ordering::Acquire),
            duplicated: self.log.duplicated.load(Ordering::Relaxed),
            last: Duration::from_micros(self.log.last_us.load(Ordering::Relaxed).saturating_sub(first)),
            latencies_us,
        }
    }
}

impl Arrived {
    /// The latency that this share of all arrivals does not exceed, in milliseconds.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    pub(super) fn percentile_ms(&self, share: f64) -> f64 {
        let rank = (self.latencies_us.len() as f64 * share).ceil() as usize;
        self.latencies_us.get(rank.saturating_sub(1)).map_or(0.0, |us| *us as f64 / 1000.0)
    }
}

impl Log {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn note(&self, event: usize, hook: u32) {
        let now = self.now_us();
        let Some(seen) = self.seen.get(event * self.hooks as usize + hook as usize) else { return };
        if seen.fetch_add(1, Ordering::Relaxed) > 0 {
            self.duplicated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let latency = now.saturating_sub(self.sent[event].load(Ordering::Relaxed));
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
        self.last_us.fetch_max(now, Ordering::Relaxed);
        if self.distinct.fetch_add(1, Ordering::Release) + 1 == self.seen.len() as u64 {
            self.all.notify_one();
        }
    }
}

async fn receive(State(log): State<Arc<Log>>, Path(hook): Path<u32>, body: Bytes) -> StatusCode {
    match number(&body) {
        Some(event) if hook < log.hooks => {
            log.note(event, hook);
            StatusCode::NO_CONTENT
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_arrived() {
        let arrived = |latencies_us| Arrived { distinct: 0, duplicated: 0, last: Duration::ZERO, latencies_us };
        let hundred = arrived((1..=100).map(|ms| ms * 1000).collect());
        let found = [0.5, 0.9, 0.99, 1.0].map(|share| hundred.percentile_ms(share));
        assert_eq!(found.map(f64::to_bits), [50.0, 90.0, 99.0, 100.0].map(f64::to_bits));
        assert_eq!(arrived(Vec::new()).percentile_ms(0.5).to_bits(), 0.0f64.to_bits());
    }

    #[tokio::test]
    async fn repeats_are_counted() {
        let sink = Sink::start(2, 2).unwrap();
        for (event, hook) in [(0, 0), (0, 1), (1, 0), (0, 0), (7, 0)] {
            sink.log.note(event, hook);
        }
        assert_eq!((sink.arrived().distinct, sink.arrived().duplicated), (3, 1));
        sink.log.note(1, 1);
        sink.all().await;
    }
}
