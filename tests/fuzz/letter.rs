//! Records of the dead-letter log: letters and marks, and their fold.

use hookfleet::domain::browse::{Filter, Page};
use hookfleet::domain::dead_letter::{Item, Letter, Offset, Record};
use hookfleet::domain::event::Reading;
use hookfleet::domain::fold::{Entry, Fold};
use hookfleet::domain::invocation::Envelope;
use hookfleet::domain::message::{Lane, Queue};
use hookfleet::domain::replay::{Operator, replay};

/// Records that are folded in every order; more make one check slow.
const RECORDS_MAX: usize = 12;

/// A record a line.
pub fn letter(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n');
    let records: Vec<Record> = lines.filter_map(|line| Record::decode(line).ok()).take(RECORDS_MAX).collect();
    for record in &records {
        trip(record);
        if let Record::Letter(letter) = record {
            replayed(letter);
        }
    }
    folds(&records);
}

fn trip(record: &Record) {
    let encoded = record.encode();
    assert_eq!(Record::decode(&encoded).as_ref(), Ok(record));
    assert_eq!(record.message().body, encoded);
}

/// A letter that can be replayed goes out as what it was, one generation on.
fn replayed(letter: &Letter) {
    let operator = Operator { name: "me".into(), now_ms: 5, seen_ms: 1, reading: Reading::default() };
    for force in [None, Some(letter.generation), Some(u32::MAX)] {
        let Ok(replay) = replay(letter, force, &operator) else { continue };
        assert!(replay.generation > letter.generation);
        let read = Envelope::decode(Queue::Lane(Lane::Replay), &replay.outgoing.message, &Reading::default());
        let (generation, hook) = match read.expect("a replay can be read") {
            Envelope::Invocation(invocation) => (invocation.at.generation, Some(invocation.hook.to_string())),
            Envelope::Event(whole) => {
                let replay_of = whole.replay_of.expect("it says whose replay it is");
                assert_eq!(replay_of.letter, letter.id);
                (replay_of.generation, None)
            }
            Envelope::Newer(version) => panic!("version {version}"),
        };
        assert_eq!((generation, &hook), (replay.generation, &letter.hook));
        trip(&replay.mark);
    }
}

fn fold<'a>(items: impl IntoIterator<Item = &'a Item>) -> Fold {
    let mut fold = Fold::default();
    items.into_iter().for_each(|item| fold.apply(item.clone()));
    fold
}

fn entries<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<Entry> {
    fold(items).entries().collect()
}

/// The order of records does not matter, nor do doubles but for the count.
fn folds(records: &[Record]) {
    let items: Vec<Item> = (0..).zip(records).map(|(at, record)| Item::new(Offset(at), record.clone())).collect();
    let records = items.as_slice();
    let whole = fold(records);
    let folded = entries(records);
    let mut order: Vec<&Item> = records.iter().collect();
    for _ in 0..records.len() {
        order.rotate_left(1);
        assert_eq!(entries(order.iter().copied()), folded);
        assert_eq!(entries(order.iter().rev().copied()), folded);
    }
    let half = records.len() / 2;
    let interleaved = records[..half].iter().zip(&records[half..]).flat_map(|(one, other)| [other, one]);
    let rest = &records[half * 2..];
    assert_eq!(entries(rest.iter().chain(interleaved)), folded);

    let uncounted =
        |entries: Vec<Entry>| entries.into_iter().map(|entry| Entry { count: 0, ..entry }).collect::<Vec<_>>();
    assert_eq!(uncounted(entries(records.iter().chain(records))), uncounted(folded.clone()));
    let Page { items: mut listed, next } = whole.page(&Filter::default(), None, records.len());
    listed.reverse();
    assert_eq!((&listed, next), (&folded, None), "the same, newest first");
    for entry in &folded {
        assert!(whole.highest_generation(&entry.letter.id) >= Some(entry.letter.generation));
        assert!(
            whole.find(&entry.letter.id).is_some_and(|found| found.letter.id == entry.letter.id || found.count > 1)
        );
    }
    let carried = |item: &Item| matches!(&item.record, Record::Letter(letter) if letter.carried.is_some());
    if !records.iter().any(carried) {
        assert_eq!(folded.iter().map(|entry| entry.count).sum::<u64>(), letters(records));
    }
    let groups = whole.groups(&Filter::default());
    let grouped: u64 = groups.iter().map(|group| group.open + group.replaying + group.resolved).sum();
    assert_eq!(grouped, folded.len() as u64);
}

fn letters(items: &[Item]) -> u64 {
    items.iter().filter(|item| matches!(item.record, Record::Letter(_))).count() as u64
}
