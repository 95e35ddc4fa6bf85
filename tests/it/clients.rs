//! Client libraries of Python and Node publish to RabbitMQ 4 in their own ways; what arrives is what was recorded.
//!
//! `tests/clients/prepare` installs the libraries. With `HOOKFLEET_TEST_ACCEPT=1` what arrives is recorded anew.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use serde_json::Value;
use tokio::time::timeout;

use crate::pipeline::{Place, Stage as Running, site, stage};
use crate::recorded::{Record, Recorded, folder, records};
use crate::servers::{Leashed, Make, NEWEST, Rabbit, client, free_port, slots};

const EVENTS: &str = "hookfleet.events";
/// Where AMQP 1.0 clients of RabbitMQ 4 publish to.
const ADDRESS: &str = "/exchanges/hookfleet.events/order.paid";
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
const PLUGINS: &[&str] = &["rabbitmq_mqtt", "rabbitmq_stomp", "rabbitmq_event_exchange"];

const TYPE: &str = "events.missing_type: routing_key";
const ID: &str = "events.missing_id: digest";

/// Name of the record, language, function in its script, client and version as README has them, settings.
type Client = (&'static str, Language, &'static str, &'static str, &'static str, &'static [&'static str]);

#[derive(Clone, Copy, PartialEq)]
enum Language {
    Python,
    Node,
}
use Language::{Node, Python};

const CLIENTS: &[Client] = &[
    (
        "python-cloudevents-amqp",
        Python,
        "cloudevents_amqp",
        "Python cloudevents, `amqp.to_binary_event`, with pika",
        "2.2.0",
        &[],
    ),
    (
        "python-cloudevents-structured",
        Python,
        "cloudevents_amqp_structured",
        "Python cloudevents, `amqp.to_structured_event`, with pika",
        "2.2.0",
        &[],
    ),
    (
        "python-cloudevents-rabbitmq",
        Python,
        "cloudevents_rabbitmq",
        "Python cloudevents, `rabbitmq.to_binary_event` (Knative), with pika",
        "2.2.0",
        &[],
    ),
    ("python-kombu", Python, "kombu_json", "Python kombu", "5.7.0", &[TYPE, ID]),
    (
        "python-kombu-gzip",
        Python,
        "kombu_gzip",
        "Python kombu, `compression=\"gzip\"`, with type and message_id",
        "5.7.0",
        &[],
    ),
    ("python-celery", Python, "celery_task", "Python Celery, a task", "5.7.0", &["events.missing_type: celery"]),
    ("python-aio-pika", Python, "aio_pika_json", "Python aio-pika, with message_id", "10.2.1", &[TYPE]),
    ("python-faststream", Python, "faststream_json", "Python FastStream, with message_id", "0.7.8", &[TYPE]),
    ("python-proton-text", Python, "proton_text", "Python qpid-proton (AMQP 1.0), `Message(body=text)`", "0.40.0", &[]),
    (
        "python-proton-cloudevents",
        Python,
        "proton_cloudevents",
        "Python qpid-proton (AMQP 1.0), CloudEvents in binary mode",
        "0.40.0",
        &[],
    ),
    ("python-paho", Python, "paho_cloudevents", "Python paho-mqtt (MQTT 5), CloudEvents in binary mode", "2.2.0", &[]),
    (
        "python-paho-text",
        Python,
        "paho_cloudevents_text",
        "Python paho-mqtt (MQTT 5), CloudEvents in binary mode, text",
        "2.2.0",
        &[],
    ),
    ("python-stomp", Python, "stomp_json", "Python stomp.py (STOMP 1.2), with type and amqp-message-id", "9.0.0", &[]),
    (
        "python-stomp-cloudevents",
        Python,
        "stomp_cloudevents",
        "Python stomp.py (STOMP 1.2), `ce-` headers",
        "9.0.0",
        &[],
    ),
    ("node-amqplib", Node, "amqplib_json", "Node amqplib", "2.3.1", &[TYPE, ID]),
    ("node-amqplib-properties", Node, "amqplib_properties", "Node amqplib, with type and messageId", "2.3.1", &[]),
    ("node-rascal", Node, "rascal_json", "Node rascal, with messageId", "21.0.1", &[TYPE]),
    ("node-rhea-text", Node, "rhea_text", "Node rhea (AMQP 1.0), `{ body: text }`", "3.0.5", &[]),
    ("node-rhea-data", Node, "rhea_data", "Node rhea (AMQP 1.0), CloudEvents in binary mode", "3.0.5", &[]),
    (
        "node-mqtt-cloudevents",
        Node,
        "mqtt_cloudevents",
        "Node mqtt (MQTT 5) and cloudevents, `MQTT.binary`",
        "5.16.0, 10.0.0",
        &[],
    ),
];

