//! A process without workers: it serves events, gates, dead letters, the catalog and the status of the fleet.
//!
//! A server keeps nothing that another one lacks but the replays that it has begun, so any number of servers can stand side
//! by side. Events need the broker alone. While Redis is away the catalog does not change, no worker is seen, and readiness
//! says so.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::routes::Parts;
use super::{Backends, Served, bind, first_ping, revisions_of, upkeep};
use crate::broker::Broker;
use crate::catalog::watch::{Reader, Source, follow};
use crate::config::{CatalogFrom, Settings};
use crate::domain::matching::HookSet;
use crate::flow::Flow;
use crate::http::Kind;
use crate::http::fleet::Fleet;
use crate::http::gates::{Decider, Gates};
use crate::http::probes::Probes;
use crate::http::source::Source as ProbeSource;
use crate::telemetry::Registry;
use crate::{catalog, telemetry};

/// Between two looks at whether the fleet is paused.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A server that is ready to run.
pub struct Server {
    served: Served,
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
    /// Puts the parts together and binds the address.
    ///
    /// # Errors
    /// One sentence: the address is taken, or a part refuses its settings.
    pub async fn new(settings: &Settings, backends: Backends, source: Source) -> anyhow::Result<Self> {
        let away = first_ping(backends.claims.as_ref(), Duration::ZERO).await?;
        let (metrics, _) = telemetry::metrics()?;
        let front = bind(settings, None).await?;
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
        };
        let probes = Probes { metrics: metrics.clone(), source: ProbeSource::Fleet(Arc::new(fleet)) };
        let parts = Parts { settings, backends: &backends, catalog: &catalog, revisions, operations: &operations };
        let routes = parts.routes(Kind::Server, &probes, |intake| {
            let (broker, paused) = (Arc::clone(&backends.broker), paused.subscribe());
            Gates { intake, deadline: settings.gates.deadline, decider: Decider::Fleet { broker, paused } }
        });
        let served = Served { front, kind: Kind::Server, routes };
        let Backends { broker, flow, .. } = backends;
        let (following, grace) = (Box::pin(following), settings.worker.grace);
        let hooks = catalog.hooks.clone();
        Ok(Self { served, metrics, broker, flow, hooks, following, paused, redis_away, grace })
    }

    /// Where it serves.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.served.front.address()
    }

    /// Serves until `shutdown` completes, lets the requests under way finish, closes.
    ///
    /// # Errors
    /// The HTTP listener broke.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { served, metrics, broker, flow, hooks, following, paused, redis_away, grace } = self;
        let ending = CancellationToken::new();
        let stopped = async {
            shutdown.await;
            ending.cancel();
            sleep(grace).await;
            tracing::warn!("the grace period is over: requests are cut off");
            Ok(())
        };
        let ended = tokio::select! {
            served = served.serve(ending.clone().cancelled_owned()) => served,
            stopped = stopped => stopped,
            () = upkeep::forget(&hooks, None, &metrics) => Ok(()),
            () = following => Ok(()),
            () = watch_fleet(flow.as_ref(), &paused, &redis_away) => Ok(()),
        };
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
    let documents = catalog::open(&settings.hooks)?;
    let read = catalog::read_for_others(&documents, settings.hint_max)?;
    Ok(Some(Source::File(settings.hooks.clone(), read)))
}
