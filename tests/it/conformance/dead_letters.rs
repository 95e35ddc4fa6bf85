//! What every [`DeadLetters`] does.

use std::collections::BTreeSet;
use std::sync::Arc;

use hookfleet::broker::Broker;
use hookfleet::dead_letters::DeadLetters;
use hookfleet::domain::dead_letter::{Letter, Mark, Record};
use hookfleet::domain::event::Malformed;
use hookfleet::domain::fold::State;
use hookfleet::domain::invocation::Client;
use hookfleet::domain::message::{Message, Outgoing};
use hookfleet::domain::settle::Class;
use tokio::task::JoinSet;

/// Every check, one after the other.
pub(crate) async fn suite(open: impl AsyncFn(&'static str) -> Arc<dyn DeadLetters>) {
    records_are_read_as_they_are(&open).await;
    the_fold_says_what_is_open(&open).await;
    a_thousand_at_a_time(&open).await;
    reading_does_not_stop_appending(&open).await;
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
    let states = async || -> Vec<State> {
        letters.fold().await.expect("fold").entries().into_iter().map(|entry| entry.state).collect()
    };
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
    letters.read(&mut |record| found.push(record)).await.expect("read");
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
