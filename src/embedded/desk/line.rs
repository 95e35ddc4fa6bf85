//! One queue of the desk, in memory.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Handed;

/// Where a message stands in its queue: by due time, then by arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) due_ms: i64,
    pub(super) id: i64,
}

/// So many messages, with so many bytes of bodies together. The bytes are used up by the message that exceeds them, so
/// that even the largest comes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Room {
    pub(super) fn is_empty(self) -> bool {
        self.messages == 0 || self.bytes == 0
    }

    /// Without a message of this size.
    #[must_use]
    pub(super) fn less(self, bytes: usize) -> Self {
        Self { messages: self.messages.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

/// What of one queue is in hand.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// What may be in hand at a time; nothing: the queue is not wanted.
    pub(super) limit: Room,
    /// Handed out, as the file counts it, and not yet received by anyone.
    buffer: VecDeque<Handed>,
    /// Received, and not yet acked: the size of each.
    out: HashMap<i64, usize>,
    /// Bytes of what is buffered and out.
    bytes: usize,
    /// Everything that was handed out and is still in the file.
    held: HashSet<i64>,
    /// Nothing up to here is left to be handed out.
    cursor: Place,
}

impl Line {
    /// How many more may be handed out.
    pub(super) fn room(&self) -> Room {
        let messages = self.limit.messages.saturating_sub(self.out.len() + self.buffer.len());
        Room { messages, bytes: self.limit.bytes.saturating_sub(self.bytes) }
    }

    /// Where to look for messages to hand out.
    pub(super) fn cursor(&self) -> Place {
        self.cursor
    }

    /// Whether this message was handed out.
    pub(super) fn holds(&self, id: i64) -> bool {
        self.held.contains(&id)
    }

    /// A message was added at this place.
    pub(super) fn arrived(&mut self, place: Place) {
        // Time does not run backwards here, so this is a precaution: a message behind the cursor would wait for ever.
        let before = Place { due_ms: place.due_ms, id: place.id - 1 };
        self.cursor = self.cursor.min(before);
    }

    /// The message at this place was handed out, as the file counts it.
    pub(super) fn handed_out(&mut self, place: Place, handed: Handed) {
        self.cursor = self.cursor.max(place);
        self.held.insert(place.id);
        self.bytes += handed.message.body.len();
        self.buffer.push_back(handed);
    }

    /// The next message for a receiver.
    pub(super) fn pop(&mut self) -> Option<Handed> {
        if self.out.len() >= self.limit.messages {
            return None;
        }
        let handed = self.buffer.pop_front()?;
        self.out.insert(handed.id, handed.message.body.len());
        Some(handed)
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
        self.buffer.drain(..).map(|handed| handed.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{Message, Queue};

    fn line(prefetch: usize, ids: &[i64]) -> Line {
        let mut line = Line { limit: Room { messages: prefetch, bytes: 100 }, ..Line::default() };
        for id in ids {
            let message = Message { body: vec![b'x'; 30].into(), ..Message::default() };
            let handed = Handed { queue: Queue::Events, id: *id, deliveries: 0, message };
            line.handed_out(Place { due_ms: 10, id: *id }, handed);
        }
        line
    }

    #[test]
    fn room_is_what_is_neither_out_nor_buffered() {
        let mut line = line(3, &[1, 2]);
        assert_eq!(line.room(), Room { messages: 1, bytes: 40 });
        assert_eq!(line.pop().map(|handed| handed.id), Some(1));
        assert_eq!(line.room(), Room { messages: 1, bytes: 40 });
        assert!(line.ack(1));
        assert_eq!(line.room(), Room { messages: 2, bytes: 70 });
        assert!(line.holds(1)); // still in the file
        line.gone(1);
        assert!(!line.holds(1));
    }

    #[test]
    fn bytes_come_back_with_acks_and_with_what_nobody_received() {
        let mut line = line(9, &[1, 2, 3, 4]);
        assert!(line.room().is_empty());
        line.pop();
        assert_eq!(line.drain(), [2, 3, 4]);
        assert_eq!(line.room(), Room { messages: 8, bytes: 70 });
        assert!(line.ack(1));
        assert_eq!(line.room(), Room { messages: 9, bytes: 100 });
    }

    #[test]
    fn only_what_is_out_is_acked_once() {
        let mut line = line(3, &[1]);
        assert!(!line.ack(1));
        line.pop();
        assert!(line.ack(1));
        assert!(!line.ack(1));
    }

    #[test]
    fn what_is_not_wanted_stays_in_the_buffer() {
        let mut line = line(2, &[1, 2]);
        line.pop();
        line.limit.messages = 0;
        assert_eq!(line.pop(), None);
        line.limit.messages = 1; // the one that is out is all there may be
        assert_eq!(line.pop(), None);
        line.limit.messages = 2;
        assert_eq!(line.pop().map(|handed| handed.id), Some(2));
    }

    #[test]
    fn nothing_arrives_behind_the_cursor() {
        let mut line = line(2, &[7]);
        line.arrived(Place { due_ms: 10, id: 8 });
        assert_eq!(line.cursor(), Place { due_ms: 10, id: 7 });
        line.arrived(Place { due_ms: 9, id: 9 });
        assert_eq!(line.cursor(), Place { due_ms: 9, id: 8 });
    }
}
