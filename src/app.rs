//! The composition root: the only file that names every adapter.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::broker::amqp::AmqpBroker;
use crate::broker::embedded::EmbeddedBroker;
use crate::catalog::revisions::Revisions;
use crate::catalog::variable;
use crate::catalog::watch::cache::Cache;
use crate::catalog::watch::redis::Shared as SharedCatalog;
use crate::catalog::watch::{Local, Source, follow};
use crate::config::{Backend, Redis, Settings};
use crate::dead_letters::DeadLetters;
use crate::dead_letters::embedded::EmbeddedLetters;
use crate::dead_letters::stream::StreamLetters;
use crate::domain::matching::HookSet;
use crate::embedded::{self, Owner};
use crate::executor;
use crate::executor::callback::Callbacks;
use crate::fleet::{self, Fleet, Halts};
use crate::flow::local::LocalFlow;
use crate::flow::redis::RedisFlow;
use crate::flow::{Flow, Kept};
use crate::http::gates::{Decider, Gates};
use crate::http::probes::Probes;
use crate::http::process::Process;
use crate::http::source::Source as ProbeSource;
use crate::http::{Front, Group, Intake, Kind, Routes};
use crate::idempotency::embedded::EmbeddedClaims;
use crate::idempotency::redis::RedisClaims;
use crate::idempotency::{Idempotency, StoreError};
use crate::operations::{Operations, keeper};
use crate::redis::connection::Link;
use crate::telemetry::{self, Registry};
use crate::worker::admission::{Admission, Limits};
use crate::worker::{Listener, Protocol, Rules, Worker};
use cells::{Cell, Shared};
use heartbeat::{follow_keeper, heartbeat};
use routes::Parts;
use wanted::wanted;

mod cells;
pub mod current;
pub mod embed;
mod heartbeat;
mod policies;
pub mod routes;
pub mod server;
mod wanted;

/// Between two looks at what nobody uses any more.
const UPKEEP_EVERY: Duration = Duration::from_mins(1);
/// What is not in the catalog and has nothing under way is forgotten after this long, and its series of metrics end.
const FORGET_AFTER: Duration = Duration::from_mins(10);
/// How long a process that starts waits for a store of claims that is away.
const STARTUP_PATIENCE: Duration = Duration::from_secs(15);
const UNUSABLE: &str = "cannot use the Redis of redis.url";
/// Between two pings meanwhile.
const PING_EVERY: Duration = Duration::from_millis(500);

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
        match &settings.backend {
            Backend::Servers { broker: server, redis } => {
                executor::install_crypto();
                let link = Link::new(Redis::clone(redis));
                let claims = RedisClaims::new(link.clone(), &settings.namespace);
                let broker = early(Arc::new(AmqpBroker::connect(server, &settings.namespace).await?));
                let letters = StreamLetters::new(Arc::clone(&broker), (**server).clone(), &settings.namespace);
                let flow: Arc<dyn Flow> = Arc::new(RedisFlow::new(link.clone(), &settings.namespace));
                let redis = Some(link);
                Ok(Self { broker, claims: Arc::new(claims), letters: Arc::new(letters), flow, file: None, redis })
            }
            Backend::Embedded { path } => {
                let store = embedded::Store::open(path)?;
                Ok(Self {
                    broker: Arc::new(EmbeddedBroker::new(store.clone())),
                    claims: Arc::new(EmbeddedClaims::new(store.clone())),
                    letters: Arc::new(EmbeddedLetters::new(store.clone())),
                    flow: Arc::new(LocalFlow::default()),
                    file: Some(store),
                    redis: None,
                })
            }
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

/// What is served, and where.
struct Served {
    front: Front,
    kind: Kind,
    routes: Vec<Routes>,
}

impl Served {
    async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        self.front.serve(self.kind, self.routes, shutdown).await.context("the HTTP listener broke")
    }
}

