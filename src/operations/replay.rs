//! Sending letters' work out again: one, or any number of them.
//!
//! Each is published, and after the confirm marked. Killed between the two, it is sent again by the next replay as the same
//! generation, which runs it once. So a replay that was broken off is gone on with by asking for the same once more: what
//! it sent is marked and no longer open.

mod batch;
mod follow;
mod preview;

pub use batch::WINDOW;
pub use preview::Sorted;

use std::time::Duration;

use tokio::time::timeout;

use super::{BY_CHARS_MAX, Hooks, OperationError, Operations, Replayed};
use crate::broker::PublishError;
use crate::dead_letters::DeadLetterError;
use crate::domain::dead_letter::Letter;
use crate::domain::escape;
use crate::domain::event::Reading;
use crate::domain::id::{HookId, LetterId};
use crate::domain::replay::{Operator, Replay, redirect, replay};
use crate::domain::selection::{Picked, Plan, Purpose, Selection};
use crate::telemetry::now_ms;

/// How long a replay tries on while the broker is away.
const PATIENCE: Duration = Duration::from_mins(1);
/// Letters a second.
const RATE_MIN: f64 = 0.001;
const RATE_MAX: f64 = 1_000_000.0;

/// How letters are replayed.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// The operator.
    pub by: String,
    /// Run by this hook instead of their own.
    pub to_hook: Option<HookId>,
    /// At most so many a second.
    pub rate: Option<f64>,
    /// Whether a replay of many goes on until all that it sent have ended.
    pub wait: bool,
}

impl Manner {
    /// As it is asked for from outside.
    ///
    /// # Errors
    /// One sentence: the hook has no legal id, or the rate is none.
    pub fn new(by: &str, to_hook: Option<&str>, rate: Option<f64>) -> Result<Self, OperationError> {
        let to_hook = to_hook.map(HookId::new).transpose();
        let to_hook = to_hook.map_err(|error| OperationError::Invalid(format!("to_hook: {error}")))?;
        if let Some(rate) = rate.filter(|rate| !(*rate >= RATE_MIN && *rate <= RATE_MAX)) {
            let found = format!("rate: expected {RATE_MIN} to {RATE_MAX} letters a second, found {rate}");
            return Err(OperationError::Invalid(found));
        }
        Ok(Self { by: escape::sentence(by, BY_CHARS_MAX), to_hook, rate, wait: false })
    }
}

impl Manner {
    /// Another hook has to be in the catalog, and has to be run: what it cannot do would be letters again.
    ///
    /// # Errors
    /// It is not there, or no event runs it; or it is not known here whether it is there.
    pub fn check(&self, hooks: &Hooks) -> Result<(), OperationError> {
        let Some(id) = &self.to_hook else { return Ok(()) };
        let hooks = hooks.as_ref().map_err(|why| {
            OperationError::Refused(format!("to_hook: whether the catalog has a hook {id} is not known here: {why}"))
        })?;
        let hooks = hooks.borrow();
        let revision = hooks.revision();
        match hooks.get(id.as_str()) {
            Some(hook) if hook.is_run_by_events() => Ok(()),
            Some(_) => Err(OperationError::Invalid(format!(
                "to_hook: hook {id} is run by no event in revision {revision}: it is disabled, or a gate"
            ))),
            None => {
                Err(OperationError::Invalid(format!("to_hook: the catalog has no hook {id} in revision {revision}")))
            }
        }
    }

    /// What letters are picked for.
    ///
    /// # Errors
    /// It is two things at once.
    pub fn purpose(&self, force: bool) -> Result<Purpose, OperationError> {
        match (force, &self.to_hook) {
            (false, None) => Ok(Purpose::Again),
            (true, None) => Ok(Purpose::Force),
            (false, Some(_)) => Ok(Purpose::Elsewhere),
            (true, Some(_)) => Err(OperationError::Invalid("expected force or to_hook, found both".to_owned())),
        }
    }
}

/// Why one could not be sent.
pub(super) enum Failed {
    /// Never will be.
    Letter(String),
    /// Not now.
    Away(String),
}

impl Failed {
    /// To the operator, with what is safe.
    pub(super) fn told(self, safe: &str) -> OperationError {
        match self {
            Self::Letter(error) => OperationError::Refused(error),
            Self::Away(error) => OperationError::Away(format!("{error}; nothing is lost, and {safe} is safe")),
        }
    }
}

impl From<PublishError> for Failed {
    fn from(error: PublishError) -> Self {
        if error.is_permanent() { Self::Letter(error.to_string()) } else { Self::Away(error.to_string()) }
    }
}

impl From<DeadLetterError> for Failed {
    fn from(error: DeadLetterError) -> Self {
        Self::Away(error.to_string())
    }
}

impl Operations {
    /// What a replay would do, as of now.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn plan(&self, selection: &Selection, purpose: Purpose) -> Result<Plan, OperationError> {
        Ok(self.letters.now().await?.plan(selection, purpose))
    }

    /// Sends one letter's work out again: publishes, awaits the confirm, then marks. Doing it twice does it once, unless
    /// `force` asks for a run of its own.
    ///
    /// # Errors
    /// The letter is unknown, finished (without `force`) or of a kind that cannot be replayed as it is; or the broker is
    /// away, in which case repeating the call is safe.
    pub async fn replay(&self, id: &LetterId, force: bool, manner: &Manner) -> Result<Replayed, OperationError> {
        let purpose = manner.purpose(force)?;
        let plan = self.plan(&Selection::Ids(vec![id.clone()]), purpose).await?;
        let Some(picked) = plan.picked.first() else {
            return Err(match (plan.unknown.first(), plan.unforced.first()) {
                (Some(unknown), _) => OperationError::Unknown(unknown.clone()),
                (None, Some(_)) => OperationError::Refused(format!(
                    "letter {id} is about a whole message: it is replayed without --force, for the hooks that have not \
                     finished"
                )),
                (None, None) if plan.out > 0 => OperationError::Refused(format!(
                    "a replay of letter {id} is out: it can go elsewhere when that has failed"
                )),
                (None, None) => OperationError::Refused(format!(
                    "letter {id} is resolved: it was finished or closed; --force runs it again under a key of its own"
                )),
            });
        };
        let letter = self.find(&picked.id).await?.letter;
        let replay = made(&letter, picked, manner, self.reading).map_err(OperationError::Refused)?;
        let (generation, observes) = (replay.generation, replay.observes);
        self.send(replay).await.map_err(|failed| failed.told("replaying again"))?;
        Ok(Replayed { id: letter.id, generation, observes })
    }

    pub(super) async fn send(&self, replay: Replay) -> Result<(), Failed> {
        let both = async {
            self.broker.publish(replay.outgoing).await?;
            Ok(self.letters.append(&replay.mark).await?)
        };
        let sent = timeout(PATIENCE, both).await;
        sent.unwrap_or_else(|_| Err(Failed::Away(format!("the broker took nothing for {PATIENCE:?}"))))
    }
}

fn made(letter: &Letter, picked: &Picked, manner: &Manner, reading: Reading) -> Result<Replay, String> {
    let operator = Operator { name: manner.by.clone(), now_ms: now_ms(), seen_ms: picked.newest_ms, reading };
    match &manner.to_hook {
        Some(hook) => redirect(letter, hook, &operator),
        None => replay(letter, picked.force, &operator),
    }
}
