//! How a process is asked to stop.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled at the first SIGTERM or SIGINT; a second signal ends the process at once.
pub(super) fn stop_at_signals() -> anyhow::Result<CancellationToken> {
    const WHAT: &str = "cannot listen for signals";
    let mut terminate = signal(SignalKind::terminate()).context(WHAT)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(WHAT)?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        signalled().await;
        tracing::info!("stopping: no new work; a second signal ends this at once");
        stopping.cancel();
        signalled().await;
        std::process::exit(130);
    });
    Ok(stop)
}
