//! Changing the catalog of a fleet: checked first, then compared, then swapped whole, or refused with the reason.
//!
//! Reading a large catalog takes seconds, and the thread that is asked for it over HTTP runs hooks: it is done beside.

use std::time::Duration;

use bytes::Bytes;

use super::consent::{self, CONFIG_CHANGE, Consent, Seen, Way};
use super::diff::Changes;
use super::revisions::{About, BYTES_MAX, Pointer, Revisions, RevisionsError, Stored};
use super::{Catalog, Document, FORMAT, beside, digest, read_for_others};
use crate::domain::matching::HookSet;
use crate::domain::revision::Revision;
use crate::flow::{Card, Flow, FlowError};
use crate::yaml::problem::{Problem, Problems};

/// A change that somebody wants.
#[derive(Debug, Clone)]
pub struct Wish {
    pub documents: Vec<Document>,
    /// The number of the revision that it was made for; 0: there was none. `None`: whichever is the current one.
    pub expected: Option<u64>,
    pub by: String,
    pub message: Option<String>,
    /// Only say what would change.
    pub dry_run: bool,
    /// Now, in milliseconds since 1970.
    pub at_ms: u64,
    /// Longest `Retry-After` that hooks honour.
    pub hint_max: Duration,
    /// The way by which it comes.
    pub way: Way,
    /// Gates on `config_change` are not asked, and the history says so.
    pub skip_hooks: bool,
}

