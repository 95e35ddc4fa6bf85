//! RabbitMQ 3.10 and newer, through lapin.
//!
//! Two connections, because a broker that blocks publishers stops reading the whole connection, acks included. (Where
//! requests are answered the one that consumes publishes too; but then who asks is blocked as well.) Each has its own
//! supervisor; recovery by the library stays off, since it hides losses from its users.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lapin::Connection;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::patience::Patience;
use super::{Broker, Delivery, Health, PublishError, Receipt, Wanted};
use crate::amqp::connection::{self, ConnectError};
use crate::amqp::declare::declare;
use crate::amqp::size::Limit;
use crate::amqp::supervised::Supervisor;
use crate::amqp::topology::{Names, Topology};
use crate::config::BrokerServer;
use crate::domain::message::{Destination, Message, Outgoing, Queue};
use apart::{Apart, HandedOn};
use asker::Asker;
use consumer::{Command, Consuming};
use publisher::Publisher;
use seeking::Seeking;
use status::{Part, Status};

mod acks;
mod apart;
mod asker;
mod consumer;
mod excuse;
mod publisher;
mod replies;
mod search;
mod seeking;
mod status;
mod window;

/// How long a process that starts waits for a broker that does not answer at all.
const STARTUP_PATIENCE: Duration = Duration::from_secs(15);
/// Time for the consuming half to stop, and to close.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of an answer that may have ended a connection, and what is between them: longer than it takes to see that a channel
/// has ended.
const REPLY_TRIES: u32 = 3;
const REPLY_AGAIN_AFTER: Duration = Duration::from_millis(600);

/// A broker reached over AMQP.
pub struct AmqpBroker {
    dial: Arc<Dial>,
    publisher: Arc<Publisher>,
    asker: Asker,
    status: Arc<Status>,
    stop: CancellationToken,
    wanted: watch::Sender<Vec<Wanted>>,
    commands: mpsc::UnboundedSender<Command>,
    deliveries: Mutex<mpsc::UnboundedReceiver<Delivery>>,
    epoch: Arc<AtomicU64>,
    handed_on: HandedOn,
    limit: Arc<Limit>,
    /// Held by the one answer that is sent again.
    alone: Mutex<()>,
}

/// What was said of queues that differ without harm: once a process is enough, however many connections find it.
static SAID: Mutex<Vec<String>> = Mutex::const_new(Vec::new());

/// Where and what to connect to.
struct Dial {
    server: BrokerServer,
    names: Names,
    topology: Topology,
    /// Queues that are left to those who take them message by message.
    apart: Apart,
}

/// The purpose of the connection that publishes.
const PUBLISH: &str = "publish";

/// What a connection is called that operators see in the broker.
fn name(purpose: &str) -> String {
    format!("hookfleet {purpose}")
}

impl Dial {
    fn new(server: &BrokerServer, namespace: &str) -> Self {
        let shown = server.urls.first().map(|url| connection::shown(url.expose())).unwrap_or_default();
        Self {
            server: server.clone(),
            names: Names::new(namespace),
            topology: Topology::new(namespace),
            apart: apart::apart(&shown, namespace),
        }
    }

    /// A connection on which everything is declared.
    async fn connect(&self, purpose: &str) -> Result<Connection, String> {
        let opened = connection::connect(&self.server, &name(purpose)).await;
        let connection = opened.map_err(|error| error.to_string())?;
        self.declare(&connection).await?;
        Ok(connection)
    }

    async fn declare(&self, connection: &Connection) -> Result<(), String> {
        let found = declare(connection, &self.topology).await?;
        let mut said = SAID.lock().await;
        for difference in found {
            if !said.contains(&difference) {
                tracing::warn!(difference, "a queue differs from what this version declares");
                said.push(difference);
            }
        }
        Ok(())
    }
}

impl AmqpBroker {
    /// Connects, declares the topology and starts the supervisors. Once this has returned, every loss heals by itself.
    ///
    /// # Errors
    /// At once if trying again cannot help (user, vhost, incompatible queue), after some seconds if nothing answers.
    pub async fn connect(server: &BrokerServer, namespace: &str) -> Result<Self, ConnectError> {
        Self::connect_within(server, namespace, &Patience::of(STARTUP_PATIENCE)).await
    }

