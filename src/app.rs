//! The composition root: the only file that names every adapter.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::broker::amqp::AmqpBroker;
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::patience::Patience;
use crate::catalog::revisions::Revisions;
use crate::catalog::variable;
use crate::catalog::watch::cache::Cache;
use crate::catalog::watch::redis::Shared as SharedCatalog;
use crate::catalog::watch::{Local, Source, follow};
use crate::config::{Backend, Redis, Settings};
use crate::dead_letters::DeadLetters;
use crate::dead_letters::embedded::EmbeddedLetters;
use crate::dead_letters::stream::StreamLetters;
use crate::embedded;
use crate::executor;
use crate::executor::callback::Callbacks;
use crate::fleet::{self, Fleet, Halts};
use crate::flow::local::LocalFlow;
use crate::flow::redis::RedisFlow;
use crate::flow::{Flow, Kept};
use crate::http::gates::{Decider, Gates};
use crate::http::probes::Probes;
use crate::http::process::Process;
use crate::http::source::{KheishApi, Source as ProbeSource};
use crate::http::{Group, Intake, Serving};
use crate::idempotency::Idempotency;
use crate::idempotency::embedded::EmbeddedClaims;
use crate::idempotency::redis::RedisClaims;
use crate::operations::{Operations, keeper};
use crate::redis::connection::Link;
use crate::telemetry::{self, Registry};
use crate::worker::admission::{Admission, Limits};
use crate::worker::{Listener, Protocol, Rules, Worker};
use cells::{Cell, Shared};
use heartbeat::{follow_keeper, heartbeat};
use routes::Parts;
use start::{Start, first_ping};
use wanted::wanted;

mod cells;
pub mod current;
pub mod embed;
mod heartbeat;
mod policies;
pub mod routes;
pub mod server;
pub mod start;
mod upkeep;
mod wanted;

/// Time that answers of HTTP get to be written once all work is done: the last decisions among them.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The adapters that the settings name, connected.
#[derive(Clone)]
pub struct Backends {
    pub broker: Arc<dyn Broker>,
    pub claims: Arc<dyn Idempotency>,
    pub letters: Arc<dyn DeadLetters>,
    pub flow: Arc<dyn Flow>,
    /// The file, if everything is in one.
    pub file: Option<embedded::Store>,
    /// The way to Redis, if there is one.
    pub redis: Option<Link>,
}

impl Backends {
    /// Connects to the servers, or opens the file.
    ///
    /// # Errors
    /// One sentence: what cannot be reached or opened, and what to do.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        Self::open_within(settings, &Patience::of(settings.startup.command_timeout)).await
    }

    /// The same, with this patience for servers that are away.
    ///
    /// # Errors
    /// As [`Backends::open`].
    pub async fn open_within(settings: &Settings, patience: &Patience) -> anyhow::Result<Self> {
        match &settings.backend {
            Backend::Servers { broker: server, redis } => {
                executor::install_crypto();
                let link = Link::new(Redis::clone(redis));
                let claims = RedisClaims::new(link.clone(), &settings.namespace);
                let broker = early(Arc::new(AmqpBroker::connect_within(server, &settings.namespace, patience).await?));
                let letters = StreamLetters::new(Arc::clone(&broker), (**server).clone(), &settings.namespace);
                let flow: Arc<dyn Flow> = Arc::new(RedisFlow::new(link.clone(), &settings.namespace));
                let redis = Some(link);
                Ok(Self { broker, claims: Arc::new(claims), letters: Arc::new(letters), flow, file: None, redis })
            }
            Backend::Embedded { path } => Ok(Self::of_file(embedded::Store::open(path)?)),
        }
    }

    /// What is in a file, to look at it: nothing is created or written. A file that is not there is an empty one.
    ///
    /// # Errors
    /// It is no file of this program, or of a newer version.
    pub fn open_to_read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::of_file(embedded::Store::open_to_read(path)?))
    }

    fn of_file(store: embedded::Store) -> Self {
        Self {
            broker: Arc::new(EmbeddedBroker::new(store.clone())),
            claims: Arc::new(EmbeddedClaims::new(store.clone())),
            letters: Arc::new(EmbeddedLetters::new(store.clone())),
            flow: Arc::new(LocalFlow::default()),
            file: Some(store),
            redis: None,
        }
    }

    /// The catalog that the fleet shares through Redis, as a source of hooks.
    ///
    /// # Errors
    /// There is no Redis.
    pub fn shared(&self, settings: &Settings) -> anyhow::Result<Source> {
        let link = self.redis.clone().context("catalog.from: redis needs redis.url")?;
        let revisions = Arc::new(Revisions::new(link, &settings.namespace));
        let (namespace, max_age) = (settings.namespace.clone(), settings.catalog.max_age);
        let cache = settings.catalog.cache.clone().map(|path| Cache { path, namespace, max_age });
        Ok(Source::Redis(SharedCatalog { revisions, cache }))
    }

    /// What operators work at.
    #[must_use]
    pub fn operations(&self, settings: &Settings) -> Operations {
        Operations::new(Arc::clone(&self.broker), Arc::clone(&self.letters)).reading(settings.events)
    }
}