struct Stage {
    rabbit: Rabbit,
    mqtt_port: u16,
    stomp_port: u16,
    _connection: Connection,
    channel: Channel,
    arrivals: Consumer,
}

impl Stage {
    async fn new(more: &str) -> Self {
        let (mqtt_port, stomp_port) = (free_port(), free_port());
        let config = format!(
            "mqtt.listeners.tcp.default = 127.0.0.1:{mqtt_port}\nstomp.listeners.tcp.default = 127.0.0.1:{stomp_port}\n{more}"
        );
        let make = Make { release: Some(NEWEST), plugins: PLUGINS, config, ..Make::default() };
        let rabbit = Rabbit::make(make).await;
        let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let topic = ExchangeKind::Topic;
        channel.exchange_declare(EVENTS.into(), topic, durable, FieldTable::default()).await.unwrap();
        bind(&channel, "amq.topic").await;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("arrivals".into(), durable, FieldTable::default()).await.unwrap();
        let (queue, options) = ("arrivals".into(), QueueBindOptions::default());
        channel.queue_bind(queue, EVENTS.into(), "#".into(), options, FieldTable::default()).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let arrivals = channel.basic_consume("arrivals".into(), "".into(), options, FieldTable::default());
        let arrivals = arrivals.await.unwrap();
        Self { rabbit, mqtt_port, stomp_port, _connection: connection, channel, arrivals }
    }

    fn publish(&self, language: Language, client: &str) {
        slots::take();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let installed = root.join("target/test-clients");
        assert!(installed.join("pins").is_file(), "run tests/clients/prepare, which installs the client libraries");
        let (amqp, mqtt) = (self.rabbit.port.to_string(), self.mqtt_port.to_string());
        let output = match language {
            Python => Command::new(installed.join("python/bin/python"))
                .arg(root.join("tests/clients/publish.py"))
                .args([client, &amqp, &mqtt, &self.stomp_port.to_string(), EVENTS, ADDRESS])
                .output(),
            Node => Command::new("node")
                .arg(root.join("tests/clients/publish.mjs"))
                .args([client, &amqp, &mqtt, EVENTS, ADDRESS])
                .env("NODE_PATH", installed.join("node_modules"))
                .output(),
        };
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{client}: {said}{}", String::from_utf8_lossy(&output.stdout));
    }

    async fn arrived(&mut self) -> Recorded {
        let delivery = timeout(ARRIVES_WITHIN, self.arrivals.next()).await.expect("it arrives").unwrap().unwrap();
        let (exchange, key) = (delivery.exchange.as_str(), delivery.routing_key.as_str());
        Recorded::of(exchange, key, &delivery.properties, &delivery.data)
    }
}

async fn bind(channel: &Channel, source: &str) {
    let options = ExchangeBindOptions::default();
    channel.exchange_bind(EVENTS.into(), source.into(), "#".into(), options, FieldTable::default()).await.unwrap();
}

/// The same event as the recorded one; with `HOOKFLEET_TEST_ACCEPT=1`, recorded. Names the record where it differs.
fn compare(name: &str, record: &Record) -> Option<String> {
    let accepts = std::env::var_os("HOOKFLEET_TEST_ACCEPT").is_some();
    let known = if folder().is_dir() { records().remove(name) } else { None };
    let same = known.is_some_and(|known| {
        let essence = |event: &Value| {
            let mut data = event["data"].clone();
            for varying in ["timestamp_in_ms", "user_who_performed_action", "x-opt-timestamp-in-ms", "node"] {
                data.as_object_mut().map(|data| data.remove(varying));
            }
            (event["type"].clone(), event["source"].clone(), data)
        };
        essence(&known.event) == essence(&record.event)
    });
    if same {
        return None;
    }
    if accepts {
        record.write(name);
    }
    Some(format!("{name}: {}", serde_json::to_string_pretty(&record).unwrap()))
}

fn told(differing: &[String]) {
    let next = "if that is meant, set HOOKFLEET_TEST_ACCEPT=1, run the test, and review the files";
    assert!(differing.is_empty(), "other messages than recorded ({next}):\n{}", differing.join("\n"));
}

#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn libraries_publish_what_was_recorded() {
    let mut stage = Stage::new("").await;
    let mut differing = Vec::new();
    for (name, language, function, client, version, settings) in CLIENTS {
        stage.publish(*language, function);
        let message = stage.arrived().await;
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let event = message.read(&settings);
        let (client, version) = ((*client).to_owned(), (*version).to_owned());
        differing.extend(compare(name, &Record { client, version, settings, message, event }));
    }
    told(&differing);
}

