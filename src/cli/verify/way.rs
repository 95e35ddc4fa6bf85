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
use crate::cli::letters::Client;
use crate::cli::remote::Remote;
use crate::config::{Backend, Http, Settings};
use crate::domain::asking::Answered;
use crate::operations::api_types::Asked;
use crate::publish::{Event, Publisher, PublisherOptions, Route};

/// The way in and out.
pub(super) enum Way {
    Servers(Box<Backends>),
    /// With the tokens of the process that owns it.
    File(Http),
}

impl Way {
    /// Connects, so that what is wrong with the servers is said at once.
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        if let Backend::Embedded { .. } = settings.backend {
            return Ok(Self::File(settings.http.clone()));
        }
        let backends = Backends::open(settings).await?;
        let way = Self::Servers(Box::new(backends.clone()));
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
        Ok(match self {
            Self::Servers(backends) => Publisher::new(Arc::clone(&backends.broker), options),
            Self::File(http) => {
                let remote = Remote::new(*owner.borrow(), http)?;
                Publisher::over(Box::new(Gateway { remote, owner }), options)
            }
        })
    }

    /// Every dead letter, as the command line lists them.
    pub(super) async fn letters(&self, owner: SocketAddr) -> anyhow::Result<Vec<Value>> {
        let client = match self {
            Self::Servers(backends) => Client::Operations(backends.operations(), Backends::clone(backends)),
            Self::File(http) => Client::Owner(Remote::new(owner, http)?),
        };
        let mut letters = Vec::new();
        let mut keep = |line: &str| letters.extend(serde_json::from_str::<Value>(line).ok());
        client.export(&Asked::default(), false, &[], &mut keep).await.context("cannot read the dead letters")?;
        Ok(letters)
    }

    pub(super) async fn close(&self) {
        if let Self::Servers(backends) = self {
            backends.broker.close().await;
        }
    }
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
