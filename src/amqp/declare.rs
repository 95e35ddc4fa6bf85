//! Making the topology on a broker, and comparing a broker with it.
//!
//! The broker refuses to declare what exists with other arguments, and names the first that differs. Only some are fixed
//! (type, dead-letter route and strategy, overflow, times): who changed another one meant it, and the fleet runs.

use std::collections::BTreeMap;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};

use super::connection::call;
use super::management::BindingFound;
use super::topology::{Argument, Binding, Exchange, Fed, QueueSpec, Topology};

/// Without these as they are, messages would get lost, stuck or out of order; some no declaration of ours has, because
/// they must not be there.
const FIXED: [&str; 14] = [
    "type",
    "durable",
    "auto_delete",
    "exclusive",
    "internal",
    "alternate-exchange",
    "x-queue-type",
    "x-queue-mode",
    "x-expires",
    "x-message-ttl",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
];
/// More arguments than this no queue has.
const ARGUMENTS_MAX: usize = 32;

/// What the broker says of a declaration that differs from what exists.
#[derive(Debug, Clone, PartialEq)]
struct Difference {
    argument: String,
    /// As the broker words them: a value and its type, or none.
    received: String,
    current: String,
}

impl Difference {
    /// Reads it from a 406. RabbitMQ has worded it alike since 3.8 at least.
    fn read(error: &str) -> Option<Self> {
        let (_, rest) = error.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once("' for ")?;
        let (received, current) = rest.split_once(": received ")?.1.rsplit_once(" but current is ")?;
        // What follows is the library's.
        let current = match current.split_once("' of type '") {
            Some((value, kind)) => format!("{value}' of type '{}'", kind.split('\'').next()?),
            None if current.starts_with("none") => "none".to_owned(),
            None => format!("'{}'", current.strip_prefix('\'')?.split('\'').next()?),
        };
        Some(Self { argument: argument.to_owned(), received: received.to_owned(), current })
    }

    fn is_fixed(&self) -> bool {
        FIXED.contains(&self.argument.as_str())
    }

    /// The value that exists: `Ok(None)` if there is none.
    ///
    /// # Errors
    /// It is of a type that no argument of ours could have.
    fn value(&self) -> Result<Option<AMQPValue>, ()> {
        if self.current == "none" {
            return Ok(None);
        }
        let Some((value, kind)) = self.current.trim_start_matches("the value ").split_once("' of type '") else {
            // Of the type that was declared: a text or a number.
            let value = self.current.trim_matches('\'');
            let number = value.parse().map(AMQPValue::LongLongInt);
            return Ok(Some(number.unwrap_or_else(|_| AMQPValue::LongString(value.into()))));
        };
        let value = value.trim_start_matches('\'');
        Ok(Some(match kind.trim_end_matches('\'') {
            "longstr" => AMQPValue::LongString(value.into()),
            "byte" | "unsignedbyte" | "short" | "unsignedshort" | "signedint" | "unsignedint" | "long" => {
                AMQPValue::LongLongInt(value.parse().map_err(|_| ())?)
            }
            "bool" => AMQPValue::Boolean(value == "true"),
            _ => return Err(()),
        }))
    }
}

/// Declares all of it; what exists already is left as it is. Answers in which arguments what exists differs without
/// harm, one sentence each.
///
/// # Errors
/// What differs from what the broker has in a way that the fleet cannot run with, and what to do about it.
pub async fn declare(connection: &Connection, topology: &Topology) -> Result<Vec<String>, String> {
    let mut declaring = Declaring { connection, channel: call("open a channel", connection.create_channel()).await? };
    let mut differences = Vec::new();
    for exchange in &topology.exchanges {
        declaring.exchange(exchange, false).await.map_err(incompatible)?;
    }
    let mut away = Vec::new();
    for queue in &topology.queues {
        match declaring.queue(queue).await {
            Ok(found) => differences.extend(found),
            Err(error) if queue.is_on_one_node() && is_away(&error) => {
                differences.push(format!("{error}: it comes back with its node, and everything else goes on"));
                away.push(queue.name.as_str());
                declaring.renew().await?;
            }
            Err(error) => return Err(error),
        }
    }
    for binding in topology.bindings.iter().filter(|binding| !away.contains(&binding.to.as_str())) {
        declaring.bind(binding).await?;
    }
    let _ = declaring.channel.close(200, "bye".into()).await; // the connection goes on with others
    Ok(differences)
}

