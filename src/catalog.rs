//! The catalog: reads hooks from their files into a [`Catalog`], or reports everything that is wrong with them.
//!
//! Invariant: a set of hooks comes from here complete and checked, or not at all; so nothing becomes active while any
//! problem exists, and nobody checks a hook again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::domain::dialect::Dialect;
use crate::domain::event_type::EventTypes;
use crate::domain::matching::HookSet;
use crate::domain::redaction::Secrets;
use crate::domain::revision::Revision;
use crate::yaml;
use crate::yaml::problem::{Problem, Problems};
use crate::yaml::report::Report;
use crate::yaml::value::Value;

mod action;
mod address;
pub mod api_types;
pub mod apply;
pub mod consent;
mod credentials;
pub mod diff;
mod event;
pub mod files;
pub mod foreign;
mod headers;
mod hooks;
mod http;
mod model;
mod oauth;
mod publish;
mod retry;
pub mod revisions;
mod secret;
mod signing;
mod types;
pub mod watch;

/// Looks up an environment variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Hex digits of a digest: enough to tell the files of one fleet apart, few enough to be read aloud.
const DIGEST_CHARS: usize = 12;

/// What hooks files may say goes up with this number: a program that reads a lower one refuses newer files.
pub const FORMAT: u32 = 1;

/// The text of a hooks file. Several of them make one catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Document {
    /// The name that problems show.
    pub name: String,
    pub text: String,
    /// Whose words it is in.
    #[serde(default, skip_serializing_if = "Dialect::is_native")]
    #[schema(value_type = String)]
    pub dialect: Dialect,
}

impl Document {
    /// In this project's own words.
    #[must_use]
    pub fn native(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), dialect: Dialect::Native }
    }
}

/// A variable of this process.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What is known before a catalog is read.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The longest `Retry-After` that hooks honour.
    pub hint_max: Duration,
    /// Answers `${env:NAME}`.
    pub env: Lookup<'a>,
    /// What else hooks may call than public addresses.
    pub egress: &'a [IpNet],
    /// The callbacks of this program. `None`: others know.
    pub callbacks: Option<&'a BTreeSet<String>>,
}

/// What was read.
#[derive(Debug)]
pub struct Catalog {
    pub hooks: HookSet,
    /// The files that `${file:PATH}` named: their content is part of the catalog.
    pub files: BTreeSet<PathBuf>,
    /// What is not wrong, and most likely not meant.
    pub warnings: Vec<Problem>,
}

/// Reads hooks from a text. `name` is what problems call it.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, name: &str, terms: &Terms<'_>) -> Result<Catalog, Problems> {
    read(&[Document::native(name, text)], terms)
}

/// Reads hooks from their documents.
///
/// # Errors
/// Every problem of all documents.
pub fn read(documents: &[Document], terms: &Terms<'_>) -> Result<Catalog, Problems> {
    attempt(&Revision::from(digest(documents).as_str()), documents, terms).0
}

/// Reads hooks from their documents for workers elsewhere: what `${...}` stands for is theirs to know, and a value with
/// one in it is not judged here.
///
/// # Errors
/// Every problem that these documents have anywhere.
pub fn read_for_others(documents: &[Document], hint_max: Duration) -> Result<Catalog, Problems> {
    attempt_for_others(&Revision::from(digest(documents).as_str()), documents, hint_max)
}

/// As [`read_for_others`], of this revision.
///
/// # Errors
/// Every problem that these documents have anywhere.
pub fn attempt_for_others(
    revision: &Revision,
    documents: &[Document],
    hint_max: Duration,
) -> Result<Catalog, Problems> {
    let outside = Outside {
        values: Values::Elsewhere,
        egress: None,
        callbacks: None,
        files: RefCell::default(),
        secrets: RefCell::default(),
    };
    read_with(revision, documents, hint_max, &outside)
}

/// Reads hooks from their documents to show what they do: a value that is not known here keeps its name, and is not judged.
///
/// # Errors
/// Every other problem of all documents.
pub fn read_partly(documents: &[Document], terms: &Terms<'_>) -> Result<Catalog, Problems> {
    let outside = Outside {
        values: Values::PartlyHere(terms.env),
        egress: Some(terms.egress),
        callbacks: terms.callbacks,
        files: RefCell::default(),
        secrets: RefCell::default(),
    };
    read_with(&Revision::from(digest(documents).as_str()), documents, terms.hint_max, &outside)
}

