//! The message that one attempt of a publish hook sends, ready to go out, or to be shown.

use std::borrow::Cow;
use std::time::Duration;

use super::event::HOPS;
use super::hook::{Hook, PublishAction};
use super::invocation::Invocation;
use super::message::{Destination, Exchange, Message, Outgoing, Properties};
use super::request::Print;
use super::trace::TraceContext;

/// Through how many publish hooks a message goes, one after the other: more of them are a circle.
pub const HOPS_MAX: u32 = 16;
/// Header with the number of the attempt, from 1 on.
const ATTEMPT: &str = "hookfleet-attempt";
/// Who publishes, to consumers: the property `app_id`.
const APP: &str = "hookfleet";
/// Longest short string (AMQP 0-9-1, 4.2.5.3).
pub const SHORT_BYTES_MAX: usize = 255;

/// The message of an action for one invocation. Its `message_id` is the key that the receiver tells repeats by.
///
/// # Errors
/// A template cannot be rendered for it, or gives what AMQP cannot carry; or the event goes round in a circle. No value
/// is shown.
pub fn outgoing(action: &PublishAction, hook: &Hook, invocation: &Invocation, key: &str) -> Result<Outgoing, String> {
    printed(action, invocation, key, &Print::new(action.texts(), hook, invocation, key)?)
}

/// The same for people: values of variables and files are hidden, and those that are not known here named.
///
/// # Errors
/// As for [`outgoing`].
pub fn shown(action: &PublishAction, hook: &Hook, invocation: &Invocation, key: &str) -> Result<Outgoing, String> {
    outgoing(action, hook, invocation, key)?;
    printed(action, invocation, key, &Print::shown(hook, invocation, key)?)
}

