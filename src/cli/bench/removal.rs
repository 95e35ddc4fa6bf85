//! Removes everything of a namespace: exchanges and queues over AMQP, keys from Redis, or the file.

use std::path::Path;

use anyhow::anyhow;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};

use crate::amqp::connection::{call, connect};
use crate::amqp::topology::Topology;
use crate::config::{self, Backend, Redis, Settings};
use crate::redis::link::Link;

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
    keys(redis, &settings.namespace).await
}

/// Deletes what begins with the namespace, step by step: other users of this Redis go on.
async fn keys(redis: &Redis, namespace: &str) -> anyhow::Result<()> {
    if matches!(redis.topology, config::Topology::Cluster { .. }) {
        tracing::warn!(namespace, "the keys of a cluster are left to expire");
        return Ok(());
    }
    let link = Link::new(redis.clone());
    let mut cursor = 0u64;
    loop {
        let mut scan = ::redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{namespace}:*")).arg("COUNT").arg(STEP);
        let (next, keys): (u64, Vec<String>) = link.call().query(&scan).await?;
        if !keys.is_empty() {
            let () = link.call().query(::redis::cmd("DEL").arg(keys)).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
