//! The fold of the dead-letter log: which letters are open.
//!
//! The state of a subject is the highest `(generation, state)` that any record gives it, a maximum over a total order:
//! the order of records and doubles do not matter. Equal messages without a hook are one subject, and generations say
//! nothing of their coming again: there a letter that is newer than those that the marks were made for is open.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::dead_letter::{Body, Letter, LetterId, Mark, Record, Subject};
use super::redaction::{Pointer, REDACTED, redact_event};

/// Where a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A replay is out.
    Replaying,
    Open,
    Resolved,
}

/// A letter with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Entry {
    pub letter: Letter,
    pub state: State,
    /// Letters that were folded into this one.
    pub count: u64,
    /// When the newest of them was written, in milliseconds since 1970.
    pub newest_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

impl Entry {
    /// As [`Entry::view`]; of the data of a body that is asked for, these places are left out.
    #[must_use]
    pub fn view_without(&self, body: bool, places: &[Pointer]) -> Value {
        let mut entry = self.clone();
        entry.letter.body = match &entry.letter.body {
            Body::Text(text) => Body::Text(redact_event(text, places)),
            Body::Base64(_) if !places.is_empty() => Body::Text(REDACTED.to_owned()),
            Body::Base64(text) => Body::Base64(text.clone()),
        };
        entry.view(body)
    }

    /// As people see it; the event's body only where it was asked for.
    #[must_use]
    pub fn view(&self, body: bool) -> Value {
        let mut view = serde_json::to_value(self).unwrap_or_default();
        if !body && let Some(letter) = view.get_mut("letter").and_then(Value::as_object_mut) {
            letter.remove("body");
            // A client's headers may hold credentials.
            if let Some(client) = letter.get_mut("client").and_then(Value::as_object_mut) {
                client.remove("headers");
            }
        }
        view
    }
}

/// What is known of one subject.
#[derive(Debug, Clone, Default)]
struct Folded {
    top: Option<(u32, State)>,
    letter: Option<Letter>,
    ids: Vec<LetterId>,
    count: u64,
    mark: Option<Mark>,
    /// When the newest letter was written, and the newest one that a mark was made for.
    newest_ms: u64,
    until_ms: u64,
}

/// The fold of the log.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    subjects: BTreeMap<Subject, Folded>,
}

impl Fold {
    /// Takes one record in. Order and doubles do not matter, but for the count of equal messages.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Letter(letter) => {
                let folded = self.subjects.entry(letter.subject()).or_default();
                folded.raise(letter.generation, State::Open);
                folded.count += 1;
                folded.newest_ms = folded.newest_ms.max(letter.at_ms);
                if !folded.ids.contains(&letter.id) {
                    folded.ids.push(letter.id.clone());
                }
                // The highest generation is shown; of doubles the earliest, so that the order does not matter. What was
                // written in one millisecond may still differ: the attempts of two workers.
                let newer = |old: &Letter| match letter.generation.cmp(&old.generation) {
                    Ordering::Equal => is_first((letter.at_ms, &*letter), (old.at_ms, old)),
                    order => order.is_gt(),
                };
                if folded.letter.as_ref().is_none_or(newer) {
                    folded.letter = Some(*letter);
                }
            }
            Record::Replayed(mark) => self.mark(mark, State::Replaying),
            Record::Resolved(mark) => self.mark(mark, State::Resolved),
            Record::Barrier { .. } => {}
        }
    }

    fn mark(&mut self, mark: Mark, state: State) {
        let folded = self.subjects.entry(mark.subject.clone()).or_default();
        folded.until_ms = folded.until_ms.max(mark.until_ms);
        // Of equal marks the first stays: the one with the lower time.
        let first = folded.top == Some((mark.generation, state))
            && folded.mark.as_ref().is_none_or(|stored| is_first((mark.at_ms, &mark), (stored.at_ms, stored)));
        if folded.raise(mark.generation, state) || first {
            folded.mark = Some(mark);
        }
    }

    /// Every letter with its state, oldest first. Marks without a letter are ignored: their letter has aged out.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.subjects.values().filter_map(Folded::entry).collect();
        entries.sort_by(|a, b| (a.letter.at_ms, &a.letter.id).cmp(&(b.letter.at_ms, &b.letter.id)));
        entries
    }

    /// The entry with this letter id, of whatever generation.
    #[must_use]
    pub fn find(&self, id: &LetterId) -> Option<Entry> {
        self.subjects.values().find(|folded| folded.ids.contains(id)).and_then(Folded::entry)
    }

    /// The highest generation that any record names for the subject of this letter.
    #[must_use]
    pub fn highest_generation(&self, letter: &Letter) -> u32 {
        self.subjects.get(&letter.subject()).and_then(|folded| folded.top).map_or(letter.generation, |(top, _)| top)
    }
}

/// Whether the first of two comes before the other: by time, and at equal times by what they say.
fn is_first<T: Serialize>((at_ms, one): (u64, &T), (other_ms, other): (u64, &T)) -> bool {
    let said = |it: &T| serde_json::to_vec(it).unwrap_or_default();
    at_ms < other_ms || at_ms == other_ms && said(one) < said(other)
}

impl Folded {
    /// The join of the lattice; true if it moved.
    fn raise(&mut self, generation: u32, state: State) -> bool {
        let raised = self.top < Some((generation, state));
        if raised {
            self.top = Some((generation, state));
            self.mark = None;
        }
        raised
    }

