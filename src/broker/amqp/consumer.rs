//! Consuming with cumulative acks, over a connection of its own that comes back by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::{Delivery, Receipt, Wanted};
use super::Dial;
use super::acks::Acks;
use super::apart::Apart;
use super::replies::Sending;
use super::seeking::Seeking;
use super::window::Window;
use crate::amqp::connection::{call, is_internal_error};
use crate::amqp::size::Limit;
use crate::amqp::supervised::{Session, SessionEnd, Supervisor};
use crate::amqp::topology::Names;
use crate::amqp::{arrival, convert};
use crate::domain::message::{Lane, Outgoing, Queue};

/// Finished deliveries wait this long for their neighbours.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// Longest wait for answers that are not written yet, when a session is closed.
const REPLIES_TIMEOUT: Duration = Duration::from_secs(2);

/// What the rest of the process asks of the consuming half.
pub(super) enum Command {
    Ack(Receipt),
    /// Send this to who has sent the delivery.
    Reply(Receipt, Box<Outgoing>),
    /// Consume no more, and answer once all that had come by then is handed on.
    Stop(oneshot::Sender<()>),
    /// Write all acks asked for so far, close, answer.
    Close(oneshot::Sender<()>),
}

/// Consumes the wanted queues, session after session.
pub(super) struct Consuming {
    pub(super) dial: Arc<Dial>,
    pub(super) wanted: watch::Receiver<Vec<Wanted>>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) deliveries: mpsc::UnboundedSender<Delivery>,
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) limit: Arc<Limit>,
    pub(super) windows: BTreeMap<Queue, Window>,
    /// Queues that are left to those who take them message by message.
    pub(super) apart: watch::Receiver<BTreeSet<Queue>>,
    pub(super) seeking: Seeking,
    /// Waits for the end, which it has asked for.
    pub(super) closing: Option<oneshot::Sender<()>>,
}

/// The channels of one connection, one a queue.
pub(super) struct Channels {
    connection: Arc<Connection>,
    epoch: u64,
    links: BTreeMap<Queue, Link>,
    deliveries: mpsc::UnboundedSender<Delivery>,
    notices: mpsc::UnboundedSender<Notice>,
    /// What is known of the sizes of a queue's deliveries; kept over sessions.
    windows: BTreeMap<Queue, Window>,
    /// Set when the broker ends the session at a delivery.
    is_refused: Arc<AtomicBool>,
}

/// What a consumer has to say.
pub(super) enum Notice {
    /// It ended, and why.
    Lost(String),
    /// Its prefetch no longer suits the sizes of its deliveries.
    Outgrown(Queue, Window),
}

struct Link {
    channel: Channel,
    acks: Acks,
    replies: Sending,
    consuming: Option<Active>,
}

/// A running consumer.
struct Active {
    tag: lapin::types::ShortString,
    prefetch: u16,
    /// Set before the consumer is cancelled by us, so that its end is no loss.
    cancelled: Arc<AtomicBool>,
    /// Ends once everything that came is handed on.
    handing_on: JoinHandle<()>,
}

impl Consuming {
    /// Runs from when something is wanted. A process that only publishes needs no second connection.
    pub(super) async fn serve(mut self, supervisor: Supervisor) {
        (supervisor.report)(None);
        loop {
            let command = tokio::select! {
                Ok(_) = self.wanted.wait_for(|wanted| !wanted.is_empty()) => break,
                command = self.commands.recv() => command,
            };
            if let Some(Command::Ack(_) | Command::Reply(..) | Command::Stop(_)) = command {
                continue; // nothing has come from here
            }
            supervisor.stop.cancel();
            if let Some(Command::Close(answer)) = command {
                let _ = answer.send(());
            }
            return;
        }
        (supervisor.report)(Some("connecting".to_owned()));
        supervisor.run(&mut self).await;
        supervisor.stop.cancel();
        if let Some(answer) = self.closing {
            let _ = answer.send(());
        }
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Close(answer) = command {
                let _ = answer.send(());
            }
        }
    }

    /// What is to be consumed now.
    fn due(&self) -> Vec<Wanted> {
        let apart = self.apart.borrow();
        self.wanted.borrow().iter().filter(|wanted| !apart.contains(&wanted.queue)).copied().collect()
    }
}

#[async_trait]
impl Session for Consuming {
    type Work = (Channels, mpsc::UnboundedReceiver<Notice>);

    async fn connect(&mut self) -> Result<Connection, String> {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let wanted = self.wanted.borrow().clone();
        self.seeking.begin(&self.dial, &wanted, &self.deliveries);
        self.dial.connect("consume").await
    }

