//! What operators do with dead letters, on whichever broker.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::broker::Broker;
use crate::dead_letters::DeadLetters;
use crate::domain::dead_letter::LetterId;
use crate::domain::fold::{Entry, State};
use crate::domain::replay::{Operator, replay};
use crate::telemetry::now_ms;

pub mod cancel;

/// The desk of an operator.
#[derive(Clone)]
pub struct Desk {
    pub broker: Arc<dyn Broker>,
    pub letters: Arc<dyn DeadLetters>,
}

/// Why an operator's wish was not granted.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("no letter has the id {0}: see `hookfleet dead-letters list`")]
    Unknown(LetterId),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Away(String),
}

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    pub id: LetterId,
    /// The generation that was sent out; the same for everyone who replays this letter.
    pub generation: u32,
}

impl Desk {
    /// All letters, oldest first.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn entries(&self) -> Result<Vec<Entry>, DeskError> {
        let fold = self.letters.fold().await.map_err(|error| DeskError::Away(error.to_string()))?;
        Ok(fold.entries())
    }

    /// The letter with this id, or the newest one of its subject.
    ///
    /// # Errors
    /// There is none, or the log cannot be read.
    pub async fn find(&self, id: &LetterId) -> Result<Entry, DeskError> {
        let fold = self.letters.fold().await.map_err(|error| DeskError::Away(error.to_string()))?;
        fold.find(id).ok_or_else(|| DeskError::Unknown(id.clone()))
    }

    /// Sends a letter's work out again: publishes, awaits the confirm, then marks. Doing it twice does it once, unless
    /// `force` asks for a run of its own.
    ///
    /// # Errors
    /// The letter is unknown, finished (without `force`) or of a kind that cannot be replayed as it is; or the broker is
    /// away, in which case repeating the call is safe.
    pub async fn replay(&self, id: &LetterId, force: bool, by: &str) -> Result<Replayed, DeskError> {
        let fold = self.letters.fold().await.map_err(|error| DeskError::Away(error.to_string()))?;
        let entry = fold.find(id).ok_or_else(|| DeskError::Unknown(id.clone()))?;
        if entry.state == State::Resolved && !force {
            return Err(DeskError::Refused(format!(
                "letter {id} is resolved: it was finished or closed; --force runs it again under a key of its own"
            )));
        }
        if force && entry.letter.hook.is_none() {
            return Err(DeskError::Refused(format!(
                "letter {id} is about a whole message: it is replayed without --force, for the hooks that have not finished"
            )));
        }
        let highest = force.then(|| fold.highest_generation(&entry.letter));
        let operator = Operator { name: by.to_owned(), now_ms: now_ms(), seen_ms: entry.newest_ms };
        let replay = replay(&entry.letter, highest, &operator).map_err(DeskError::Refused)?;
        let away = |error: String| DeskError::Away(format!("{error}; nothing is lost, and replaying again is safe"));
        self.broker.publish(replay.outgoing).await.map_err(|error| away(error.to_string()))?;
        self.letters.append(&replay.mark).await.map_err(|error| away(error.to_string()))?;
        Ok(Replayed { id: entry.letter.id, generation: replay.generation })
    }
}
