//! Removes everything of a namespace: exchanges and queues over AMQP, keys from Redis, or the file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use tokio::time::timeout;

use crate::amqp::connection::{call, connect};
use crate::amqp::topology::Topology;
use crate::config::{Backend, Settings};

/// Longest wait for one step at Redis.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Keys looked at in one step.
const STEP: u32 = 1000;

pub(super) async fn remove(settings: &Settings, folder: &Path) -> anyhow::Result<()> {
    let Backend::Servers { broker, redis } = &settings.backend else {
        return match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        };
    };
    let connection = connect(broker, "hookfleet bench").await?;
    let topology = Topology::new(&settings.namespace);
    let channel = call("open a channel", connection.create_channel()).await.map_err(|error| anyhow!(error))?;
    for exchange in &topology.exchanges {
        let deleted = channel.exchange_delete(exchange.name.as_str().into(), ExchangeDeleteOptions::default());
        call("delete an exchange", deleted).await.map_err(|error| anyhow!(error))?;
    }
    for queue in &topology.queues {
        let deleted = channel.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default());
        call("delete a queue", deleted).await.map_err(|error| anyhow!(error))?;
    }
    let _ = connection.close(200, "bye".into()).await; // it is gone either way
    keys(redis.expose().as_str(), &settings.namespace).await
}

/// Deletes what begins with the namespace, step by step: other users of this Redis go on.
async fn keys(url: &str, namespace: &str) -> anyhow::Result<()> {
    let mut connection = ::redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut cursor = 0u64;
    loop {
        let mut scan = ::redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{namespace}:*")).arg("COUNT").arg(STEP);
        let step = timeout(TIMEOUT, scan.query_async::<(u64, Vec<String>)>(&mut connection)).await;
        let (next, keys) = step.context("Redis does not answer")??;
        if !keys.is_empty() {
            let () = ::redis::cmd("DEL").arg(keys).query_async(&mut connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
