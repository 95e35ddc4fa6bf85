//! What publish hooks send, as it arrives in a queue of RabbitMQ.

use std::fmt::Write as _;

use lapin::BasicProperties;
use serde_json::json;

use super::message::{Tap, properties, shown};
use super::{STRUCTURED, compare};
use crate::pipeline::{Place, site};
use crate::servers::{namespace, shared};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const HOOKS: &str = r#"
  - { id: whole, on: [golden.structured, golden.plain, golden.binary], run: { publish: { exchange: EXCHANGE } } }
  - id: own
    on: golden.own
    run:
      publish:
        exchange: EXCHANGE
        routing_key: "paid.{{ event.data.region }}"
        type: invoice.made
        headers: { tenant: "{{ event.tenant }}", token: "${env:GOLDEN_TOKEN}" }
        body: '{"order": {{ event.data.order }}, "note": "{{ event.data.note }}"}'
  - id: elsewhere
    on: golden.elsewhere
    run:
      publish:
        url: "URL"
        exchange: EXCHANGE
        body: "n is {{ event.data.n }}"
        content_type: text/plain
        mandatory: false
"#;

#[tokio::test]
async fn messages_of_publish_hooks() {
    let (rabbit, _) = shared().await;
    let exchange = format!("golden-{}", namespace());
    let mut tap = Tap::new(rabbit).await.with_exchange(&exchange).await;
    let hooks = HOOKS.replace("EXCHANGE", &exchange).replace("URL", &rabbit.url());
    let site = site(Place::Servers).await.hooks(&hooks).set("GOLDEN_TOKEN", "golden-token");
    let mut worker = site.worker().await;
    let events = format!("{}.events", site.namespace);

    let plain = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type("golden.plain".into())
        .with_message_id("plain-1".into())
        .with_app_id("a-client".into())
        .with_timestamp(1_795_000_000);
    let binary = [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:type", "golden.binary"),
        ("cloudEvents:source", "/golden"),
        ("cloudEvents:id", "binary-1"),
        ("cloudEvents:tenant", "t-1"),
        ("other", "not an attribute"),
    ];
    let structured = |kind: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0", "type":"golden.{kind}","source":"/golden","id":"{kind}-1","tenant":"t-1","data":{data}}}"#
        )
    };
    let mut record = String::new();
    for (title, properties, body) in [
        (
            "an event in structured mode, as it is",
            properties(STRUCTURED, &[("traceparent", TRACE), ("other", "x")]),
            structured("structured", r#"{"n": 1.0}"#),
        ),
        ("an event of plain JSON", plain, r#"{"n": 1.0}"#.to_owned()),
        ("an event in binary mode", properties("application/json", &binary), r#"{"n": 1.0}"#.to_owned()),
        (
            "a message of the hook's own",
            properties(STRUCTURED, &[]),
            structured("own", &json!({ "region": "eu/ä", "order": 17, "note": "say \"hi\"" }).to_string()),
        ),
        ("to another broker", properties(STRUCTURED, &[("traceparent", TRACE)]), structured("elsewhere", r#"{"n":7}"#)),
    ] {
        tap.publish(&events, "golden", properties, &body).await;
        writeln!(record, "=== {title}\n{}", shown(&tap.next().await)).unwrap();
    }
    assert_eq!(worker.stop().await, Some(0));
    compare("publish.txt", &record.replace(&exchange, "{exchange}"));
}
