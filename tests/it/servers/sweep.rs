//! Deletes what ended tests have left on the shared broker.
//!
//! A namespace has some forty quorum queues. RabbitMQ 3.10 sets about three file handles aside for each of them; when its
//! limit is reached it takes no further connection and says nothing. And each idle queue has a tick that costs CPU.

use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver, Sender};

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};

/// The exchanges and queues of the namespace `hookfleet`.
const TOPOLOGY: &str = include_str!("../../golden/topology.txt");

static ENDED: LazyLock<Sender<String>> = LazyLock::new(|| {
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || delete_all(&ended));
    sender
});

/// Deletes the exchanges and queues of these namespaces, some time from now.
pub(crate) fn later(namespaces: Vec<String>) {
    for namespace in namespaces {
        let _ = ENDED.send(namespace); // fails at the end of the process only
    }
}

fn delete_all(ended: &Receiver<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for namespace in ended {
        if let Some((rabbit, _)) = super::SERVERS.get() {
            // What cannot be deleted now goes with the broker.
            let _ = runtime.block_on(delete(&rabbit.url(), &namespace));
        }
    }
}

async fn delete(url: &str, namespace: &str) -> lapin::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for line in TOPOLOGY.lines() {
        let mut words = line.split(' ');
        let (kind, name) = (words.next(), words.next().unwrap_or_default());
        let name = name.replacen("hookfleet", namespace, 1);
        match kind {
            Some("exchange") => channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await?,
            Some("queue") => drop(channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?),
            _ => {}
        }
    }
    connection.close(200, "bye".into()).await
}