    fn entry(&self) -> Option<Entry> {
        let (letter, (_, state)) = (self.letter.clone()?, self.top?);
        let came_again = letter.hook.is_none() && self.newest_ms > self.until_ms;
        let state = if came_again { State::Open } else { state };
        Some(Entry { letter, state, count: self.count, newest_ms: self.newest_ms, mark: self.mark.clone() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::dead_letter::{EventName, Letter, LetterId, Mark, Record};
    use crate::domain::event::Malformed;
    use crate::domain::invocation::Client;
    use crate::domain::settle::Class;

    fn letter(generation: u32, at_ms: u64) -> Record {
        let malformed = Malformed { class: Class::Exhausted, error: "500".into() };
        let mut letter = Letter::of_message(&malformed, Client::default(), b"{}", "events", at_ms);
        letter.event = Some(EventName { id: "1".into(), source: "/s".into(), kind: "a".into(), subject: None });
        letter.hook = Some("h".into());
        letter.generation = generation;
        letter.id = LetterId::from(format!("l{generation}").as_str());
        Record::Letter(Box::new(letter))
    }

    fn mark(generation: u32) -> Mark {
        let Record::Letter(letter) = letter(0, 0) else { unreachable!() };
        Mark { subject: letter.subject(), generation, at_ms: 9, by: "me".into(), reason: None, until_ms: 0 }
    }

    /// The same at the same time, from another worker.
    fn of_another(record: Record) -> Record {
        match record {
            Record::Letter(letter) => Record::Letter(Box::new(Letter { error: "502".into(), ..*letter })),
            Record::Replayed(mark) => Record::Replayed(Mark { by: "you".into(), ..mark }),
            other => other,
        }
    }

    fn check(records: Vec<Record>, expected: Option<(u32, State)>) {
        let mut fold = Fold::default();
        for record in records {
            fold.apply(record);
        }
        let found = fold.entries().pop().map(|entry| (entry.letter.generation, entry.state));
        assert_eq!(found, expected);
    }

    #[test]
    fn folds() {
        let (replayed, resolved) = (|g| Record::Replayed(mark(g)), |g| Record::Resolved(mark(g)));
        check(vec![letter(0, 1)], Some((0, State::Open)));
        check(vec![letter(0, 1), replayed(1)], Some((0, State::Replaying)));
        check(vec![letter(0, 1), replayed(1), letter(1, 2)], Some((1, State::Open)));
        check(vec![letter(0, 1), resolved(1)], Some((0, State::Resolved)));
        check(vec![resolved(1), replayed(1), letter(0, 1)], Some((0, State::Resolved)));
        check(vec![letter(0, 1), resolved(0), replayed(1)], Some((0, State::Replaying)));
        check(vec![letter(0, 1), replayed(1), letter(1, 2), resolved(2)], Some((1, State::Resolved)));
        check(vec![resolved(1)], None);
    }

    /// The same bytes, refused, replayed and resolved, and sent once more.
    #[test]
    fn an_equal_message_opens_its_letter_again() {
        let malformed = Malformed { class: Class::Invalid, error: "x".into() };
        let letter = |at_ms| Letter::of_message(&malformed, Client::default(), b"{}", "events", at_ms);
        let mark = |until_ms| {
            let subject = letter(0).subject();
            Mark { subject, generation: 1, at_ms: 9, by: "me".into(), reason: None, until_ms }
        };
        let state = |records: Vec<Record>| {
            let mut fold = Fold::default();
            for record in records {
                fold.apply(record);
            }
            fold.entries().pop().map(|entry| entry.state)
        };
        let letters = |at_ms| Record::Letter(Box::new(letter(at_ms)));
        let (first, replayed, resolved) = (letters(1), Record::Replayed(mark(1)), Record::Resolved(mark(0)));
        let closed = vec![first, replayed, resolved];
        assert_eq!(state(closed.clone()), Some(State::Resolved));
        let again: Vec<Record> = closed.into_iter().chain([letters(2)]).collect();
        assert_eq!(state(again.clone()), Some(State::Open));
        assert_eq!(state(again.into_iter().rev().collect()), Some(State::Open));
    }

    proptest! {
        #[test]
        fn order_and_doubles_do_not_matter(picks in prop::collection::vec(0usize..9, 1..12), seed in any::<u64>()) {
            let pool = [
                letter(0, 1), letter(1, 2), Record::Replayed(mark(1)), Record::Replayed(mark(2)),
                Record::Resolved(mark(0)), Record::Resolved(mark(2)),
                of_another(letter(0, 1)), of_another(letter(1, 2)), of_another(Record::Replayed(mark(2))),
            ];
            let mut records: Vec<Record> = picks.iter().map(|&pick| pool[pick].clone()).collect();
            let state = |records: &[Record]| {
                let mut fold = Fold::default();
                records.iter().cloned().for_each(|record| fold.apply(record));
                fold.entries().pop().map(|entry| (entry.letter, entry.state, entry.mark))
            };
            let expected = state(&records);
            let mut rng = fastrand::Rng::with_seed(seed);
            rng.shuffle(&mut records);
            records.extend(records.clone());
            prop_assert_eq!(state(&records), expected);
        }
    }
}
