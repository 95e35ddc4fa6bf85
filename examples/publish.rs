//! Publishes events to a fleet and waits until all are confirmed: `cargo run --example publish`.
//!
//! The broker is HOOKFLEET_BROKER_URL (amqp://guest:guest@127.0.0.1:5672 if it is not set), the namespace
//! HOOKFLEET_NAMESPACE (hookfleet).

use std::time::SystemTime;

use futures_util::{StreamExt as _, stream};
use hookfleet::{Event, InvalidEvent, Publisher};
use serde::Serialize;

#[derive(Serialize)]
struct Order {
    number: u32,
    amount: &'static str,
}

/// What happened, under an id that says so: publishing it again, after a crash for example, does nothing twice.
fn paid(number: u32) -> Result<Event, InvalidEvent> {
    Event::builder("order.paid")
        .source("/example/shop")
        .id(&format!("order-{number}-paid"))
        .subject(&format!("order-{number}"))
        .time(SystemTime::now())
        .extension("attemptedby", "example")
        .data(&Order { number, amount: "19.90" })
        .build()
}

/// Publishes a hundred and one events; answers how many were confirmed.
pub(crate) async fn run(url: &str, namespace: &str) -> anyhow::Result<usize> {
    let publisher = Publisher::connect(url, namespace).await?;

    // One: `Ok` says that the broker has it for good.
    publisher.publish(&paid(0)?).await?;

    // Many: up to 256 at a time wait for their confirms.
    let events: Vec<Event> = (1..=100).map(paid).collect::<Result<_, _>>()?;
    let mut answers = Box::pin(publisher.publish_all(stream::iter(events)));
    let mut confirmed = 1;
    while let Some(answer) = answers.next().await {
        answer?; // an error holds the event: publish it again, as it is
        confirmed += 1;
    }
    drop(answers);

    publisher.close().await;
    Ok(confirmed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let set = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let url = set("HOOKFLEET_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672");
    let confirmed = run(&url, &set("HOOKFLEET_NAMESPACE", "hookfleet")).await?;
    #[allow(clippy::print_stdout, reason = "an example talks to its reader")]
    {
        println!("{confirmed} events are confirmed");
    }
    Ok(())
}