/// Reads hooks of this revision. The files that `${file:PATH}` named are told in any case: what is refused today may be
/// right once one of them is there.
pub fn attempt(
    revision: &Revision,
    documents: &[Document],
    terms: &Terms<'_>,
) -> (Result<Catalog, Problems>, BTreeSet<PathBuf>) {
    let outside = Outside {
        values: Values::Here(terms.env),
        egress: Some(terms.egress),
        callbacks: terms.callbacks,
        files: RefCell::default(),
        secrets: RefCell::default(),
    };
    let read = read_with(revision, documents, terms.hint_max, &outside);
    (read, outside.files.into_inner())
}

fn read_with(
    revision: &Revision,
    documents: &[Document],
    hint_max: Duration,
    outside: &Outside<'_>,
) -> Result<Catalog, Problems> {
    let mut reading = hooks::Reading::new(hint_max, outside);
    let (mut hooks, mut warnings, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for document in documents {
        let native = match foreign::native(document) {
            Ok(native) => native,
            Err(wrong) => {
                problems.push(wrong);
                continue;
            }
        };
        warnings.extend(native.warnings);
        let report = Report::new(&native.name, &native.text);
        let root = yaml::parse(&report);
        let found = root.as_ref().and_then(|root| hooks::read(&Value::root(&report, root), &mut reading));
        match report.into_checked(found) {
            Ok((found, warned)) => {
                hooks.extend(found);
                warnings.extend(warned);
            }
            Err(wrong) => problems.push(wrong),
        }
    }
    if !problems.is_empty() {
        return Err(Problems::join(problems));
    }
    let hooks = HookSet::new(revision.clone(), hooks)
        .with_types(reading.events.into_types())
        .with_secrets(Secrets::new(outside.secrets.take()));
    Ok(Catalog { hooks, files: outside.files.borrow().clone(), warnings })
}

/// Reads the event types of hooks documents and nothing else of them: for publishers, who need not know the secrets that
/// hooks name.
///
/// # Errors
/// Every problem of the event types.
pub fn event_types(documents: &[Document]) -> Result<EventTypes, Problems> {
    let (mut declared, mut problems) = (types::Declared::default(), Vec::new());
    let ours = documents.iter().filter(|document| document.dialect.is_native());
    for Document { name, text, .. } in ours {
        let report = Report::new(name, text);
        let found = yaml::parse(&report).and_then(|root| {
            let mut fields = Value::root(&report, &root).fields()?;
            fields.require("version")?.read(hooks::check_version)?;
            fields.get("events").map_or(Some(()), |events| types::read(&events, &mut declared))
        });
        problems.extend(report.into_result(found).err());
    }
    if problems.is_empty() { Ok(declared.into_types()) } else { Err(Problems::join(problems)) }
}

/// Runs what takes time or waits for disks on another thread. It must change nothing: who stops waiting does not stop it.
/// `None`: it panicked, and is in the log.
pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| tracing::error!(%error, "reading the catalog failed")).ok()
}

/// What stands outside of hooks files and is named in them, and which of it was.
struct Outside<'a> {
    values: Values<'a>,
    /// What may be called beside public addresses. `None`: others know.
    egress: Option<&'a [IpNet]>,
    /// What callbacks may be named. `None`: others know.
    callbacks: Option<&'a BTreeSet<String>>,
    files: RefCell<BTreeSet<PathBuf>>,
    /// What was put in for them.
    secrets: RefCell<BTreeSet<String>>,
}

/// Where the values are that `${...}` stands for. A lookup answers `${env:NAME}`.
#[derive(Clone, Copy)]
enum Values<'a> {
    /// Here: one that is not is a problem.
    Here(Lookup<'a>),
    /// Here as far as they are.
    PartlyHere(Lookup<'a>),
    /// With others: nobody asks here.
    Elsewhere,
}

/// Names these texts: the beginning of their SHA-256.
#[must_use]
pub fn digest(documents: &[Document]) -> String {
    let mut hash = Sha256::new();
    for document in documents {
        hash.update(&document.text);
        if !document.dialect.is_native() {
            hash.update(document.dialect.name());
        }
    }
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(DIGEST_CHARS);
    digits
}

#[cfg(test)]
mod tests;
