//! What the revisions of a catalog do on every kind of Redis, seen by two who use them.

use hookfleet::catalog::Document;
use hookfleet::catalog::revisions::{BYTES_MAX, KEPT, Revisions, RevisionsError, Stored};

fn revision(number: u64, text: &str) -> Stored {
    let documents = vec![Document::native("h.yaml", text)];
    Stored::new(number, documents, 3, "me", Some("why"), number)
}

/// Every check, one after the other, on revisions of which there are none yet.
pub(crate) async fn suite(one: &Revisions, other: &Revisions) {
    assert_eq!(other.current().await.unwrap(), None);
    assert_eq!(other.history().await.unwrap(), []);
    assert_eq!(other.get(1).await.unwrap_err(), RevisionsError::Unknown(1));

    let (first, second) = (revision(1, "a"), revision(2, "b"));
    assert!(one.put(None, &first).await.unwrap());
    assert_eq!(other.current().await.unwrap(), Some(first.about.pointer()));
    assert_eq!(other.get(1).await.unwrap(), first);
    assert!(other.put(None, &first).await.unwrap(), "its answer may have been lost: it is repeated");

    // Of two who build on the same revision, one is refused and has changed nothing.
    let rival = revision(2, "c");
    assert!(one.put(Some(&first.about.pointer()), &second).await.unwrap());
    assert!(!other.put(Some(&first.about.pointer()), &rival).await.unwrap());
    assert!(!other.put(None, &rival).await.unwrap());
    assert_eq!(other.get(2).await.unwrap(), second);
    assert_eq!(other.history().await.unwrap(), [second.about.clone(), first.about]);

    // Old ones are forgotten, one with each new one.
    let mut before = second;
    for number in 3..=KEPT + 1 {
        let next = revision(number, &number.to_string());
        assert!(one.put(Some(&before.about.pointer()), &next).await.unwrap());
        before = next;
    }
    assert_eq!(other.get(1).await.unwrap_err(), RevisionsError::Unknown(1));
    let history = other.history().await.unwrap();
    assert_eq!((history.len() as u64, history[0].number, history[199].number), (KEPT, KEPT + 1, 2));

    // Large ones push older ones out sooner: of these, sixteen are over 64 MiB.
    let text = "x".repeat(BYTES_MAX);
    for number in KEPT + 2..=KEPT + 18 {
        let next = revision(number, &text);
        assert!(one.put(Some(&before.about.pointer()), &next).await.unwrap());
        before = next;
    }
    let numbers: Vec<u64> = other.history().await.unwrap().iter().map(|about| about.number).collect();
    assert_eq!(numbers, (KEPT + 4..=KEPT + 18).rev().collect::<Vec<_>>());
    assert_eq!(other.get(KEPT + 3).await.unwrap_err(), RevisionsError::Unknown(KEPT + 3));
    assert_eq!(other.get(KEPT + 18).await.unwrap(), before);

    // Where Redis has forgotten some, numbers jump: what is too old by that is forgotten at once, but for the one before.
    let next = revision(KEPT * 2, "x");
    assert!(one.put(Some(&before.about.pointer()), &next).await.unwrap());
    let left = async || {
        let mut left = Vec::new();
        for number in 1..KEPT * 5 {
            match other.get(number).await {
                Ok(stored) => left.push(stored.about.number),
                Err(error) => assert_eq!(error, RevisionsError::Unknown(number)),
            }
        }
        left
    };
    let within: Vec<u64> = (KEPT + 4..=KEPT + 18).chain([KEPT * 2]).collect();
    assert_eq!(left().await, within, "a short jump");
    let (far, farther) = (revision(KEPT * 4, "y"), revision(KEPT * 4 + 1, "z"));
    assert!(one.put(Some(&next.about.pointer()), &far).await.unwrap());
    assert_eq!(left().await, [KEPT * 2, KEPT * 4], "workers may be about to read the one before");
    assert!(one.put(Some(&far.about.pointer()), &farther).await.unwrap());
    assert_eq!(left().await, [KEPT * 4, KEPT * 4 + 1]);
}
