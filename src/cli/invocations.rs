//! The routes of events and their invocations, wherever these are.

use serde::de::DeserializeOwned;

use super::api::Api;
use super::connect;
use super::remote::Remote;
use crate::app::current::current_hooks;
use crate::app::{Backends, routes};
use crate::config::{Backend, Settings};
use crate::embedded;
use crate::http::Routes;

/// What is read from a path.
pub(super) async fn get<T: DeserializeOwned>(settings: &Settings, path: &str) -> anyhow::Result<T> {
    let way = Way::open(settings, true).await?;
    let answer = way.api.get(path).await;
    way.close().await;
    answer
}

/// What comes of asking for something to be done.
pub(super) async fn post<T: DeserializeOwned>(settings: &Settings, path: &str) -> anyhow::Result<T> {
    let way = Way::open(settings, false).await?;
    let answer = way.api.post(path, &()).await;
    way.close().await;
    answer
}

/// The way to the routes, and what those of this process work with.
struct Way {
    api: Api,
    backends: Option<Backends>,
}

impl Way {
    /// Over the process that owns the file, if one does, else over connections of our own. A file that is not there is
    /// not made: nothing is known there.
    async fn open(settings: &Settings, only_reads: bool) -> anyhow::Result<Self> {
        if let Backend::Embedded { path } = &settings.backend
            && let Some(owner) = embedded::owner(path)
        {
            return Ok(Self { api: Api::Loopback(Remote::new(owner, &settings.http)?), backends: None });
        }
        let backends = match &settings.backend {
            Backend::Embedded { path } if only_reads || !path.exists() => Backends::open_to_read(path)?,
            _ => connect::open(settings).await?,
        };
        let hooks = current_hooks(settings, &backends).await;
        let invocations = routes::invocations(settings, &backends, backends.operations(settings), hooks);
        Ok(Self { api: Api::in_process(Routes::Invocations(invocations)), backends: Some(backends) })
    }

    async fn close(self) {
        if let Some(backends) = self.backends {
            backends.broker.close().await;
            if let Some(file) = backends.file {
                file.close().await;
            }
        }
    }
}
