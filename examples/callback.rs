//! A program that is a worker of its own, one of whose functions hooks call: `cargo run --example callback`.
//!
//! Everything is in one file here; with `broker.url` and `redis.url` among the settings it is one worker of a fleet.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hookfleet::{Call, Event, Failed, Fleet, Settings};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const HOOKS: &str = "
version: 1
hooks:
  - { id: ledger, on: order.paid, run: { callback: book } }
";

#[derive(Deserialize)]
struct Order {
    number: u32,
    cents: u64,
}

/// An event that is no order will be none the next time either; a ledger that is away is there again some time.
async fn book(call: Call, ledger: mpsc::Sender<String>) -> Result<(), Failed> {
    let order: Order = call.data().map_err(Failed::never)?;
    ledger.send(format!("order {}: {} cents, attempt {}", order.number, order.cents, call.attempt)).await?;
    Ok(())
}

/// Publishes an event to itself, once it serves on this address; answers what was booked.
pub(crate) async fn run(folder: &Path, address: SocketAddr) -> anyhow::Result<String> {
    fs::write(folder.join("hooks.yaml"), HOOKS)?;
    let folder = folder.display();
    let text = format!(
        "hooks: {folder}/hooks.yaml\nembedded: {{ path: {folder}/events.db }}\nhttp: {{ bind: \"{address}\" }}\n"
    );
    let settings = Settings::from_yaml(&text)?;
    let (ledger, mut booked) = mpsc::channel(10);
    let fleet = Fleet::builder(settings).callback("book", move |call| book(call, ledger.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = tokio::spawn(fleet.run(async { drop(stopped.await) }));

    let event =
        Event::builder("order.paid").source("/shop").id("order-17").data(&json!({ "number": 17, "cents": 1990 }));
    let event = event.build()?;
    // Only where reqwest has the feature `rustls-no-provider`, as here.
    hookfleet::executor::install_crypto();
    let client = reqwest::Client::new();
    let publish = || {
        let request =
            client.post(format!("http://{address}/v1/events")).header("content-type", "application/cloudevents+json");
        request.body(event.json().to_vec()).send()
    };
    while !publish().await.is_ok_and(|answer| answer.status().is_success()) {
        // It starts; the same event again is handled once. A fleet that cannot start says why.
        if let Ok(ended) = timeout(Duration::from_millis(100), &mut running).await {
            ended??;
            anyhow::bail!("the fleet ended by itself");
        }
    }
    let line = timeout(Duration::from_secs(30), booked.recv()).await?;

    drop(stop);
    running.await??;
    Ok(line.unwrap_or_default())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("hookfleet-callback-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let said = run(&folder, ([127, 0, 0, 1], 8080).into()).await;
    fs::remove_dir_all(&folder)?;
    #[allow(clippy::print_stdout, reason = "an example talks to its reader")]
    {
        println!("{}", said?);
    }
    Ok(())
}
