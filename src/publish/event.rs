//! A valid event that is ready to be published.

use std::time::Duration;

use crate::domain::event::{self, CLOUDEVENTS_JSON};
use crate::domain::event_type::{EventTypes, Misfit};
use crate::domain::message::{Destination, Message, Outgoing, Properties};
use crate::domain::trace::TraceContext;

/// A valid event that is ready to go out. Publishing one value again is always safe: it keeps its id.
///
/// ```
/// use hookfleet::Event;
///
/// let event = Event::builder("order.paid")
///     .source("/shop")
///     .id("order-17-paid") // what happened: the same again is the same event
///     .subject("order-17")
///     .data(&[17])
///     .build()?;
/// assert_eq!((event.source(), event.id(), event.kind()), ("/shop", "order-17-paid", "order.paid"));
/// # Ok::<(), hookfleet::InvalidEvent>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event(pub(super) event::Event);

/// Why an event cannot be built: what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidEvent(pub(super) String);

impl Event {
    /// The CloudEvents attribute `id`. With the source it is the event's identity.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The CloudEvents attribute `source`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The CloudEvents attribute `type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// The whole event in CloudEvents' structured JSON.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.0.body
    }

    /// How it differs from what its type declares, if it does.
    #[doc(hidden)]
    #[must_use]
    pub fn misfit(&self, types: &EventTypes) -> Option<Misfit> {
        types.misfit(&self.0)
    }

    /// As workers read it.
    #[doc(hidden)]
    #[must_use]
    pub const fn decoded(&self) -> &event::Event {
        &self.0
    }

    /// As a message for the events exchange.
    #[doc(hidden)]
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        let event = &self.0;
        let properties = Properties {
            content_type: Some(CLOUDEVENTS_JSON.to_owned()),
            message_id: Some(event.id.clone()).filter(|id| id.len() <= 255),
            kind: Some(event.kind.clone()),
            ..Properties::default()
        };
        let message = Message { body: event.body.clone(), properties, ..Message::default() };
        let message = TraceContext::onto(event.trace.as_ref(), message);
        Outgoing { to: Destination::Events, delay: Duration::ZERO, message }
    }
}
