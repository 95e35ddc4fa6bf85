//! A replay of many letters: one half reads the log, the other half sends what it finds, with a bounded channel between them.
//! What was sent is followed until it has ended, if that is asked for.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::follow::Followed;
use super::{Failed, Manner, PATIENCE, made};
use crate::dead_letters::DeadLetterError;
use crate::domain::dead_letter::{Letter, Offset, Record, Subject};
use crate::domain::replay::Replay;
use crate::domain::selection::{Picked, Plan};
use crate::operations::Operations;
use crate::operations::progress::Progress;

/// Publishes that await their confirm at a time. More of them would hold up new events at the broker.
pub const WINDOW: usize = 8;
/// Between two tries while the broker is away.
const PAUSE: Duration = Duration::from_millis(500);
/// The greatest age of what is known about the work of others when a letter is sent.
const VIEW_AGE_MAX: Duration = Duration::from_secs(5);

impl Operations {
    /// Sends all letters that a plan picked, says how far it is, and waits for what becomes of them if that is asked for.
    ///
    /// Ends early at a stop, or when the broker stays away for [`PATIENCE`]. What was sent is marked by then, so that the
    /// same replay once more sends the rest.
    pub async fn replay_all(
        &self,
        plan: Plan,
        manner: &Manner,
        progress: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) {
        let sent = self.send_all(plan, manner, progress, stop).await;
        if manner.wait {
            self.follow(sent, progress, stop).await;
        }
    }

    /// Answers what was sent.
    async fn send_all(
        &self,
        plan: Plan,
        manner: &Manner,
        progress: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) -> Vec<Followed> {
        let mut sent = Vec::new();
        let mut rest: HashMap<_, _> = plan.picked.into_iter().map(|picked| (picked.at, picked)).collect();
        let mut pace = Pace::new(manner.rate);
        let mut away_since = None;
        while !rest.is_empty() && !stop.is_cancelled() {
            let pass = Pass { operations: self, manner, progress, picked: &rest, stop: stop.child_token() };
            let (ended, result) = pass.run(&mut pace, &mut sent).await;
            for at in &ended {
                rest.remove(at);
            }
            let Err(error) = result else { break };
            if !ended.is_empty() {
                away_since = None;
            }
            if away_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                progress.send_modify(|progress| progress.ended = Some(error));
                return sent;
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
        sent
    }
}

/// What becomes of a letter before it is published.
enum Step {
    Send(Box<Replay>),
    /// Others have finished it or sent it out meanwhile.
    Skip,
    /// It cannot be sent as it is.
    Fail(String),
}

/// How a letter ended in a pass.
enum Ended {
    /// As this generation; with it ends this. The flag is [`Replay::observes`].
    Sent(u32, Subject, bool),
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
    async fn run(&self, pace: &mut Pace, followed: &mut Vec<Followed>) -> (Vec<Offset>, Result<(), String>) {
        let (steps, due) = mpsc::channel(1);
        let reads = async {
            tokio::select! {
                read = self.read(steps, pace) => read.map_err(|error| error.to_string()),
                () = self.stop.cancelled() => Ok(()),
            }
        };
        let (read, (ended, sent)) = tokio::join!(reads, self.send(due, followed));
        (ended, sent.and(read))
    }

    /// Hands over each letter when its turn has come, until all were met or the log ends.
    async fn read(&self, steps: Sender<(Picked, Step)>, pace: &mut Pace) -> Result<(), DeadLetterError> {
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
                let Ok(permit) = steps.reserve().await else { return Ok(()) };
                pace.due().await;
                let step = self.step(picked, &letter).await?;
                if matches!(step, Step::Send(_)) {
                    pace.went();
                }
                permit.send((picked.clone(), step));
            }
        }
        Ok(())
    }

    /// What to do with a letter now: others may have replayed it while it waited for its turn.
    async fn step(&self, picked: &Picked, letter: &Letter) -> Result<Step, DeadLetterError> {
        if !self.operations.letters.within(VIEW_AGE_MAX).await?.is_unchanged(picked) {
            return Ok(Step::Skip);
        }
        Ok(match made(letter, picked, self.manner, self.operations.reading) {
            Ok(replay) => Step::Send(Box::new(replay)),
            Err(error) => Step::Fail(error),
        })
    }

    /// Sends what is due, [`WINDOW`] letters at a time. Once the broker is away, only what is under way is waited for.
    async fn send(
        &self,
        mut due: Receiver<(Picked, Step)>,
        followed: &mut Vec<Followed>,
    ) -> (Vec<Offset>, Result<(), String>) {
        let mut under_way = FuturesUnordered::new();
        let (mut ended, mut away) = (Vec::new(), Ok(()));
        let mut is_read = false;
        loop {
            tokio::select! {
                biased;
                Some((picked, result)) = under_way.next() => {
                    if let Ended::Failed(Failed::Away(error)) = result {
                        self.stop.cancel();
                        away = Err(error);
                    } else {
                        followed.extend(self.count(&picked, result));
                        ended.push(picked.at);
                    }
                }
                step = due.recv(), if !is_read && under_way.len() < WINDOW => match step {
                    Some(step) => under_way.push(self.take(step)),
                    None => is_read = true,
                },
                else => return (ended, away),
            }
        }
    }

    async fn take(&self, (picked, step): (Picked, Step)) -> (Picked, Ended) {
        let ended = match step {
            Step::Skip => Ended::Skipped,
            Step::Fail(error) => Ended::Failed(Failed::Letter(error)),
            Step::Send(replay) => {
                let Replay { generation, observes, .. } = *replay;
                let subject = replay.follows.clone();
                let sent = self.operations.send(*replay).await;
                sent.map_or_else(Ended::Failed, |()| Ended::Sent(generation, subject, observes))
            }
        };
        (picked, ended)
    }

    /// Counts it; answers what is to be followed.
    fn count(&self, picked: &Picked, ended: Ended) -> Option<Followed> {
        let mut followed = None;
        self.progress.send_modify(|progress| match ended {
            Ended::Sent(generation, subject, observes) => {
                progress.observing += usize::from(observes);
                let place = progress.sent(&picked.id, generation);
                let id = picked.id.clone();
                followed = self.manner.wait.then_some(Followed { id, generation, subject, place });
            }
            Ended::Skipped => progress.skipped += 1,
            Ended::Failed(Failed::Letter(error) | Failed::Away(error)) => progress.refuse(picked.id.clone(), error),
        });
        followed
    }
}

/// Times of the sends under a rate. Kept over passes.
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
