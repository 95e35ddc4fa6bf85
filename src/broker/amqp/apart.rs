//! Sets apart a message that the broker cannot hand out.
//!
//! RabbitMQ keeps a message as its client wrote it, and converts it when it hands it out. Where that fails it ends the
//! connection of the consumer, with all deliveries in its window, and does the same to the next consumer. So the queue is
//! left by all consumers of this process and taken message by message, on connections that nothing else is lost with:
//!
//! - What can be read is handed back at once, to a lane, and runs from there. The others do not wait.
//! - What ends its connection comes again and is counted, until the queue's limit of deliveries is reached. Then the broker
//!   itself moves it to the dead-lettered, from where it gets to the queue of what is unreadable.
//! - A queue that has no such limit (the requests' queue; a broker before version 4 without our policies) would hand it out
//!   for ever. There it is taken without an ack, which removes it, and a letter says so.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::super::{Delivery, Receipt};
use super::publisher::Publisher;
use super::search::{Got, Search, Step};
use super::status::Status;
use super::{Dial, name};
use crate::amqp::arrival;
use crate::amqp::connection::{self, call, close, is_internal_error, is_locked};
use crate::domain::dead_letter::{Letter, Record};
use crate::domain::event::Malformed;
use crate::domain::failure::Class;
use crate::domain::invocation::Client;
use crate::domain::message::{Message, Outgoing, Queue};
use crate::telemetry::now_ms;

/// Connections that are opened ahead: each message that cannot be handed out takes hundreds of them.
const OPENED_AHEAD: usize = 4;
/// After a look that failed by itself, or found nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// Looks in a row that may fail.
const FAILURES_MAX: u32 = 20;
/// By then all that a lost connection had in hand has come again.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Longest time that a queue is taken message by message before its consumers try again.
const SEARCH_MAX: Duration = Duration::from_mins(1);

/// What the cells of a process share, so that one loss is enough for all.
#[derive(Clone, Default)]
pub(super) struct Apart {
    /// The queues that are taken message by message.
    pub(super) queues: watch::Sender<BTreeSet<Queue>>,
    /// When the broker last ended a connection at a delivery.
    refused: Arc<Mutex<Option<Instant>>>,
    /// Held while one task looks whether others have left a queue.
    looking: Arc<tokio::sync::Mutex<()>>,
}

impl Apart {
    pub(super) fn refused(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) async fn looking(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.looking.lock().await
    }

    /// Whether deliveries that come again may do so for that reason.
    pub(super) fn was_refused_lately(&self) -> bool {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|refused| refused.elapsed() < REFUSED_FOR)
    }
}

/// That of this broker and namespace.
pub(super) fn apart(broker: &str, namespace: &str) -> Apart {
    static ALL: LazyLock<Mutex<HashMap<String, Apart>>> = LazyLock::new(Mutex::default);
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(format!("{broker} {namespace}")).or_default().clone()
}

/// Deliveries that wait for their ack, by the epoch of their receipts: each has one of its own.
#[derive(Clone, Default)]
pub(super) struct HandedOn(Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>);

impl HandedOn {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> (u64, oneshot::Receiver<()>) {
        let (sender, acked) = oneshot::channel();
        let epoch = fastrand::u64(u64::MAX / 2..);
        self.lock().insert(epoch, sender);
        (epoch, acked)
    }

    pub(super) fn contains(&self, epoch: u64) -> bool {
        self.lock().contains_key(&epoch)
    }

    /// Whether it is one of these.
    pub(super) fn ack(&self, receipt: Receipt) -> bool {
        self.lock().remove(&receipt.epoch).map(|sender| sender.send(())).is_some()
    }
}

/// The exclusive queue that a worker has while it takes this one message by message.
pub(super) fn lock_of(queue: &str) -> String {
    format!("{queue}.apart")
}

/// Takes one queue message by message.
pub(super) struct Seeker {
    pub(super) dial: Arc<Dial>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) queue: Queue,
    pub(super) deliveries: mpsc::UnboundedSender<Delivery>,
    pub(super) handed_on: HandedOn,
    pub(super) status: Arc<Status>,
}

/// Gives a queue back to its consumers when dropped.
struct Left<'a>(&'a Seeker);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        let Seeker { dial, queue, status, .. } = self.0;
        status.apart(&dial.names.queue(*queue), false);
        dial.apart.queues.send_modify(|queues| {
            queues.remove(queue);
        });
    }
}

impl Seeker {
    /// Seeks until nothing more is found that cannot be handed out, then gives the queue back.
    pub(super) async fn run(self) {
        let name = self.dial.names.queue(self.queue);
        self.status.apart(&name, true);
        let _left = Left(&self);
        tracing::warn!(
            queue = name,
            "the broker has ended the connection at a delivery: the queue is taken message by message until the one that \
             the broker cannot hand out is set apart"
        );
        let began = Instant::now();
        let sought = async {
            let Some(lock) = self.lock(&name).await? else { return Ok(None) };
            let found = self.seek(&name).await;
            close(&lock).await;
            found.map(Some)
        };
        match timeout(SEARCH_MAX, sought).await {
            Ok(Ok(Some(found))) => {
                let (seconds, Search { ends, handed_on, removed, .. }) = (began.elapsed().as_secs_f64(), found);
                tracing::warn!(queue = name, seconds, ends, handed_on, removed, "the queue is consumed again");
            }
            Ok(Ok(None)) => tracing::info!(queue = name, "another worker has done so; the queue is consumed again"),
            Ok(Err(reason)) => tracing::warn!(queue = name, reason, "the queue could not be taken message by message"),
            Err(_) => {
                tracing::warn!(queue = name, "no end is found within {SEARCH_MAX:?}; the queue is consumed again");
            }
        }
    }