/// In both protocols that the plugin has from RabbitMQ 4.1 on.
#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn the_broker_publishes_its_own_events() {
    let mut differing = Vec::new();
    let mut protocols = vec![("rabbitmq-events", "amqp_0_9_1")];
    let mut more = String::new();
    while let Some((name, protocol)) = protocols.pop() {
        let mut stage = Stage::new(&more).await;
        let version = stage.rabbit.ctl(&["version"]).trim().to_owned();
        if more.is_empty() && !version.starts_with("4.0.") {
            more = "event_exchange.protocol = amqp_1_0\n".to_owned();
            protocols.push(("rabbitmq-events-amqp-1-0", "amqp_1_0"));
        }
        bind(&stage.channel, "amq.rabbitmq.event").await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        stage.channel.queue_declare("orders".into(), options, arguments).await.unwrap();
        let (message, event) = loop {
            let message = stage.arrived().await;
            let event = message.read(&[]);
            let of_orders = ["name", "x-opt-name"].iter().any(|name| event["data"][name] == "orders");
            if message.routing_key == "queue.created" && of_orders {
                break (message, event);
            }
        };
        let client = format!("RabbitMQ's own events, `event_exchange.protocol = {protocol}`");
        differing.extend(compare(name, &Record { client, version, settings: Vec::new(), message, event }));
    }
    told(&differing);
}

/// A receiver that is built on an SDK; it prints each event.
struct Receiver {
    port: String,
    lines: std::sync::mpsc::Receiver<String>,
    _process: Leashed,
}

impl Receiver {
    fn start(language: Language) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let installed = root.join("target/test-clients");
        assert!(installed.join("pins").is_file(), "run tests/clients/prepare, which installs the client libraries");
        let mut command = match language {
            Python => Command::new(installed.join("python/bin/python")),
            Node => Command::new("node"),
        };
        command.arg(root.join(if language == Python {
            "tests/clients/receive.py"
        } else {
            "tests/clients/receive.mjs"
        }));
        command.env("NODE_PATH", installed.join("node_modules")).stdout(Stdio::piped());
        let mut process = Leashed::start(&mut command);
        let out = BufReader::new(process.child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let port = lines.recv_timeout(ARRIVES_WITHIN).expect("its port");
        Self { port, lines, _process: process }
    }

    /// What came in two requests, by their paths.
    fn received(&self) -> BTreeMap<String, Value> {
        let read = |_| {
            let line = self.lines.recv_timeout(ARRIVES_WITHIN).expect("a request");
            let mut event: Value = serde_json::from_str(&line).unwrap();
            (event["path"].take().as_str().unwrap().to_owned(), event)
        };
        (0..2).map(read).collect()
    }
}

/// Each SDK reads the same event in both formats.
#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn receivers_with_an_sdk_take_both_formats() {
    let receivers = [Receiver::start(Python), Receiver::start(Node)];
    let hook = |(number, receiver): (usize, &Receiver)| {
        [("structured", "cloudevents"), ("binary", "cloudevents-binary")].map(|(path, format)| {
            let url = format!("http://127.0.0.1:{}/{path}", receiver.port);
            format!(
                "  - {{ id: {path}-{number}, on: order.paid, run: {{ http: {{ url: \"{url}\", format: {format} }} }} }}"
            )
        })
    };
    let hooks: Vec<String> = receivers.iter().enumerate().flat_map(hook).collect();
    let site = site(Place::File).await.hooks(&hooks.join("\n"));
    let Running { worker, site: _site, .. } = stage(Place::File, site).await;
    // Node's SDK does not decode the headers of binary mode: see findings/npm-cloudevents-percent-encoding.sh.
    for (subject, data, content_type) in
        [("order/17", r#"{"order":17,"price":12.50}"#, "application/json"), ("x", r#""text""#, "text/plain")]
    {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{subject}-1","source":"/shop","type":"order.paid","subject":"{subject}","time":"2026-12-01T12:00:00.123Z","datacontenttype":"{content_type}","data":{data}}}"#
        );
        let posted = client()
            .post(format!("http://127.0.0.1:{}/v1/events", worker.port))
            .header("content-type", "application/cloudevents+json")
            .body(event);
        assert_eq!(posted.send().await.unwrap().status(), 202);
        for receiver in &receivers {
            let received = receiver.received();
            let (structured, binary) = (&received["/structured"], &received["/binary"]);
            assert_eq!(structured, binary);
            assert_eq!(
                (&structured["data"], &structured["attributes"]["subject"]),
                (&serde_json::from_str(data).unwrap(), &subject.into())
            );
        }
    }
}
