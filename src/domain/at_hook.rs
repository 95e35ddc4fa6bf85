//! How far an event is at a hook, by what its claim, its letter and its message say. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::claim::{Claim, Found, Next, Point};
use super::dead_letter::WORKER;
use super::fold::{Entry, State};

/// How far an event is at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// A worker runs it now.
    Running,
    /// For its first attempt, for the next one, or for a worker in the place of one that died.
    Waiting,
    /// Until its hook is no longer paused, or its target is tried again.
    Parked,
    Done,
    /// It was given up, with a letter, which may be resolved by now.
    DeadLetter,
    /// An operator has ended it.
    Cancelled,
    /// Nothing is known of it: it never came, still waits for its first run, was not wanted, or was forgotten.
    Unknown,
}

/// What is known of an event at a hook.
#[derive(Debug, Clone, Copy)]
pub struct Clues<'a> {
    pub claim: Option<&'a Found>,
    pub letter: Option<&'a Entry>,
    /// When its message is due, in milliseconds since 1970; `None`: there is none, or it cannot be looked for.
    pub due_ms: Option<u64>,
    /// Its hook is paused.
    pub is_paused: bool,
    pub now_ms: u64,
}

impl Clues<'_> {
    /// How far it is.
    #[must_use]
    pub fn state(&self) -> HookState {
        match self.claim.map(|found| (&found.claim, found.lease_left_ms)) {
            Some((Claim::Held { .. }, 1..)) => HookState::Running,
            Some((Claim::Held { .. } | Claim::Out { .. } | Claim::Settled { next: Next::Retry { .. }, .. }, _)) => {
                self.pending()
            }
            Some((Claim::Done { generation, .. }, _)) => self.unless_sent_after(*generation, HookState::Done),
            Some((Claim::Buried { generation, cancelled: true }, _)) => {
                self.unless_sent_after(*generation, HookState::Cancelled)
            }
            // The letter may be on its way still, or have aged out.
            Some((Claim::Buried { .. } | Claim::Settled { .. }, _)) => self.by_letter(HookState::DeadLetter),
            Some((Claim::Decided { .. }, _)) | None => {
                let without = if self.due_ms.is_some() { self.pending() } else { HookState::Unknown };
                self.by_letter(without)
            }
        }
    }

    /// The attempt that it is at, or that comes next, as far as the claim says it.
    #[must_use]
    pub fn at(&self) -> Option<Point> {
        match &self.claim?.claim {
            Claim::Held { at, .. } | Claim::Out { at, .. } => Some(*at),
            Claim::Settled { at, next, .. } => Some(if next.is_bury() { *at } else { at.next() }),
            Claim::Done { .. } | Claim::Buried { .. } | Claim::Decided { .. } => None,
        }
    }

    fn by_letter(&self, without: HookState) -> HookState {
        match self.letter.map(|entry| (entry.state, &entry.mark)) {
            None => without,
            Some((State::Replaying, _)) => self.pending(),
            Some((State::Resolved, Some(mark))) if mark.by == WORKER => HookState::Done,
            Some((State::Open | State::Resolved, _)) => HookState::DeadLetter,
        }
    }

    /// What the claim says, unless a later generation was sent out since.
    fn unless_sent_after(&self, generation: u32, state: HookState) -> HookState {
        let sent = self.letter.filter(|entry| entry.state == State::Replaying).and_then(|entry| entry.mark.as_ref());
        if sent.is_some_and(|mark| mark.generation > generation) { self.pending() } else { state }
    }

    /// What has no claim and is not due yet waits for a hook or a target: retries have one.
    fn pending(&self) -> HookState {
        let is_put_off = self.claim.is_none() && self.due_ms.is_some_and(|due_ms| due_ms > self.now_ms);
        if self.is_paused || is_put_off { HookState::Parked } else { HookState::Waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::claim::Token;
    use crate::domain::dead_letter::{EventName, Item, Letter, Mark, Offset, Record};
    use crate::domain::event::Malformed;
    use crate::domain::failure::Class;
    use crate::domain::fold::Fold;
    use crate::domain::invocation::Client;

    /// A letter of generation 0, with such a mark.
    fn entry(state: State, by: &str, generation: u32) -> Entry {
        let malformed = Malformed { class: Class::Rejected, error: "404".into() };
        let mut letter = Letter::of_message(&malformed, Client::default(), b"{}", "events", 7);
        letter.event = Some(EventName { id: "1".into(), source: "/s".into(), kind: "a".into(), subject: None });
        letter.hook = Some("h".into());
        let (subject, by) = (letter.subject(), by.to_owned());
        let mark = Mark { subject, generation, at_ms: 9, by, reason: None, until_ms: 0 };
        let marks = match state {
            State::Open => None,
            State::Replaying => Some(Record::Replayed(mark)),
            State::Resolved => Some(Record::Resolved(mark)),
        };
        let mut fold = Fold::default();
        for (at, record) in (0..).zip(std::iter::once(Record::Letter(Box::new(letter))).chain(marks)) {
            fold.apply(Item::new(Offset(at), record));
        }
        let entry = fold.entries().next();
        entry.unwrap()
    }

    fn check(claim: Option<(Claim, u64)>, letter: Option<&Entry>, due_ms: Option<u64>, expected: HookState) {
        let found = claim.map(|(claim, lease_left_ms)| Found { claim, lease_left_ms });
        let clues = Clues { claim: found.as_ref(), letter, due_ms, is_paused: false, now_ms: 100 };
        assert_eq!(clues.state(), expected, "{clues:?}");
        let paused = Clues { is_paused: true, ..clues }.state();
        assert_eq!(paused, if expected == HookState::Waiting { HookState::Parked } else { expected }, "{clues:?}");
    }

    #[test]
    fn states() {
        use HookState::{Cancelled, DeadLetter, Done, Parked, Running, Unknown, Waiting};
        let (at, token) = (Point::first(0), Token { run: 1, body: 0 });
        let held = Claim::Held { at, token, deaths: 0, floor_ms: 9 };
        let settled = |next| Claim::Settled { at, token, deaths: 0, next };
        let retry = Next::Retry { delay_ms: 1, spent_ms: 1, report: None };
        let (out, done) = (Claim::Out { at, deaths: 0 }, |generation| Claim::Done { generation, token });
        let buried = |cancelled| Claim::Buried { generation: 0, cancelled };
        let (open, sent) = (entry(State::Open, "", 0), entry(State::Replaying, "me", 1));
        let (finished, closed) = (entry(State::Resolved, WORKER, 1), entry(State::Resolved, "me", 1));
        let (open, sent) = (Some(&open), Some(&sent));
        check(None, None, None, Unknown);
        check(None, None, Some(99), Waiting);
        check(None, None, Some(101), Parked);
        check(Some((held.clone(), 5)), None, Some(99), Running);
        check(Some((held, 0)), None, None, Waiting);
        check(Some((out.clone(), 0)), None, Some(101), Waiting);
        check(Some((settled(retry), 0)), None, None, Waiting);
        check(Some((settled(Next::poisoned()), 0)), None, None, DeadLetter);
        check(Some((buried(false), 0)), None, None, DeadLetter);
        check(Some((buried(false), 0)), open, None, DeadLetter);
        check(Some((buried(false), 0)), sent, None, Waiting);
        check(Some((out, 0)), sent, None, Waiting);
        check(Some((done(0), 0)), None, None, Done);
        check(Some((done(1), 0)), sent, None, Done); // its mark is on its way
        check(Some((done(0), 0)), sent, None, Waiting); // by force
        check(Some((buried(true), 0)), None, None, Cancelled);
        check(Some((buried(true), 0)), sent, None, Waiting);
        check(None, open, None, DeadLetter); // its claim is forgotten
        check(None, Some(&finished), None, Done);
        check(None, Some(&closed), None, DeadLetter);
    }
}
