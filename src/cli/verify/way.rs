//! How events get in and letters come out: over the user's servers, or through the process that owns the file.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;

use crate::app::Backends;
use crate::broker::PublishError;
use crate::cli::connect;
use crate::cli::letters::Client;
use crate::cli::remote::Remote;
use crate::config::{Backend, Settings};
use crate::domain::asking::Answered;
use crate::embedded::Owner;
use crate::operations::api_types::Asked;
use crate::publish::{Event, Publisher, PublisherOptions, Route};

/// The way in and out.
pub(super) struct Way {
    settings: Settings,
    /// Connections to the user's servers; without them, a process owns the file.
    backends: Option<Backends>,
}

impl Way {
    /// Connects, so that what is wrong with the servers is said at once.
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let mut way = Self { settings: settings.clone(), backends: None };
        if let Backend::Embedded { .. } = settings.backend {
            return Ok(way);
        }
        let backends = way.backends.insert(connect::open(settings).await?);
        if let Err(error) = backends.claims.ping().await {
            way.close().await;
            return Err(error).context("cannot use the Redis of redis.url");
        }
        Ok(way)
    }

    /// A publisher; `owner` tells where the process that owns the file listens.
    pub(super) fn publisher(
        &self,
        options: PublisherOptions,
        owner: watch::Receiver<SocketAddr>,
    ) -> anyhow::Result<Publisher> {
        if let Some(backends) = &self.backends {
            return Ok(Publisher::new(Arc::clone(&backends.broker), options));
        }
        let remote = Remote::new(at(*owner.borrow()), &self.settings.http)?;
        Ok(Publisher::over(Box::new(Gateway { remote, owner }), options))
    }

    /// Every dead letter, as the command line lists them.
    pub(super) async fn letters(&self, owner: SocketAddr) -> anyhow::Result<Vec<Value>> {
        let client = match &self.backends {
            Some(backends) => Client::over(&self.settings, backends.clone()),
            None => Client::of_owner(Remote::new(at(owner), &self.settings.http)?),
        };
        let mut letters = Vec::new();
        let mut keep = |line: &str| letters.extend(serde_json::from_str::<Value>(line).ok());
        client.export(&Asked::default(), false, &mut keep).await.context("cannot read the dead letters")?;
        Ok(letters)
    }

    pub(super) async fn close(&self) {
        if let Some(backends) = &self.backends {
            backends.broker.close().await;
        }
    }
}

/// A process that `verify` has started: those speak no TLS.
const fn at(address: SocketAddr) -> Owner {
    Owner { address, is_tls: false }
}

/// Through the gateway of whichever process owns the file.
struct Gateway {
    remote: Remote,
    owner: watch::Receiver<SocketAddr>,
}

#[async_trait]
impl Route for Gateway {
    async fn send(&self, event: &Event) -> Result<(), PublishError> {
        let owner = *self.owner.borrow();
        Route::send(&self.remote.at(owner), event).await
    }

    async fn ask(&self, event: &Event, within: Duration) -> Result<Option<Answered>, PublishError> {
        let owner = *self.owner.borrow();
        Route::ask(&self.remote.at(owner), event, within).await
    }

    async fn close(&self) {}
}
