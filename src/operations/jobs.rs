//! Replays of many letters that go on by themselves, for those who ask over HTTP. A process that ends forgets them: what
//! they sent is marked, and asking for the same again goes on with the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Operations;
use super::api_types::JobShown;
use super::progress::Progress;
use super::replay::{Manner, Sorted};
use crate::telemetry::now_ms;

/// Jobs that are remembered; of more the oldest ones that have ended are forgotten.
const REMEMBERED: usize = 100;
/// Jobs that send letters at a time; those that wait for outcomes are beside them.
const SENDING_MAX: usize = 8;

/// The jobs of a process; clones share them.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<VecDeque<Job>>>);

struct Job {
    id: String,
    by: String,
    began_ms: u64,
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
}

impl Job {
    fn is_sending(&self) -> bool {
        self.is_running() && self.progress.borrow().is_sending()
    }

    fn is_running(&self) -> bool {
        self.progress.has_changed().is_ok() // its sender is there
    }

    fn shown(&self) -> JobShown {
        let running = self.is_running(); // before the progress, so that one that has ended is shown whole
        let progress = self.progress.borrow().clone();
        JobShown { id: self.id.clone(), by: self.by.clone(), began_ms: self.began_ms, running, progress }
    }
}

impl Jobs {
    /// Begins to send what was picked; `None`: too many jobs go on.
    #[must_use]
    pub fn start(&self, operations: &Operations, sorted: Sorted, manner: Manner) -> Option<JobShown> {
        let Sorted { plan, refused, refusals, .. } = sorted;
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.iter().filter(|job| job.is_sending()).count() >= SENDING_MAX {
            return None;
        }
        while jobs.len() >= REMEMBERED {
            let ended = jobs.iter().position(|job| !job.is_running())?;
            jobs.remove(ended);
        }
        let total = plan.picked.len() + refused;
        let first = Progress { total, refused, refusals, waits: manner.wait, ..Progress::default() };
        let (sender, progress) = watch::channel(first);
        let stop = CancellationToken::new();
        let id = format!("{:016x}", fastrand::u64(..));
        let job = Job { id, by: manner.by.clone(), began_ms: now_ms(), progress, stop: stop.clone() };
        let shown = job.shown();
        jobs.push_back(job);
        let operations = operations.clone();
        tokio::spawn(async move { operations.replay_all(plan, &manner, &sender, &stop).await });
        Some(shown)
    }

    /// The job with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<JobShown> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().find(|job| job.id == id).map(Job::shown)
    }

    /// Stops the job with this id: what is under way is finished, and no more is sent.
    #[must_use]
    pub fn cancel(&self, id: &str) -> Option<JobShown> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let job = jobs.iter().find(|job| job.id == id)?;
        job.stop.cancel();
        Some(job.shown())
    }
}
