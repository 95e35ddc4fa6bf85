//! Which requests of another system are one event: those of one key, as long as none of them was answered.
//!
//! Kheish makes the key of a request from what the event says, so that two events that say the same have one key. The key can
//! therefore only tell that a request is sent again: while an earlier one of its key is under way, or if none of them was
//! answered. What comes after an answer is another event. An answer that is lost on its way makes one event two.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A request that was not answered is sent again within the time that a hook may take in all; 30 s, and as long again.
const KEPT_FOR: Duration = Duration::from_mins(1);
/// Keys that are remembered; beyond that the oldest are forgotten.
const KEYS_MAX: usize = 10_000;

/// The keys of requests that have not been answered. Those of one process: behind a balancer, a repeat that reaches another
/// one is another event.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<String, Open>>);

#[derive(Debug)]
struct Open {
    id: String,
    since: Instant,
}

impl Repeats {
    /// The id of the event that a request of this key is about: that of an earlier one, or else this one.
    pub fn id(&self, key: &str, own: String, now: Instant) -> String {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = open.get(key).filter(|open| now.duration_since(open.since) < KEPT_FOR) {
            return earlier.id.clone();
        }
        if open.len() >= KEYS_MAX {
            open.retain(|_, open| now.duration_since(open.since) < KEPT_FOR);
        }
        if open.len() >= KEYS_MAX
            && let Some(oldest) = open.iter().min_by_key(|(_, open)| open.since).map(|(key, _)| key.clone())
        {
            open.remove(&oldest);
        }
        open.insert(key.to_owned(), Open { id: own.clone(), since: now });
        own
    }

    /// The event of this id was answered: the next request of the key is about another one.
    pub fn answered(&self, key: &str, id: &str) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(key).is_some_and(|open| open.id == id) {
            open.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_one_event_until_it_is_answered() {
        let (repeats, begin) = (Repeats::default(), Instant::now());
        let ask = |own: &str, after_s| repeats.id("k", own.to_owned(), begin + Duration::from_secs(after_s));
        assert_eq!(ask("1", 0), "1");
        assert_eq!(ask("2", 1), "1", "sent again");
        assert_eq!(repeats.id("other", "3".to_owned(), begin), "3");
        repeats.answered("k", "1");
        assert_eq!(ask("4", 2), "4", "another event");
        repeats.answered("k", "1"); // a late one
        assert_eq!(ask("5", 3), "4");
        assert_eq!(ask("6", 62), "6", "nobody sends it again by then");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_are_forgotten() {
        let (repeats, begin) = (Repeats::default(), Instant::now());
        for number in 0..=KEYS_MAX {
            let at = begin + Duration::from_millis(u64::try_from(number).unwrap());
            repeats.id(&number.to_string(), "first".to_owned(), at);
        }
        let later = begin + Duration::from_secs(11);
        assert_eq!(repeats.id("0", "second".to_owned(), later), "second");
        assert_eq!(repeats.id(&KEYS_MAX.to_string(), "second".to_owned(), later), "first");
    }
}
