//! Follows the current revision in Redis.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{self, Duration};

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::fingerprint::Fingerprint;
use super::{Board, Cache};
use crate::catalog::revisions::{About, Pointer, Revisions, Stored};
use crate::catalog::{Document, beside, revisions::RevisionsError};
use crate::domain::revision::{BEHIND_MAX, may_serve};

/// Between two looks at which revision is the current one: one small question each.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Between two notes in the cache that Redis has confirmed its content.
const CONFIRM_EVERY: Duration = Duration::from_mins(1);

const UNREAD: &str = "it has not been read yet";

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
    place: Place,
    /// The same, for who judges.
    told: watch::Sender<Place>,
    confirmed: Option<Instant>,
    /// Why the cache is of no use, once that is known.
    useless: Option<String>,
}

/// How far it has got.
#[derive(Clone, Default)]
struct Place {
    /// The revision in force.
    active: Option<Pointer>,
    /// Since when another one is known to be current, and why it is not in force.
    behind: Option<(Instant, Pointer)>,
    trouble: String,
}

struct Latest {
    about: About,
    documents: Arc<Vec<Document>>,
    /// The files that it names, as they were when it was read last.
    files: BTreeSet<PathBuf>,
    seen: Option<Fingerprint>,
    /// From the cache: Redis has not spoken yet.
    cached: bool,
}

