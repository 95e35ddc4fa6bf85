//! The queues of a store: messages at rest are in the file; which of them are in flight is kept in memory.
//!
//! A dispatched message stays in the file until its ack deletes it, and its count of deliveries is raised before a
//! receiver sees it. What is in flight is known in memory only: after a restart all of it is delivered again.
//!
//! ```text
//! publish: INSERT --commit--> at rest --due, and credit: count + 1, commit--> buffered --next--> out --ack--> DELETE
//! ```

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender};
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::sync::Notify;

use crate::domain::message::{Message, Queue};

pub(super) use self::dispatch::Dispatch;

pub(crate) use self::in_flight::Credit;
use self::in_flight::{InFlight, Place};
use super::clock::millis;
use super::job::{Batch, Job, Order, WriteError, call};

mod dispatch;
mod in_flight;

/// A message in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dispatched {
    pub(crate) queue: Queue,
    /// Its row; used once only while the file has this owner.
    pub(crate) id: i64,
    /// How often it was dispatched before.
    pub(crate) deliveries: u32,
    pub(crate) message: Message,
}

/// The messages of one store.
#[derive(Debug)]
pub(crate) struct Queues {
    state: Mutex<State>,
    /// Something may be there for [`Queues::next`]. Whoever takes one message passes the word on.
    arrivals: Notify,
    orders: Sender<Order>,
    owner: i64,
}

#[derive(Debug, Default)]
struct State {
    in_flight: BTreeMap<Queue, InFlight>,
    /// Where to look first for the next message, so that no queue waits for another.
    turn: usize,
    last_id: i64,
    /// Acked, and not yet given to the writer.
    acks: Vec<(Queue, i64)>,
    /// The writer has been asked to fetch the acks.
    acks_sent: bool,
    closed: bool,
}

impl State {
    fn in_flight(&mut self, queue: Queue) -> &mut InFlight {
        self.in_flight.entry(queue).or_default()
    }

    fn pop(&mut self) -> Option<Dispatched> {
        for step in 0..Queue::ALL.len() {
            let at = (self.turn + step) % Queue::ALL.len();
            if let Some(dispatched) = self.in_flight(Queue::ALL[at]).pop() {
                self.turn = at + 1;
                return Some(dispatched);
            }
        }
        None
    }
}

impl Queues {
    /// The queues of a file that has just been opened by `owner`.
    pub(super) fn new(conn: &Connection, owner: i64, orders: Sender<Order>) -> rusqlite::Result<Self> {
        let last_id = conn.query_row("SELECT ifnull(max(id), 0) FROM messages", [], |row| row.get(0))?;
        let state = Mutex::new(State { last_id, ..State::default() });
        Ok(Self { state, arrivals: Notify::new(), orders, owner })
    }

    /// Counts the processes that have owned the file; ids mean something under one owner only.
    pub(crate) fn owner(&self) -> i64 {
        self.owner
    }

