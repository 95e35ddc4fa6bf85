//! Keeps the current catalog on a watch channel, whatever it is read from, and tells why there is no newer one.
//!
//! Whoever reads the channel sees one whole revision after the other. What is refused never gets there: the last good
//! one stays, the report goes to the log (once), the metrics and the status.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::api_types::ProblemView;
use super::files::Files;
use super::revisions::About;
use super::{Catalog, Document, Terms, attempt, attempt_for_others, beside};
use crate::domain::matching::HookSet;
use crate::domain::revision::Revision;
use crate::telemetry::{Metric, now_ms};
use crate::yaml::problem::{Problem, Problems};
use cache::Cache;
use fingerprint::Fingerprint;
use redis::Shared;

pub mod cache;
mod fingerprint;
pub mod redis;

/// Between two looks at files. Looking finds every kind of change on every file system, and costs little.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Files that have not changed for this long are all there, and written to their end.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// Between two looks meanwhile.
const SETTLING_EVERY: Duration = Duration::from_millis(50);
/// Files that change for longer are told of.
const UNSETTLED_MAX: Duration = Duration::from_secs(10);

/// Where hooks come from.
pub enum Source {
    /// These and no others.
    Fixed(HookSet),
    /// Files, and what was read of them at the start.
    File(Files, Catalog),
    /// The revisions of the fleet.
    Redis(Shared),
}

/// What a worker knows by itself when it reads hooks.
#[derive(Clone)]
pub struct Local {
    pub hint_max: Duration,
    /// What may be called beside public addresses.
    pub egress: Arc<[IpNet]>,
    /// The callbacks that it has.
    pub callbacks: Arc<BTreeSet<String>>,
    pub env: fn(&str) -> Option<String>,
}

/// How a process reads hooks.
#[derive(Clone)]
pub enum Reader {
    /// It runs them.
    Worker(Local),
    /// It runs none: the values that they name are for workers to know.
    Server { hint_max: Duration },
}

impl From<Local> for Reader {
    fn from(local: Local) -> Self {
        Self::Worker(local)
    }
}

/// How it stands with the catalog, beside its hooks.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Standing {
    pub from: &'static str,
    /// Of the revision in force, if it has a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<About>,
    /// Read from `catalog.cache`, because Redis was away.
    pub cached: bool,
    /// The newer one that cannot be used here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// Why nobody can say which is the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
}

/// A catalog that is not used.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Refusal {
    pub revision: String,
    pub at_ms: u64,
    pub problems: Vec<ProblemView>,
    /// The first of them, as a sentence.
    #[serde(skip)]
    pub reason: String,
}

/// What everybody sees of it.
#[derive(Clone)]
pub struct Followed {
    pub hooks: watch::Receiver<Arc<HookSet>>,
    pub standing: watch::Receiver<Standing>,
    /// Why no work may be taken, if none may.
    pub halt: watch::Receiver<Option<String>>,
}

/// Follows a source for as long as the future is polled.
pub fn follow(source: Source, reader: impl Into<Reader>) -> (Followed, impl Future<Output = ()>) {
    let (board, followed) = Board::new(&source, reader.into());
    let following = async move {
        match source {
            Source::Fixed(_) => std::future::pending().await,
            Source::File(files, _) => follow_files(board, files).await,
            Source::Redis(shared) => redis::follow(board, shared).await,
        }
    };
    (followed, following)
}

/// What became of documents.
struct Read {
    catalog: Result<Catalog, Problems>,
    /// It is another one than is in force.
    is_new: bool,
    /// The files that it names.
    files: BTreeSet<PathBuf>,
}

/// Where the current catalog is put up.
struct Board {
    hooks: watch::Sender<Arc<HookSet>>,
    standing: watch::Sender<Standing>,
    halt: watch::Sender<Option<String>>,
    reader: Reader,
}

impl Board {
    fn new(source: &Source, reader: Reader) -> (Self, Followed) {
        let (set, from, halt) = match source {
            Source::Fixed(set) => (set.clone(), "itself", None),
            Source::File(_, catalog) => (catalog.hooks.clone(), "file", None),
            Source::Redis(_) => {
                (HookSet::default(), "redis", Some("no catalog has been read from Redis yet".to_owned()))
            }
        };
        let (hooks, standing) = (watch::Sender::new(Arc::new(set)), Standing { from, ..Standing::default() });
        let board = Self { hooks, standing: watch::Sender::new(standing), halt: watch::Sender::new(halt), reader };
        let (hooks, standing, halt) = (board.hooks.subscribe(), board.standing.subscribe(), board.halt.subscribe());
        board.show_revision(None);
        (board, Followed { hooks, standing, halt })
    }

    /// Reads documents of this revision beside everything else: it may take a while. Tells the files they name too.
    async fn read(&self, revision: Revision, documents: Arc<Vec<Document>>) -> Option<Read> {
        let reader = self.reader.clone();
        let before = self.hooks.borrow().clone();
        let read = move || {
            let (catalog, files) = match reader {
                Reader::Worker(Local { hint_max, egress, callbacks, env }) => {
                    let terms = Terms { hint_max, env: &env, egress: &egress, callbacks: Some(&callbacks) };
                    attempt(&revision, &documents, &terms)
                }
                Reader::Server { hint_max } => (attempt_for_others(&revision, &documents, hint_max), BTreeSet::new()),
            };
            let is_new = catalog.as_ref().is_ok_and(|catalog| *before != catalog.hooks);
            Read { catalog, is_new, files }
        };
        beside(read).await
    }