    /// The right to seek in this queue, which one of all workers has. `None`: another one had it, and has ended.
    async fn lock(&self, queue: &str) -> Result<Option<Connection>, String> {
        let connection = self.connect().await?;
        let lock = lock_of(queue);
        let mut waited = false;
        loop {
            let channel = call("open a channel", connection.create_channel()).await?;
            let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
            match call("lock", channel.queue_declare(lock.as_str().into(), options, FieldTable::default())).await {
                Ok(_) if waited => {
                    close(&connection).await;
                    return Ok(None);
                }
                Ok(_) => return Ok(Some(connection)),
                Err(error) if is_locked(&error) => waited = true,
                Err(error) => return Err(error),
            }
            sleep(AGAIN_AFTER * 5).await;
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        connection::connect(&self.dial.server, &name("apart")).await.map_err(|error| error.to_string())
    }

    async fn open(&self) -> Result<(Connection, Channel), String> {
        let connection = self.connect().await?;
        let channel = call("open a channel", connection.create_channel()).await?;
        Ok((connection, channel))
    }

    async fn seek(&self, queue: &str) -> Result<Search, String> {
        let mut search = Search::new(self.queue != Queue::Gates);
        let mut opened = std::pin::pin!(stream::repeat_with(|| self.open()).buffered(OPENED_AHEAD));
        let (mut open, mut step, mut failures) = (None, Step::Look, 0);
        while step != Step::Done {
            let link = match open.take() {
                Some(link) => Ok(link),
                None => opened.next().await.unwrap_or_else(|| Err("closed".to_owned())),
            };
            let looked = match &link {
                Ok((_, channel)) => self.look(channel, queue, step == Step::Remove).await,
                Err(reason) => Err(reason.clone()),
            };
            match (looked, link) {
                (Ok(got), Ok(link)) => {
                    step = search.next(got);
                    let is_of_use = matches!(got, Got::Message | Got::Nothing) && step != Step::Done;
                    if is_of_use {
                        open = Some(link);
                    } else {
                        close(&link.0).await;
                    }
                    failures = 0;
                }
                (Err(reason), _) | (Ok(_), Err(reason)) => {
                    failures += 1;
                    if failures > FAILURES_MAX {
                        return Err(reason);
                    }
                    tracing::debug!(reason, "a look at the queue's head failed, trying again");
                    sleep(AGAIN_AFTER).await;
                }
            }
            if step == Step::Wait {
                sleep(AGAIN_AFTER).await;
            }
        }
        Ok(search)
    }

    /// Takes what stands first in the queue; `removes`: without an ack.
    async fn look(&self, channel: &Channel, queue: &str, removes: bool) -> Result<Got, String> {
        let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: removes });
        match call("get", got).await {
            Ok(Some(message)) => {
                self.hand_on(channel, message, removes).await?;
                Ok(Got::Message)
            }
            Ok(None) => Ok(Got::Nothing),
            Err(reason) if is_internal_error(&reason) && removes => {
                self.tell_removed().await;
                Ok(Got::Removed)
            }
            Err(reason) if is_internal_error(&reason) => Ok(Got::End),
            Err(reason) => Err(reason),
        }
    }

    /// Hands a message to the worker, and acks it once it is handed back.
    async fn hand_on(&self, channel: &Channel, got: BasicGetMessage, is_acked: bool) -> Result<(), String> {
        let tag = got.delivery.delivery_tag;
        let (message, came_before) = arrival::delivered(self.queue, got.delivery);
        let (epoch, acked) = self.handed_on.register();
        let receipt = Receipt { epoch, queue: self.queue, tag };
        // That an event came before is no fault of its own. The answer of a request may be what ended the connection.
        let deliveries = u32::from(came_before && self.queue == Queue::Gates);
        let delivery = Delivery { queue: self.queue, message, deliveries, hand_back: true, receipt };
        if self.deliveries.send(delivery).is_err() || acked.await.is_err() {
            return Err("closed".to_owned());
        }
        if is_acked {
            return Ok(());
        }
        call("ack", channel.basic_ack(tag, BasicAckOptions::default())).await
    }

    /// Writes the letter of a message that is gone.
    async fn tell_removed(&self) {
        let error = format!(
            "the broker could not hand out a message of queue {}, which has no limit of deliveries that would set it apart: it \
             was removed, and what it said is not known; set the policies (`hookfleet topology apply`) and see the broker's log",
            self.queue
        );
        tracing::error!(queue = %self.queue, error, "dead-lettered: the broker cannot hand it out");
        let now = now_ms();
        let headers = Message::default().with("removed-ms", i64::try_from(now).unwrap_or(i64::MAX)).headers;
        let client = Client { headers, ..Client::default() }; // each is a letter of its own
        let malformed = Malformed::new(Class::Unreadable, error);
        let letter = Letter::of_message(&malformed, client, &[], self.queue.name(), now);
        let mut record = Record::Letter(Box::new(letter)).message();
        record.properties.timestamp = Some(now / 1000);
        let outgoing = Outgoing::to_dead(record);
        while let Err(error) = self.publisher.publish(&outgoing).await {
            tracing::debug!(%error, "the letter of a removed message is not in the log yet, trying again");
            sleep(AGAIN_AFTER).await;
        }
    }
}