/// Compares the broker with the topology without creating anything. Bindings cannot be read over AMQP: see
/// [`differing_bindings`].
///
/// # Errors
/// The connection broke.
pub async fn check(connection: &Connection, topology: &Topology) -> Result<Vec<String>, String> {
    let mut declaring = Declaring { connection, channel: call("open a channel", connection.create_channel()).await? };
    let mut findings = Vec::new();
    for exchange in &topology.exchanges {
        for passive in [true, false] {
            if let Err(error) = declaring.exchange(exchange, passive).await {
                findings.push(finding(error));
                declaring.renew().await?;
                break;
            }
        }
    }
    for queue in &topology.queues {
        if let Err(error) = declaring.passively(queue).await {
            findings.push(finding(error));
            declaring.renew().await?;
            continue;
        }
        match declaring.queue(queue).await {
            Ok(differences) => findings.extend(differences),
            Err(error) => {
                findings.push(error);
                declaring.renew().await?;
            }
        }
    }
    Ok(findings)
}

/// A channel that is opened anew where the broker has closed it with a refusal.
struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
}

impl Declaring<'_> {
    async fn renew(&mut self) -> Result<(), String> {
        self.channel = call("open a channel", self.connection.create_channel()).await?;
        Ok(())
    }

    async fn exchange(&self, exchange: &Exchange, passive: bool) -> Result<(), String> {
        let Exchange { name, kind, arguments } = exchange;
        let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(
            name.as_str().into(),
            exchange_kind(kind),
            options,
            table(&values(arguments)),
        );
        call(&format!("exchange {name}"), declared).await
    }

    /// Declares a queue, with its own value of each argument in which it may differ, so that none hides another.
    async fn queue(&mut self, queue: &QueueSpec) -> Result<Vec<String>, String> {
        let (mut arguments, mut differences) = (values(&queue.arguments), Vec::new());
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        for _ in 0..ARGUMENTS_MAX {
            let declared = self.channel.queue_declare(queue.name.as_str().into(), options, table(&arguments));
            let Err(error) = call(&format!("queue {}", queue.name), declared).await else { return Ok(differences) };
            let Some(difference) = Difference::read(&error).filter(|difference| !difference.is_fixed()) else {
                return Err(incompatible(error));
            };
            differences.push(harmless(&queue.name, &difference));
            self.renew().await?;
            match difference.value() {
                Ok(Some(value)) => arguments.insert(difference.argument, value),
                Ok(None) => arguments.remove(&difference.argument),
                Err(()) => {
                    self.passively(queue).await?;
                    return Ok(differences);
                }
            };
        }
        Err(format!("queue {}: the broker finds ever another argument that differs", queue.name))
    }

    async fn passively(&self, queue: &QueueSpec) -> Result<(), String> {
        let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.name.as_str().into(), options, FieldTable::default());
        call(&format!("queue {}", queue.name), declared).await.map(|_| ())
    }

    async fn bind(&self, binding: &Binding) -> Result<(), String> {
        let Binding { from, to, fed, key } = binding;
        let what = format!("bind {to} to {from}");
        let (from, to, key) = (from.as_str().into(), to.as_str().into(), key.as_str().into());
        let none = FieldTable::default();
        match fed {
            Fed::Queue => call(&what, self.channel.queue_bind(to, from, key, QueueBindOptions::default(), none)).await,
            Fed::Exchange => {
                call(&what, self.channel.exchange_bind(to, from, key, ExchangeBindOptions::default(), none)).await
            }
        }
    }
}

