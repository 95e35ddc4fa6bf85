//! Sending letters' work out again: one, or any number of them.
//!
//! Each is published, and after the confirm marked. Killed between the two, it is sent again by the next replay as the same
//! generation, which runs it once. So a replay that was broken off is gone on with by asking for the same once more: what
//! it sent is marked and no longer open.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::progress::{Progress, Unsent};
use super::{BY_CHARS_MAX, OperationError, Operations, Replayed};
use crate::broker::PublishError;
use crate::dead_letters::DeadLetterError;
use crate::domain::dead_letter::{Item, Letter, Offset, Record};
use crate::domain::escape;
use crate::domain::event::Reading;
use crate::domain::id::{HookId, LetterId};
use crate::domain::replay::{Operator, Replay, redirect, replay};
use crate::domain::selection::{Picked, Plan, Purpose, Selection};
use crate::telemetry::now_ms;

/// Publishes that await their confirm at a time: with more, new events wait behind them.
pub const WINDOW: usize = 8;
/// How long a replay tries on while the broker is away.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries meanwhile.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at what others have done with the letters meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Letters a second.
const RATE_MIN: f64 = 0.001;
const RATE_MAX: f64 = 1_000_000.0;
/// Letters that could not be sent and are named.
const NAMED_MAX: usize = 100;

/// How letters are replayed.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// The operator.
    pub by: String,
    /// Run by this hook instead of their own.
    pub to_hook: Option<HookId>,
    /// At most so many a second.
    pub rate: Option<f64>,
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
        Ok(Self { by: escape::sentence(by, BY_CHARS_MAX), to_hook, rate })
    }
}

impl Manner {
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
        let generation = replay.generation;
        self.send(replay).await.map_err(|failed| failed.told("replaying again"))?;
        Ok(Replayed { id: letter.id, generation })
    }

    pub(super) async fn send(&self, replay: Replay) -> Result<(), Failed> {
        let both = async {
            self.broker.publish(replay.outgoing).await?;
            Ok(self.letters.append(&replay.mark).await?)
        };
        let sent = timeout(PATIENCE, both).await;
        sent.unwrap_or_else(|_| Err(Failed::Away(format!("the broker took nothing for {PATIENCE:?}"))))
    }

    /// Sends all that a plan picked, and says how far it is. Ends early where it is stopped, or the broker stays away; what
    /// was sent is sent then, and asking again goes on with the rest.
    pub async fn replay_all(
        &self,
        plan: Plan,
        manner: &Manner,
        progress: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) {
        progress.send_modify(|progress| progress.total = plan.picked.len());
        let picked = plan.picked.into_iter().map(|picked| (picked.at, picked)).collect();
        let pace = Pace::new(manner.rate);
        let mut run = Run { operations: self, manner, progress, stop, picked, pace, looked: None, away_since: None };
        while !run.picked.is_empty() && !stop.is_cancelled() {
            match run.pass().await {
                Ok(()) => break,
                Err(error) if run.is_patient() => {
                    tracing::warn!(error, "a replay waits for the broker");
                    tokio::select! { () = sleep(PAUSE) => {} () = stop.cancelled() => {} }
                }
                Err(error) => {
                    progress.send_modify(|progress| progress.ended = Some(error));
                    return;
                }
            }
        }
        let gone = run.picked.len();
        progress.send_modify(|progress| {
            if stop.is_cancelled() && gone > 0 {
                progress.ended = Some("stopped".to_owned());
            } else {
                progress.skipped += gone; // the log has them no more
            }
        });
    }
}

fn made(letter: &Letter, picked: &Picked, manner: &Manner, reading: Reading) -> Result<Replay, String> {
    let operator = Operator { name: manner.by.clone(), now_ms: now_ms(), seen_ms: picked.newest_ms, reading };
    match &manner.to_hook {
        Some(hook) => redirect(letter, hook, &operator),
        None => replay(letter, picked.force, &operator),
    }
}

/// A replay under way.
struct Run<'a> {
    operations: &'a Operations,
    manner: &'a Manner,
    progress: &'a watch::Sender<Progress>,
    stop: &'a CancellationToken,
    /// What is not sent yet, by where it stands.
    picked: HashMap<Offset, Picked>,
    pace: Pace,
    /// When what others did was looked at. Not when it was planned: somebody may have thought about that for long.
    looked: Option<Instant>,
    /// Since when nothing could be sent.
    away_since: Option<Instant>,
}