    /// The same, with this patience for a broker that is away.
    ///
    /// # Errors
    /// At once if trying again cannot help, else when the patience is at its end.
    pub async fn connect_within(
        server: &BrokerServer,
        namespace: &str,
        patience: &Patience,
    ) -> Result<Self, ConnectError> {
        let dial = Arc::new(Dial::new(server, namespace));
        let first = first_connection(&dial, patience).await?;
        dial.declare(&first).await.map_err(ConnectError::Settings)?;

        let (status, stop) = (Arc::new(Status::new()), CancellationToken::new());
        // From anywhere: a receipt of another process or broker is void here too.
        let epoch = Arc::new(AtomicU64::new(fastrand::u64(..u64::MAX / 2)));
        let limit = Arc::<Limit>::default();
        let supervisor = |part: Part| Supervisor { name: part.name(), report: status.report(part), stop: stop.clone() };
        let publisher = Publisher::start(supervisor(Part::Publish), first, Arc::clone(&dial), Arc::clone(&limit));
        let (publisher, handed_on) = (Arc::new(publisher), HandedOn::default());
        let asker = Asker::new(Arc::clone(&dial), Arc::clone(&limit), stop.clone());
        let (wanted, wanted_now) = watch::channel(Vec::new());
        let (commands, commanded) = mpsc::unbounded_channel();
        let (sender, deliveries) = mpsc::unbounded_channel();
        let consuming = Consuming {
            apart: dial.apart.queues.subscribe(),
            seeking: Seeking {
                publisher: Arc::clone(&publisher),
                handed_on: handed_on.clone(),
                status: Arc::clone(&status),
                stop: stop.clone(),
                is_due: Arc::default(),
                seen: None,
            },
            dial: Arc::clone(&dial),
            wanted: wanted_now,
            commands: commanded,
            deliveries: sender,
            epoch: Arc::clone(&epoch),
            limit: Arc::clone(&limit),
            windows: BTreeMap::new(),
            closing: None,
        };
        tokio::spawn(consuming.serve(supervisor(Part::Consume)));
        let deliveries = Mutex::new(deliveries);
        Ok(Self {
            dial,
            publisher,
            asker,
            status,
            stop,
            wanted,
            commands,
            deliveries,
            epoch,
            handed_on,
            limit,
            alone: Mutex::default(),
        })
    }
}

/// The one that will publish, so that it is there when the first message is.
async fn first_connection(dial: &Dial, patience: &Patience) -> Result<Connection, ConnectError> {
    const WHAT: &str = "the broker";
    let mut tries = 0;
    loop {
        match connection::connect(&dial.server, &name(PUBLISH)).await {
            Ok(connection) => {
                patience.is_there(WHAT);
                return Ok(connection);
            }
            Err(ConnectError::Away(reason)) if patience.goes_on(WHAT, &reason) => {
                sleep(connection::backoff(tries, fastrand::f64())).await;
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    fn want(&self, queues: Vec<Wanted>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != queues;
            *wanted = queues;
            changed
        });
    }

    async fn receive(&self) -> Option<Delivery> {
        let mut deliveries = self.deliveries.lock().await;
        loop {
            let delivery = deliveries.recv().await?;
            // What came by an earlier connection comes again by itself.
            let Receipt { epoch, .. } = delivery.receipt;
            if epoch == self.epoch.load(Ordering::Relaxed) || self.handed_on.contains(epoch) {
                return Some(delivery);
            }
        }
    }

    async fn drain(&self) -> Vec<Delivery> {
        self.want(Vec::new());
        let (answer, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop(answer)).is_ok() {
            let _ = timeout(FAREWELL_TIMEOUT, stopped).await;
        }
        let (mut deliveries, epoch) = (self.deliveries.lock().await, self.epoch.load(Ordering::Relaxed));
        let mut arrived = Vec::new();
        while let Ok(delivery) = deliveries.try_recv() {
            arrived.push(delivery);
        }
        // The others come again by themselves.
        arrived.retain(|it| it.receipt.epoch == epoch || self.handed_on.contains(it.receipt.epoch));
        arrived
    }

    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        self.publisher.publish(&outgoing).await
    }

    async fn ask(&self, request: &Message, within: Duration) -> Result<Option<Message>, PublishError> {
        self.asker.ask(request, within).await
    }

    /// The first time by the channel of the request. If it comes again, that may be because its answer has ended the
    /// connection (RabbitMQ closes one where a `reply_to` cannot be decoded, or its user may not write there): then it goes one at
    /// a time, by the other connection, and if it ends that too, and again, it is given up.
    async fn reply(&self, delivery: &Delivery, reply: Outgoing, until: Instant) -> Result<(), PublishError> {
        if let Destination::Reply(queue) = &reply.to
            && self.dial.names.is_ours(queue)
        {
            return Err(PublishError::Invalid(format!("queue {queue} is the fleet's own: no answer goes there")));
        }
        if delivery.deliveries == 0 {
            self.limit.check(&reply.message).map_err(PublishError::TooLarge)?;
            let _ = self.commands.send(Command::Reply(delivery.receipt, Box::new(reply)));
            return Ok(());
        }
        let again = async {
            let _alone = self.alone.lock().await;
            let mut tries = 0;
            loop {
                self.publisher.ready().await;
                tries += 1;
                match self.publisher.publish(&reply).await {
                    Err(error) if !error.is_permanent() && tries < REPLY_TRIES => {}
                    ended => break ended,
                }
                sleep(REPLY_AGAIN_AFTER).await;
            }
        };
        timeout_at(until, again).await.unwrap_or(Err(PublishError::Unconfirmed))
    }

    fn ack(&self, receipt: Receipt) {
        if !self.handed_on.ack(receipt) {
            let _ = self.commands.send(Command::Ack(receipt));
        }
    }

    async fn refuses_another(&self, queue: Queue) -> bool {
        excuse::refuses_another(&self.dial, queue).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.status.subscribe()
    }

    async fn close(&self) {
        let (answer, closed) = oneshot::channel();
        if self.commands.send(Command::Close(answer)).is_ok() {
            let _ = timeout(FAREWELL_TIMEOUT, closed).await;
        }
        self.stop.cancel();
        self.asker.close().await;
    }
}
