//! What has become of a generation that was sent out.

use std::sync::Arc;

use super::{Fold, State};
use crate::domain::dead_letter::{Subject, WORKER};
use crate::domain::failure::Class;

/// What has become of a replay, by what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet: it waits, or runs, or is retried.
    Out,
    /// Its hook has finished. Of a whole message: it was an event, and its hooks have it.
    Done,
    /// Somebody has closed the letter meanwhile, or the invocation was cancelled.
    Closed,
    /// It failed again, and is a letter again.
    Failed { class: Class, error: Arc<str> },
    /// It was sent once more by somebody else, as this generation.
    Overtaken(u32),
}

impl Fold {
    /// What has become of this generation of a subject.
    #[must_use]
    pub fn outcome(&self, subject: &Subject, generation: u32) -> Outcome {
        let folded = self.by_key.get(&subject.key()).and_then(|slot| self.subjects.get(*slot));
        let Some((folded, (top, state))) = folded.and_then(|folded| Some((folded, folded.top?))) else {
            return Outcome::Out;
        };
        if top != generation {
            return if top < generation { Outcome::Out } else { Outcome::Overtaken(top) };
        }
        match state {
            State::Replaying => Outcome::Out,
            State::Resolved => {
                let is_finished = folded.mark.as_deref().is_none_or(|mark| mark.by == WORKER);
                if is_finished { Outcome::Done } else { Outcome::Closed }
            }
            State::Open => match folded.letter.as_ref().filter(|letter| letter.generation == generation) {
                Some(letter) => Outcome::Failed { class: letter.class, error: Arc::clone(&letter.error) },
                None => Outcome::Out,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dead_letter::{EventName, Item, Letter, Mark, Offset, Record};
    use crate::domain::event::Malformed;
    use crate::domain::invocation::Client;

    fn letter(generation: u32) -> Letter {
        let malformed = Malformed { class: Class::Rejected, error: "404".into() };
        let mut letter = Letter::of_message(&malformed, Client::default(), b"{}", "events", 7);
        letter.event = Some(EventName { id: "1".into(), source: "/s".into(), kind: "a".into(), subject: None });
        letter.hook = Some("h".into());
        letter.generation = generation;
        letter
    }

    fn mark(by: &str, reason: Option<&str>, generation: u32) -> Mark {
        let (by, reason) = (by.to_owned(), reason.map(str::to_owned));
        Mark { subject: letter(0).subject(), generation, at_ms: 9, by, reason, until_ms: 0 }
    }

    #[test]
    fn outcomes() {
        let failed = |generation| Record::Letter(Box::new(letter(generation)));
        let out = |generation| Record::Replayed(mark("me", None, generation));
        let closed = |by, reason, generation| Record::Resolved(mark(by, reason, generation));
        let check = |records: Vec<Record>, expected: Outcome| {
            let mut fold = Fold::default();
            for (at, record) in (0..).zip(records) {
                fold.apply(Item::new(Offset(at), record));
            }
            assert_eq!(fold.outcome(&letter(0).subject(), 1), expected);
        };
        check(vec![], Outcome::Out);
        check(vec![failed(0)], Outcome::Out);
        check(vec![failed(0), out(1)], Outcome::Out);
        check(vec![failed(0), closed(WORKER, None, 1)], Outcome::Done);
        check(vec![failed(0), out(1), closed(WORKER, None, 1)], Outcome::Done);
        check(vec![closed(WORKER, None, 1)], Outcome::Done); // at another hook, without a letter
        check(vec![failed(0), out(1), closed("me", Some("seen"), 1)], Outcome::Closed);
        check(vec![failed(0), out(1), closed(WORKER, Some("with other data"), 1)], Outcome::Done);
        let again = Outcome::Failed { class: Class::Rejected, error: "404".into() };
        check(vec![failed(0), out(1), failed(1)], again.clone());
        check(vec![failed(1)], again);
        check(vec![failed(0), out(1), failed(1), out(2)], Outcome::Overtaken(2));
    }
}
