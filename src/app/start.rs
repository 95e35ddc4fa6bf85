//! The start of a process: its address is served from the first moment, and it waits for servers that are away.
//!
//! While it waits, `/healthz` answers, `/readyz` says 503 and what is waited for, and everything else is a problem with
//! `Retry-After`. What no waiting can mend (a wrong password, a queue of another type) ends the process at once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::Backends;
use crate::broker::patience::Patience;
use crate::config::{Settings, WhenAway};
use crate::embedded::Owner;
use crate::http::{Front, Kind, Serving};
use crate::idempotency::{Idempotency, StoreError};
use crate::telemetry;

const UNUSABLE: &str = "cannot use the Redis of redis.url";
/// Between two pings of Redis.
const PING_EVERY: Duration = Duration::from_millis(500);

/// A process that starts. Its address is served.
pub struct Start {
    pub(super) serving: Serving,
    pub(super) patience: Patience,
}

impl Start {
    /// Listens and begins to serve.
    ///
    /// # Errors
    /// One sentence: the address is taken, or tokens or certificate cannot be read.
    pub async fn new(settings: &Settings, kind: Kind) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(settings.http.bind)
            .await
            .with_context(|| format!("cannot listen on {} (http.bind)", settings.http.bind))?;
        tell_of_variables(settings.egress.proxy.is_some());
        let (metrics, _) = telemetry::metrics()?;
        let patience = Patience::of(settings.startup.timeout);
        let serving = Front::new(listener, &settings.http)?.begin(kind, metrics, patience.waiting())?;
        Ok(Self { serving, patience })
    }

    /// Where it is served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// Connects to the servers, or opens the file and tells other commands where it is served.
    ///
    /// # Errors
    /// What cannot be reached in time or opened, and what to do.
    pub async fn open(&self, settings: &Settings) -> anyhow::Result<Backends> {
        let backends = Backends::open_within(settings, &self.patience).await?;
        if let Some(file) = &backends.file {
            let is_tls = settings.http.certificate.is_some();
            file.announce(Owner { address: self.serving.address, is_tls })?;
        }
        Ok(backends)
    }
}

/// Says that proxies of the environment are not used, if there are any.
fn tell_of_variables(has_proxy: bool) {
    let variables = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];
    let both = variables.into_iter().flat_map(|name| [name.to_owned(), name.to_ascii_lowercase()]);
    let set: Vec<String> = both.filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())).collect();
    if !set.is_empty() {
        let instead = if has_proxy { "egress.proxy is" } else { "hooks are called directly; egress.proxy sets one" };
        tracing::warn!("the proxy of the environment ({}) is not used: {instead}", set.join(", "));
    }
}

/// Waits for the store of claims, if this process can do nothing without it. Answers why it is away otherwise.
///
/// # Errors
/// It is away for too long, or no waiting can help.
pub(super) async fn first_ping(
    claims: &dyn Idempotency,
    when_away: WhenAway,
    patience: &Patience,
) -> anyhow::Result<Option<String>> {
    loop {
        let error = match claims.ping().await {
            Ok(()) => {
                patience.is_there("Redis");
                return Ok(None);
            }
            Err(error @ (StoreError::Away(_) | StoreError::Timeout)) => error,
            Err(error) => return Err(error).context(UNUSABLE),
        };
        if when_away == WhenAway::Proceed {
            tracing::warn!(%error, "Redis is away: work goes on without it, as redis.when_away says");
            return Ok(Some(error.to_string()));
        }
        if !patience.goes_on("Redis", &error.to_string()) {
            return Err(error).context(UNUSABLE);
        }
        sleep(PING_EVERY).await;
    }
}
