use proptest::prelude::*;

use super::*;
use crate::domain::dead_letter::{Carried, EventName, Letter, Mark, Record};
use crate::domain::event::Malformed;
use crate::domain::failure::Class;
use crate::domain::id::LetterId;
use crate::domain::invocation::Client;

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

/// A log of these records, as it is read.
fn log(records: impl IntoIterator<Item = Record>) -> Vec<Item> {
    (0..).zip(records).map(|(at, record)| Item::new(Offset(at), record)).collect()
}

fn folded(items: impl IntoIterator<Item = Item>) -> Fold {
    let mut fold = Fold::default();
    items.into_iter().for_each(|item| fold.apply(item));
    fold
}

fn check(records: Vec<Record>, expected: Option<(u32, State)>) {
    let found = folded(log(records)).entries().last().map(|entry| (entry.letter.generation, entry.state));
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
    let state = |records: Vec<Record>| folded(log(records)).entries().last().map(|entry| (entry.state, entry.count));
    let letters = |at_ms| Record::Letter(Box::new(letter(at_ms)));
    let (first, replayed, resolved) = (letters(1), Record::Replayed(mark(1)), Record::Resolved(mark(0)));
    let closed = vec![first, replayed, resolved];
    assert_eq!(state(closed.clone()), Some((State::Resolved, 1)));
    let again: Vec<Record> = closed.into_iter().chain([letters(2)]).collect();
    assert_eq!(state(again.clone()), Some((State::Open, 2)));
    assert_eq!(state(again.into_iter().rev().collect()), Some((State::Open, 2)));
}

/// A letter that was written again stands for those that were folded into it, which may be gone.
#[test]
fn what_is_carried_counts_for_what_it_carries() {
    let Record::Letter(first) = letter(0, 1) else { unreachable!() };
    let carried = Some(Carried { at_ms: 9, count: 3, newest_ms: 4 });
    let carried = Record::Letter(Box::new(Letter { carried, ..*first }));
    let seen = |records: Vec<Record>| {
        let entry = folded(log(records)).entries().last().unwrap();
        (entry.count, entry.newest_ms, entry.letter.at)
    };
    assert_eq!(seen(vec![letter(0, 1), letter(0, 1), letter(0, 4), carried.clone()]), (3, 4, Offset(3)));
    assert_eq!(seen(vec![letter(0, 4), carried.clone()]), (3, 4, Offset(1)));
    assert_eq!(seen(vec![carried, letter(0, 5)]), (4, 5, Offset(0)));
}

#[test]
fn what_has_aged_out_is_forgotten() {
    let mut fold = folded(log([letter(0, 1), Record::Replayed(mark(1)), letter(1, 2)]));
    fold.forget_before(Offset(2));
    assert_eq!(fold.find(&LetterId::from("l0")).unwrap().letter.id, LetterId::from("l1"));
    fold.forget_before(Offset(3));
    assert!(fold.is_empty() && fold.find(&LetterId::from("l1")).is_none() && fold.subjects.is_empty());
    let mut marks = folded(log([Record::Resolved(mark(0))]));
    marks.forget_before(Offset(1));
    assert!(marks.subjects.is_empty());
}

proptest! {
    #[test]
    fn order_and_doubles_do_not_matter(picks in prop::collection::vec(0usize..9, 1..12), seed in any::<u64>()) {
        let pool = [
            letter(0, 1), letter(1, 2), Record::Replayed(mark(1)), Record::Replayed(mark(2)),
            Record::Resolved(mark(0)), Record::Resolved(mark(2)),
            of_another(letter(0, 1)), of_another(letter(1, 2)), of_another(Record::Replayed(mark(2))),
        ];
        let mut items = log(picks.iter().map(|&pick| pool[pick].clone()));
        let state = |items: &[Item]| folded(items.to_vec()).entries().last();
        let expected = state(&items);
        fastrand::Rng::with_seed(seed).shuffle(&mut items);
        prop_assert_eq!(&state(&items), &expected);
        items.extend(items.clone()); // the broker delivers some records twice
        let uncounted = |entry: Option<Entry>| entry.map(|entry| Entry { count: 0, ..entry });
        prop_assert_eq!(uncounted(state(&items)), uncounted(expected));
    }
}
