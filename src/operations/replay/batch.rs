//! A replay of many letters: one half reads the log, the other half sends what it finds, with a bounded channel between them.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Failed, Manner, PATIENCE, made};
use crate::dead_letters::DeadLetterError;
use crate::domain::dead_letter::{Letter, Offset, Record};
use crate::domain::replay::Replay;
use crate::domain::selection::{Picked, Plan};
use crate::operations::Operations;
use crate::operations::progress::{Progress, Unsent};

/// Publishes that await their confirm at a time. More of them would hold up new events at the broker.
pub const WINDOW: usize = 8;
/// Letters that are read ahead.
const READ_AHEAD: usize = 8;
/// Between two tries while the broker is away.
const PAUSE: Duration = Duration::from_millis(500);
/// The greatest age of what is known about the work of others when a letter is sent.
const VIEW_AGE_MAX: Duration = Duration::from_secs(5);
/// Failed letters that are named in the progress.
const NAMED_MAX: usize = 100;

impl Operations {
    /// Sends all letters that a plan picked, and says how far it is. Ends early at a stop, or when the broker stays away for
    /// [`PATIENCE`]. What was sent is marked by then, so that the same replay once more sends the rest.
    pub async fn replay_all(
        &self,
        plan: Plan,
        manner: &Manner,
        progress: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) {
        progress.send_modify(|progress| progress.total = plan.picked.len());
        let mut rest: HashMap<_, _> = plan.picked.into_iter().map(|picked| (picked.at, picked)).collect();
        let mut pace = Pace::new(manner.rate);
        let mut away_since = None;
        while !rest.is_empty() && !stop.is_cancelled() {
            let pass = Pass { operations: self, manner, progress, picked: &rest, stop: stop.child_token() };
            let (ended, result) = pass.run(&mut pace).await;
            for at in &ended {
                rest.remove(at);
            }
            let Err(error) = result else { break };
            if !ended.is_empty() {
                away_since = None;
            }
            if away_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                progress.send_modify(|progress| progress.ended = Some(error));
                return;
            }
            tracing::warn!(error, "a replay waits for the broker");
            tokio::select! { () = sleep(PAUSE) => {} () = stop.cancelled() => {} }
        }
        progress.send_modify(|progress| {
            if stop.is_cancelled() && !rest.is_empty() {
                progress.ended = Some("stopped".to_owned());
            } else {
                progress.skipped += rest.len(); // they have aged out of the log
            }
        });
    }
}

/// A letter as the log has it.
type Found = (Picked, Box<Letter>);

/// What becomes of a letter before it is published.
enum Step {
    Send(Box<Replay>),
    /// Others have finished it or sent it out meanwhile.
    Skip,
    Fail(Failed),
}

/// How a letter ended in a pass.
enum Ended {
    Sent,
    Skipped,
    Failed(Failed),
}

/// One reading of the log, from the first letter that is to be sent.
struct Pass<'a> {
    operations: &'a Operations,
    manner: &'a Manner,
    progress: &'a watch::Sender<Progress>,
    picked: &'a HashMap<Offset, Picked>,
    /// Ends both halves. Letters under way are waited for.
    stop: CancellationToken,
}