/// What became of it.
#[derive(Debug)]
pub struct Applied {
    pub done: Done,
    pub changes: Changes,
    pub warnings: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// This is the current revision now.
    New(About),
    /// The current revision says the same already.
    Same(About),
    /// It would be applied.
    Tried,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Invalid(Problems),
    #[error(transparent)]
    TooLarge(Oversize),
    #[error("{}", stale(*.expected, .current.as_deref(), .since.as_ref()))]
    Stale {
        expected: u64,
        current: Option<Box<About>>,
        /// From the expected revision to the current one, if both are kept.
        since: Option<Changes>,
    },
    /// Workers that would refuse it.
    #[error("expected workers that read catalogs of format {FORMAT}, found {}: update them first", .0.join(", "))]
    Unreadable(Vec<String>),
    /// By a gate, and why.
    #[error("config change blocked by hook: hooks: {0}")]
    Blocked(String),
    #[error(
        "the gates on config_change cannot be asked: {0}; skip them (--skip-hooks, `skip_hooks`) if nobody can answer"
    )]
    Unasked(String),
    #[error(transparent)]
    Revisions(#[from] RevisionsError),
    #[error("expected to read the catalogs, found a fault of this program: its log says which")]
    Panicked,
    #[error("the workers cannot be asked whether they could read it: {0}")]
    Fleet(#[from] FlowError),
}

/// What has too many bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {most} bytes of {what}, found {found}")]
pub struct Oversize {
    what: &'static str,
    most: usize,
    found: usize,
}

/// Bytes of what is said of a revision, each.
const SAID_BYTES_MAX: usize = 1024;
/// Behind the name of who has applied a revision without asking the gates.
const SKIPPED: &str = " (hooks skipped)";

fn check_size(wish: &Wish) -> Result<(), Refused> {
    let texts = wish.documents.iter().map(|document| document.text.len()).sum();
    let message = wish.message.as_ref().map_or(0, String::len);
    let sizes = [
        ("hooks files", BYTES_MAX, texts),
        ("the message", SAID_BYTES_MAX, message),
        ("the name of who applies it", SAID_BYTES_MAX, wish.by.len()),
    ];
    match sizes.into_iter().find(|(_, most, found)| found > most) {
        Some((what, most, found)) => Err(Refused::TooLarge(Oversize { what, most, found })),
        None => Ok(()),
    }
}

fn name(number: u64) -> String {
    if number == 0 { "no revision at all".to_owned() } else { format!("revision r{number}") }
}

fn stale(expected: u64, current: Option<&About>, since: Option<&Changes>) -> String {
    let found = match current {
        None => name(0),
        Some(about) => {
            let message = about.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            format!("{}, applied by {}{message}", name(about.number), about.by)
        }
    };
    let since = since.map(|changes| format!("\nsince {}:\n{changes}", name(expected))).unwrap_or_default();
    format!("expected {} to be the current one, found {found}{since}", name(expected))
}

/// Makes a wish come true, if nothing is wrong with it, no gate is against it and nobody was faster.
///
/// # Errors
/// Why nothing was changed. Only with [`Refused::Revisions`] it may have been.
pub async fn apply(
    revisions: &Revisions,
    flow: &dyn Flow,
    consent: &dyn Consent,
    mut wish: Wish,
) -> Result<Applied, Refused> {
    check_size(&wish)?;
    let (documents, hint_max, way) = (std::mem::take(&mut wish.documents), wish.hint_max, wish.way);
    let read = beside(move || (read_for_others(&documents, hint_max), documents)).await;
    let (read, documents) = read.ok_or(Refused::Panicked)?;
    let catalog = read.map_err(Refused::Invalid)?;
    let current = current(revisions).await?;
    let pointer = current.as_ref().map(|stored| stored.about.pointer());
    let number = pointer.as_ref().map_or(0, |pointer| pointer.number);
    if let Some(expected) = wish.expected.filter(|expected| *expected != number) {
        return Err(refuse_stale(revisions, expected, current, hint_max).await);
    }
    let was = current.as_ref().map(|stored| stored.about.clone());
    let compared = beside(move || Compared::of(current, catalog, documents, hint_max, way)).await;
    let Compared { changes, warnings, hooks, documents, asked } = compared.ok_or(Refused::Panicked)?;
    let applied = |done| Applied { done, changes, warnings };
    if let Some(about) = was.filter(|about| about.digest == digest(&documents)) {
        return Ok(applied(Done::Same(about)));
    }
    let crew = flow.crew().await?;
    check_crew(&crew)?;
    if wish.dry_run {
        return Ok(applied(Done::Tried));
    }
    match asked {
        Some(_) if wish.skip_hooks => wish.by += SKIPPED,
        Some(invocation) => ask(consent, invocation).await?,
        None => {}
    }
    let number = next_number(number, &crew);
    let new = Stored::new(number, documents, hooks, &wish.by, wish.message.as_deref(), wish.at_ms);
    if revisions.put(pointer.as_ref(), &new).await? {
        return Ok(applied(Done::New(new.about)));
    }
    let (expected, current) = (pointer.map_or(0, |pointer| pointer.number), self::current(revisions).await?);
    Err(refuse_stale(revisions, expected, current, hint_max).await)
}

async fn ask(consent: &dyn Consent, invocation: Bytes) -> Result<(), Refused> {
    let decision = consent.decide(invocation).await.map_err(Refused::Unasked)?;
    consent::refusal(&decision).map_or(Ok(()), |reason| Err(Refused::Blocked(reason)))
}

/// A new catalog beside the current one.
struct Compared {
    changes: Changes,
    warnings: Vec<Problem>,
    /// How many hooks the new one has.
    hooks: usize,
    /// Those of the new one.
    documents: Vec<Document>,
    /// What the gates on such changes are asked, if the current one has any.
    asked: Option<Bytes>,
}

impl Compared {
    fn of(current: Option<Stored>, new: Catalog, documents: Vec<Document>, hint_max: Duration, way: Way) -> Self {
        let Catalog { hooks: new, warnings, .. } = new;
        let old = hooks(current.as_ref(), hint_max);
        let changes = Changes::between(&old, &new);
        let asked = current.filter(|_| old.has_gates_on(CONFIG_CHANGE)).map(|current| {
            let previous = Seen { about: Some(&current.about), documents: &current.documents };
            consent::invocation(way, previous, Seen { about: None, documents: &documents }, &changes)
        });
        Self { changes, warnings, hooks: new.hooks().len(), documents, asked }
    }
}

/// The current revision, whole.
///
/// # Errors
/// Redis does not say.
pub async fn current(revisions: &Revisions) -> Result<Option<Stored>, RevisionsError> {
    match revisions.current().await? {
        Some(Pointer { number, .. }) => revisions.get(number).await.map(Some),
        None => Ok(None),
    }
}

/// The hooks of a revision, as far as they can be known anywhere. One that this program cannot read has none for it.
#[must_use]
pub fn hooks(stored: Option<&Stored>, hint_max: Duration) -> HookSet {
    let read = stored.and_then(|stored| read_for_others(&stored.documents, hint_max).ok());
    read.map(|catalog| catalog.hooks).unwrap_or_default()
}

async fn refuse_stale(revisions: &Revisions, expected: u64, current: Option<Stored>, hint_max: Duration) -> Refused {
    let was = revisions.get(expected).await.ok();
    let compare = move || {
        let since = was.map(|was| Changes::between(&hooks(Some(&was), hint_max), &hooks(current.as_ref(), hint_max)));
        Refused::Stale { expected, current: current.map(|stored| Box::new(stored.about)), since }
    };
    beside(compare).await.unwrap_or(Refused::Panicked)
}

fn check_crew(crew: &[Card]) -> Result<(), Refused> {
    let old = crew.iter().filter(|card| card.format < FORMAT);
    let old: Vec<String> =
        old.map(|card| format!("{} on {} (version {})", card.worker, card.host, card.version)).collect();
    if old.is_empty() { Ok(()) } else { Err(Refused::Unreadable(old)) }
}

/// Above all that anybody has seen: a Redis that has forgotten its catalog would else give out numbers again, and their
/// order would mislead.
fn next_number(current: u64, crew: &[Card]) -> u64 {
    let seen = crew.iter().map(|card| match Revision::from(card.revision.as_str()) {
        Revision::Numbered(number) => number,
        Revision::Digest(_) => 0,
    });
    seen.fold(current, u64::max).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use async_trait::async_trait;
    use futures_util::poll;

    use super::*;
    use crate::config::{Redis, Tls, Topology};
    use crate::domain::decision::Decision;
    use crate::domain::secret::Secret;
    use crate::flow::local::LocalFlow;
    use crate::redis::connection::Link;

    struct Nobody;

    #[async_trait]
    impl Consent for Nobody {
        async fn decide(&self, _: Bytes) -> Result<Decision, String> {
            Err("nobody is here".to_owned())
        }
    }

    /// Reading takes its time, and the thread that asks for it runs hooks meanwhile. What is wrong is told without Redis.
    #[tokio::test]
    async fn catalogs_are_read_beside_everything_else() {
        let url = Secret::new("redis://127.0.0.1:1".parse().unwrap());
        let nowhere = Redis { url, password_file: None, tls: Tls::default(), topology: Topology::Single };
        let revisions = Revisions::new(Link::new(nowhere), "test");
        let wish = Wish {
            documents: vec![Document::native("h.yaml", "version: 2")],
            expected: None,
            by: "me".to_owned(),
            message: None,
            dry_run: false,
            at_ms: 0,
            hint_max: Duration::ZERO,
            way: Way::CommandLine,
            skip_hooks: false,
        };
        let flow = LocalFlow::default();
        let mut applied = pin!(apply(&revisions, &flow, &Nobody, wish));
        assert!(poll!(&mut applied).is_pending());
        assert!(matches!(applied.await, Err(Refused::Invalid(_))));
    }

    #[test]
    fn numbers_only_grow() {
        let check = |current: u64, seen: &[&str], expected: u64| {
            let crew: Vec<Card> =
                seen.iter().map(|revision| Card { revision: (*revision).to_owned(), ..Card::default() }).collect();
            assert_eq!(next_number(current, &crew), expected, "{current} {seen:?}");
        };
        check(0, &[], 1);
        check(17, &["r17", "r16"], 18);
        check(0, &["r17", "a1b2c3d4e5f6"], 18); // Redis has forgotten
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let check = |text: usize, by: usize, message: Option<usize>, expected: Option<&str>| {
            let wish = Wish {
                documents: vec![Document::native("h.yaml", "x".repeat(text)); 2],
                expected: None,
                by: "x".repeat(by),
                message: message.map(|bytes| "x".repeat(bytes)),
                dry_run: false,
                at_ms: 0,
                hint_max: Duration::ZERO,
                way: Way::CommandLine,
                skip_hooks: false,
            };
            assert_eq!(check_size(&wish).map_err(|refused| refused.to_string()).err().as_deref(), expected);
        };
        check(BYTES_MAX / 2, 1024, Some(1024), None);
        check(0, 0, None, None);
        let texts = "expected at most 4194304 bytes of hooks files, found 4194306";
        check(BYTES_MAX / 2 + 1, 0, None, Some(texts));
        check(0, 0, Some(1025), Some("expected at most 1024 bytes of the message, found 1025"));
        check(0, 1025, None, Some("expected at most 1024 bytes of the name of who applies it, found 1025"));
    }

    #[test]
    fn what_workers_cannot_read_is_refused() {
        let card =
            |format| Card { worker: "w".into(), host: "h".into(), version: "0.0.9".into(), format, ..Card::default() };
        assert!(check_crew(&[card(FORMAT), card(FORMAT + 1)]).is_ok());
        let refused = check_crew(&[card(FORMAT), card(FORMAT - 1)]).unwrap_err().to_string();
        assert!(refused.contains("found w on h (version 0.0.9): update them first"), "{refused}");
    }
}
