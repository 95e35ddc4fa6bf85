//! A broker and a dead-letter log in memory, which many processes reach, each by a connection of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::chance::{Chance, Fate};
use super::process::Life;
use super::revisions::{COMING, LEAVING};
use crate::broker::{Broker, Delivery, Health, PublishError, Receipt, Wanted};
use crate::dead_letters::{DeadLetterError, DeadLetters, Keeping, Reading};
use crate::domain::dead_letter::{Item, Offset, Record};
use crate::domain::event;
use crate::domain::id::InvocationKey;
use crate::domain::invocation::Envelope;
use crate::domain::message::{Destination, Message, Outgoing, Queue};

/// An ack that was written so short a time ago may not have arrived when the connection is cut.
const ACK_IN_FLIGHT: Duration = Duration::from_millis(20);
/// How long a client waits for a confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// A message in a queue, by when it is due.
type Place = (Instant, u64);

#[derive(Clone)]
struct Stored {
    message: Message,
    deliveries: u32,
}

/// The broker itself.
pub(super) struct Hub {
    state: Mutex<State>,
    changed: Notify,
    chance: Arc<Chance>,
}

struct State {
    queues: BTreeMap<Queue, BTreeMap<Place, Stored>>,
    next: u64,
    records: Vec<Record>,
    /// Invocations of hooks that not every revision has, of which there was a message.
    asked: BTreeSet<InvocationKey>,
    /// No publish is taken before this.
    blocked_until: Instant,
    /// The highest count of deliveries that was handed out.
    most_deliveries: u32,
}

impl Hub {
    pub(super) fn new(chance: Arc<Chance>) -> Arc<Self> {
        let state = State {
            queues: BTreeMap::new(),
            next: 0,
            records: Vec::new(),
            asked: BTreeSet::new(),
            blocked_until: Instant::now(),
            most_deliveries: 0,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), chance })
    }

    pub(super) fn connect(self: &Arc<Self>, life: Life) -> Arc<Port> {
        let (health, _) = watch::channel(Health::Up);
        Arc::new(Port { hub: Arc::clone(self), life, mine: Mutex::default(), health })
    }

    /// Takes no messages for so long.
    pub(super) fn block(&self, time: Duration) {
        self.state().blocked_until = Instant::now() + time;
    }

    /// Messages in queues, due or not.
    pub(super) fn count(&self) -> usize {
        self.state().queues.values().map(BTreeMap::len).sum()
    }

    pub(super) fn most_deliveries(&self) -> u32 {
        self.state().most_deliveries
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.state().records.clone()
    }

    pub(super) fn asked(&self) -> BTreeSet<InvocationKey> {
        self.state().asked.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, queue: Queue, due: Instant, stored: Stored) {
        let mut state = self.state();
        state.next += 1;
        let place = (due, state.next);
        state.queues.entry(queue).or_default().insert(place, stored);
        drop(state);
        self.changed.notify_waiters();
    }

    fn store(&self, Outgoing { to, delay, message }: Outgoing) {
        let (queue, delay) = match to {
            Destination::Events => (Queue::Events, delay),
            Destination::Lane(lane) | Destination::Running(lane) => (Queue::Lane(lane), delay),
            Destination::Parked(lane, level) => (Queue::Lane(lane), Outgoing::park_time(level)),
            Destination::Dead | Destination::Gates | Destination::Reply(_) | Destination::Exchange(_) => {
                unreachable!("letters are appended, nobody asks, and no hook publishes")
            }
        };
        if message.text("hookfleet-hook").is_some_and(|hook| [LEAVING, COMING].contains(&hook))
            && let Ok(Envelope::Invocation(invocation)) = Envelope::decode(queue, &message, &event::Reading::default())
        {
            self.state().asked.insert(invocation.key());
        }
        self.put(queue, Instant::now() + delay, Stored { message, deliveries: 0 });
    }

    /// A request that changes something here.
    async fn change<E>(&self, lost: impl Fn() -> E, change: impl FnOnce()) -> Result<(), E> {
        self.chance.travel().await;
        let until = self.state().blocked_until;
        if until > Instant::now() + CONFIRM_TIMEOUT {
            sleep(CONFIRM_TIMEOUT).await;
            return Err(lost());
        }
        sleep_until(until).await;
        let fate = self.chance.of_broker();
        if fate != Fate::Lost {
            change();
        }
        self.chance.travel().await;
        if fate == Fate::Good { Ok(()) } else { Err(lost()) }
    }
}

/// One process's connection.
pub(super) struct Port {
    hub: Arc<Hub>,
    life: Life,
    mine: Mutex<Mine>,
    health: watch::Sender<Health>,
}

#[derive(Default)]
struct Mine {
    epoch: u64,
    wanted: Vec<Wanted>,
    held: BTreeMap<u64, (Queue, Stored)>,
    /// Acks that may still be on their way.
    acked: Vec<(Instant, Queue, Stored)>,
    closed: bool,
}