/// A process with workers that is ready to run.
pub struct App {
    /// The cell of this runtime.
    fleet: Fleet,
    cells: Vec<Cell>,
    shared: Shared,
    process: Arc<Process>,
    served: Served,
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
    /// Puts the parts together, starts the cells and binds the address.
    ///
    /// # Errors
    /// One sentence: the address is taken, or a part refuses its settings.
    pub async fn new(
        settings: &Settings,
        backends: Backends,
        source: Source,
        kind: Kind,
        listen: Listener,
        callbacks: Callbacks,
    ) -> anyhow::Result<Self> {
        let revisions = revisions_of(&source);
        // Who needs Redis for its hooks too waits for it, and says so where everybody looks.
        let patience = if revisions.is_some() { Duration::ZERO } else { STARTUP_PATIENCE };
        let store_away = first_ping(backends.claims.as_ref(), patience).await?;
        let (metrics, totals) = telemetry::metrics()?;
        let front = bind(settings, backends.file.as_ref()).await?;
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
            stop: CancellationToken::new(),
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
            letters: kind.groups().contains(&Group::Letters).then(|| operations.clone()),
        };
        let process = Arc::new(process);
        let parts =
            Parts { settings, backends: &backends, catalog: &process.catalog, revisions, operations: &operations };
        let source = ProbeSource::Process(Arc::clone(&process));
        let probes = Probes { metrics: metrics.clone(), source };
        let routes = parts.routes(kind, &probes, |intake| gates(settings, &process, intake));
        let (file, flow) = (backends.file.clone(), Arc::clone(&backends.flow));
        let served = Served { front, kind, routes };
        let following = Box::pin(following);
        Ok(Self { fleet, cells, shared, process, served, metrics, operations, flow, file, following, pause, kept })
    }

    /// Where `/metrics` and the rest are served.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.served.front.address()
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
        let Self { fleet, cells, shared, process, served, metrics, operations, flow, file, following, pause, kept } =
            self;
        let heartbeat = heartbeat(&shared.settings, &process, &operations);
        let retention = shared.settings.dead_letter_retention;
        let upkeep = async {
            loop {
                sleep(UPKEEP_EVERY).await;
                let hooks = shared.catalog.borrow().clone();
                shared.admission.forget(&hooks, FORGET_AFTER);
                metrics.end_quiet(FORGET_AFTER, |label, value| {
                    is_in_use(&hooks, label, value) || shared.admission.knows(label, value)
                });
            }
        };
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
        let closing = CancellationToken::new();
        let mut served = pin!(served.serve(closing.clone().cancelled_owned()).fuse());
        let orphans = tokio::select! {
            orphans = work => orphans,
            () = upkeep => Ok(Vec::new()),
            () = shared.admission.keep(heartbeat) => Ok(Vec::new()),
            () = following => Ok(Vec::new()),
            () = keeper::keep(&operations, retention) => Ok(Vec::new()),
            () = fleet::follow_pause(flow.as_ref(), &pause) => Ok(Vec::new()),
            () = look_at_policies(&shared.settings) => Ok(Vec::new()),
            () = follow_keeper(flow.as_ref(), &operations.kept, &kept) => Ok(Vec::new()),
            ended = &mut served => ended.map(|()| Vec::new()),
        };
        if !served.is_terminated() {
            closing.cancel();
            let _ = timeout(LAST_ANSWERS, served).await; // an answer that takes longer is cut off
        }
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

/// Waits for the store of claims as long as for the broker: a process may start in the middle of a failover. Who need not
/// wait to the end is told why the store is away.
async fn first_ping(claims: &dyn Idempotency, patience: Duration) -> anyhow::Result<Option<String>> {
    let give_up_at = Instant::now() + patience;
    loop {
        let error = match claims.ping().await {
            Ok(()) => return Ok(None),
            Err(error @ (StoreError::Away(_) | StoreError::Timeout)) => error,
            Err(error) => return Err(error).context(UNUSABLE),
        };
        tracing::warn!(%error, "waiting for the store of claims");
        if patience.is_zero() {
            return Ok(Some(error.to_string()));
        }
        if Instant::now() >= give_up_at {
            return Err(error).context(UNUSABLE);
        }
        sleep(PING_EVERY).await;
    }
}

/// How gates are asked over HTTP: by the cell that asks them, if one does; on a file it is the only one.
fn gates(settings: &Settings, process: &Arc<Process>, intake: Intake) -> Gates {
    let cells = &process.cells;
    let of_gates = cells.iter().find(|cell| cell.is_of_gates).or_else(|| cells.first());
    let cell = of_gates.filter(|_| settings.gates.concurrency > 0).cloned();
    let decider = Decider::Here { process: Arc::clone(process), cell };
    Gates { intake, deadline: settings.gates.deadline, decider }
}

/// Whether a label of a metric stands for something of the catalog, or for nothing that comes and goes.
fn is_in_use(hooks: &HookSet, label: &str, value: &str) -> bool {
    match label {
        "hook" => value.is_empty() || hooks.get(value).is_some(),
        "type" => hooks.types().all().iter().any(|declared| declared.on.as_str() == value),
        "revision" => hooks.revision().to_string() == value,
        label => label != "target",
    }
}

/// Looks for policies of the broker that cost work, for ever.
async fn look_at_policies(settings: &Settings) {
    match &settings.backend {
        Backend::Servers { broker, .. } => {
            policies::watch(broker, &settings.namespace, settings.dead_letter_retention).await;
        }
        Backend::Embedded { .. } => std::future::pending().await,
    }
}

/// The fleet's catalog, if that is what is followed.
fn revisions_of(source: &Source) -> Option<Arc<Revisions>> {
    match source {
        Source::Redis(shared) => Some(Arc::clone(&shared.revisions)),
        Source::File(..) | Source::Fixed(_) => None,
    }
}

/// Listens, and tells other commands where, if this process owns a file.
async fn bind(settings: &Settings, file: Option<&embedded::Store>) -> anyhow::Result<Front> {
    let listener = TcpListener::bind(settings.http.bind)
        .await
        .with_context(|| format!("cannot listen on {} (http.bind)", settings.http.bind))?;
    let front = Front::new(listener, &settings.http)?;
    if let Some(file) = file {
        file.announce(Owner { address: front.address()?, is_tls: settings.http.certificate.is_some() })?;
    }
    Ok(front)
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
        log_payloads: settings.log.payloads,
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
