//! How much faster a fleet of more workers is at a target that takes its time: the work of several processes is bound by
//! their permits and the target's latency, not by each other.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::servers::redis::Redis;
use crate::servers::{self, Leashed, Rabbit};
use crate::{publish, receiver, worker};

/// What the target takes.
const LATENCY: Duration = Duration::from_millis(50);
/// Runs at a time in one process.
const PERMITS: u32 = 64;
/// How long each fleet is measured.
const SPAN: Duration = Duration::from_secs(8);

/// Prints rates and speed-ups of 1, 2 and 4 processes; answers that of 4.
pub(crate) async fn run(rabbit: &Rabbit, redis: &Redis) -> f64 {
    let (received, address) = receiver(LATENCY).await;
    let mut alone = 0.0;
    let mut speed_up = 0.0;
    for workers in [1u32, 2, 4] {
        let rate = rate(rabbit, redis, &received, &address.to_string(), workers).await;
        if workers == 1 {
            alone = rate;
        }
        speed_up = rate / alone;
        println!("{workers} workers of {PERMITS} permits at {LATENCY:?}: {rate:.0}/s, x{speed_up:.2}");
    }
    speed_up
}

async fn rate(rabbit: &Rabbit, redis: &Redis, received: &Arc<AtomicU64>, address: &str, workers: u32) -> f64 {
    let (namespace, folder) = (servers::namespace(), tempfile::tempdir().unwrap());
    let hooks = format!(
        "version: 1\nhooks:\n  - {{ id: slow, on: order.paid, concurrency: {PERMITS}, \
         run: {{ http: {{ url: \"http://{address}/hook\" }} }} }}\n"
    );
    std::fs::write(folder.path().join("hooks.yaml"), hooks).unwrap();
    let most = f64::from(workers * PERMITS) / LATENCY.as_secs_f64() * (SPAN.as_secs_f64() + 4.0);
    publish(rabbit, &namespace, most as u64).await;
    let before = received.load(Ordering::Relaxed);
    let start = |_| {
        let mut command = worker(rabbit, redis, &namespace, &folder.path().join("hooks.yaml"));
        command.args(["--set", "worker.prefetch=128"]);
        Leashed::start(command.stdin(Stdio::null()))
    };
    let fleet: Vec<Leashed> = (0..workers).map(start).collect();
    let warm = u64::from(workers * PERMITS) * 10;
    while received.load(Ordering::Relaxed) - before < warm {
        sleep(Duration::from_millis(5)).await;
    }
    let (from, began) = (received.load(Ordering::Relaxed), Instant::now());
    sleep(SPAN).await;
    let rate = (received.load(Ordering::Relaxed) - from) as f64 / began.elapsed().as_secs_f64();
    drop(fleet);
    rate
}