impl Run<'_> {
    fn is_patient(&mut self) -> bool {
        self.away_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE
    }

    /// Reads the log once, from the first letter that is to be sent, and sends those that are met, as many at a time as the
    /// window has. What could not be sent now stays.
    async fn pass(&mut self) -> Result<(), String> {
        let Some(from) = self.picked.values().map(|picked| picked.from).min() else { return Ok(()) };
        let (operations, stop) = (self.operations, self.stop);
        let reading = operations.letters.log.open(from).await.map_err(|error| error.to_string())?;
        // A stream, since what is read is not lost then when something else comes first.
        let mut items = pin!(stream::try_unfold(reading, async |mut reading| {
            let items = reading.next().await?;
            Ok::<_, DeadLetterError>(items.map(|items| (items, reading)))
        }));
        let (mut next, mut under_way) = (VecDeque::new(), FuturesUnordered::new());
        let (mut is_read, mut away) = (false, None);
        loop {
            let goes_on = away.is_none() && !stop.is_cancelled();
            let looks = goes_on && !self.has_looked();
            if looks && under_way.is_empty() {
                self.drop_what_others_did().await?;
                next.retain(|(picked, _): &(Picked, Box<Letter>)| self.picked.contains_key(&picked.at));
                continue;
            }
            let begins = goes_on && !looks && under_way.len() < WINDOW && !next.is_empty();
            let reads = goes_on && !is_read && next.len() < WINDOW && self.picked.len() > next.len() + under_way.len();
            tokio::select! {
                biased;
                // Who has waited for long looks again first.
                () = self.pace.due(), if begins => if self.has_looked() && let Some((picked, letter)) = next.pop_front() {
                    match made(&letter, &picked, self.manner, self.operations.reading) {
                        Ok(replay) => {
                            self.pace.went();
                            under_way.push(async move { (picked, operations.send(replay).await) });
                        }
                        Err(error) => self.ended(&picked, Err(error)),
                    }
                },
                Some((picked, sent)) = under_way.next() => match sent {
                    Ok(()) => self.ended(&picked, Ok(())),
                    Err(Failed::Letter(error)) => self.ended(&picked, Err(error)),
                    Err(Failed::Away(error)) => away = Some(error),
                },
                read = items.next(), if reads => match read {
                    Some(Ok(read)) => next.extend(self.meant(read)),
                    Some(Err(error)) => away = Some(error.to_string()),
                    None => is_read = true,
                },
                () = stop.cancelled(), if goes_on && (begins || reads) => {}
                else => break,
            }
        }
        away.map_or(Ok(()), Err)
    }

    /// Whether it is known well enough what others did.
    fn has_looked(&self) -> bool {
        self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY)
    }

    async fn drop_what_others_did(&mut self) -> Result<(), String> {
        let fold = self.operations.letters.now().await.map_err(|error| error.to_string())?;
        self.looked = Some(Instant::now());
        let before = self.picked.len();
        self.picked.retain(|_, picked| fold.is_unchanged(picked));
        let gone = before - self.picked.len();
        self.progress.send_modify(|progress| progress.skipped += gone);
        Ok(())
    }

    /// Of these items, the letters that are to be sent.
    fn meant(&self, items: Vec<Item>) -> impl Iterator<Item = (Picked, Box<Letter>)> {
        items.into_iter().filter_map(|item| {
            let Record::Letter(letter) = item.record else { return None };
            let picked = self.picked.get(&item.at).filter(|picked| picked.id == letter.id)?;
            Some((picked.clone(), letter))
        })
    }

    fn ended(&mut self, picked: &Picked, sent: Result<(), String>) {
        self.picked.remove(&picked.at);
        self.away_since = None;
        self.progress.send_modify(|progress| match sent {
            Ok(()) => progress.sent += 1,
            Err(error) => {
                progress.failed += 1;
                if progress.failures.len() < NAMED_MAX {
                    progress.failures.push(Unsent { id: picked.id.clone(), error });
                }
            }
        });
    }
}

/// When the next one may go.
struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        let every = rate.and_then(|rate| Duration::try_from_secs_f64(rate.recip()).ok()).unwrap_or_default();
        Self { every, next: Instant::now() }
    }

    /// When the next one may go. Cancel-safe.
    async fn due(&self) {
        if !self.every.is_zero() {
            sleep_until(self.next).await;
        }
    }

    /// One has gone. Who was held up does not catch up with a flood.
    fn went(&mut self) {
        self.next = self.next.max(Instant::now().checked_sub(self.every).unwrap_or(self.next)) + self.every;
    }
}
