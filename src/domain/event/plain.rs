//! Plain JSON: messages of publishers that know nothing of CloudEvents. Properties of the message make it an event.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Malformed, Reading, malformed, unreadable};
use crate::domain::failure::Class;
use crate::domain::message::{Message, Properties};

/// Header in which RabbitMQ hands over the message-id of an AMQP 1.0 message that has no form in AMQP 0.9.1.
pub(super) const AMQP_1_0_ID: &str = "x-message-id";

/// Where the type of a message comes from that has no property `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeSource {
    /// The key by which it was published.
    RoutingKey,
    /// The name of the task, in messages of Celery. Their `id` is the event's, if there is no `message_id`.
    Celery,
    /// The pattern, in messages of NestJS. Their `id`, if they have one, is the event's, if there is no `message_id`.
    NestJs,
}

impl TypeSource {
    pub const ALL: [(&'static str, Self); 3] =
        [("routing_key", Self::RoutingKey), ("celery", Self::Celery), ("nestjs", Self::NestJs)];
}

/// Sources of types, in the order in which they are tried. None: a message without a type is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TypeSources([Option<TypeSource>; TypeSource::ALL.len()]);

impl TypeSources {
    /// Each source counts once, at its first place.
    #[must_use]
    pub fn new(sources: &[TypeSource]) -> Self {
        let mut all = [None; TypeSource::ALL.len()];
        for source in sources {
            if let Some(place) = all.iter().position(|taken| taken.is_none_or(|taken| taken == *source)) {
                all[place] = Some(*source);
            }
        }
        Self(all)
    }

    fn in_order(self) -> impl Iterator<Item = TypeSource> {
        self.0.into_iter().flatten()
    }
}

/// What plain JSON is as an event.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) kind: String,
    /// The body, as it is.
    pub(super) data: &'a RawValue,
}

/// What is found of an event under the names of one library.
struct Named {
    kind: String,
    id: Option<String>,
}

impl<'a> Plain<'a> {
    pub(super) fn read(message: &'a Message, reading: &Reading) -> Result<Self, Malformed> {
        let data: &RawValue = serde_json::from_slice(&message.body).map_err(|error| unreadable(&error))?;
        let properties = &message.properties;
        let Named { kind, id } = match given(properties.kind.as_deref()) {
            Some(kind) => Named { kind, id: None },
            None => named(message, reading.missing_type).ok_or_else(|| without_type(message))?,
        };
        let id = given(properties.message_id.as_deref()).or_else(|| given(message.text(AMQP_1_0_ID))).or(id);
        let id = match id {
            Some(id) => id,
            None if reading.digest_missing_id => digest_id(message),
            None => {
                return Err(malformed(Class::Unidentified, "expected the message property `message_id`, found none"));
            }
        };
        let source = format!("/amqp/{}/{kind}", sender(message));
        Ok(Self { id, source, kind, data })
    }
}

/// The program or the user that a message names as its sender.
pub(super) fn sender(message: &Message) -> &str {
    let Properties { app_id, user_id, .. } = &message.properties;
    app_id.as_deref().map(without_version).or(user_id.as_deref()).unwrap_or("anonymous")
}

pub(super) fn given(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn named(message: &Message, sources: TypeSources) -> Option<Named> {
    sources.in_order().find_map(|source| match source {
        TypeSource::RoutingKey => Some(Named { kind: given(message.routing_key.as_deref())?, id: None }),
        TypeSource::Celery => celery(message),
        TypeSource::NestJs => nest(&message.body),
    })
}

/// Celery's message protocol 2: both stand in headers.
fn celery(message: &Message) -> Option<Named> {
    Some(Named { kind: given(message.text("task"))?, id: Some(given(message.text("id"))?) })
}

/// NestJS' packets: `{"pattern": "order_paid", "data": …}`, of requests with an `id`.
fn nest(body: &[u8]) -> Option<Named> {
    #[derive(Deserialize)]
    struct Packet<'a> {
        pattern: String,
        #[serde(rename = "data", borrow)]
        _data: &'a RawValue,
        id: Option<String>,
    }
    let Packet { pattern, id, .. } = serde_json::from_slice(body).ok()?;
    Some(Named { kind: given(Some(&pattern))?, id: given(id.as_deref()) })
}

fn without_type(message: &Message) -> Malformed {
    let help = match message.routing_key.as_deref() {
        None | Some("") => String::new(),
        Some(key) => {
            let key = crate::domain::escape::quoted(key);
            format!("; with the setting `events.missing_type: routing_key` its type is {key}")
        }
    };
    let expected = "expected CloudEvents JSON, or plain JSON with the message property `type`; found neither";
    malformed(Class::Invalid, format!("{expected}{help}"))
}

/// `message_id` for those who send none: equal bodies with the same timestamp property (seconds) are one event.
pub(super) fn digest_id(message: &Message) -> String {
    let mut hash = Sha256::new();
    hash.update(message.properties.timestamp.unwrap_or_default().to_be_bytes());
    hash.update(&message.body);
    hex::encode(&hash.finalize()[..16])
}

/// The name of a program without its version: `shop-1.2.3` is `shop`. An upgrade would else make another source of it.
///
/// A version is two or more numbers with dots, after a `v` or not, and what stands behind them (`rc1`, `+build`), at the
/// end, behind one of `-_/@` or a space.
fn without_version(app: &str) -> &str {
    let is_version = |text: &str| {
        let numbers = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut parts = numbers.splitn(3, '.');
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let begins_with_digit = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
        parts.next().is_some_and(is_number) && parts.next().is_some_and(begins_with_digit)
    };
    let places = app.char_indices().filter(|(_, c)| matches!(c, '-' | '_' | '/' | '@' | ' '));
    let end = places.map(|(at, _)| at).find(|at| *at > 0 && is_version(&app[at + 1..]));
    end.map_or(app, |end| app[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &Message, sources: &[TypeSource], expected: &str) {
        let reading = Reading { missing_type: TypeSources::new(sources), ..Reading::default() };
        let found = match Plain::read(message, &reading) {
            Ok(Plain { id, source, kind, data }) => format!("{source} {id} {kind} {data}"),
            Err(Malformed { class, error }) => format!("{class:?}: {error}"),
        };
        assert_eq!(found, expected, "{message:?} {sources:?}");
    }

    fn message(body: &str, id: Option<&str>, routing_key: Option<&str>) -> Message {
        let properties = Properties { message_id: id.map(str::to_owned), ..Properties::default() };
        let routing_key = routing_key.map(str::to_owned);
        Message { body: body.to_owned().into(), properties, routing_key, ..Message::default() }
    }

    #[test]
    fn a_missing_type_is_taken_from_where_the_settings_say() {
        let refused =
            "Invalid: expected CloudEvents JSON, or plain JSON with the message property `type`; found neither";
        let plain = message("{}", Some("7"), Some("order.paid"));
        let help = "; with the setting `events.missing_type: routing_key` its type is \"order.paid\"";
        check(&plain, &[], &format!("{refused}{help}"));
        check(&plain, &[TypeSource::Celery, TypeSource::NestJs], &format!("{refused}{help}"));
        check(&plain, &[TypeSource::RoutingKey], "/amqp/anonymous/order.paid 7 order.paid {}");
        check(&message("{}", Some("7"), Some("")), &[TypeSource::RoutingKey], refused);
        check(&message("{}", Some("7"), None), &[TypeSource::RoutingKey], refused);
        let missing_id = "Unidentified: expected the message property `message_id`, found none";
        check(&message("{}", None, Some("a")), &[TypeSource::RoutingKey], missing_id);
        let mut typed = plain;
        typed.properties.kind = Some("own".into());
        check(&typed, &[TypeSource::RoutingKey], "/amqp/anonymous/own 7 own {}");
    }

    #[test]
    fn libraries_have_names_of_their_own() {
        let task = "[[17], {}, {\"callbacks\": null}]";
        let celery = message(task, None, Some("celery")).with("task", "shop.paid").with("id", "c-1");
        let expected = format!("/amqp/anonymous/shop.paid c-1 shop.paid {task}");
        check(&celery, &[TypeSource::Celery, TypeSource::RoutingKey], &expected);
        check(
            &celery,
            &[TypeSource::RoutingKey],
            "Unidentified: expected the message property `message_id`, found none",
        );
        let nest = |body: &str| message(body, None, Some("orders"));
        let event = nest(r#"{"pattern":"order_paid","data":{"n":1}}"#);
        check(&event, &[TypeSource::NestJs], "Unidentified: expected the message property `message_id`, found none");
        let request = r#"{"pattern":"order_paid","data":1,"id":"n-1"}"#;
        check(&nest(request), &[TypeSource::NestJs], &format!("/amqp/anonymous/order_paid n-1 order_paid {request}"));
        let other = r#"{"pattern":"*.rs"}"#;
        let other = Message { properties: message("", Some("7"), None).properties, ..nest(other) };
        let both = [TypeSource::NestJs, TypeSource::RoutingKey];
        check(&other, &both, r#"/amqp/anonymous/orders 7 orders {"pattern":"*.rs"}"#);
    }

    #[test]
    fn an_id_of_amqp_1_0_counts() {
        let message = message("1", None, Some("a")).with("x-message-id", "b-1");
        check(&message, &[TypeSource::RoutingKey], "/amqp/anonymous/a b-1 a 1");
    }

    #[test]
    fn versions_are_no_part_of_a_source() {
        for (app, expected) in [
            ("faststream-0.7.8", "faststream"),
            ("faststream-0.8.0rc1", "faststream"),
            ("shop/1.2.3", "shop"),
            ("shop v2.0", "shop"),
            ("shop@1.2.3-beta.1+5", "shop"),
            ("my-shop_1.2", "my-shop"),
            ("shop", "shop"),
            ("shop-2", "shop-2"),
            ("1.2.3", "1.2.3"),
            ("shop-1.2.3-eu", "shop"),
            ("shop.v1", "shop.v1"),
            ("team-7/shop-1.0", "team-7/shop"),
            ("shop-1.x", "shop-1.x"),
        ] {
            assert_eq!(without_version(app), expected, "{app}");
        }
    }
}
