//! How far a replay of many letters is, and what has become of what it sent.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::failure::Class;
use crate::domain::fold::Outcome;
use crate::domain::id::LetterId;

/// Letters that are named, of those that were sent and of those that cannot be; all are counted.
pub const NAMED_MAX: usize = 1000;

/// How far a replay is, and at its end what it came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    pub total: usize,
    /// Published and confirmed.
    pub sent: usize,
    /// Not sent, since somebody else has finished them or sent them out meanwhile, or they have aged out.
    pub skipped: usize,
    /// Cannot be sent as they are; the first thousand of them by name.
    pub refused: usize,
    pub refusals: Vec<Unsent>,
    /// Why it ended before all were sent: stopped, or the broker away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Whether it goes on until all have ended that were sent.
    pub waits: bool,
    /// Of those that were sent: finished, failed again, closed by somebody meanwhile. All others are out.
    pub done: usize,
    pub failed: usize,
    pub closed: usize,
    /// Of those that were sent: their hooks decide, and run as observers now. Their answers are not used.
    #[serde(default)]
    pub observing: usize,
    /// The first thousand that were sent, and the first thousand that failed again.
    pub letters: Vec<Sent>,
}

/// A letter that could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unsent {
    pub id: LetterId,
    pub error: String,
}

/// A letter that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    pub id: LetterId,
    /// The generation that it was sent as.
    pub generation: u32,
    /// As far as it is known: a replay that does not wait does not look.
    pub outcome: SentOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What has become of a letter that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SentOutcome {
    /// It waits, runs, or is retried.
    Out,
    /// Its hook has finished. Of a whole message: it was an event, and its hooks have it.
    Done,
    /// It failed again, and is a letter again.
    Failed,
    /// Somebody has closed it meanwhile, or its invocation was cancelled.
    Closed,
}

impl Progress {
    /// Letters that were not come to.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.total.saturating_sub(self.sent).saturating_sub(self.skipped).saturating_sub(self.refused)
    }

    /// Letters of which it is not known what becomes of them.
    #[must_use]
    pub const fn out(&self) -> usize {
        self.sent.saturating_sub(self.done).saturating_sub(self.failed).saturating_sub(self.closed)
    }

    /// Whether letters are still to be sent.
    #[must_use]
    pub const fn is_sending(&self) -> bool {
        self.left() > 0 && self.ended.is_none()
    }

    pub(super) fn refuse(&mut self, id: LetterId, error: String) {
        self.refused += 1;
        if self.refusals.len() < NAMED_MAX {
            self.refusals.push(Unsent { id, error });
        }
    }

    /// Counts one that was sent; answers its place among those that are named.
    pub(super) fn sent(&mut self, id: &LetterId, generation: u32) -> Option<usize> {
        self.sent += 1;
        let place = self.letters.len();
        (place < NAMED_MAX).then(|| {
            self.letters.push(Sent { id: id.clone(), generation, outcome: SentOutcome::Out, class: None, error: None });
            place
        })
    }

    /// Notes what has become of one that was sent.
    pub(super) fn ended(&mut self, id: &LetterId, generation: u32, place: Option<usize>, outcome: Outcome) {
        let (outcome, class, error) = match outcome {
            Outcome::Out => return,
            Outcome::Done => (SentOutcome::Done, None, None),
            Outcome::Closed => (SentOutcome::Closed, None, None),
            Outcome::Failed { class, error } => (SentOutcome::Failed, Some(class), Some(error.to_string())),
            Outcome::Overtaken(generation) => {
                let error = format!("somebody has sent it once more, as generation {generation}");
                (SentOutcome::Failed, None, Some(error))
            }
        };
        match outcome {
            SentOutcome::Done => self.done += 1,
            SentOutcome::Closed => self.closed += 1,
            SentOutcome::Failed | SentOutcome::Out => self.failed += 1,
        }
        let sent = Sent { id: id.clone(), generation, outcome, class, error };
        if let Some(named) = place.and_then(|place| self.letters.get_mut(place)) {
            *named = sent;
        } else if outcome == SentOutcome::Failed && self.letters.len() < 2 * NAMED_MAX {
            self.letters.push(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many are counted, some are named, and of those that fail again more than others.
    #[test]
    fn some_are_named_and_all_are_counted() {
        let mut progress = Progress { total: 4000, ..Progress::default() };
        let ids: Vec<LetterId> = (0..4000).map(|n| LetterId::from(n.to_string().as_str())).collect();
        let places: Vec<_> = ids.iter().map(|id| progress.sent(id, 1)).collect();
        assert_eq!((progress.left(), progress.out(), progress.letters.len()), (0, 4000, NAMED_MAX));
        for (number, (id, place)) in ids.iter().zip(places).enumerate() {
            let failed = Outcome::Failed { class: Class::Rejected, error: "404".into() };
            progress.ended(id, 1, place, if number % 2 == 0 { Outcome::Done } else { failed });
        }
        assert_eq!((progress.done, progress.failed, progress.out()), (2000, 2000, 0));
        let failed = progress.letters.iter().filter(|letter| letter.outcome == SentOutcome::Failed).count();
        assert_eq!((failed, progress.letters.len()), (1500, 2000), "500 of the first thousand, and a thousand more");
    }
}