    /// Adds a message that may be dispatched after `delay`, never before. On disk when this returns `Ok`.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        queue: Queue,
        delay: Duration,
        message: Message,
    ) -> Result<(), WriteError> {
        let queues = Arc::clone(self);
        // Texts, numbers and flags always serialize. Done here, because the writer has enough to do.
        let properties = serde_json::to_string(&message.properties).unwrap_or_default();
        let headers = serde_json::to_string(&message.headers).unwrap_or_default();
        call(&self.orders, move |batch| {
            let at = queues.place(queue, batch.now_ms(), delay);
            batch.prepare("INSERT INTO messages VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6)")?.execute(params![
                at.id,
                queue.name(),
                at.due_ms,
                properties,
                headers,
                &message.body[..]
            ])?;
            batch.dispatch = true;
            Ok(())
        })
        .await
    }

    /// Where a new message goes. Ids are never used again, so that a late ack cannot delete another message.
    fn place(&self, queue: Queue, now_ms: i64, delay: Duration) -> Place {
        let wait_ms = if delay.is_zero() { 0 } else { millis(delay).saturating_add(1) }; // `now` is rounded down
        let mut state = self.state();
        state.last_id += 1;
        let place = Place { due_ms: now_ms.saturating_add(wait_ms), id: state.last_id };
        state.in_flight(queue).arrived(place);
        place
    }

    /// Dispatches messages of exactly these queues from now on, so much of each at a time (at least one message).
    pub(crate) fn want(&self, wanted: impl IntoIterator<Item = (Queue, Credit)>) {
        let mut state = self.state();
        for in_flight in state.in_flight.values_mut() {
            in_flight.limit = Credit::default();
        }
        for (queue, Credit { messages, bytes }) in wanted.into_iter().filter(|_| !state.closed).collect::<Vec<_>>() {
            state.in_flight(queue).limit = Credit { messages: messages.max(1), bytes: bytes.max(1) };
        }
        drop(state);
        self.arrivals.notify_one();
        self.send(Order::Dispatch);
    }

    /// The next message; none once closed. Cancel-safe.
    pub(crate) async fn next(&self) -> Option<Dispatched> {
        loop {
            let arrival = self.arrivals.notified(); // before looking, so that no word is missed
            let (dispatched, closed) = {
                let mut state = self.state();
                (state.pop(), state.closed)
            };
            if dispatched.is_some() || closed {
                self.arrivals.notify_one();
                return dispatched;
            }
            arrival.await;
        }
    }

    /// Deletes a message that is out, with the next commits. Anything else is ignored.
    pub(crate) fn ack(self: &Arc<Self>, queue: Queue, id: i64) {
        let mut state = self.state();
        if state.closed || !state.in_flight(queue).ack(id) {
            return;
        }
        state.acks.push((queue, id));
        let first = !mem::replace(&mut state.acks_sent, true);
        drop(state);
        self.arrivals.notify_one(); // what is buffered beyond a lowered prefetch may come out now
        if first {
            self.send(Order::Job(Box::new(Deletion { queues: Arc::clone(self), taken: Vec::new() })));
        }
    }

    /// What writes the acks that could not be written before, if there are any.
    pub(super) fn acks_to_write(self: &Arc<Self>) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        if state.acks.is_empty() || mem::replace(&mut state.acks_sent, true) {
            return None;
        }
        Some(Box::new(Deletion { queues: Arc::clone(self), taken: Vec::new() }))
    }

    /// Stops dispatching, and writes the acks so far. The count of a message that was dispatched and never received is
    /// lowered again.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.want([]);
        self.end();
        if let Some(acks) = self.acks_to_write() {
            self.send(Order::Job(acks));
        }
        let queues = Arc::clone(self);
        let written = call(&self.orders, move |batch| {
            let mut statement = batch.prepare("UPDATE messages SET deliveries = deliveries - 1 WHERE id = ?1")?;
            let unseen: Vec<i64> = queues.state().in_flight.values_mut().flat_map(InFlight::drain).collect();
            unseen.into_iter().try_for_each(|id| statement.execute([id]).map(drop))
        });
        let _ = written.await; // then they count as delivered
    }

    /// Takes no more acks, and tells receivers that nothing comes any more.
    pub(super) fn end(&self) {
        self.state().closed = true;
        self.arrivals.notify_one();
    }

    fn send(&self, order: Order) {
        let _ = self.orders.send(order); // the file is closed: nothing is to be done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes acks. If that fails they are kept, and the messages stay in flight.
struct Deletion {
    queues: Arc<Queues>,
    taken: Vec<(Queue, i64)>,
}

impl Job for Deletion {
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        {
            let mut state = self.queues.state();
            state.acks_sent = false;
            self.taken = mem::take(&mut state.acks);
        }
        let mut statement = batch.prepare("DELETE FROM messages WHERE id = ?1")?;
        for (_, id) in &self.taken {
            statement.execute([id])?;
        }
        drop(statement);
        batch.dispatch = true; // there is credit for others
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), WriteError>) {
        let mut state = self.queues.state();
        state.acks_sent &= outcome.is_ok(); // it may have failed before it ran
        if outcome.is_err() {
            state.acks.extend(self.taken);
            return;
        }
        for (queue, id) in self.taken {
            state.in_flight(queue).gone(id);
        }
    }
}

#[cfg(test)]
mod tests;