fn printed(action: &PublishAction, invocation: &Invocation, key: &str, print: &Print) -> Result<Outgoing, String> {
    let event = &invocation.event;
    if event.hops >= HOPS_MAX {
        return Err(format!("the event has come through {HOPS_MAX} hooks that publish: they go round in a circle"));
    }
    let of = |part: &str, error| format!("the hook's `{part}`: {error}");
    let kind = match &action.kind {
        Some(kind) => print.text(kind).map_err(|error| of("type", error))?,
        None => Cow::Borrowed(event.kind.as_str()),
    };
    let routing_key = match &action.routing_key {
        Some(key) => print.text(key).map_err(|error| of("routing_key", error))?,
        None => kind.clone(),
    };
    for (part, text) in [("type", &kind), ("routing_key", &routing_key)] {
        if text.len() > SHORT_BYTES_MAX {
            return Err(of(part, format!("it has {} bytes, the limit is {SHORT_BYTES_MAX}", text.len())));
        }
    }
    let body = match &action.body {
        Some(body) => print.text(body).map_err(|error| of("body", error))?.into_owned().into(),
        None => event.body.clone(),
    };
    let properties = Properties {
        content_type: Some(action.content_type.clone()),
        message_id: Some(key.to_owned()),
        kind: Some(kind.into_owned()),
        app_id: Some(APP.to_owned()),
        ..Properties::default()
    };
    let mut message = Message { body, properties, ..Message::default() };
    message = TraceContext::onto(event.trace.as_ref(), message);
    for (name, text) in &action.headers {
        let value = print.text(text).map_err(|error| of(&format!("headers.{name}"), error))?;
        message = message.with(name, value.into_owned());
    }
    let message =
        message.with(ATTEMPT, i64::from(invocation.at.attempt)).with(HOPS, i64::from(event.hops.saturating_add(1)));
    let exchange = Exchange { name: action.exchange.clone(), routing_key: routing_key.into_owned() };
    Ok(Outgoing { to: Destination::Exchange(Box::new(exchange)), delay: Duration::ZERO, message })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::event::{CLOUDEVENTS_JSON, Event, Reading};
    use crate::domain::hook::{Action, fixture};
    use crate::domain::id::HookId;
    use crate::domain::message::Header;
    use crate::domain::template::{Form, Piece, Text};
    use crate::domain::trace::TRACEPARENT;

    fn invocation(hops: i64) -> Invocation {
        let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data":{"n":7,"t":"x\"y"}}"#;
        let message = Message { body: body.into(), ..Message::default() }
            .with(HOPS, hops)
            .with(TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let event = Event::decode(&message, &Reading::default()).unwrap();
        Invocation::first(Arc::new(event), HookId::new("h-1").unwrap(), "r1".into())
    }

    fn text(text: &str, form: Form) -> Text {
        Text::new(vec![Piece::Literal(text.to_owned())], form).unwrap()
    }

    fn action() -> PublishAction {
        PublishAction {
            server: None,
            exchange: None,
            routing_key: None,
            kind: None,
            headers: Vec::new(),
            body: None,
            content_type: CLOUDEVENTS_JSON.to_owned(),
            mandatory: true,
        }
    }

    fn publication(action: &PublishAction, hops: i64) -> Result<(String, Message), String> {
        let hook = fixture::hook("h-1");
        let invocation = invocation(hops);
        let key = invocation.idempotency_key();
        outgoing(action, &hook, &invocation, &key).map(|outgoing| match outgoing.to {
            Destination::Exchange(exchange) => (exchange.routing_key, outgoing.message),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_event_as_it_is() {
        let (key, message) = publication(&action(), 0).unwrap();
        assert_eq!((key.as_str(), &message.body), ("a.b", &invocation(0).event.body));
        let properties = &message.properties;
        assert_eq!(properties.message_id.as_deref(), Some(&*invocation(0).idempotency_key()));
        assert_eq!(
            (properties.kind.as_deref(), properties.content_type.as_deref()),
            (Some("a.b"), Some(CLOUDEVENTS_JSON))
        );
        assert_eq!(message.text(TRACEPARENT), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert_eq!((message.number(ATTEMPT), message.number(HOPS)), (Some(1), Some(1)));
        assert_eq!(publication(&action(), 3).unwrap().1.number(HOPS), Some(4));
    }

    #[test]
    fn parts_of_its_own() {
        let action = PublishAction {
            exchange: Some("x".to_owned()),
            routing_key: Some(text("k.{{ event.data.n }}", Form::Plain)),
            kind: Some(text("{{ event.type }}.made", Form::Plain)),
            headers: vec![("tenant".to_owned(), text("t-{{ event.data.n }}", Form::Plain))],
            body: Some(text(r#"{"t":"{{ event.data.t }}"}"#, Form::Json)),
            ..action()
        };
        let (key, message) = publication(&action, 0).unwrap();
        assert_eq!((key.as_str(), message.properties.kind.as_deref()), ("k.7", Some("a.b.made")));
        assert_eq!(message.headers.get("tenant"), Some(&Header::Text("t-7".to_owned())));
        assert_eq!(message.body, r#"{"t":"x\"y"}"#);
        let without = PublishAction { routing_key: None, ..action };
        assert_eq!(publication(&without, 0).unwrap().0, "a.b.made");
    }

    #[test]
    fn what_cannot_be_sent() {
        let check = |action: &PublishAction, hops, expected: &str| {
            assert_eq!(publication(action, hops).unwrap_err(), expected);
        };
        let circle = "the event has come through 16 hooks that publish: they go round in a circle";
        check(&action(), 16, circle);
        check(&action(), i64::MAX, circle);
        assert!(publication(&action(), 15).is_ok() && publication(&action(), i64::MIN).is_ok());
        let value = text("{{ event.data.none }}", Form::Plain);
        let missing = Some(value.clone());
        let fails = "the template fails on line 1: it uses a value that the event does not have";
        check(
            &PublishAction { routing_key: missing.clone(), ..action() },
            0,
            &format!("the hook's `routing_key`: {fails}"),
        );
        check(&PublishAction { kind: missing.clone(), ..action() }, 0, &format!("the hook's `type`: {fails}"));
        check(&PublishAction { body: missing.clone(), ..action() }, 0, &format!("the hook's `body`: {fails}"));
        let headers = vec![("a".to_owned(), value)];
        check(&PublishAction { headers, ..action() }, 0, &format!("the hook's `headers.a`: {fails}"));
        let long = Some(text(&"x".repeat(256), Form::Plain));
        check(
            &PublishAction { routing_key: long, ..action() },
            0,
            "the hook's `routing_key`: it has 256 bytes, the limit is 255",
        );
    }

    #[test]
    fn targets() {
        let target =
            |action: PublishAction| (Action::Publish(action.clone()).target(), Action::Publish(action).identity());
        let (own, first) = target(action());
        assert_eq!(own, "publish:events");
        let (named, second) = target(PublishAction { exchange: Some("events".to_owned()), ..action() });
        assert_eq!(named, own);
        assert_ne!(first, second, "an exchange of that name is another one");
    }
}
