use super::*;
use crate::domain::dead_letter::{EventName, Item, Letter, Mark, Offset, Record};
use crate::domain::event::Malformed;
use crate::domain::invocation::Client;

/// A letter of this hook at this time, with an error.
fn letter(number: u64, hook: &str, error: &str) -> Letter {
    let malformed = Malformed { class: Class::Invalid, error: error.to_owned() };
    let mut letter = Letter::of_message(&malformed, Client::default(), &number.to_be_bytes(), "events", number * 10);
    let (id, source, kind) = (format!("Event-{number}"), "/s".to_owned(), format!("task.{hook}"));
    letter.event = Some(EventName { id, source, kind, subject: (number == 1).then(|| "Invoices".to_owned()) });
    letter.hook = Some(hook.to_owned());
    letter.fingerprint = format!("f-{hook}");
    letter.session = Some(format!("session-{}", number % 2));
    letter
}

fn fold(letters: &[Letter], marks: &[Record]) -> Fold {
    let mut fold = Fold::default();
    let letters = letters.iter().map(|letter| Record::Letter(Box::new(letter.clone())));
    for (at, record) in (0..).zip(letters.chain(marks.iter().cloned())) {
        fold.apply(Item::new(Offset(at), record));
    }
    fold
}

fn sample() -> Fold {
    let letters: Vec<Letter> = (1..=6)
        .map(|number| letter(number, if number <= 4 { "crm" } else { "mail" }, &format!("status 50{number}")))
        .collect();
    let mark = |letter: &Letter, generation| Mark {
        subject: letter.subject(),
        generation,
        at_ms: 99,
        by: "me".into(),
        reason: None,
        until_ms: 0,
    };
    fold(&letters, &[Record::Resolved(mark(&letters[0], 0)), Record::Replayed(mark(&letters[1], 1))])
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.letter.at_ms / 10).collect()
}

#[test]
fn filters() {
    let glob = |text: &str| Some(Glob::new(text).unwrap());
    let check = |filter: Filter, expected: &[u64]| {
        assert_eq!(numbers(&sample().page(&filter, None, 99).items), expected, "{filter:?}");
    };
    check(Filter::default(), &[6, 5, 4, 3, 2, 1]);
    check(Filter { hook: glob("m*"), ..Filter::default() }, &[6, 5]);
    check(Filter { kind: glob("task.crm"), ..Filter::default() }, &[4, 3, 2, 1]);
    check(Filter { class: Some(Class::Poisoned), ..Filter::default() }, &[]);
    check(Filter { states: States::Unresolved, ..Filter::default() }, &[6, 5, 4, 3, 2]);
    check(Filter { states: States::Resolved, ..Filter::default() }, &[1]);
    check(Filter { states: States::Replaying, ..Filter::default() }, &[2]);
    check(Filter { since_ms: Some(30), until_ms: Some(50), ..Filter::default() }, &[4, 3]);
    check(Filter { text: Some("STATUS 503".into()), ..Filter::default() }, &[3]);
    check(Filter { text: Some("event-5".into()), ..Filter::default() }, &[5]);
    check(Filter { text: Some("invoice".into()), ..Filter::default() }, &[1]);
    check(Filter { session: Some("session-1".into()), ..Filter::default() }, &[5, 3, 1]);
    check(Filter { run: Some("r".into()), ..Filter::default() }, &[]);
    check(Filter { fingerprint: Some("f-mail".into()), ..Filter::default() }, &[6, 5]);
}

#[test]
fn pages_follow_each_other() {
    let filter = Filter { states: States::Unresolved, ..Filter::default() };
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = sample().page(&filter, after, 2);
        found.push(numbers(&page.items));
        after = page.next.map(|cursor| cursor.to_string().parse().unwrap());
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, [vec![6, 5], vec![4, 3], vec![2]]);
    for text in ["", "7", "7-xyz", "-", "7-00"] {
        let error = text.parse::<Cursor>().unwrap_err();
        assert!(error.contains("`next`"), "{error}");
    }
}

#[test]
fn groups_are_letters_of_one_cause() {
    let groups = sample().groups(&Filter::default());
    let found: Vec<_> = groups
        .iter()
        .map(|it| (&*it.fingerprint, &*it.error, it.open, it.replaying, it.resolved, it.first_ms, it.last_ms))
        .collect();
    assert_eq!(found, [("f-mail", "status 506", 2, 0, 0, 50, 60), ("f-crm", "status 504", 2, 1, 1, 10, 40),]);
    let open =
        sample().groups(&Filter { states: States::Open, hook: Some(Glob::new("crm").unwrap()), ..Filter::default() });
    assert_eq!(open.iter().map(|it| (it.open, it.resolved)).collect::<Vec<_>>(), [(2, 0)]);
}

#[test]
fn texts_are_found_in_any_case() {
    for (text, part, expected) in [
        ("Connection refused", "", true),
        ("Connection refused", "connection", true),
        ("Connection refused", "REFUSED", true),
        ("Connection refused", "n r", true),
        ("Connection refused", "refused.", false),
        ("Connection refused", "connections", false),
        ("503 503 504", "504", true),
        ("über", "üB", true),
        ("über", "Über", false), // in any case as far as ASCII goes
        ("", "x", false),
        ("x", "xx", false),
    ] {
        assert_eq!(contains(text, part), expected, "{part:?} in {text:?}");
    }
}
