//! What the receiver of `verify` writes down of every call, and what follows from it. Pure: times are arguments.

use std::ops::Range;
use std::time::Duration;

/// One in so many events is refused when it first comes.
const REFUSED_EVERY: usize = 3;

/// One call of the receiver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'c> {
    pub(super) event: usize,
    pub(super) key: &'c str,
    pub(super) attempt: u32,
    /// Since the book was opened.
    pub(super) at: Duration,
}

/// All calls so far; each phase has equally many events, one after the other.
#[derive(Debug)]
pub(super) struct Book {
    events: usize,
    seen: Vec<Seen>,
    phases: Vec<Arrivals>,
    last: Duration,
}

/// What is known of an event.
#[derive(Debug, Clone, Default)]
struct Seen {
    key: Option<Box<str>>,
    /// It came under another key too.
    other_key: bool,
    /// Calls that were answered with success, or that nobody waited to be answered.
    taken: u32,
    /// A caller got the answer.
    done: bool,
    /// It was taken at another attempt than the first.
    retried: bool,
}

/// What is known of a phase as a whole.
#[derive(Debug, Clone, Default)]
struct Arrivals {
    /// Of what was taken.
    times: Vec<Duration>,
    done: usize,
}

/// What the receiver says of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    /// The numbers of the events that nobody got a good answer for.
    pub(super) missing: Vec<usize>,
    /// Successful arrivals of an event beyond its first.
    pub(super) duplicated: u64,
    /// Every event came under a single key.
    pub(super) same_key: bool,
    pub(super) retried: u64,
    /// Between two successful arrivals while the load lasted.
    pub(super) longest_pause: Duration,
}

impl Book {
    pub(super) fn new(events: u32, phases: usize) -> Self {
        let events = events as usize;
        Self {
            events,
            seen: vec![Seen::default(); events * phases],
            phases: vec![Arrivals::default(); phases],
            last: Duration::ZERO,
        }
    }

    /// Writes a call down. Answers whether it succeeds; nothing if there is no such event.
    pub(super) fn call(&mut self, call: Call<'_>) -> Option<bool> {
        let seen = self.seen.get_mut(call.event)?;
        self.last = call.at;
        let first = seen.key.is_none();
        if first {
            seen.key = Some(call.key.into());
        }
        seen.other_key |= seen.key.as_deref() != Some(call.key);
        if first && call.event.is_multiple_of(REFUSED_EVERY) {
            return Some(false);
        }
        seen.taken += 1;
        seen.retried |= call.attempt > 1;
        self.phases[call.event / self.events].times.push(call.at);
        Some(true)
    }

    /// A call that succeeded was answered while its caller was there.
    pub(super) fn answered(&mut self, event: usize) {
        if let Some(seen) = self.seen.get_mut(event).filter(|seen| !seen.done) {
            seen.done = true;
            self.phases[event / self.events].done += 1;
        }
    }

    /// Whether every event of a phase is done.
    pub(super) fn is_complete(&self, phase: usize) -> bool {
        self.phases[phase].done == self.events
    }

    /// When the last call came.
    pub(super) const fn last(&self) -> Duration {
        self.last
    }

    /// What came of a phase whose load lasted this long.
    pub(super) fn tally(&self, phase: usize, load: &Range<Duration>) -> Tally {
        let first = phase * self.events;
        let seen = &self.seen[first..first + self.events];
        let missing = seen.iter().enumerate().filter(|(_, seen)| !seen.done).map(|(place, _)| first + place);
        Tally {
            missing: missing.collect(),
            duplicated: seen.iter().map(|seen| u64::from(seen.taken.saturating_sub(1))).sum(),
            same_key: seen.iter().all(|seen| !seen.other_key),
            retried: seen.iter().map(|seen| u64::from(seen.retried)).sum(),
            longest_pause: longest_pause(&self.phases[phase].times, load),
        }
    }
}

/// The longest time without an arrival that began while the load lasted. The times are in order.
fn longest_pause(times: &[Duration], load: &Range<Duration>) -> Duration {
    let mut longest = Duration::ZERO;
    let mut since = load.start;
    for &time in times {
        if since >= load.end {
            return longest;
        }
        longest = longest.max(time.saturating_sub(since));
        since = since.max(time);
    }
    longest.max(load.end.saturating_sub(since)) // nothing came any more
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Calls as (event, key, attempt); those that succeed are answered, unless the attempt is 9.
    fn check(calls: &[(usize, &str, u32)], missing: &[usize], duplicated: u64, same_key: bool, retried: u64) {
        let mut book = Book::new(2, 2);
        for &(event, key, attempt) in calls {
            let taken = book.call(Call { event, key, attempt, at: ms(5) });
            if taken == Some(true) && attempt != 9 {
                book.answered(event);
            }
        }
        let longest_pause = book.tally(0, &(ms(0)..ms(0))).longest_pause;
        let expected = Tally { missing: missing.to_vec(), duplicated, same_key, retried, longest_pause };
        assert_eq!(book.tally(0, &(ms(0)..ms(0))), expected, "{calls:?}");
        assert_eq!(book.is_complete(0), missing.is_empty(), "{calls:?}");
    }

    #[test]
    fn calls_are_counted() {
        check(&[], &[0, 1], 0, true, 0);
        check(&[(1, "b", 1)], &[0], 0, true, 0);
        check(&[(0, "a", 1), (1, "b", 1)], &[0], 0, true, 0); // every third is refused at first, from 0 on
        check(&[(0, "a", 1), (1, "b", 1), (0, "a", 2)], &[], 0, true, 1);
        check(&[(0, "a", 1), (1, "b", 1), (0, "a", 2), (1, "b", 1), (1, "b", 2)], &[], 2, true, 2);
        check(&[(0, "a", 1), (1, "b", 1), (0, "other", 2)], &[], 0, false, 1);
        check(&[(1, "b", 9)], &[0, 1], 0, true, 1); // the caller died before it was answered
        check(&[(1, "b", 9), (1, "b", 1)], &[0], 1, true, 1);
        check(&[(2, "c", 1), (3, "d", 1), (2, "c", 2)], &[0, 1], 0, true, 0); // the next phase
        check(&[(4, "e", 1)], &[0, 1], 0, true, 0); // nobody sent it
    }

    #[test]
    fn pauses_are_measured_under_load() {
        let check = |times: &[u64], expected: u64| {
            let times: Vec<Duration> = times.iter().map(|&time| ms(time)).collect();
            assert_eq!(longest_pause(&times, &(ms(100)..ms(200))), ms(expected), "{times:?}");
        };
        check(&[], 100);
        check(&[110, 120, 190], 70);
        check(&[110, 150], 50);
        check(&[150, 160, 450], 290); // it began under load
        check(&[150, 200, 450], 50); // it did not
        check(&[140, 180, 230, 900], 50);
    }
}
