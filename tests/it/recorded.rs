//! What clients of other libraries and protocols publish, as RabbitMQ handed it over: recorded messages, read as a worker
//! reads them. README's table has a row for each, and says what hooks get.
//!
//! `clients.rs` publishes the same with the libraries themselves, and records what arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookfleet::amqp::arrival;
use hookfleet::domain::event::{Event, Reading, TypeSource, TypeSources};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::input::Stranger;
use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::servers::shared;
use crate::sink::Sink;

/// A message as it was delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    /// Basic properties by their names, each header with its type.
    pub(crate) properties: Map<String, Value>,
    /// Text where it is text in UTF-8, else base64.
    pub(crate) body: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) body_is_base64: bool,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The client, as README's table has it, with its version.
    pub(crate) client: String,
    pub(crate) version: String,
    /// Settings that it takes, such as `events.missing_id: digest`.
    pub(crate) settings: Vec<String>,
    pub(crate) message: Recorded,
    /// The event that hooks get.
    pub(crate) event: Value,
}

impl Record {
    pub(crate) fn write(&self, name: &str) {
        fs::create_dir_all(folder()).unwrap();
        let text = serde_json::to_string_pretty(self).unwrap() + "\n";
        fs::write(folder().join(format!("{name}.json")), text).unwrap();
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

pub(crate) fn records() -> BTreeMap<String, Record> {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let read = |path: PathBuf| {
        let record = serde_json::from_slice(&fs::read(&path).unwrap());
        let record = record.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), record)
    };
    files.map(read).collect()
}

impl Recorded {
    pub(crate) fn of(exchange: &str, routing_key: &str, received: &BasicProperties, body: &[u8]) -> Self {
        let (body, body_is_base64) = match std::str::from_utf8(body) {
            Ok(text) if !text.contains('\0') => (text.to_owned(), false),
            _ => (STANDARD.encode(body), true),
        };
        let properties = properties(received);
        Self { exchange: exchange.to_owned(), routing_key: routing_key.to_owned(), properties, body, body_is_base64 }
    }

    /// The event that a worker makes of it.
    pub(crate) fn read(&self, settings: &[String]) -> Value {
        let message = arrival::message(&self.exchange, &self.routing_key, self.content(), &self.received());
        let event = Event::decode(&message, &reading(settings)).unwrap_or_else(|malformed| panic!("{malformed:?}"));
        serde_json::from_slice(&event.body).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        if self.body_is_base64 { STANDARD.decode(&self.body).unwrap() } else { self.body.clone().into_bytes() }
    }

    fn received(&self) -> BasicProperties {
        let text = |name: &str| self.properties.get(name).map(|value| ShortString::from(value.as_str().unwrap()));
        let mut properties = BasicProperties::default();
        if let Some(value) = text("content_type") {
            properties = properties.with_content_type(value);
        }
        if let Some(value) = text("content_encoding") {
            properties = properties.with_content_encoding(value);
        }
        if let Some(value) = text("message_id") {
            properties = properties.with_message_id(value);
        }
        if let Some(value) = text("type") {
            properties = properties.with_type(value);
        }
        if let Some(value) = text("app_id") {
            properties = properties.with_app_id(value);
        }
        if let Some(value) = text("user_id") {
            properties = properties.with_user_id(value);
        }
        if let Some(value) = self.properties.get("timestamp") {
            properties = properties.with_timestamp(value.as_u64().unwrap());
        }
        match self.properties.get("headers") {
            Some(headers) => properties.with_headers(table(headers)),
            None => properties,
        }
    }
}

fn reading(settings: &[String]) -> Reading {
    let mut reading = Reading::default();
    for setting in settings {
        match setting.as_str() {
            "events.missing_id: digest" => reading.digest_missing_id = true,
            "events.missing_type: routing_key" => reading.missing_type = TypeSources::new(&[TypeSource::RoutingKey]),
            "events.missing_type: celery" => reading.missing_type = TypeSources::new(&[TypeSource::Celery]),
            "events.missing_type: nestjs" => reading.missing_type = TypeSources::new(&[TypeSource::NestJs]),
            other => panic!("no setting that recorded messages take: {other}"),
        }
    }
    reading
}

