//! Removes everything of a trial: exchanges and queues over AMQP, keys from Redis, and the folder.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use ::redis::{Value, from_redis_value};
use anyhow::{Context as _, anyhow};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};

use crate::amqp::connection::{call, connect};
use crate::amqp::topology::Topology;
use crate::config::{Backend, BrokerServer, Node, Redis, Settings, Topology as Servers};
use crate::redis::connection::Link;

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
    let link = Link::new(redis.clone());
    if !matches!(redis.topology, Servers::Cluster { .. }) {
        return keys_at(&link, None, namespace).await;
    }
    let slots: Vec<Vec<Value>> = link.call().query(::redis::cmd("CLUSTER").arg("SLOTS")).await?;
    let primaries: BTreeSet<(String, u16)> = slots.into_iter().filter_map(primary).collect();
    for (host, port) in primaries {
        keys_at(&link, Some(&Node { host, port }), namespace).await?;
    }
    Ok(())
}

/// The primary of a range of slots: after its first and last slot, the first server named, by host and port.
fn primary(range: Vec<Value>) -> Option<(String, u16)> {
    let server: Vec<Value> = from_redis_value(range.into_iter().nth(2)?).ok()?;
    let mut parts = server.into_iter();
    Some((from_redis_value(parts.next()?).ok()?, from_redis_value(parts.next()?).ok()?))
}

/// At one primary of a cluster, or at the only server.
async fn keys_at(link: &Link, node: Option<&Node>, namespace: &str) -> anyhow::Result<()> {
    let mut cursor = 0u64;
    loop {
        let mut scan = ::redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{namespace}:*")).arg("COUNT").arg(STEP);
        let (next, keys): (u64, Vec<String>) = match node {
            Some(node) => link.call().query_at(node, &scan).await?,
            None => link.call().query(&scan).await?,
        };
        if !keys.is_empty() {
            let () = link.call().query(::redis::cmd("DEL").arg(keys)).await?; // in a cluster it goes to every key's node
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