impl Pass<'_> {
    /// The letters that have ended, by where they stand. An error: the broker is away, and the rest can be tried again.
    async fn run(&self, pace: &mut Pace) -> (Vec<Offset>, Result<(), String>) {
        let (letters, found) = mpsc::channel(READ_AHEAD);
        let reads = async {
            tokio::select! {
                read = self.read(letters) => read.map_err(|error| error.to_string()),
                () = self.stop.cancelled() => Ok(()),
            }
        };
        let sends = async {
            let sent = self.send(found, pace).await;
            self.stop.cancel();
            sent
        };
        let (read, (ended, sent)) = tokio::join!(reads, sends);
        (ended, sent.and(read))
    }

    /// Reads until all letters were met, or the log ends.
    async fn read(&self, letters: Sender<Found>) -> Result<(), DeadLetterError> {
        let Some(from) = self.picked.values().map(|picked| picked.from).min() else { return Ok(()) };
        let mut reading = self.operations.letters.log.open(from).await?;
        let mut left = self.picked.len();
        while left > 0
            && let Some(items) = reading.next().await?
        {
            for item in items {
                let Record::Letter(letter) = item.record else { continue };
                let Some(picked) = self.picked.get(&item.at).filter(|picked| picked.id == letter.id) else { continue };
                left -= 1;
                if letters.send((picked.clone(), letter)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends what is found, [`WINDOW`] letters at a time. Once the broker is away, only what is under way is waited for.
    async fn send(&self, found: Receiver<Found>, pace: &mut Pace) -> (Vec<Offset>, Result<(), String>) {
        let steps = stream::unfold((found, pace), async |(mut found, pace)| {
            let step = self.next(&mut found, pace).await?;
            Some((self.take(step), (found, pace)))
        });
        let mut results = std::pin::pin!(steps.buffer_unordered(WINDOW));
        let (mut ended, mut away) = (Vec::new(), Ok(()));
        while let Some((picked, result)) = results.next().await {
            if let Ended::Failed(Failed::Away(error)) = result {
                self.stop.cancel();
                away = Err(error);
            } else {
                self.count(&picked, result);
                ended.push(picked.at);
            }
        }
        (ended, away)
    }

    /// The next letter, when its turn has come; `None` once all are read or the pass is stopped.
    async fn next(&self, found: &mut Receiver<Found>, pace: &mut Pace) -> Option<(Picked, Step)> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            next = async {
                let (picked, letter) = found.recv().await?;
                pace.due().await;
                let step = self.step(&picked, &letter).await;
                if matches!(step, Step::Send(_)) {
                    pace.went();
                }
                Some((picked, step))
            } => next,
        }
    }

    /// What to do with a letter now: others may have replayed it while it waited for its turn.
    async fn step(&self, picked: &Picked, letter: &Letter) -> Step {
        match self.operations.letters.within(VIEW_AGE_MAX).await {
            Err(error) => return Step::Fail(error.into()),
            Ok(view) if !view.is_unchanged(picked) => return Step::Skip,
            Ok(_) => {}
        }
        match made(letter, picked, self.manner) {
            Ok(replay) => Step::Send(Box::new(replay)),
            Err(error) => Step::Fail(Failed::Letter(error)),
        }
    }

    async fn take(&self, (picked, step): (Picked, Step)) -> (Picked, Ended) {
        let ended = match step {
            Step::Skip => Ended::Skipped,
            Step::Fail(failed) => Ended::Failed(failed),
            Step::Send(replay) => self.operations.send(*replay).await.map_or_else(Ended::Failed, |()| Ended::Sent),
        };
        (picked, ended)
    }

    fn count(&self, picked: &Picked, ended: Ended) {
        self.progress.send_modify(|progress| match ended {
            Ended::Sent => progress.sent += 1,
            Ended::Skipped => progress.skipped += 1,
            Ended::Failed(Failed::Letter(error) | Failed::Away(error)) => {
                progress.failed += 1;
                if progress.failures.len() < NAMED_MAX {
                    progress.failures.push(Unsent { id: picked.id.clone(), error });
                }
            }
        });
    }
}

/// Times of the sends under a rate.
struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        let every = rate.and_then(|rate| Duration::try_from_secs_f64(rate.recip()).ok()).unwrap_or_default();
        Self { every, next: Instant::now() }
    }

    /// Waits until the next one may go.
    async fn due(&self) {
        if !self.every.is_zero() {
            sleep_until(self.next).await;
        }
    }

    /// Counts one that has gone. After a pause the rate is kept: what was missed is not made up for.
    fn went(&mut self) {
        self.next = self.next.max(Instant::now().checked_sub(self.every).unwrap_or(self.next)) + self.every;
    }
}