fn properties(received: &BasicProperties) -> Map<String, Value> {
    let text = |value: &Option<ShortString>| value.as_ref().map(|value| Value::from(value.as_str()));
    let all = [
        ("content_type", text(received.content_type())),
        ("content_encoding", text(received.content_encoding())),
        ("message_id", text(received.message_id())),
        ("type", text(received.kind())),
        ("app_id", text(received.app_id())),
        ("user_id", text(received.user_id())),
        ("timestamp", received.timestamp().map(Value::from)),
        ("headers", received.headers().as_ref().map(shown_table)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn shown_table(table: &FieldTable) -> Value {
    table.inner().iter().map(|(name, value)| (name.to_string(), shown(value))).collect::<Map<_, _>>().into()
}

/// Texts and flags as they are, everything else with its type.
fn shown(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::LongString(text) if std::str::from_utf8(text.as_bytes()).is_ok() => text.to_string().into(),
        AMQPValue::ShortShortInt(number) => json!({ "i8": number }),
        AMQPValue::ShortShortUInt(number) => json!({ "u8": number }),
        AMQPValue::ShortInt(number) => json!({ "i16": number }),
        AMQPValue::ShortUInt(number) => json!({ "u16": number }),
        AMQPValue::LongInt(number) => json!({ "i32": number }),
        AMQPValue::LongUInt(number) => json!({ "u32": number }),
        AMQPValue::LongLongInt(number) => json!({ "i64": number }),
        AMQPValue::Double(number) => json!({ "f64": number }),
        AMQPValue::Float(number) => json!({ "f32": number }),
        AMQPValue::Timestamp(seconds) => json!({ "timestamp": seconds }),
        AMQPValue::DecimalValue(DecimalValue { scale, value }) => json!({ "decimal": [scale, value] }),
        AMQPValue::LongString(text) => json!({ "bytes_as_text": STANDARD.encode(text.as_bytes()) }),
        AMQPValue::ByteArray(bytes) => json!({ "bytes": STANDARD.encode(bytes.as_slice()) }),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(shown).collect::<Vec<_>>().into(),
        AMQPValue::FieldTable(table) => json!({ "table": shown_table(table) }),
        AMQPValue::Void => Value::Null,
        AMQPValue::ShortString(_) => panic!("RabbitMQ takes no short strings in tables"),
    }
}

fn table(shown: &Value) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, shown) in shown.as_object().unwrap() {
        table.insert(name.as_str().into(), value(shown));
    }
    table
}

fn value(shown: &Value) -> AMQPValue {
    let (kind, value) = match shown {
        Value::Null => return AMQPValue::Void,
        Value::Bool(flag) => return AMQPValue::Boolean(*flag),
        Value::String(text) => return AMQPValue::LongString(text.as_str().into()),
        Value::Array(items) => return FieldArray::from(items.iter().map(self::value).collect::<Vec<_>>()).into(),
        Value::Object(typed) => typed.iter().next().unwrap(),
        Value::Number(number) => panic!("a number without its type: {number}"),
    };
    let bytes = || STANDARD.decode(value.as_str().unwrap()).unwrap();
    let number = || value.as_i64().unwrap();
    match kind.as_str() {
        "i8" => AMQPValue::ShortShortInt(number().try_into().unwrap()),
        "u8" => AMQPValue::ShortShortUInt(number().try_into().unwrap()),
        "i16" => AMQPValue::ShortInt(number().try_into().unwrap()),
        "u16" => AMQPValue::ShortUInt(number().try_into().unwrap()),
        "i32" => AMQPValue::LongInt(number().try_into().unwrap()),
        "u32" => AMQPValue::LongUInt(number().try_into().unwrap()),
        "i64" => AMQPValue::LongLongInt(number()),
        "f64" => AMQPValue::Double(value.as_f64().unwrap()),
        "f32" => AMQPValue::Float(value.as_f64().unwrap() as f32),
        "timestamp" => AMQPValue::Timestamp(value.as_u64().unwrap()),
        "decimal" => AMQPValue::DecimalValue(DecimalValue {
            scale: value[0].as_u64().unwrap().try_into().unwrap(),
            value: value[1].as_u64().unwrap().try_into().unwrap(),
        }),
        "bytes_as_text" => AMQPValue::LongString(bytes().into()),
        "bytes" => AMQPValue::ByteArray(bytes().into()),
        "table" => AMQPValue::FieldTable(table(value)),
        other => panic!("no type of AMQP: {other}"),
    }
}

