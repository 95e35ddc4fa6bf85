//! Publishing: what the library, the command line and the event gateway have in common.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;

use crate::amqp::connection::ConnectError;
use crate::broker::amqp::AmqpBroker;
use crate::broker::{Broker, PublishError};
use crate::config::BrokerServer;
use crate::domain::asking::{self, Answered};
use crate::domain::decision::{Decision, Verdict};
use crate::domain::event::Reading;

mod builder;
mod event;
mod reading;

pub use builder::EventBuilder;
pub use event::{Event, InvalidEvent};
pub use reading::{Fields, Rejected, Request, foreign, prepare, random_id, read, request_bytes_max};

/// The pause before an event is sent again.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// What [`Publisher::decide`] answers where nobody decides in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnUnavailable {
    /// An error.
    #[default]
    Fail,
    /// It may be done.
    Allow,
    /// It may not.
    Deny,
}

impl OnUnavailable {
    /// What holds then.
    pub(crate) fn decision(self, unavailable: Undecided) -> Result<Decision, Undecided> {
        let verdict = match self {
            Self::Fail => return Err(unavailable),
            Self::Allow => Verdict::Allow,
            Self::Deny => Verdict::Deny,
        };
        Ok(Decision { verdict, reason: Some(unavailable.to_string()), ..Decision::default() })
    }
}

/// How a [`Publisher`] works.
///
/// ```no_run
/// use std::time::Duration;
///
/// use hookfleet::{Publisher, PublisherOptions};
///
/// # async fn example() -> Result<(), hookfleet::ConnectError> {
/// let options = PublisherOptions { patience: Duration::from_secs(5), ..PublisherOptions::default() };
/// let publisher = Publisher::connect_with("amqp://127.0.0.1", "hookfleet", options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherOptions {
    /// Unconfirmed events at a time; who publishes more waits.
    pub window: usize,
    /// How long one event may take: the wait for the window, the confirm, and all repeats.
    pub patience: Duration,
    /// Larger events are refused: the workers' `events.body_bytes_max`.
    pub body_bytes_max: usize,
    /// What holds where nobody decides in time.
    pub on_unavailable: OnUnavailable,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        let body_bytes_max = Reading::default().body_bytes_max;
        let on_unavailable = OnUnavailable::default();
        Self { window: 256, patience: Duration::from_secs(30), body_bytes_max, on_unavailable }
    }
}

/// A [`PublishError`] and the event that it is about.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", if self.is_final() { "" } else { "; publish the same event again: it is handled once" })]
pub struct Unpublished {
    /// To be published again as it is.
    pub event: Box<Event>,
    pub error: PublishError,
}

impl Unpublished {
    /// Whether publishing it again is of no use: [`PublishError::is_permanent`].
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.error.is_permanent()
    }
}

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Undecided {
    /// Nobody has answered in time. Ask again about the same event: what is decided by then is answered.
    #[error("no gate has answered within {0:?}: is a worker up?")]
    Unanswered(Duration),
    /// The request did not get through, and nothing is known of it.
    #[error("the gates cannot be asked: {0}")]
    Unavailable(String),
    /// The workers do not take it: it will be the same again.
    #[error("the request was refused: {0}")]
    Refused(String),
}

/// The way of an event to its broker: one try, which ends with the confirm.
#[async_trait]
pub(crate) trait Route: Send + Sync {
    async fn send(&self, event: &Event) -> Result<(), PublishError>;

    /// Asks the gates; `None`: nobody has answered within this time.
    async fn ask(&self, event: &Event, within: Duration) -> Result<Option<Answered>, PublishError>;

    async fn close(&self);
}

#[async_trait]
impl Route for Arc<dyn Broker> {
    async fn send(&self, event: &Event) -> Result<(), PublishError> {
        self.publish(event.outgoing()).await
    }

    async fn ask(&self, event: &Event, within: Duration) -> Result<Option<Answered>, PublishError> {
        let answer = Broker::ask(self.as_ref(), &event.outgoing().message, within).await?;
        Ok(answer.as_ref().map(asking::read))
    }

    async fn close(&self) {
        Broker::close(self.as_ref()).await;
    }
}

