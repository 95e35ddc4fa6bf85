//! What is done to workers while events come in.

use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::workers::Workers;

/// How long workers keep a claim without a word: short, so that what a fault leaves is soon taken over.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How long a worker is stopped: its claims lapse meanwhile.
const STOPPED: Duration = Duration::from_millis(4500);
/// Between two kills.
const KILL_EVERY: Duration = Duration::from_secs(1);
/// Between two workers of a rolling restart, and before another worker is stopped.
const CALM: Duration = Duration::from_millis(500);

/// What makes a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    Quiet,
    /// Workers die.
    Kill,
    /// Workers are asked to end, one after the other.
    Restart,
    /// Workers stand still, and go on as if nothing had been.
    Stop,
}

impl Fault {
    /// In the order in which they are made.
    pub(super) const ALL: [Self; 4] = [Self::Quiet, Self::Kill, Self::Restart, Self::Stop];

    /// For people.
    pub(super) const fn shown(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Kill => "kill -9 every second",
            Self::Restart => "SIGTERM, rolling restart",
            Self::Stop => "SIGSTOP for longer than a lease",
        }
    }

    /// Whether a run may have to be repeated: nobody can tell how far a worker came that is not there to say so.
    pub(super) const fn may_repeat(self) -> bool {
        matches!(self, Self::Kill | Self::Stop)
    }

    /// Makes the fault, at least once, until the load is `over`. All workers run again afterwards. Answers how often.
    pub(super) async fn make(self, workers: &mut Workers, over: &CancellationToken) -> anyhow::Result<u32> {
        if self == Self::Quiet {
            over.cancelled().await;
            return Ok(0);
        }
        let mut times = 0;
        // A restart that is not rolled out to all workers would be none.
        let least = if self == Self::Restart { workers.count() } else { 1 };
        while times < least || !over.is_cancelled() {
            let worker = times % workers.count();
            workers.until_ready(worker).await?;
            match self {
                Self::Quiet => {}
                Self::Kill => {
                    sleep(KILL_EVERY).await;
                    workers.kill(worker).await?;
                    workers.start(worker)?;
                }
                Self::Restart => {
                    workers.terminate(worker).await?;
                    workers.start(worker)?;
                    workers.until_ready(worker).await?;
                    sleep(CALM).await;
                }
                Self::Stop => {
                    workers.signal(worker, Signal::STOP);
                    sleep(STOPPED).await;
                    workers.signal(worker, Signal::CONT);
                    sleep(CALM).await;
                }
            }
            times += 1;
        }
        for worker in 0..workers.count() {
            workers.until_ready(worker).await?;
        }
        Ok(u32::try_from(times).unwrap_or(u32::MAX))
    }
}