/// How many messages wait in a queue, without those that are in hand.
///
/// # Errors
/// There is no such queue, the user may not ask, or the connection broke.
pub async fn waiting(connection: &Connection, queue: &str) -> Result<u64, String> {
    let channel = call("open a channel", connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    let found = call(&format!("queue {queue}"), declared).await?;
    let _ = channel.close(200, "bye".into()).await; // the connection goes on with others
    Ok(u64::from(found.message_count()))
}

/// Removes bindings. What is not there is no error.
///
/// # Errors
/// The connection broke, or the user may not do so.
pub async fn unbind(connection: &Connection, bindings: &[Binding]) -> Result<(), String> {
    let channel = call("open a channel", connection.create_channel()).await?;
    for Binding { from, to, fed, key } in bindings {
        let what = format!("unbind {to} from {from}");
        let (from, to, key) = (from.as_str().into(), to.as_str().into(), key.as_str().into());
        let none = FieldTable::default();
        match fed {
            Fed::Queue => call(&what, channel.queue_unbind(to, from, key, none)).await?,
            Fed::Exchange => {
                call(&what, channel.exchange_unbind(to, from, key, ExchangeUnbindOptions::default(), none)).await?;
            }
        }
    }
    let _ = channel.close(200, "bye".into()).await; // the connection goes on with others
    Ok(())
}

/// The bindings of the topology that are not among those found, and those of older versions that are, one sentence each.
#[must_use]
pub fn differing_bindings(topology: &Topology, found: &[BindingFound]) -> Vec<String> {
    let is_there = |binding: &&Binding| {
        found.iter().any(|there| {
            let kind = match binding.fed {
                Fed::Queue => "queue",
                Fed::Exchange => "exchange",
            };
            (&there.source, &there.destination, &there.routing_key) == (&binding.from, &binding.to, &binding.key)
                && there.destination_type == kind
        })
    };
    let missing = topology.bindings.iter().filter(|binding| !is_there(binding));
    let missing = missing.map(|Binding { from, to, key, .. }| {
        format!("binding {from} -> {to} \"{key}\" does not exist: `hookfleet topology apply` makes it")
    });
    let former = topology.former.iter().filter(is_there).map(|Binding { from, to, key, .. }| {
        format!(
            "binding {from} -> {to} \"{key}\" is of an older version: the keeper of the dead letters removes it within a \
             minute, and again after each connection of an older worker"
        )
    });
    missing.chain(former).collect()
}

/// A queue that is not replicated, on a node that is down: the broker says so, or nothing at all.
fn is_away(error: &str) -> bool {
    error.contains("is down or inaccessible") || error.contains("no answer within")
}

fn finding(error: String) -> String {
    if error.contains("NOT_FOUND") || error.contains("NOT-FOUND") {
        let name = error.split(':').next().unwrap_or_default();
        format!("{name} does not exist: `hookfleet topology apply`, or the first worker that starts, declares it")
    } else {
        incompatible(error)
    }
}

/// What brokers say that do not know the type `stream`: RabbitMQ whose feature flag is off, and those that have none.
fn lacks_streams(error: &str) -> bool {
    let of_type = error.contains("rabbit_stream_queue") && error.contains("feature flag");
    of_type || error.contains("x-queue-type") && Difference::read(error).is_none()
}

fn incompatible(error: String) -> String {
    if lacks_streams(&error) {
        return format!(
            "this broker has no streams, which dead letters are kept in: it takes RabbitMQ 3.10 or newer, with the feature \
             flag `stream_queue` on (`rabbitmqctl enable_feature_flag stream_queue`). It said: {error}"
        );
    }
    let Some((name, _)) = error.split_once(": ").filter(|_| error.contains("PRECONDITION")) else { return error };
    match Difference::read(&error) {
        Some(Difference { argument, received, current }) => format!(
            "{name} exists with another {argument} (expected {received}, found {current}): drain and delete it, or use \
             another namespace"
        ),
        None => format!("{error}. It exists with other properties: drain and delete it, or use another namespace"),
    }
}

fn harmless(name: &str, difference: &Difference) -> String {
    let Difference { argument, received, current } = difference;
    format!(
        "queue {name} exists with another {argument} (expected {received}, found {current}): the fleet runs with it"
    )
}

fn values(arguments: &[(&'static str, Argument)]) -> BTreeMap<String, AMQPValue> {
    let value = |argument: &Argument| match argument {
        Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
        Argument::Number(number) => AMQPValue::LongLongInt(*number),
    };
    arguments.iter().map(|(name, argument)| ((*name).to_owned(), value(argument))).collect()
}

fn table(arguments: &BTreeMap<String, AMQPValue>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(ShortString::from(name.as_str()), value.clone());
    }
    table
}

fn exchange_kind(kind: &str) -> ExchangeKind {
    match kind {
        "topic" => ExchangeKind::Topic,
        "fanout" => ExchangeKind::Fanout,
        _ => ExchangeKind::Direct,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the broker says, and what is read out of it: argument, whether it is fixed, and the value that exists.
    fn check(text: &str, expected: &str) {
        let error = format!("queue q: protocol error: AMQP hard error: 406 PRECONDITION_FAILED - {text}");
        let found = Difference::read(&error).map_or_else(
            || "nothing".to_owned(),
            |found| {
                let value = match found.value() {
                    Ok(Some(AMQPValue::LongString(text))) => format!("text {text}"),
                    Ok(Some(AMQPValue::LongLongInt(number))) => format!("number {number}"),
                    Ok(Some(value)) => format!("{value:?}"),
                    Ok(None) => "none".to_owned(),
                    Err(()) => "unknown".to_owned(),
                };
                format!("{} {}: {value}", if found.is_fixed() { "fixed" } else { "free" }, found.argument)
            },
        );
        assert_eq!(found, expected, "{text}");
    }

    /// As RabbitMQ 3.10.8 and 4.0.5 word them; both alike.
    #[test]
    fn differences_are_read() {
        for (text, expected) in [
            (
                "inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received none but current is the value \
                 '20' of type 'signedint'",
                "free x-delivery-limit: number 20",
            ),
            (
                "inequivalent arg 'x-max-length-bytes' for queue 'q' in vhost '/': received the value '5' of type 'long' \
                 but current is none",
                "free x-max-length-bytes: none",
            ),
            (
                "inequivalent arg 'x-max-length-bytes' for queue 'q' in vhost '/': received '5' but current is '7'",
                "free x-max-length-bytes: number 7",
            ),
            (
                "inequivalent arg 'x-single-active-consumer' for queue 'q' in vhost '/': received none but current is the \
                 value 'true' of type 'bool'",
                "free x-single-active-consumer: Boolean(true)",
            ),
            (
                "inequivalent arg 'x-max-age' for queue 'it''s' in vhost 'a: b': received none but current is the value \
                 '7D' of type 'longstr'",
                "free x-max-age: text 7D",
            ),
            (
                "inequivalent arg 'x-other' for queue 'q' in vhost '/': received none but current is the value '[]' of \
                 type 'table'",
                "free x-other: unknown",
            ),
            (
                "inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received none but current is the value \
                 'reject-publish' of type 'longstr'",
                "fixed x-overflow: text reject-publish",
            ),
            (
                "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but current is 'classic'",
                "fixed x-queue-type: text classic",
            ),
            (
                "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
                "fixed durable: text false",
            ),
            (
                "inequivalent arg 'type' for exchange 'x' in vhost '/': received 'direct' but current is 'topic'",
                "fixed type: text topic",
            ),
            ("invalid arg 'x-max-length' for queue 'q' in vhost '/'", "nothing"),
            ("no exclusive access", "nothing"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn a_refusal_names_what_differs() {
        let text = "queue t.lane.slow: hard error: 406 PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue \
                    't.lane.slow' in vhost '/': received 'quorum' but current is 'classic'";
        assert_eq!(
            incompatible(text.to_owned()),
            "queue t.lane.slow exists with another x-queue-type (expected 'quorum', found 'classic'): drain and delete it, \
             or use another namespace"
        );
        assert_eq!(incompatible("queue t: connection reset".to_owned()), "queue t: connection reset");
        for text in [
            "queue t.dead: protocol error: AMQP hard error: INTERNAL-ERROR: INTERNAL_ERROR - Cannot declare a queue 'queue \
             't.dead' in vhost '/'' of type 'rabbit_stream_queue' on node 't@a': the corresponding feature flag is disabled",
            "queue t.dead: soft error: PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 't.dead' in vhost '/'",
        ] {
            let said = incompatible(text.to_owned());
            assert!(said.starts_with("this broker has no streams") && said.ends_with(text), "{said}");
        }
        let missing = "queue t.dead: soft error: 404 NOT_FOUND - no queue 't.dead' in vhost '/'";
        assert!(finding(missing.to_owned()).starts_with("queue t.dead does not exist: "));
    }

    #[test]
    fn bindings_that_differ_are_named() {
        let topology = Topology::new("t");
        let there = |binding: &Binding| BindingFound {
            source: binding.from.clone(),
            destination: binding.to.clone(),
            destination_type: if binding.fed == Fed::Queue { "queue" } else { "exchange" }.to_owned(),
            routing_key: binding.key.clone(),
        };
        let mut found: Vec<BindingFound> = topology.bindings.iter().map(there).collect();
        assert_eq!(differing_bindings(&topology, &found), [""; 0]);
        let missing = differing_bindings(&topology, &found[1..]);
        assert_eq!(missing.len(), 1);
        assert!(missing[0].starts_with("binding t.letters -> t.dead \"\" does not exist"), "{missing:?}");
        found.push(there(&topology.former[0]));
        let former = differing_bindings(&topology, &found);
        assert_eq!(former.len(), 1);
        assert!(former[0].starts_with("binding t.dead -> t.dead \"\" is of an older version"), "{former:?}");
    }
}