    async fn begin(&mut self, connection: &Arc<Connection>) -> Result<(Channel, Self::Work), String> {
        let watchdog = call("open a channel", connection.create_channel()).await?;
        self.wanted.mark_changed(); // consume what is wanted now
        let (notices, heard) = mpsc::unbounded_channel();
        let channels = Channels {
            connection: Arc::clone(connection),
            epoch: self.epoch.load(Ordering::Relaxed),
            links: BTreeMap::new(),
            deliveries: self.deliveries.clone(),
            notices,
            windows: self.windows.clone(),
            is_refused: Arc::clone(&self.seeking.is_due),
        };
        Ok((watchdog, (channels, heard)))
    }

    async fn run(&mut self, (mut channels, mut heard): Self::Work) -> SessionEnd {
        let mut flush_at: Option<Instant> = None;
        let mut commands = Vec::with_capacity(64);
        loop {
            let outcome = tokio::select! {
                Some(notice) = heard.recv() => match notice {
                    Notice::Lost(reason) => {
                        self.limit.learn(&reason); // of an answer, perhaps
                        Err(reason)
                    }
                    Notice::Outgrown(queue, window) => {
                        self.windows.insert(queue, window);
                        channels.windows.insert(queue, window);
                        channels.follow(&self.dial, &self.due()).await
                    }
                },
                count = self.commands.recv_many(&mut commands, 64) => {
                    if count == 0 {
                        return SessionEnd::Closed; // the broker was dropped
                    }
                    Ok(())
                }
                changed = self.wanted.changed() => match changed {
                    Ok(()) => channels.follow(&self.dial, &self.due()).await,
                    Err(_) => return SessionEnd::Closed, // the broker was dropped
                },
                Ok(()) = self.apart.changed() => channels.follow(&self.dial, &self.due()).await,
                () = moment(flush_at) => { flush_at = None; channels.flush(false).await }
                () = channels.written() => Ok(()),
            };
            if let Err(reason) = outcome {
                return SessionEnd::Lost(reason);
            }
            for command in commands.drain(..) {
                match command {
                    Command::Ack(receipt) => channels.finish(receipt),
                    Command::Reply(receipt, reply) => channels.reply(&self.dial.names, receipt, *reply),
                    Command::Stop(answer) => match channels.follow(&self.dial, &[]).await {
                        Ok(()) => drop(answer.send(())),
                        Err(reason) => return SessionEnd::Lost(reason),
                    },
                    Command::Close(answer) => {
                        channels.finish_all().await;
                        self.closing = Some(answer);
                        return SessionEnd::Closed;
                    }
                }
            }
            if let Err(reason) = channels.flush(true).await {
                return SessionEnd::Lost(reason);
            }
            if flush_at.is_none() && channels.links.values().any(|link| link.acks.is_dirty()) {
                flush_at = Some(Instant::now() + FLUSH_AFTER);
            }
        }
    }

    /// The loss of a session at a delivery is known from whatever it ended with, before another connection of this process is
    /// handed what comes again.
    fn ended(&mut self, end: &SessionEnd) {
        if let SessionEnd::Lost(reason) = end
            && is_internal_error(reason)
        {
            self.dial.apart.refused();
            self.seeking.is_due.store(true, Ordering::Relaxed);
        }
    }
}

impl Channels {
    /// Writes the acks asked for so far.
    async fn finish_all(&mut self) {
        for link in self.links.values_mut() {
            link.acks.close_window();
            let _ = timeout(REPLIES_TIMEOUT, link.replies.gone()).await; // else the acks behind them are not written either
        }
        if let Err(reason) = self.flush(false).await {
            tracing::debug!(reason, "the last acks were not written; their messages come again");
        }
    }

    /// The link by which a delivery has come, unless it was of an earlier session.
    fn link(&mut self, receipt: Receipt) -> Option<&mut Link> {
        self.links.get_mut(&receipt.queue).filter(|_| receipt.epoch == self.epoch)
    }

    fn finish(&mut self, receipt: Receipt) {
        if let Some(link) = self.link(receipt) {
            link.acks.finish(receipt.tag);
        }
    }

    fn reply(&mut self, names: &Names, receipt: Receipt, reply: Outgoing) {
        if let Some(link) = self.link(receipt) {
            link.replies.send(&link.channel, names, reply);
        }
    }

    /// Returns once the answers are written that hold up acks which press; never if there are none.
    async fn written(&mut self) {
        match self.links.values_mut().find(|link| link.acks.is_pressing() && !link.replies.is_empty()) {
            Some(link) => link.replies.gone().await,
            None => std::future::pending().await,
        }
    }