    /// Puts up what was read: a catalog, or why there is no new one. Answers whether it is in force.
    fn take(
        &self,
        revision: &Revision,
        Read { catalog, is_new, .. }: Read,
        applied: Option<&About>,
        began: Instant,
    ) -> bool {
        let catalog = match catalog {
            Ok(catalog) => catalog,
            Err(problems) => {
                self.refuse(revision, &problems);
                return false;
            }
        };
        if is_new {
            for warning in &catalog.warnings {
                tracing::warn!("{warning:#}");
            }
            let took = began.elapsed();
            let count = catalog.hooks.hooks().len();
            let before = self.hooks.send_replace(Arc::new(catalog.hooks));
            self.show_revision(Some(before.revision()));
            tokio::task::spawn_blocking(move || drop(before)); // thousands of hooks take their time to be freed
            Metric::CatalogLoadSeconds.histogram(&[]).record(took.as_secs_f64());
            tracing::info!(%revision, hooks = count, ?took, "a new catalog is in force");
        }
        self.standing.send_modify(|standing| {
            standing.applied = applied.cloned();
            (standing.cached, standing.refused) = (false, None);
        });
        true
    }

    /// Tells of a catalog that is no good, once.
    fn refuse(&self, revision: &Revision, problems: &Problems) {
        let shown: Vec<ProblemView> = problems.list().iter().map(ProblemView::of).collect();
        let name = revision.to_string();
        let known = |refusal: &Refusal| refusal.revision == name && refusal.problems == shown;
        if self.standing.borrow().refused.as_ref().is_some_and(known) {
            return;
        }
        Metric::CatalogsRefused.count(&[]);
        let goes_on = self.hooks.borrow().revision().to_string();
        tracing::error!(revision = name, goes_on, "a catalog is refused:\n{problems}");
        let reason = problems.list().first().map(Problem::sentence).unwrap_or_default();
        let refusal = Refusal { revision: name, at_ms: now_ms(), problems: shown, reason };
        self.standing.send_modify(|standing| standing.refused = Some(refusal));
    }

    /// Tells that files do not stop changing, once.
    fn unsettled(&self) {
        let reason = format!(
            "the hooks files have been changing for {UNSETTLED_MAX:?}: they are read when nobody has written for \
             {SETTLED_AFTER:?}"
        );
        self.standing.send_if_modified(|standing| {
            let first = standing.away.is_none();
            if first {
                tracing::warn!(reason, goes_on = %self.hooks.borrow().revision(), "the catalog cannot be followed");
                standing.away = Some(reason);
            }
            first
        });
    }

    fn show_revision(&self, before: Option<&Revision>) {
        let gauge = |revision: &Revision| Metric::CatalogRevision.gauge(&[("revision", revision.to_string())]);
        if let Some(before) = before {
            gauge(before).set(0.0);
        }
        gauge(self.hooks.borrow().revision()).set(1.0);
    }
}

/// Follows a file or a folder.
async fn follow_files(board: Board, hooks: Files) {
    let (mut files, mut seen) = (BTreeSet::new(), None);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(found) = look(&hooks, &files).await else { continue };
        if seen.as_ref() == Some(&found) {
            continue;
        }
        let fingerprint = settled(&board, &hooks, &files, found).await;
        let began = Instant::now();
        let of = hooks.clone();
        let named = match beside(move || of.open()).await {
            None => continue,
            Some(Err(problems)) => {
                board.refuse(&Revision::default(), &problems);
                files.clone()
            }
            Some(Ok(documents)) => {
                let revision = Revision::from(super::digest(&documents).as_str());
                let Some(read) = board.read(revision.clone(), Arc::new(documents)).await else { continue };
                // Half of a change that began meanwhile is no catalog: it is read once more.
                if look(&hooks, &files).await.as_ref() != Some(&fingerprint) {
                    continue;
                }
                let named = read.files.clone();
                board.take(&revision, read, None, began);
                named
            }
        };
        // What was not looked at before it was read may have changed meanwhile.
        seen = (named == files).then_some(fingerprint);
        files = named;
    }
}

async fn look(hooks: &Files, files: &BTreeSet<PathBuf>) -> Option<Fingerprint> {
    let (hooks, files) = (hooks.clone(), files.clone());
    beside(move || Fingerprint::of(Some(&hooks), &files)).await
}

/// Waits until nobody writes any more: half of a folder would be a catalog too. Who never ends is told of.
async fn settled(board: &Board, hooks: &Files, files: &BTreeSet<PathBuf>, mut fingerprint: Fingerprint) -> Fingerprint {
    let began = tokio::time::Instant::now();
    let mut since = began;
    while since.elapsed() < SETTLED_AFTER {
        tokio::time::sleep(SETTLING_EVERY).await;
        match look(hooks, files).await {
            Some(found) if found == fingerprint => {}
            found => (fingerprint, since) = (found.unwrap_or(fingerprint), tokio::time::Instant::now()),
        }
        if began.elapsed() >= UNSETTLED_MAX {
            board.unsettled();
        }
    }
    board.standing.send_if_modified(|standing| standing.away.take().is_some());
    fingerprint
}

#[cfg(test)]
mod tests;