pub(super) async fn follow(board: Board, shared: Shared) {
    let halt = board.halt.clone();
    let mut follower = Follower::new(board, shared);
    let judging = judge(follower.told.subscribe(), halt);
    let following = async {
        loop {
            let current = follower.shared.revisions.current().await;
            follower.look(current).await;
            follower.tell();
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::join!(judging, following);
}

/// Says whether work may be taken, by a clock of its own: a look may hang on a disk that does not answer.
async fn judge(mut told: watch::Receiver<Place>, halt: watch::Sender<Option<String>>) {
    // A change is seen at once; without a teller the process ends.
    while !matches!(timeout(ASK_EVERY, told.changed()).await, Ok(Err(_))) {
        let reason = told.borrow_and_update().reason();
        halt.send_if_modified(|halt| {
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
}

impl Place {
    /// Why no work may be taken, if none may.
    fn reason(&self) -> Option<String> {
        let behind_for = self.behind.as_ref().map(|(since, _)| since.elapsed());
        if may_serve(self.active.is_some(), behind_for) {
            return None;
        }
        let (Some((_, newest)), Some(active)) = (&self.behind, &self.active) else {
            return Some(format!("there is no catalog to work with: {}", self.trouble));
        };
        let (newest, active) = (newest.revision(), active.revision());
        Some(format!("{newest} is current for more than {BEHIND_MAX:?}, {active} is in force: {}", self.trouble))
    }
}

impl Follower {
    fn new(board: Board, shared: Shared) -> Self {
        let place = Place { trouble: UNREAD.to_owned(), ..Place::default() };
        let told = watch::Sender::new(place.clone());
        Self { board, shared, latest: None, place, told, confirmed: None, useless: None }
    }

    /// Makes the revision that is said to be the current one the one in force here.
    async fn look(&mut self, current: Result<Option<Pointer>, RevisionsError>) {
        let current = match current {
            Ok(Some(current)) => current,
            Ok(None) => return self.none().await,
            Err(error) => return self.away(&error).await,
        };
        let confirmed = self.place.active.as_ref() == Some(&current);
        if let Some(latest) = self.latest.as_mut().filter(|latest| latest.about.pointer() == current) {
            latest.cached = false; // Redis says the same
        }
        self.board.standing.send_if_modified(|standing| {
            let confirmed = confirmed && std::mem::take(&mut standing.cached);
            standing.away.take().is_some() | confirmed
        });
        if confirmed {
            self.place.behind = None;
        } else if self.place.behind.as_ref().is_none_or(|(_, pointer)| *pointer != current) {
            let since = self.place.behind.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            self.place.behind = Some((since, current.clone()));
            UNREAD.clone_into(&mut self.place.trouble);
        }
        if self.place.active.is_some() {
            self.tell(); // what follows may take for ever
        }
        if self.latest.as_ref().is_none_or(|latest| latest.about.pointer() != current) {
            match self.shared.revisions.get(current.number).await {
                Ok(stored) => self.latest = Some(stored.into()),
                Err(error) => return self.place.trouble = error.to_string(),
            }
        }
        self.read().await;
        if self.place.behind.is_some() {
            "it is refused here, see the log and /v1/status".clone_into(&mut self.place.trouble);
        }
        self.keep().await;
    }

    /// Reads the latest revision, if it was not yet, or if a file that it names has changed.
    async fn read(&mut self) {
        let Some(latest) = &mut self.latest else { return };
        let files = latest.files.clone();
        let Some(fingerprint) = beside(move || Fingerprint::of(None, &files)).await else { return };
        if latest.seen.as_ref() == Some(&fingerprint) {
            return;
        }
        let (began, pointer) = (time::Instant::now(), latest.about.pointer());
        let read = self.board.read(pointer.revision(), Arc::clone(&latest.documents)).await;
        let Some(read) = read else { return };
        // What was not looked at before it was read may have changed meanwhile.
        latest.seen = (read.files == latest.files).then_some(fingerprint);
        latest.files.clone_from(&read.files);
        if self.board.take(&pointer.revision(), read, Some(&latest.about), began) {
            if latest.cached {
                self.board.standing.send_modify(|standing| standing.cached = true);
            }
            self.place.behind.take_if(|(_, newest)| *newest == pointer);
            (self.place.active, self.confirmed) = (Some(pointer), None);
        }
    }

    /// Redis has no catalog. One that is in force goes on: it was applied by somebody, and forgotten by a machine.
    async fn none(&mut self) {
        self.place.behind = None;
        let reason = "Redis has no catalog: apply one with `hookfleet hooks apply`";
        self.unknown(reason);
        reason.clone_into(&mut self.place.trouble);
        self.read().await;
    }

    /// Redis does not say. What is here goes on, or what was kept, as long as no other one is known to be current.
    async fn away(&mut self, error: &RevisionsError) {
        let reason = error.to_string();
        self.unknown(&reason);
        if self.latest.is_none() && self.useless.is_none() {
            self.uncache().await;
        }
        let was_idle = self.place.active.is_none();
        self.read().await;
        let is_cached = self.latest.as_ref().is_some_and(|latest| latest.cached);
        if is_cached && was_idle && self.place.active.is_some() {
            tracing::warn!(reason, "the catalog is taken from catalog.cache");
        }
        self.place.trouble = match &self.useless {
            Some(useless) => format!("{reason}; {useless}"),
            None if is_cached => {
                format!("{reason}; what catalog.cache holds is refused here, see the log and /v1/status")
            }
            None => reason,
        };
    }

    /// Gets what the cache holds, once in the life of a process.
    async fn uncache(&mut self) {
        let Some(cache) = self.shared.cache.clone() else { return };
        let kept = match beside(move || cache.load()).await {
            Some(Ok(stored)) => stored,
            Some(Err(useless)) => return self.useless = Some(useless),
            None => return,
        };
        let pointer = kept.about.pointer();
        match &self.place.behind {
            Some((_, newest)) if *newest != pointer => {
                let (kept, newest) = (pointer.revision(), newest.revision());
                self.useless = Some(format!("catalog.cache holds {kept}, but {newest} is current"));
            }
            _ => self.latest = Some(Latest { cached: true, ..kept.into() }),
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

    fn tell(&self) {
        self.told.send_replace(self.place.clone());
    }

    /// Keeps what is in force, and notes now and then that Redis still says so.
    async fn keep(&mut self) {
        let (Some(cache), Some(latest)) = (self.shared.cache.clone(), &self.latest) else { return };
        let is_due = self.confirmed.is_none_or(|at| at.elapsed() >= CONFIRM_EVERY);
        if !is_due || self.place.active.as_ref() != Some(&latest.about.pointer()) {
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

#[cfg(test)]
mod tests;
