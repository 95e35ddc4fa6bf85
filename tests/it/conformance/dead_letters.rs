//! What every [`DeadLetters`] does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hookfleet::broker::Broker;
use hookfleet::dead_letters::DeadLetters;
use hookfleet::dead_letters::projection::Projection;
use hookfleet::domain::browse::Filter;
use hookfleet::domain::dead_letter::{Body, Item, Letter, Mark, Offset, Record};
use hookfleet::domain::event::Malformed;
use hookfleet::domain::failure::Class;
use hookfleet::domain::fold::State;
use hookfleet::domain::invocation::Client;
use hookfleet::domain::message::{Message, Outgoing};
use hookfleet::operations::{Operations, keeper};
use tokio::task::JoinSet;

/// Every check, one after the other.
pub(crate) async fn suite(open: impl AsyncFn(&'static str) -> Arc<dyn DeadLetters>) {
    records_are_read_as_they_are(&open).await;
    the_fold_says_what_is_open(&open).await;
    a_thousand_at_a_time(&open).await;
    reading_does_not_stop_appending(&open).await;
    reading_goes_on_where_it_was(&open).await;
    a_projection_knows_what_came_since(&open).await;
    one_keeps_the_log(&open).await;
}

/// Any offset that was seen is a place to begin, and nothing is visited twice or passed over.
async fn reading_goes_on_where_it_was(open: &impl Open) {
    let letters = open("goes-on").await;
    let items = async |from| {
        let mut found: Vec<Item> = Vec::new();
        let position = letters.read(from, &mut |item| found.push(item)).await.expect("read");
        found.retain(|item| !matches!(item.record, Record::Barrier { .. }));
        (found, position)
    };
    let huge = "x".repeat(6 * 1024 * 1024);
    for body in ["1", "2", &huge, "3"] {
        letters.append(&letter(body.get(..1).unwrap(), body.as_bytes())).await.expect("append");
    }
    let (all, position) = items(Offset::default()).await;
    assert_eq!(all.iter().map(|item| error(&item.record)).collect::<Vec<_>>(), ["1", "2", "x", "3"]);
    for (number, item) in all.iter().enumerate() {
        let (rest, _) = items(item.from).await;
        assert_eq!(rest[..], all[number..], "from {:?}", item.from);
    }
    assert_eq!(items(position).await.0, []);
    letters.append(&letter("4", b"4")).await.expect("append");
    assert_eq!(items(position).await.0.iter().map(|item| error(&item.record)).collect::<Vec<_>>(), ["4"]);
}

async fn a_projection_knows_what_came_since(open: &impl Open) {
    let letters = open("projection").await;
    let projection = Projection::new(Arc::clone(&letters));
    let count = async || projection.now().await.expect("read").len();
    assert_eq!(count().await, 0);
    let large = "y".repeat(5 * 1024 * 1024);
    for (number, body) in ["1", &large, "3"].into_iter().enumerate() {
        letters.append(&letter(&number.to_string(), body.as_bytes())).await.expect("append");
        assert_eq!(count().await, number + 1);
    }
    let entries: Vec<_> = projection.now().await.expect("read").entries().collect();
    assert_eq!(entries.len(), 3);
    for entry in entries {
        let whole = projection.letter(&entry.letter).await.expect("read").expect("it is there");
        assert_eq!(whole.id, entry.letter.id);
        assert_eq!(whole.body == Body::Text(large.clone()), &*entry.letter.error == "1", "with its own body");
    }
    let Record::Letter(first) = letter("0", b"1") else { unreachable!() };
    projection.append(&Record::Resolved(mark(&first, 0))).await.expect("append");
    let known = projection.lately().await.expect("read").find(&first.id).expect("it is there");
    assert_eq!(known.state, State::Resolved, "what it has appended itself it knows at once");
}

/// Open letters are written again when they have been kept for half of their time, with their bodies; closed ones are not,
/// and nothing of it changes what the log says.
pub(crate) async fn the_keeper_carries_letters_on(broker: Arc<dyn Broker>, letters: Arc<dyn DeadLetters>) {
    let operations = Operations::new(Arc::clone(&broker), Arc::clone(&letters));
    let (standing, carried, _) =
        keeper::round(&operations, Duration::from_hours(24)).await.expect("a round on an empty log");
    assert_eq!((standing.letters, carried), (0, 0));
    let old = |error: &str, body: &[u8]| match letter(error, body) {
        Record::Letter(letter) => Letter { at_ms: 1_000, ..*letter },
        _ => unreachable!(),
    };
    let large = "z".repeat(5 * 1024 * 1024);
    let all = [old("open", b"1"), old("closed", b"2"), old("large", large.as_bytes()), old("out", b"4")];
    for letter in &all {
        letters.append(&Record::Letter(Box::new(letter.clone()))).await.expect("append");
    }
    letters.append(&Record::Resolved(mark(&all[1], 0))).await.expect("append");
    letters.append(&Record::Replayed(mark(&all[3], 1))).await.expect("append");
    let states = async || {
        let operations = Operations::new(Arc::clone(&broker), Arc::clone(&letters));
        let items = operations.page(&Filter::default(), None, 99).await.expect("read").items;
        let said = items.iter().map(|it| (it.letter.error.to_string(), it.state, it.count, it.letter.at));
        said.collect::<Vec<_>>()
    };
    let before = states().await;
    let operations = Operations::new(Arc::clone(&broker), Arc::clone(&letters));
    let (standing, carried, _) =
        keeper::round(&operations, Duration::from_hours(24 * 365 * 200)).await.expect("a round");
    assert_eq!((standing.letters, standing.unresolved, carried), (4, 3, 0), "nothing is older than a hundred years");
    // 1970 is more than half of a hundred years ago, and less than all of it: nothing is dropped.
    let (_, carried, _) = keeper::round(&operations, Duration::from_hours(24 * 365 * 100)).await.expect("a round");
    assert_eq!(carried, 4, "three letters and the mark of the one that is out");
    let (_, again, _) = keeper::round(&operations, Duration::from_hours(24 * 365 * 100)).await.expect("a round");
    assert_eq!(again, 0, "they were written again just now");
    let after = states().await;
    let said = |all: &[(String, State, u64, Offset)]| {
        let mut said: Vec<_> = all.iter().map(|(error, state, count, _)| (error.clone(), *state, *count)).collect();
        said.sort();
        said
    };
    assert_eq!(said(&after), said(&before));
    let moved = after.iter().filter(|(error, .., at)| before.iter().any(|old| old.0 == *error && old.3 < *at)).count();
    assert_eq!(moved, 3, "their copies are what is shown");
    let found = operations.find(&all[2].id).await.expect("found");
    assert_eq!(found.letter.body, Body::Text(large), "with its body");
}

async fn one_keeps_the_log(open: &impl Open) {
    let letters = open("keeper").await;
    let keeping = letters.keep().await.expect("asked").expect("nobody else has it");
    assert!(keeping.is_held());
    drop(keeping);
    // The place is free again as soon as the broker has noticed.
    while letters.keep().await.expect("asked").is_none() {
        tokio::task::yield_now().await;
    }
    letters.append(&letter("kept", b"{}")).await.expect("append");
    letters.trim(0).await.expect("trim");
    assert_eq!(read(&*letters).await.len(), 1, "nothing is that old");
}

/// What opens logs by name.
pub(crate) trait Open: AsyncFn(&'static str) -> Arc<dyn DeadLetters> {}

impl<F: AsyncFn(&'static str) -> Arc<dyn DeadLetters>> Open for F {}

/// What a broker publishes to the log, `letters` reads; the two belong together.
pub(crate) async fn what_is_published_is_read(broker: &dyn Broker, letters: &dyn DeadLetters) {
    let record = letter("published", b"{}");
    broker.publish(Outgoing::to_dead(record.message())).await.expect("publish");
    assert_eq!(read(letters).await, [record]);
}

async fn records_are_read_as_they_are(open: &impl Open) {
    let letters = open("as-they-are").await;
    assert_eq!(read(&*letters).await, []);
    let Record::Letter(first) = letter("1", b"{}") else { unreachable!() };
    let large = vec![b'x'; 1024 * 1024];
    let records = [
        Record::Letter(first.clone()),
        letter("2", &[0xff, 0x00]),
        Record::Replayed(mark(&first, 1)),
        letter("3", &large),
        letter("4", &large),
        Record::Resolved(mark(&first, 1)),
    ];
    for record in &records {
        letters.append(record).await.expect("append");
    }
    assert_eq!(read(&*letters).await, records);
    drop(letters);
    assert_eq!(read(&*open("as-they-are").await).await, records);
}

async fn the_fold_says_what_is_open(open: &impl Open) {
    let letters = open("fold").await;
    let Record::Letter(first) = letter("1", b"{}") else { unreachable!() };
    letters.append(&Record::Letter(first.clone())).await.expect("append");
    letters.append(&letter("2", b"{}")).await.expect("append");
    let projection = Projection::new(Arc::clone(&letters));
    let states =
        async || -> Vec<State> { projection.now().await.expect("fold").entries().map(|entry| entry.state).collect() };
    assert_eq!(states().await, [State::Open, State::Open]);
    letters.append(&Record::Replayed(mark(&first, 1))).await.expect("append");
    letters.append(&Record::Resolved(mark(&first, 1))).await.expect("append");
    let mut found = states().await;
    found.sort();
    assert_eq!(found, [State::Open, State::Resolved]);
}

async fn a_thousand_at_a_time(open: &impl Open) {
    let letters = open("thousand").await;
    let mut appending = JoinSet::new();
    for number in 0..1_000 {
        let letters = Arc::clone(&letters);
        appending.spawn(async move { letters.append(&letter(&number.to_string(), b"{}")).await.expect("append") });
    }
    appending.join_all().await;
    let found = read(&*letters).await;
    let errors: BTreeSet<String> = found.iter().map(error).collect();
    assert_eq!((found.len(), errors.len()), (1_000, 1_000));
}

/// What was confirmed before the read is read, however much is appended meanwhile.
async fn reading_does_not_stop_appending(open: &impl Open) {
    let letters = open("meanwhile").await;
    for number in 0..600 {
        letters.append(&letter(&number.to_string(), b"{}")).await.expect("append");
    }
    let appender = Arc::clone(&letters);
    let appending = tokio::spawn(async move {
        for number in 0_u64.. {
            appender.append(&letter(&format!("later {number}"), b"{}")).await.expect("append");
        }
    });
    let found = read(&*letters).await;
    appending.abort();
    let errors: BTreeSet<String> = found.iter().map(error).collect();
    assert!((0..600).all(|number| errors.contains(&number.to_string())));
}

/// All records but barriers, which only end reads.
async fn read(letters: &dyn DeadLetters) -> Vec<Record> {
    let mut found = Vec::new();
    letters.read(Offset::default(), &mut |item| found.push(item.record)).await.expect("read");
    found.retain(|record| !matches!(record, Record::Barrier { .. }));
    found
}

fn letter(error: &str, body: &[u8]) -> Record {
    let malformed = Malformed { class: Class::Invalid, error: error.to_owned() };
    let client = Client { headers: Message::default().with("error", error).headers, ..Client::default() };
    Record::Letter(Box::new(Letter::of_message(&malformed, client, body, "events", 1_700_000_000_000)))
}

fn error(record: &Record) -> String {
    match record {
        Record::Letter(letter) => letter.error.clone(),
        Record::Replayed(_) | Record::Resolved(_) | Record::Barrier { .. } => String::new(),
    }
}

fn mark(letter: &Letter, generation: u32) -> Mark {
    Mark {
        subject: letter.subject(),
        generation,
        at_ms: 1,
        by: "test".to_owned(),
        reason: None,
        until_ms: letter.at_ms,
    }
}
