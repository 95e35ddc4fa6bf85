//! What of one queue is in flight, in memory.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Dispatched;

/// Where a message stands in its queue: by due time, then by arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) due_ms: i64,
    pub(super) id: i64,
}

/// So many messages, with so many bytes of bodies together. The bytes are used up by the message that exceeds them, so
/// that even the largest comes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Credit {
    pub(super) fn is_empty(self) -> bool {
        self.messages == 0 || self.bytes == 0
    }

    /// Without a message of this size.
    #[must_use]
    pub(super) fn less(self, bytes: usize) -> Self {
        Self { messages: self.messages.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

/// The messages of one queue that are dispatched and not yet acked.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// What may be in flight at a time; nothing: the queue is not wanted.
    pub(super) limit: Credit,
    /// Dispatched, as the file counts it, and not yet received.
    buffer: VecDeque<Dispatched>,
    /// Received, and not yet acked: the size of each.
    out: HashMap<i64, usize>,
    /// Bytes of what is buffered and out.
    bytes: usize,
    /// Everything that was dispatched and is still in the file.
    held: HashSet<i64>,
    /// Nothing up to here is left to be dispatched.
    cursor: Place,
}

impl InFlight {
    /// How many more may be dispatched.
    pub(super) fn credit(&self) -> Credit {
        let messages = self.limit.messages.saturating_sub(self.out.len() + self.buffer.len());
        Credit { messages, bytes: self.limit.bytes.saturating_sub(self.bytes) }
    }

    /// Where to look for messages to dispatch.
    pub(super) fn cursor(&self) -> Place {
        self.cursor
    }

    /// Whether this message was dispatched.
    pub(super) fn holds(&self, id: i64) -> bool {
        self.held.contains(&id)
    }

    /// A message was added at this place.
    pub(super) fn arrived(&mut self, place: Place) {
        // Time does not run backwards here, so this is a precaution: a message behind the cursor would wait for ever.
        let before = Place { due_ms: place.due_ms, id: place.id - 1 };
        self.cursor = self.cursor.min(before);
    }

    /// The message at this place was dispatched, as the file counts it.
    pub(super) fn dispatched(&mut self, place: Place, dispatched: Dispatched) {
        self.cursor = self.cursor.max(place);
        self.held.insert(place.id);
        self.bytes += dispatched.message.body.len();
        self.buffer.push_back(dispatched);
    }

    /// The next message for a receiver.
    pub(super) fn pop(&mut self) -> Option<Dispatched> {
        if self.out.len() >= self.limit.messages {
            return None;
        }
        let dispatched = self.buffer.pop_front()?;
        self.out.insert(dispatched.id, dispatched.message.body.len());
        Some(dispatched)
    }

    /// Takes an ack; false if this message is not out.
    pub(super) fn ack(&mut self, id: i64) -> bool {
        let size = self.out.remove(&id);
        self.bytes -= size.unwrap_or_default();
        size.is_some()
    }

    /// The message is no longer in the file.
    pub(super) fn gone(&mut self, id: i64) {
        self.held.remove(&id);
    }

    /// Takes back what nobody has received.
    pub(super) fn drain(&mut self) -> Vec<i64> {
        self.bytes = self.out.values().sum();
        self.buffer.drain(..).map(|dispatched| dispatched.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{Message, Queue};

    fn in_flight(prefetch: usize, ids: &[i64]) -> InFlight {
        let mut in_flight = InFlight { limit: Credit { messages: prefetch, bytes: 100 }, ..InFlight::default() };
        for id in ids {
            let message = Message { body: vec![b'x'; 30].into(), ..Message::default() };
            let dispatched = Dispatched { queue: Queue::Events, id: *id, deliveries: 0, message };
            in_flight.dispatched(Place { due_ms: 10, id: *id }, dispatched);
        }
        in_flight
    }

    #[test]
    fn credit_is_what_is_neither_out_nor_buffered() {
        let mut in_flight = in_flight(3, &[1, 2]);
        assert_eq!(in_flight.credit(), Credit { messages: 1, bytes: 40 });
        assert_eq!(in_flight.pop().map(|dispatched| dispatched.id), Some(1));
        assert_eq!(in_flight.credit(), Credit { messages: 1, bytes: 40 });
        assert!(in_flight.ack(1));
        assert_eq!(in_flight.credit(), Credit { messages: 2, bytes: 70 });
        assert!(in_flight.holds(1)); // still in the file
        in_flight.gone(1);
        assert!(!in_flight.holds(1));
    }

    #[test]
    fn bytes_come_back_with_acks_and_with_what_nobody_received() {
        let mut in_flight = in_flight(9, &[1, 2, 3, 4]);
        assert!(in_flight.credit().is_empty());
        in_flight.pop();
        assert_eq!(in_flight.drain(), [2, 3, 4]);
        assert_eq!(in_flight.credit(), Credit { messages: 8, bytes: 70 });
        assert!(in_flight.ack(1));
        assert_eq!(in_flight.credit(), Credit { messages: 9, bytes: 100 });
    }

    #[test]
    fn only_what_is_out_is_acked_once() {
        let mut in_flight = in_flight(3, &[1]);
        assert!(!in_flight.ack(1));
        in_flight.pop();
        assert!(in_flight.ack(1));
        assert!(!in_flight.ack(1));
    }

    #[test]
    fn what_is_not_wanted_stays_in_the_buffer() {
        let mut in_flight = in_flight(2, &[1, 2]);
        in_flight.pop();
        in_flight.limit.messages = 0;
        assert_eq!(in_flight.pop(), None);
        in_flight.limit.messages = 1; // the one that is out is all there may be
        assert_eq!(in_flight.pop(), None);
        in_flight.limit.messages = 2;
        assert_eq!(in_flight.pop().map(|dispatched| dispatched.id), Some(2));
    }

    #[test]
    fn nothing_arrives_behind_the_cursor() {
        let mut in_flight = in_flight(2, &[7]);
        in_flight.arrived(Place { due_ms: 10, id: 8 });
        assert_eq!(in_flight.cursor(), Place { due_ms: 10, id: 7 });
        in_flight.arrived(Place { due_ms: 9, id: 9 });
        assert_eq!(in_flight.cursor(), Place { due_ms: 9, id: 8 });
    }
}