/// A process with workers that is ready to run.
pub struct App {
    /// The cell of this runtime.
    fleet: Fleet,
    cells: Vec<Cell>,
    shared: Shared,
    process: Arc<Process>,
    serving: Serving,
    metrics: Arc<Registry>,
    operations: Operations,
    flow: Arc<dyn Flow>,
    file: Option<embedded::Store>,
    /// Keeps the catalog current.
    following: Pin<Box<dyn Future<Output = ()> + Send>>,
    pause: watch::Sender<Option<String>>,
    /// What the keeper of the dead letters says, whichever process it is.
    kept: watch::Sender<Option<Kept>>,
}

impl App {
    /// Puts the parts together, starts the cells, and serves the routes. What is in the way is waited for.
    ///
    /// # Errors
    /// One sentence: a server is away for too long, or a part refuses its settings.
    pub async fn new(
        settings: &Settings,
        start: Start,
        backends: Backends,
        source: Source,
        listen: Listener,
        callbacks: Callbacks,
    ) -> anyhow::Result<Self> {
        let revisions = revisions_of(&source);
        let Start { serving, patience } = start;
        let store_away = first_ping(backends.claims.as_ref(), settings.claims.when_away, &patience).await?;
        let (metrics, totals) = telemetry::metrics()?;
        let (kind, stop) = (serving.kind(), CancellationToken::new());
        let (catalog, following) = follow(source, local(settings, &callbacks));
        let pause = fleet::pause(backends.flow.as_ref(), settings.claims.when_away).await;
        let shared = Shared {
            settings: Arc::new(settings.clone()),
            catalog: catalog.hooks.clone(),
            halts: Halts { catalog: catalog.halt.clone(), pause: pause.subscribe() },
            store_away,
            admission: Arc::new(Admission::new(&limits(settings), Arc::clone(&backends.flow))),
            metrics: Arc::default(),
            listener: Arc::new(listen),
            callbacks,
            commons: executor::Commons::default(),
            stop: stop.clone(),
        };
        // A file has one owner, and its one thread that writes is what bounds it.
        let count = if backends.file.is_some() { 1 } else { settings.worker.cells };
        let (operations, kept) = (backends.operations(settings), watch::Sender::new(None));
        let fleet = shared.fleet(backends.clone(), wanted(settings, count), true)?;
        let cells = Box::pin(shared.others(count)).await?;
        let process = Process {
            cells: std::iter::once(cells::view(&fleet)).chain(cells.iter().map(|cell| cell.view.clone())).collect(),
            when_away: settings.claims.when_away,
            catalog,
            paused: pause.subscribe(),
            kept: kept.subscribe(),
            admission: Arc::clone(&shared.admission),
            totals,
            stop,
            letters: kind.groups().contains(&Group::Letters).then(|| operations.clone()),
        };
        let process = Arc::new(process);
        let parts =
            Parts { settings, backends: &backends, catalog: &process.catalog, revisions, operations: &operations };
        let source = ProbeSource::Process(Arc::clone(&process));
        let probes = Probes { metrics: metrics.clone(), source, kheish_api: KheishApi(settings.http.kheish_api) };
        let routes = parts.routes(kind, &probes, |intake| gates(settings, &process, intake));
        let (file, flow) = (backends.file.clone(), Arc::clone(&backends.flow));
        serving.take(routes);
        let following = Box::pin(following);
        Ok(Self { fleet, cells, shared, process, serving, metrics, operations, flow, file, following, pause, kept })
    }

