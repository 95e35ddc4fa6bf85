//! The revisions of a fleet's catalog, in the Redis that keeps its claims.
//!
//! One hash holds all: the field `current` names the newest revision, each revision has two fields that never change. So
//! every command touches one key, and one script writes a revision and makes it the current one. What is kept are the
//! texts, in which `${env:}` and `${file:}` stand as they were written: no secret gets here.

use ::redis::cmd;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Document, FORMAT, beside, digest};
use crate::domain::revision::Revision;
use crate::redis::connection::Link;
use crate::redis::error::Failure;
use crate::redis::script::Script;

/// So many revisions are kept; older ones are forgotten, one with each new one.
pub const KEPT: u64 = 200;
/// Bytes of all texts of a revision: a whole fleet reads them at once, each worker in one answer within a second.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the texts of all revisions that are kept; the two newest are, whatever they have.
const BYTES_KEPT: usize = 64 * 1024 * 1024;

/// Which revision is the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    pub number: u64,
    /// Of its texts: a Redis that has forgotten gives out the same numbers again.
    pub digest: String,
}

/// What is said of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct About {
    pub number: u64,
    pub digest: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who applied it.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// [`FORMAT`] of the program that applied it.
    pub format: u32,
    /// How many there are.
    pub hooks: usize,
}

/// A revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub about: About,
    pub documents: Vec<Document>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevisionsError {
    #[error(transparent)]
    Redis(#[from] Failure),
    #[error(
        "expected revision r{0} to be kept, found none: the last {KEPT} are, as long as they have less than {BYTES_KEPT} bytes"
    )]
    Unknown(u64),
    #[error("what Redis keeps of the catalog cannot be read ({0}): did another program write there?")]
    Unreadable(String),
}

/// The revisions of one namespace.
pub struct Revisions {
    link: Link,
    script: Script,
    key: String,
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        let (number, digest) = text.split_once(' ')?;
        Some(Self { number: number.parse().ok()?, digest: digest.to_owned() })
    }

    #[must_use]
    pub const fn revision(&self) -> Revision {
        Revision::Numbered(self.number)
    }

    fn text(&self) -> String {
        format!("{} {}", self.number, self.digest)
    }
}

impl About {
    #[must_use]
    pub fn pointer(&self) -> Pointer {
        Pointer { number: self.number, digest: self.digest.clone() }
    }
}

impl Stored {
    /// A new revision of these texts.
    #[must_use]
    pub fn new(
        number: u64,
        documents: Vec<Document>,
        hooks: usize,
        by: &str,
        message: Option<&str>,
        at_ms: u64,
    ) -> Self {
        let (digest, by, message) = (digest(&documents), by.to_owned(), message.map(str::to_owned));
        Self { about: About { number, digest, at_ms, by, message, format: FORMAT, hooks }, documents }
    }
}

impl Revisions {
    /// Over a connection that others may use too.
    #[must_use]
    pub fn new(link: Link, namespace: &str) -> Self {
        Self { link, script: Script::new(include_str!("revisions/put.lua")), key: format!("{namespace}:catalog") }
    }

    /// Which revision is the current one, if there is any.
    ///
    /// # Errors
    /// Redis does not say.
    pub async fn current(&self) -> Result<Option<Pointer>, RevisionsError> {
        let text: Option<String> = self.link.call().query(cmd("HGET").arg(&self.key).arg("current")).await?;
        let parse = |text: String| Pointer::parse(&text).ok_or_else(|| RevisionsError::Unreadable(format!("{text:?}")));
        text.map(parse).transpose()
    }

    /// One revision.
    ///
    /// # Errors
    /// Redis does not say, or has it no more.
    pub async fn get(&self, number: u64) -> Result<Stored, RevisionsError> {
        let fields = [field(number), format!("{}:documents", field(number))];
        let texts: [Option<String>; 2] = self.link.call().query(cmd("HMGET").arg(&self.key).arg(&fields)).await?;
        let [Some(about), Some(documents)] = texts else { return Err(RevisionsError::Unknown(number)) };
        let read = move || Ok(Stored { about: parse(&about)?, documents: parse(&documents)? });
        beside(read).await.unwrap_or_else(|| Err(RevisionsError::Unreadable("see the log".to_owned())))
    }

    /// What is said of the revisions that are kept, newest first.
    ///
    /// # Errors
    /// Redis does not say.
    pub async fn history(&self) -> Result<Vec<About>, RevisionsError> {
        let Some(Pointer { number, .. }) = self.current().await? else { return Ok(Vec::new()) };
        let fields: Vec<String> = (number.saturating_sub(KEPT - 1).max(1)..=number).rev().map(field).collect();
        let texts: Vec<Option<String>> = self.link.call().query(cmd("HMGET").arg(&self.key).arg(&fields)).await?;
        texts.iter().flatten().map(|text| parse(text)).collect()
    }

    /// Makes a revision the current one, if it still follows `after`. Answers whether.
    ///
    /// # Errors
    /// Redis does not say: it may have been done.
    pub async fn put(&self, after: Option<&Pointer>, new: &Stored) -> Result<bool, RevisionsError> {
        let json = |error: serde_json::Error| RevisionsError::Unreadable(error.to_string());
        let arguments = [
            after.map(Pointer::text).unwrap_or_default(),
            new.about.pointer().text(),
            new.about.number.to_string(),
            serde_json::to_string(&new.about).map_err(json)?,
            serde_json::to_string(&new.documents).map_err(json)?,
            KEPT.to_string(),
            BYTES_KEPT.to_string(),
        ];
        let done: u8 = self.link.call().run(&self.script, &[&self.key], &arguments).await?;
        Ok(done == 1)
    }
}

fn field(number: u64) -> String {
    Revision::Numbered(number).to_string()
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, RevisionsError> {
    serde_json::from_str(text).map_err(|error| RevisionsError::Unreadable(error.to_string()))
}
