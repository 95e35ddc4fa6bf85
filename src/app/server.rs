//! A process without workers: it serves events, gates, dead letters, the catalog and the status of the fleet.
//!
//! A server keeps nothing that another one lacks but the replays that it has begun, so any number of servers can stand side
//! by side. Events need the broker alone. While Redis is away the catalog does not change, no worker is seen, and readiness
//! says so.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::routes::Parts;
use super::start::{Start, first_ping};
use super::{Backends, revisions_of, upkeep};
use crate::broker::Broker;
use crate::catalog::files::Files;
use crate::catalog::watch::{Reader, Source, follow};
use crate::config::{CatalogFrom, Settings, WhenAway};
use crate::domain::matching::HookSet;
use crate::flow::Flow;
use crate::http::fleet::Fleet;
use crate::http::gates::{Decider, Gates};
use crate::http::probes::Probes;
use crate::http::source::{KheishApi, Source as ProbeSource};
use crate::http::{Kind, Serving};
use crate::telemetry::Registry;
use crate::{catalog, telemetry};

/// Between two looks at whether the fleet is paused.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A server that is ready to run.
pub struct Server {
    serving: Serving,
    stop: CancellationToken,
    metrics: Arc<Registry>,
    broker: Arc<dyn Broker>,
    flow: Arc<dyn Flow>,
    hooks: watch::Receiver<Arc<HookSet>>,
    /// Keeps the catalog current.
    following: Pin<Box<dyn Future<Output = ()> + Send>>,
    paused: watch::Sender<Option<String>>,
    redis_away: watch::Sender<Option<String>>,
    /// Time that requests get to finish at shutdown.
    grace: Duration,
}

impl Server {
    /// Puts the parts together and serves the routes. Redis is not waited for.
    ///
    /// # Errors
    /// One sentence: a part refuses its settings.
    pub async fn new(settings: &Settings, start: Start, backends: Backends, source: Source) -> anyhow::Result<Self> {
        let Start { serving, patience } = start;
        let away = first_ping(backends.claims.as_ref(), WhenAway::Proceed, &patience).await?;
        let (metrics, _) = telemetry::metrics()?;
        let stop = CancellationToken::new();
        let revisions = revisions_of(&source);
        let (catalog, following) = follow(source, Reader::Server { hint_max: settings.hint_max });
        let paused = watch::Sender::new(None);
        let redis_away = watch::Sender::new(away);
        let operations = backends.operations(settings);
        let fleet = Fleet {
            broker: backends.broker.health(),
            redis_away: redis_away.subscribe(),
            catalog: catalog.clone(),
            paused: paused.subscribe(),
            flow: Arc::clone(&backends.flow),
            operations: operations.clone(),
            stop: stop.clone(),
        };
        let probes = Probes {
            metrics: metrics.clone(),
            source: ProbeSource::Fleet(Arc::new(fleet)),
            kheish_api: KheishApi(settings.http.kheish_api),
        };
        let parts = Parts { settings, backends: &backends, catalog: &catalog, revisions, operations: &operations };
        let routes = parts.routes(Kind::Server, &probes, |intake| {
            let (broker, paused) = (Arc::clone(&backends.broker), paused.subscribe());
            Gates {
                intake,
                deadline: settings.gates.deadline,
                decider: Decider::Fleet { broker, paused },
                repeats: Arc::default(),
            }
        });
        serving.take(routes);
        let Backends { broker, flow, .. } = backends;
        let (following, grace) = (Box::pin(following), settings.worker.grace);
        let hooks = catalog.hooks.clone();
        Ok(Self { serving, stop, metrics, broker, flow, hooks, following, paused, redis_away, grace })
    }

    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// Serves until `shutdown` completes, lets the requests under way finish, closes.
    ///
    /// # Errors
    /// The HTTP listener broke.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { mut serving, stop, metrics, broker, flow, hooks, following, paused, redis_away, grace } = self;
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            () = serving.ended() => Err(anyhow!("the HTTP listener broke")),
            () = upkeep::forget(&hooks, None, &metrics) => Ok(()),
            () = following => Ok(()),
            () = watch_fleet(flow.as_ref(), &paused, &redis_away) => Ok(()),
        };
        stop.cancel();
        serving.close();
        if timeout(grace, serving.ended()).await.is_err() {
            tracing::warn!("the grace period is over: requests are cut off");
        }
        broker.close().await;
        ended
    }
}

/// Asks Redis whether the fleet is paused, for ever. Without an answer Redis is away, and the pause is as it was.
async fn watch_fleet(
    flow: &dyn Flow,
    paused: &watch::Sender<Option<String>>,
    redis_away: &watch::Sender<Option<String>>,
) {
    loop {
        let away = match flow.paused().await {
            Ok(pause) => {
                paused.send_replace(pause.map(|pause| pause.to_string()));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        match (&*redis_away.borrow(), &away) {
            (None, Some(reason)) => tracing::warn!(reason, "Redis is away"),
            (Some(_), None) => tracing::info!("Redis is back"),
            _ => {}
        }
        redis_away.send_replace(away);
        sleep(ASK_EVERY).await;
    }
}

/// The hooks of files, if that is where they come from, as far as they say it themselves.
///
/// # Errors
/// Everything that is wrong with them.
pub fn source(settings: &Settings) -> anyhow::Result<Option<Source>> {
    if settings.catalog.from == CatalogFrom::Redis {
        return Ok(None);
    }
    let files = Files::of(settings);
    let read = catalog::read_for_others(&files.open()?, settings.hint_max)?;
    Ok(Some(Source::File(files, read)))
}
