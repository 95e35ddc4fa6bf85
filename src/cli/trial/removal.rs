//! Removes everything of a trial: exchanges and queues over AMQP, keys from Redis, and the folder.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};

use crate::amqp::connection::{call, connect};
use crate::amqp::topology::Topology;
use crate::config::{self, Backend, BrokerServer, Redis, Settings};
use crate::redis::link::Link;

/// Keys looked at in one step.
const STEP: u32 = 1000;

/// What is not there is no trouble. The folder goes first: it needs no server.
pub(super) async fn remove(settings: &Settings, folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| folder.display().to_string());
        }
        _ => {}
    }
    match &settings.backend {
        Backend::Embedded { .. } => Ok(()),
        Backend::Servers { broker, redis } => {
            queues(broker, &settings.namespace).await?;
            keys(redis, &settings.namespace).await
        }
    }
}

async fn queues(broker: &BrokerServer, namespace: &str) -> anyhow::Result<()> {
    let connection = connect(broker, "hookfleet removal").await?;
    let topology = Topology::new(namespace);
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
    Ok(())
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