    /// Where `/metrics` and the rest are served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// The pipeline of the first cell: for those who watch it from outside.
    #[must_use]
    pub fn worker(&self) -> Arc<Worker> {
        Arc::clone(&self.fleet.worker)
    }

    /// Runs until `shutdown` completes, drains, closes. Answers the names of the runs that were cut off.
    ///
    /// # Errors
    /// The HTTP listener broke, or a cell panicked: then the others were drained.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<Vec<String>> {
        let Self { fleet, cells, shared, process, serving, metrics, operations, flow, file, following, pause, kept } =
            self;
        let heartbeat = heartbeat(&shared.settings, &process, &operations);
        let retention = shared.settings.dead_letter_retention;
        let stopped = async {
            tokio::select! {
                () = shutdown => shared.stop.cancel(),
                () = shared.stop.cancelled() => {} // a cell ended
            }
        };
        let work = async {
            let (mut orphans, others) = tokio::join!(fleet.run(stopped), cells::join(cells));
            orphans.extend(others?);
            Ok(orphans)
        };
        let mut serving = serving;
        let orphans = tokio::select! {
            orphans = work => orphans,
            () = upkeep::forget(&shared.catalog, Some(&shared.admission), &metrics) => Ok(Vec::new()),
            () = shared.admission.keep(heartbeat) => Ok(Vec::new()),
            () = following => Ok(Vec::new()),
            () = keeper::keep(&operations, retention) => Ok(Vec::new()),
            () = fleet::follow_pause(flow.as_ref(), &pause) => Ok(Vec::new()),
            () = policies::watch(&shared.settings) => Ok(Vec::new()),
            () = follow_keeper(flow.as_ref(), &operations.kept, &kept) => Ok(Vec::new()),
            () = serving.ended() => Err(anyhow!("the HTTP listener broke")),
        };
        serving.close();
        let _ = timeout(LAST_ANSWERS, serving.ended()).await; // an answer that takes longer is cut off
        if let Some(file) = file {
            file.close().await;
        }
        orphans
    }
}

/// The broker, or in a test that asks for it, one that confirms too early.
fn early(broker: Arc<dyn Broker>) -> Arc<dyn Broker> {
    #[cfg(debug_assertions)]
    if crate::failpoint::acks_early() {
        return Arc::new(crate::broker::hasty::Hasty(broker));
    }
    broker
}

/// How gates are asked over HTTP: by the cell that asks them, if one does; on a file it is the only one.
fn gates(settings: &Settings, process: &Arc<Process>, intake: Intake) -> Gates {
    let cells = &process.cells;
    let of_gates = cells.iter().find(|cell| cell.is_of_gates).or_else(|| cells.first());
    let cell = of_gates.filter(|_| settings.gates.concurrency > 0).cloned();
    let decider = Decider::Here { process: Arc::clone(process), cell };
    Gates { intake, deadline: settings.gates.deadline, decider, repeats: Arc::default() }
}

/// The fleet's catalog, if that is what is followed.
fn revisions_of(source: &Source) -> Option<Arc<Revisions>> {
    match source {
        Source::Redis(shared) => Some(Arc::clone(&shared.revisions)),
        Source::File(..) | Source::Fixed(_) => None,
    }
}

/// As this process reads hooks.
fn local(settings: &Settings, callbacks: &Callbacks) -> Local {
    Local {
        hint_max: settings.hint_max,
        egress: settings.egress.allow.as_slice().into(),
        callbacks: callbacks.names().into(),
        env: variable,
    }
}

fn rules(settings: &Settings) -> Rules {
    Rules {
        reading: settings.events,
        hold: settings.worker.hold_max,
        lanes: settings.worker.lanes,
        lease: settings.claims.lease,
        window: settings.claims.window,
        retention: settings.dead_letter_retention,
        when_away: settings.claims.when_away,
        gate_deadline: settings.gates.deadline,
        payloads: settings.log.payloads.then(|| settings.redact.as_slice().into()),
        protocol: Protocol::default(),
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        lane: settings.worker.concurrency,
        waiting: usize::from(settings.worker.prefetch / 8),
        unproven: settings.worker.concurrency.div_ceil(2).min(usize::from(settings.worker.prefetch / 4)),
        gates: usize::from(settings.gates.concurrency.max(1)),
        breaker: settings.breaker,
    }
}
