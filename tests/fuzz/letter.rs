//! Records of the dead-letter log: letters and marks, and their fold.

use hookfleet::domain::dead_letter::{Letter, Record};
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
    let operator = Operator { name: "me".into(), now_ms: 5, seen_ms: 1 };
    for force in [None, Some(letter.generation), Some(u32::MAX)] {
        let Ok(replay) = replay(letter, force, &operator) else { continue };
        assert!(replay.generation > letter.generation);
        let read = Envelope::decode(Queue::Lane(Lane::Replay), &replay.outgoing.message, &Reading::default());
        let (generation, hook) = match read.expect("a replay can be read") {
            Envelope::Invocation(invocation) => (invocation.at.generation, Some(invocation.hook.to_string())),
            Envelope::Event(whole) => {
                let (id, generation) = whole.letter.expect("it says whose replay it is");
                assert_eq!(id, letter.id);
                (generation, None)
            }
            Envelope::Newer(version) => panic!("version {version}"),
        };
        assert_eq!((generation, &hook), (replay.generation, &letter.hook));
        trip(&replay.mark);
    }
}

fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Fold {
    let mut fold = Fold::default();
    records.into_iter().for_each(|record| fold.apply(record.clone()));
    fold
}

/// The order of records does not matter, nor do doubles but for the count.
fn folds(records: &[Record]) {
    let whole = fold(records);
    let entries = whole.entries();
    let mut order: Vec<&Record> = records.iter().collect();
    for _ in 0..records.len() {
        order.rotate_left(1);
        assert_eq!(fold(order.iter().copied()).entries(), entries);
        assert_eq!(fold(order.iter().rev().copied()).entries(), entries);
    }
    let half = records.len() / 2;
    let interleaved = records[..half].iter().zip(&records[half..]).flat_map(|(one, other)| [other, one]);
    let rest = &records[half * 2..];
    assert_eq!(fold(rest.iter().chain(interleaved)).entries(), entries);

    let uncounted =
        |entries: Vec<Entry>| entries.into_iter().map(|entry| Entry { count: 0, ..entry }).collect::<Vec<_>>();
    assert_eq!(uncounted(fold(records.iter().chain(records)).entries()), uncounted(entries.clone()));
    for entry in &entries {
        shown(entry);
        assert!(whole.highest_generation(&entry.letter) >= entry.letter.generation);
        assert!(
            whole.find(&entry.letter.id).is_some_and(|found| found.letter.id == entry.letter.id || found.count > 1)
        );
    }
    assert_eq!(entries.iter().map(|entry| entry.count).sum::<u64>(), letters(records));
}

fn letters(records: &[Record]) -> u64 {
    records.iter().filter(|record| matches!(record, Record::Letter(_))).count() as u64
}

/// Without its body a letter is shown without what a client may have put into headers.
fn shown(entry: &Entry) {
    let view = entry.view(false);
    assert!(view.pointer("/letter/body").is_none() && view.pointer("/letter/client/headers").is_none(), "{view}");
    assert!(entry.view(true).pointer("/letter/body").is_some());
}