#[test]
fn every_recorded_message_is_its_event() {
    let records = records();
    assert!(records.len() > 10, "only {} messages are recorded: is this the right folder?", records.len());
    let accepts = std::env::var_os("HOOKFLEET_TEST_ACCEPT").is_some();
    let mut rewritten = Vec::new();
    for (name, mut record) in records {
        let event = record.message.read(&record.settings);
        if accepts && event != record.event {
            record.event = event.clone();
            record.write(&name);
            rewritten.push(name.clone());
        }
        assert_eq!(event, record.event, "{name}");
    }
    assert!(rewritten.is_empty(), "rewritten, to be reviewed: {rewritten:?}");
}

/// README's table has a row for each recorded message and no other.
#[test]
fn the_table_of_clients_is_what_was_recorded() {
    let readme = include_str!("../../README.md");
    let rows = readme.lines().skip_while(|line| !line.starts_with("| client | version |")).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    let mut expected: Vec<String> = records().values().map(row).collect();
    expected.sort();
    assert_eq!(rows, expected, "expected this table in README.md:\n{}\n", expected.join("\n"));
}

fn row(record: &Record) -> String {
    let Record { client, version, settings, event, .. } = record;
    let settings = settings.iter().map(|setting| format!("`{setting}`")).collect::<Vec<_>>().join(", ");
    let text = |name: &str| event[name].as_str().unwrap();
    let data = match (&event["data"], &event["data_base64"]) {
        (Value::Null, Value::Null) => "no data",
        (Value::Null, _) => "the data in base64",
        (Value::String(_), _) => "the data as text",
        (Value::Object(data), _) if data.contains_key("timestamp_in_ms") || data.contains_key("x-opt-vhost") => {
            "the headers as data"
        }
        (_, _) => "the data",
    };
    let settings = if settings.is_empty() { String::new() } else { format!("{settings} ") };
    format!("| {client} | {version} | {settings}| type `{}`, source `{}`, {data} |", text("type"), text("source"))
}

/// Through a broker and a worker. Those of one identity are one event, whichever way they came.
#[tokio::test]
async fn recorded_messages_run_their_hooks() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "**", ""));
    let site =
        site.set("HOOKFLEET_EVENTS_MISSING_TYPE", "celery,routing_key").set("HOOKFLEET_EVENTS_MISSING_ID", "digest");
    let Stage { site, worker: _worker, .. } = stage(Place::Servers, site).await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    let mut expected = BTreeSet::new();
    // The broker's own events have no other way than through its exchange.
    for (_, record) in records().into_iter().filter(|(_, record)| record.message.exchange != "amq.rabbitmq.event") {
        let Recorded { routing_key, .. } = &record.message;
        stranger.send(routing_key, &record.message.content(), record.message.received()).await;
        expected.insert(identity(&record.event));
    }
    sink.until("all of them", Duration::from_secs(20), |calls| calls.len() >= expected.len()).await;
    let calls = sink.calls();
    let event = |body: &[u8]| identity(&serde_json::from_slice::<Value>(body).unwrap()["event"]);
    assert_eq!(calls.iter().map(|call| event(&call.body)).collect::<BTreeSet<_>>(), expected);
    assert_eq!(calls.len(), expected.len(), "each once");
    assert!(site.letters().is_empty());
}

fn identity(event: &Value) -> [String; 3] {
    ["source", "id", "type"].map(|name| event[name].as_str().unwrap().to_owned())
}
