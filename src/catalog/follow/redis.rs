//! Follows the current revision in Redis.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stamps::Stamps;
use super::{Board, Cache, beside};
use crate::catalog::revisions::{About, Pointer, Revisions, Stored};
use crate::catalog::{Document, revisions::RevisionsError};
use crate::domain::revision::{BEHIND_MAX, may_serve};

/// Between two looks at which revision is the current one: one small question each.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Between two notes in the cache that Redis has confirmed its content.
const CONFIRM_EVERY: Duration = Duration::from_mins(1);

/// The revisions, and where the last good one is kept.
pub struct Shared {
    pub revisions: Arc<Revisions>,
    pub cache: Option<Cache>,
}

/// A follower of revisions.
struct Follower {
    board: Board,
    shared: Shared,
    /// The newest revision that was got, and what was made of it.
    latest: Option<Latest>,
    /// The revision in force.
    active: Option<Pointer>,
    /// Since when another one is known to be current, and why it is not in force.
    behind: Option<(Instant, Pointer)>,
    trouble: String,
    confirmed: Option<Instant>,
}

struct Latest {
    about: About,
    documents: Arc<Vec<Document>>,
    /// The files that it names, as they were when it was read last.
    files: BTreeSet<PathBuf>,
    seen: Option<Stamps>,
    /// From the cache: Redis has not spoken yet.
    cached: bool,
}

pub(super) async fn follow(board: Board, shared: Shared) {
    let mut follower =
        Follower { board, shared, latest: None, active: None, behind: None, trouble: String::new(), confirmed: None };
    loop {
        follower.look().await;
        follower.judge();
        tokio::time::sleep(ASK_EVERY).await;
    }
}

impl Follower {
    /// Asks which revision is the current one, and makes it the one in force here.
    async fn look(&mut self) {
        let current = match self.shared.revisions.current().await {
            Ok(Some(current)) => current,
            Ok(None) => return self.none(),
            Err(error) => return self.away(&error).await,
        };
        let confirmed = self.active.as_ref() == Some(&current);
        if let Some(latest) = self.latest.as_mut().filter(|_| confirmed) {
            latest.cached = false; // Redis says the same
        }
        self.board.standing.send_if_modified(|standing| {
            let confirmed = confirmed && std::mem::take(&mut standing.cached);
            standing.away.take().is_some() | confirmed
        });
        if confirmed {
            self.behind = None;
        } else if self.behind.as_ref().is_none_or(|(_, pointer)| *pointer != current) {
            let since = self.behind.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            self.behind = Some((since, current.clone()));
        }
        if self.latest.as_ref().is_none_or(|latest| latest.about.pointer() != current) {
            match self.shared.revisions.get(current.number).await {
                Ok(stored) => self.latest = Some(stored.into()),
                Err(error) => return self.trouble = error.to_string(),
            }
        }
        self.read().await;
        self.keep().await;
    }

    /// Reads the latest revision, if it was not yet, or if a file that it names has changed.
    async fn read(&mut self) {
        let Some(latest) = &mut self.latest else { return };
        let files = latest.files.clone();
        let Some(stamps) = beside(move || Stamps::of(None, &files)).await else { return };
        if latest.seen.as_ref() == Some(&stamps) {
            return;
        }
        let (began, pointer) = (Instant::now(), latest.about.pointer());
        let read = self.board.read(pointer.revision(), Arc::clone(&latest.documents)).await;
        let Some((read, files)) = read else { return };
        // What was not looked at before it was read may have changed meanwhile.
        latest.seen = (files == latest.files).then_some(stamps);
        latest.files = files;
        if self.board.take(&pointer.revision(), read, Some(&latest.about), began) {
            if latest.cached {
                self.board.standing.send_modify(|standing| standing.cached = true);
            }
            (self.active, self.confirmed) = (Some(pointer), None);
            self.behind = None;
        } else {
            "it is refused here, see the log and /v1/status".clone_into(&mut self.trouble);
        }
    }

    /// Redis has no catalog. One that is in force goes on: it was applied by somebody, and forgotten by a machine.
    fn none(&mut self) {
        self.behind = None;
        let reason = "Redis has no catalog: apply one with `hookfleet hooks apply`";
        self.unknown(reason);
        reason.clone_into(&mut self.trouble);
    }

    async fn away(&mut self, error: &RevisionsError) {
        let reason = error.to_string();
        self.unknown(&reason);
        self.trouble.clone_from(&reason);
        let Some(cache) = self.shared.cache.clone().filter(|_| self.active.is_none()) else { return };
        match beside(move || cache.load()).await {
            Some(Ok(stored)) => {
                tracing::warn!(reason, "the catalog is taken from catalog.cache");
                self.latest = Some(Latest { cached: true, ..stored.into() });
                self.read().await;
            }
            Some(Err(useless)) => self.trouble = format!("{reason}; {useless}"),
            None => {}
        }
    }

    /// Nobody says which revision is the current one.
    fn unknown(&self, reason: &str) {
        self.board.standing.send_if_modified(|standing| {
            let first = standing.away.is_none();
            if first {
                tracing::warn!(reason, goes_on = %self.board.hooks.borrow().revision(), "the catalog cannot be followed");
            }
            let changed = standing.away.as_deref() != Some(reason);
            standing.away = Some(reason.to_owned());
            changed
        });
    }

    /// Says whether work may be taken.
    fn judge(&self) {
        let behind_for = self.behind.as_ref().map(|(since, _)| since.elapsed());
        let reason = if may_serve(self.active.is_some(), behind_for) {
            None
        } else if let (Some((_, pointer)), Some(active)) = (&self.behind, &self.active) {
            let (newest, active) = (pointer.revision(), active.revision());
            Some(format!("{newest} is current for more than {BEHIND_MAX:?}, {active} is in force: {}", self.trouble))
        } else {
            Some(format!("there is no catalog to work with: {}", self.trouble))
        };
        self.board.halt.send_if_modified(|halt| {
            let changed = *halt != reason;
            if changed {
                if let Some(reason) = &reason {
                    tracing::error!(reason, "no work is taken");
                } else {
                    tracing::info!("work is taken");
                }
                *halt = reason;
            }
            changed
        });
    }

    /// Keeps what is in force, and notes now and then that Redis still says so.
    async fn keep(&mut self) {
        let (Some(cache), Some(latest)) = (self.shared.cache.clone(), &self.latest) else { return };
        let is_due = self.confirmed.is_none_or(|at| at.elapsed() >= CONFIRM_EVERY);
        if !is_due || self.active.as_ref() != Some(&latest.about.pointer()) {
            return;
        }
        let stored = Stored { about: latest.about.clone(), documents: latest.documents.to_vec() };
        self.confirmed = Some(Instant::now());
        if let Some(Err(error)) = beside(move || cache.store(&stored)).await {
            tracing::warn!(%error, "the catalog cannot be kept in catalog.cache");
        }
    }
}

impl From<Stored> for Latest {
    fn from(stored: Stored) -> Self {
        let documents = Arc::new(stored.documents);
        Self { about: stored.about, documents, files: BTreeSet::new(), seen: None, cached: false }
    }
}