    /// Writes acks: all that wait, or only where waiting would hold the queue up.
    async fn flush(&mut self, pressing_only: bool) -> Result<(), String> {
        for link in self.links.values_mut() {
            if (pressing_only && !link.acks.is_pressing()) || !link.replies.is_gone() {
                continue;
            }
            for ack in link.acks.flush() {
                call("ack", link.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple })).await?;
            }
        }
        Ok(())
    }

    /// Starts and stops consumers until exactly the wanted queues are consumed.
    async fn follow(&mut self, dial: &Dial, wanted: &[Wanted]) -> Result<(), String> {
        for (queue, link) in &mut self.links {
            let prefetch =
                wanted.iter().find(|wanted| wanted.queue == *queue).map(|wanted| fitting(&self.windows, wanted));
            if let Some(active) = link.consuming.take_if(|active| Some(active.prefetch) != prefetch) {
                active.cancelled.store(true, Ordering::Relaxed);
                let cancelled = link.channel.basic_cancel(active.tag, BasicCancelOptions::default());
                call("cancel a consumer", cancelled).await?;
                let _ = active.handing_on.await;
            }
        }
        for wanted in wanted {
            if self.links.get(&wanted.queue).is_none_or(|link| link.consuming.is_none()) {
                self.consume(dial, *wanted).await?;
            }
        }
        Ok(())
    }

    async fn consume(&mut self, dial: &Dial, wanted: Wanted) -> Result<(), String> {
        let Wanted { queue, .. } = wanted;
        let prefetch = fitting(&self.windows, &wanted);
        let link = match self.links.entry(queue) {
            std::collections::btree_map::Entry::Occupied(link) => link.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let channel = call("open a channel", self.connection.create_channel()).await?;
                place.insert(Link { channel, acks: Acks::new(prefetch), replies: Sending::default(), consuming: None })
            }
        };
        link.acks.resize(prefetch);
        call("set the prefetch", link.channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let name = dial.names.queue(queue);
        let opened = link.channel.basic_consume(
            name.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = call(&format!("consume from {name}"), opened).await?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let (tag, was_cancelled) = (consumer.tag(), Arc::clone(&cancelled));
        let (deliveries, notices, epoch) = (self.deliveries.clone(), self.notices.clone(), self.epoch);
        let mut window = self.windows.get(&queue).copied().unwrap_or_default();
        let (is_refused, apart) = (Arc::clone(&self.is_refused), dial.apart.clone());
        let handing_on = tokio::spawn(async move {
            let mut may_ask = true;
            let measure = |bytes: usize| {
                window.delivered(bytes);
                if may_ask && window.has_outgrown(prefetch, &wanted) {
                    may_ask = notices.send(Notice::Outgrown(queue, window)).is_err();
                }
            };
            let reason = forward(consumer, queue, epoch, &deliveries, &apart, measure).await;
            if is_internal_error(&reason) {
                apart.refused();
                is_refused.store(true, Ordering::Relaxed);
            }
            if !was_cancelled.load(Ordering::Relaxed) {
                let _ = notices.send(Notice::Lost(format!("the consumer of {name} ended: {reason}")));
            }
        });
        link.consuming = Some(Active { tag, prefetch, cancelled, handing_on });
        Ok(())
    }
}

/// Waits for it; without one, for ever.
async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The prefetch of a queue.
fn fitting(windows: &BTreeMap<Queue, Window>, wanted: &Wanted) -> u16 {
    windows.get(&wanted.queue).copied().unwrap_or_default().fitting(wanted)
}

/// Hands deliveries on until the consumer ends; returns why. What comes again after the broker has ended connections for
/// another message's sake goes back once with its count at zero: it is not what its consumers died of.
async fn forward(
    mut consumer: Consumer,
    queue: Queue,
    epoch: u64,
    deliveries: &mpsc::UnboundedSender<Delivery>,
    apart: &Apart,
    mut measure: impl FnMut(usize),
) -> String {
    while let Some(next) = consumer.next().await {
        let received = match next {
            Ok(received) => received,
            Err(error) => return error.to_string(),
        };
        measure(received.data.len());
        let receipt = Receipt { epoch, queue, tag: received.delivery_tag };
        let counted = convert::deliveries(&received.properties, received.redelivered, queue != Queue::Gates);
        let (message, came_before) = arrival::delivered(queue, received);
        let count = counted.max(u32::from(came_before));
        let counts = matches!(queue, Queue::Gates | Queue::Lane(Lane::Suspect));
        let hand_back = count > 0 && !counts && apart.was_refused_lately();
        let count = if hand_back { 0 } else { count };
        if deliveries.send(Delivery { queue, message, deliveries: count, hand_back, receipt }).is_err() {
            return "closed".to_owned();
        }
    }
    "it was cancelled by the broker (was the queue deleted?)".to_owned()
}