impl Port {
    /// The connection is cut: what was in hand comes again, to anybody.
    pub(super) fn cut(&self) {
        let now = Instant::now();
        let mut mine = self.mine();
        mine.epoch += 1;
        let held = std::mem::take(&mut mine.held).into_values();
        let in_flight = std::mem::take(&mut mine.acked).into_iter().filter(|(at, ..)| now - *at < ACK_IN_FLIGHT);
        let lost = in_flight.filter(|_| self.hub.chance.rng().bool()).map(|(_, queue, stored)| (queue, stored));
        let back: Vec<_> = held.chain(lost).collect();
        drop(mine);
        for (queue, stored) in back {
            self.hub.put(queue, now, Stored { deliveries: stored.deliveries + 1, ..stored });
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.life.is_over() || self.mine().held.is_empty()
    }

    fn mine(&self) -> MutexGuard<'_, Mine> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be handed out now; else when something will be due.
    fn take(&self) -> Result<Delivery, Option<Instant>> {
        let (mut mine, mut state) = (self.mine(), self.hub.state());
        let mut next_due: Option<Instant> = None;
        for Wanted { queue, prefetch, .. } in mine.wanted.clone() {
            let in_hand = mine.held.values().filter(|(of, _)| *of == queue).count();
            let Some(entry) = state.queues.get_mut(&queue).and_then(BTreeMap::first_entry) else {
                continue;
            };
            if in_hand >= usize::from(prefetch) {
                continue;
            }
            if entry.key().0 > Instant::now() {
                next_due = next_due.into_iter().chain([entry.key().0]).min();
                continue;
            }
            let ((_, tag), stored) = entry.remove_entry();
            state.most_deliveries = state.most_deliveries.max(stored.deliveries);
            let receipt = Receipt { epoch: mine.epoch, queue, tag };
            let delivery = Delivery {
                queue,
                message: stored.message.clone(),
                deliveries: stored.deliveries,
                hand_back: false,
                receipt,
            };
            mine.held.insert(tag, (queue, stored));
            return Ok(delivery);
        }
        Err(next_due)
    }
}

#[async_trait]
impl Broker for Port {
    fn want(&self, queues: Vec<Wanted>) {
        self.mine().wanted = queues;
        self.hub.changed.notify_waiters();
    }

    async fn receive(&self) -> Option<Delivery> {
        loop {
            self.life.check().await;
            let changed = self.hub.changed.notified();
            if self.mine().closed {
                return None;
            }
            match self.take() {
                Ok(delivery) => return Some(delivery),
                Err(Some(due)) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = sleep_until(due) => {}
                    }
                }
                Err(None) => changed.await,
            }
        }
    }

    async fn reply(&self, _: &Delivery, _: Outgoing, _: Instant) -> Result<(), PublishError> {
        unreachable!("nobody asks here")
    }

    async fn drain(&self) -> Vec<Delivery> {
        self.want(Vec::new());
        Vec::new()
    }

    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        self.life.check().await;
        let lost = || PublishError::Away("a simulated loss".to_owned());
        let store = || {
            if !self.life.is_over() {
                self.hub.store(outgoing);
            }
        };
        let published = self.hub.change(lost, store).await;
        self.life.check().await;
        published
    }

    async fn ask(&self, _: &Message, _: Duration) -> Result<Option<Message>, PublishError> {
        Ok(None) // nobody decides here
    }

    fn ack(&self, receipt: Receipt) {
        let mut mine = self.mine();
        if self.life.is_over() || receipt.epoch != mine.epoch {
            return;
        }
        if let Some((queue, stored)) = mine.held.remove(&receipt.tag) {
            mine.acked.retain(|(at, ..)| at.elapsed() < ACK_IN_FLIGHT);
            mine.acked.push((Instant::now(), queue, stored));
        }
        drop(mine);
        self.hub.changed.notify_waiters();
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn close(&self) {
        let mut mine = self.mine();
        mine.acked.clear(); // they are written before the connection is closed
        mine.closed = true;
        drop(mine);
        self.cut();
    }
}

#[async_trait]
impl DeadLetters for Port {
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError> {
        self.life.check().await;
        let lost = || DeadLetterError::Append(PublishError::Away("a simulated loss".to_owned()));
        let append = || {
            if !self.life.is_over() {
                self.hub.state().records.push(record.clone());
            }
        };
        let appended = self.hub.change(lost, append).await;
        self.life.check().await;
        appended
    }

    async fn open(&self, from: Offset) -> Result<Box<dyn Reading>, DeadLetterError> {
        let items = (0..).zip(self.hub.records()).map(|(at, record)| Item::new(Offset(at), record));
        let items: Vec<Item> = items.skip_while(|item| item.at < from).collect();
        let position = items.last().map_or(from, |last| last.at.next());
        Ok(Box::new(Read { items: Some(items), position }))
    }

    async fn trim(&self, _before_ms: u64) -> Result<Offset, DeadLetterError> {
        Ok(Offset::default())
    }

    async fn keep(&self) -> Result<Option<Box<dyn Keeping>>, DeadLetterError> {
        Ok(None)
    }
}

/// All of the log at once.
struct Read {
    items: Option<Vec<Item>>,
    position: Offset,
}

#[async_trait]
impl Reading for Read {
    async fn next(&mut self) -> Result<Option<Vec<Item>>, DeadLetterError> {
        Ok(self.items.take())
    }

    fn position(&self) -> Offset {
        self.position
    }
}
