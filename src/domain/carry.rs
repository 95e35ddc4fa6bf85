//! What the keeper of the log appends again, so that nothing open ages out of it and nothing closed opens again.
//!
//! A log loses its oldest records first. An open letter is written again before that; whoever reads both copies folds them
//! into one. What was closed ages out with its mark, as long as the mark stands behind the letter: where a copy was written
//! behind the mark, the mark is written again.

use std::collections::HashMap;

use super::dead_letter::{Carried, Item, Letter, Mark, Offset, Record};
use super::fold::{Fold, Folded, State};
use super::id::LetterId;

/// What is to be appended again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carry {
    /// Letters, by where they stand, with what they stand for.
    pub letters: HashMap<Offset, Carrying>,
    /// Marks that stand before their letters.
    pub marks: Vec<Record>,
}

/// An open letter that ages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrying {
    pub carried: Carried,
    /// The letter that is expected there, and the time that it goes by: what the broker made has none of its own.
    pub id: LetterId,
    pub at_ms: u64,
    /// Where a reader begins that gets it whole.
    pub from: Offset,
    /// The mark that says that a replay is out: it goes behind the letter.
    pub mark: Option<Record>,
}

impl Fold {
    /// What has to be carried on of a log, given the time before which records will be lost soon.
    #[must_use]
    pub fn carry(&self, before_ms: u64, now_ms: u64) -> Carry {
        let mut carry = Carry::default();
        for (_, folded) in self.folded() {
            let (Some(letter), Some(state)) = (&folded.letter, folded.state()) else { continue };
            match state {
                State::Open | State::Replaying if letter.kept_ms() < before_ms => {
                    let carried = Carried { at_ms: now_ms, count: folded.count(), newest_ms: folded.newest_ms };
                    let mark = folded.marked().map(|mark| record(mark, folded));
                    let (id, at_ms, from) = (letter.id.clone(), letter.at_ms, letter.from);
                    carry.letters.insert(letter.at, Carrying { carried, id, at_ms, from, mark });
                }
                State::Replaying | State::Resolved if folded.marked_at < letter.at => {
                    carry.marks.extend(folded.marked().map(|mark| record(mark, folded)));
                }
                State::Open | State::Replaying | State::Resolved => {}
            }
        }
        carry
    }
}

impl Folded {
    fn marked(&self) -> Option<(State, &Mark)> {
        let (_, state) = self.top()?;
        Some((state, self.mark.as_deref()?))
    }
}

fn record((state, mark): (State, &Mark), folded: &Folded) -> Record {
    let mark = Mark { until_ms: folded.until_ms, ..mark.clone() };
    if state == State::Resolved { Record::Resolved(mark) } else { Record::Replayed(mark) }
}

impl Carry {
    /// Where to begin to read, if there are letters to be read.
    #[must_use]
    pub fn start(&self) -> Option<Offset> {
        self.letters.values().map(|carrying| carrying.from).min()
    }