/// Publishes events and waits for their confirms. Connects again by itself, for ever. To be shared: all methods take `&self`.
///
/// ```no_run
/// use hookfleet::{Event, Publisher};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = Publisher::connect("amqp://hookfleet:hookfleet@127.0.0.1:5672", "hookfleet").await?;
/// let event = Event::builder("order.paid").source("/shop").id("order-17-paid").data(&[17]).build()?;
/// publisher.publish(&event).await?; // confirmed: safe on the broker's disks
/// publisher.close().await;
/// # Ok(())
/// # }
/// ```
///
/// # What an answer means
///
/// - `Ok`: the broker has the event for good, on a majority of its nodes where it has several. Every hook that wants it
///   runs, or the event becomes a dead letter.
/// - An error: nobody knows. The event may have arrived, and only its confirm been lost. Publish the same [`Event`] again,
///   or another one with the same source and id: it is handled once within `idempotency.window`. Only
///   what [`Unpublished::is_final`] says of is final.
/// - No answer yet: [`Publisher::publish`] repeats for as long as [`PublisherOptions::patience`] lasts, over losses of the
///   connection and restarts of the broker.
pub struct Publisher {
    route: Box<dyn Route>,
    window: Semaphore,
    options: PublisherOptions,
}

impl Publisher {
    /// Connects to RabbitMQ and declares the fleet's exchanges and queues, so that events find their place before the
    /// first worker has started. `url` is `amqp://user:password@host:port/vhost`, `namespace` that of the workers.
    ///
    /// # Errors
    /// At once if trying again cannot help (URL, user, vhost, incompatible queue), after some seconds if nothing answers.
    pub async fn connect(url: &str, namespace: &str) -> Result<Self, ConnectError> {
        Self::connect_with(url, namespace, PublisherOptions::default()).await
    }

    /// [`Publisher::connect`] with other options.
    ///
    /// # Errors
    /// As for [`Publisher::connect`].
    pub async fn connect_with(url: &str, namespace: &str, options: PublisherOptions) -> Result<Self, ConnectError> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "amqp" | "amqps"));
        let url = parsed.ok_or_else(|| ConnectError::Settings("expected a URL such as amqp://host".to_owned()))?;
        let broker: Arc<dyn Broker> = Arc::new(AmqpBroker::connect(&BrokerServer::at(url), namespace).await?);
        Ok(Self::new(broker, options))
    }

    /// Publishes to a broker that is there already.
    #[doc(hidden)]
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, options: PublisherOptions) -> Self {
        Self::over(Box::new(broker), options)
    }

    /// Publishes over another way.
    pub(crate) fn over(route: Box<dyn Route>, options: PublisherOptions) -> Self {
        let window = options.window.clamp(1, Semaphore::MAX_PERMITS);
        Self { route, window: Semaphore::new(window), options: PublisherOptions { window, ..options } }
    }

    /// Publishes one event; returns after the confirm. Waits while the window is full.
    ///
    /// ```no_run
    /// # async fn example(publisher: hookfleet::Publisher, event: hookfleet::Event) {
    /// if let Err(unpublished) = publisher.publish(&event).await {
    ///     if unpublished.is_final() {
    ///         eprintln!("nobody will ever take it: {unpublished}");
    ///     } else {
    ///         // It may be there or not: keep it, and publish the same event again later.
    ///         let later = unpublished.event;
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unpublished`]: patience is over, the event is too large, or the publisher is closed.
    pub async fn publish(&self, event: &Event) -> Result<(), Unpublished> {
        self.confirmed(event).await.map_err(|error| Unpublished { event: Box::new(event.clone()), error })
    }

    /// Publishes a stream of events, a window of them at a time. Answers one by one, in the order of the confirms; an
    /// event that is not published does not stop the others. Nothing is taken from `events` unless the answers are read.
    ///
    /// ```no_run
    /// # async fn example(publisher: hookfleet::Publisher, events: Vec<hookfleet::Event>) {
    /// use futures_util::{StreamExt as _, stream};
    ///
    /// let mut answers = Box::pin(publisher.publish_all(stream::iter(events)));
    /// while let Some(answer) = answers.next().await {
    ///     match answer {
    ///         Ok(event) => println!("{} is confirmed", event.id()),
    ///         Err(unpublished) => println!("{} is not: {unpublished}", unpublished.event.id()),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn publish_all<'a, S>(&'a self, events: S) -> impl Stream<Item = Result<Event, Unpublished>> + 'a
    where
        S: Stream<Item = Event> + 'a,
    {
        let send = move |event: Event| async move { self.publish(&event).await.map(|()| event) };
        events.map(send).buffer_unordered(self.options.window)
    }

    /// Asks the gates about an event, and publishes it with what they decide. Hooks with `mode: gate` that want the event are
    /// asked one after the other; where there are none, it may be done.
    ///
    /// A decision is kept for as long as `idempotency.window`: whoever asks again about an event with the same source and id
    /// is told the same.
    ///
    /// ```no_run
    /// # async fn example(publisher: hookfleet::Publisher) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use hookfleet::{Event, Verdict};
    ///
    /// let event = Event::builder("deploy.requested").source("/ci").id("build-512").data(&["web"]).build()?;
    /// let decision = publisher.decide(&event, Duration::from_secs(5)).await?;
    /// if decision.verdict == Verdict::Deny {
    ///     return Err(decision.reason.unwrap_or_default().into());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Longer than 20 minutes it never waits. [`Undecided`]: the workers refuse the request, or nobody has decided by the deadline and
    /// [`PublisherOptions::on_unavailable`] does not say what holds then. In that case nobody knows whether the event is
    /// published.
    pub async fn decide(&self, event: &Event, deadline: Duration) -> Result<Decision, Undecided> {
        let deadline = deadline.min(asking::TIME_MAX);
        let (bytes, max) = (event.json().len(), self.options.body_bytes_max);
        if bytes > max {
            let error = format!("the event has {bytes} bytes, the limit is {max} (events.body_bytes_max)");
            return Err(Undecided::Refused(error));
        }
        let unavailable = match self.route.ask(event, deadline).await {
            Ok(Some(Answered::Decision(text))) => match serde_json::from_str(&text) {
                Ok(decision) => return Ok(decision),
                Err(error) => Undecided::Unavailable(format!("the answer is no decision ({error})")),
            },
            Ok(Some(Answered::Refused(detail))) => return Err(Undecided::Refused(detail)),
            Ok(None) => Undecided::Unanswered(deadline),
            Err(PublishError::TooLarge(error) | PublishError::Invalid(error)) => return Err(Undecided::Refused(error)),
            Err(error) => Undecided::Unavailable(error.to_string()),
        };
        self.options.on_unavailable.decision(unavailable)
    }

    /// Waits for what is under way, for as long as patience lasts, and closes the connection. What is published later is
    /// refused.
    pub async fn close(&self) {
        let all = u32::try_from(self.options.window).unwrap_or(u32::MAX);
        let until = Instant::now() + self.options.patience;
        let _all = timeout_at(until, self.window.acquire_many(all)).await;
        self.window.close();
        self.route.close().await;
    }

    async fn confirmed(&self, event: &Event) -> Result<(), PublishError> {
        let (bytes, max) = (event.json().len(), self.options.body_bytes_max);
        if bytes > max {
            let error = format!("the event has {bytes} bytes, the limit is {max} (events.body_bytes_max)");
            return Err(PublishError::TooLarge(error));
        }
        let until = Instant::now() + self.options.patience;
        let _permit = match timeout_at(until, self.window.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(PublishError::Away("closed".to_owned())),
            Err(_) => return Err(PublishError::Unconfirmed),
        };
        let mut failed = PublishError::Unconfirmed;
        loop {
            match timeout_at(until, self.route.send(event)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.is_permanent() => return Err(error),
                Ok(Err(error)) => failed = error,
                Err(_) => return Err(failed),
            }
            let again = Instant::now() + REPEAT_AFTER;
            if again >= until {
                return Err(failed);
            }
            sleep_until(again).await;
        }
    }
}

#[cfg(test)]
mod tests;