    /// What is appended for an item of the log, in this order.
    pub fn records(&mut self, item: Item) -> Vec<Record> {
        let Some(carrying) = self.letters.remove(&item.at) else { return Vec::new() };
        let Record::Letter(letter) = item.record else { return Vec::new() };
        if letter.id != carrying.id || !item.whole {
            return Vec::new(); // the log is another one by now, or a part of the letter is gone
        }
        let letter = Letter { carried: Some(carrying.carried), at_ms: carrying.at_ms, ..*letter };
        std::iter::once(Record::Letter(Box::new(letter))).chain(carrying.mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::event::Malformed;
    use crate::domain::failure::Class;
    use crate::domain::invocation::Client;

    /// A letter without a hook if it is even, of a hook if it is odd.
    fn letter(number: u64, generation: u32, at_ms: u64) -> Letter {
        let malformed = Malformed { class: Class::Invalid, error: "x".into() };
        let body = format!("{number} {}", if number.is_multiple_of(2) { 0 } else { generation });
        let mut letter = Letter::of_message(&malformed, Client::default(), body.as_bytes(), "events", at_ms);
        if !number.is_multiple_of(2) {
            let kind = "a".to_owned();
            let (id, source) = (number.to_string(), "/s".to_owned());
            letter.event = Some(crate::domain::dead_letter::EventName { id, source, kind, subject: None });
            letter.hook = Some("h".into());
            letter.generation = generation;
        }
        letter
    }

    fn mark(number: u64, generation: u32, at_ms: u64) -> Mark {
        let subject = letter(number, 0, 0).subject();
        Mark { subject, generation, at_ms, by: "me".into(), reason: None, until_ms: at_ms }
    }

    fn read(log: &[Record], from: usize) -> Vec<Item> {
        let items = (0..).zip(log).skip(from);
        items.map(|(at, record)| Item::new(Offset(at), record.clone())).collect()
    }

    fn fold(log: &[Record], from: usize) -> Fold {
        let mut fold = Fold::default();
        for item in read(log, from) {
            fold.apply(item);
        }
        fold
    }

    /// The states of what is not resolved.
    fn pending(fold: &Fold) -> Vec<(crate::domain::id::LetterId, State, u64, u64)> {
        let open = fold.entries().filter(|entry| entry.state != State::Resolved);
        open.map(|entry| (entry.letter.id, entry.state, entry.count, entry.newest_ms)).collect()
    }

    /// As the keeper does it; what `meanwhile` says comes between its reading and its writing.
    fn keep(log: &mut Vec<Record>, from: usize, now_ms: u64, meanwhile: Option<Record>) {
        let mut carry = fold(log, from).carry(now_ms, now_ms);
        let items = read(log, from);
        log.extend(meanwhile);
        log.append(&mut carry.marks);
        for item in items {
            log.extend(carry.records(item));
        }
        assert!(carry.letters.is_empty(), "{carry:?}");
    }

    #[test]
    fn an_open_letter_is_carried_and_a_closed_one_is_not() {
        let letters = |number, at_ms| Record::Letter(Box::new(letter(number, 0, at_ms)));
        let mut log = vec![letters(1, 1), letters(3, 2), Record::Resolved(mark(3, 0, 3)), letters(5, 4)];
        log.push(Record::Replayed(mark(5, 1, 5)));
        let before = pending(&fold(&log, 0));
        keep(&mut log, 0, 10, None);
        assert_eq!(log.len(), 8, "two letters and a mark: {log:#?}");
        assert_eq!(pending(&fold(&log, 5)), before);
        let again = log.len();
        keep(&mut log, 0, 10, None);
        assert_eq!(log.len(), again, "it was carried just now");
    }

    /// What the broker made has no time of its own: the copy has that which it was seen with, and is carried once.
    #[test]
    fn a_letter_without_a_time_is_carried_once() {
        let at = |number, record| Item::new(Offset(number), record);
        let mut fold = Fold::default();
        let seen = Letter { at_ms: 5, ..letter(2, 0, 0) }; // as a projection sees it
        fold.apply(at(0, Record::Letter(Box::new(seen))));
        let mut carry = fold.carry(100, 100);
        let stored = Record::Letter(Box::new(letter(2, 0, 0)));
        let [Record::Letter(copy)] = &carry.records(at(0, stored))[..] else { panic!("one letter") };
        assert_eq!(copy.at_ms, 5);
        let later = Letter { at_ms: 9, ..(**copy).clone() }; // or with whatever time
        for copy in [(**copy).clone(), later] {
            let mut fold = fold.clone();
            fold.apply(at(1, Record::Letter(Box::new(copy))));
            assert!(fold.carry(100, 200).letters.is_empty(), "it was written again just now");
            fold.forget_before(Offset(1));
            assert_eq!(fold.len(), 1, "and is what is kept");
        }
    }

    proptest! {
        /// Whatever is in the log, and whatever an operator does in the middle: when the old part of it is gone after two
        /// rounds of the keeper, what was pending is as it was, and what was closed is closed or gone.
        #[test]
        fn a_log_that_loses_its_head_says_the_same(
            steps in prop::collection::vec((0u8..3, 0u64..6, 0u32..3), 1..30),
            meanwhile in prop::option::of((0u8..2, 0u64..6, 0u32..3)),
        ) {
            let record = |(what, number, generation): (u8, u64, u32), at_ms| match what {
                0 => Record::Replayed(mark(number, generation, at_ms)),
                1 => Record::Resolved(mark(number, generation, at_ms)),
                _ => Record::Letter(Box::new(letter(number, generation, at_ms))),
            };
            let mut log: Vec<Record> = (1..).zip(steps).map(|(at_ms, step)| record(step, at_ms)).collect();
            let old = log.len();
            keep(&mut log, 0, 100, meanwhile.map(|step| record(step, 50)));
            keep(&mut log, 0, 100, None);
            let (before, after) = (fold(&log, 0), fold(&log, old));
            prop_assert_eq!(pending(&after), pending(&before));
        }
    }
}
