//! The composition root: the only file that names every adapter.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Scope};
use crate::broker::amqp::AmqpBroker;
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::{Broker, Wanted};
use crate::config::{self, Backend, Redis, Settings};
use crate::crash;
use crate::dead_letters::DeadLetters;
use crate::dead_letters::embedded::EmbeddedLetters;
use crate::dead_letters::stream::StreamLetters;
use crate::desk::Desk;
use crate::domain::hook::HookLane;
use crate::domain::matching::HookSet;
use crate::domain::message::{Lane, Queue};
use crate::embedded;
use crate::executor;
use crate::fleet::Fleet;
use crate::flow::Flow;
use crate::flow::local::LocalFlow;
use crate::flow::redis::RedisFlow;
use crate::idempotency::embedded::EmbeddedClaims;
use crate::idempotency::redis::RedisClaims;
use crate::idempotency::{Idempotency, StoreError};
use crate::redis::link::Link;
use crate::telemetry;
use crate::worker::admission::{Admission, Limits};
use crate::worker::{Listener, Rules, Worker};
use cells::{Cell, Shared};

mod cells;

/// Bodies of unacked deliveries in a process, bytes.
const IN_HAND_BYTES: usize = 64 * 1024 * 1024;
/// Unacked deliveries of an overflow queue.
const OVERFLOW_PREFETCH: u16 = 16;
/// Between two rounds of the metrics' housekeeping.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How long a process that starts waits for a store of claims that is away.
const STARTUP_PATIENCE: Duration = Duration::from_secs(15);
/// Between two pings meanwhile.
const PING_EVERY: Duration = Duration::from_millis(500);

/// The adapters that the settings name, connected.
#[derive(Clone)]
pub struct Backends {
    pub broker: Arc<dyn Broker>,
    pub claims: Arc<dyn Idempotency>,
    pub letters: Arc<dyn DeadLetters>,
    pub flow: Arc<dyn Flow>,
    /// The file, if everything is in one.
    pub file: Option<embedded::Store>,
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
                let broker: Arc<dyn Broker> = Arc::new(AmqpBroker::connect(server, &settings.namespace).await?);
                let letters = StreamLetters::new(Arc::clone(&broker), (**server).clone(), &settings.namespace);
                let flow: Arc<dyn Flow> = Arc::new(RedisFlow::new(link, &settings.namespace));
                Ok(Self { broker, claims: Arc::new(claims), letters: Arc::new(letters), flow, file: None })
            }
            Backend::Embedded { path } => {
                let store = embedded::Store::open(path)?;
                Ok(Self {
                    broker: Arc::new(EmbeddedBroker::new(store.clone())),
                    claims: Arc::new(EmbeddedClaims::new(store.clone())),
                    letters: Arc::new(EmbeddedLetters::new(store.clone())),
                    flow: Arc::new(LocalFlow::default()),
                    file: Some(store),
                })
            }
        }
    }

    /// What operators work at.
    #[must_use]
    pub fn desk(&self) -> Desk {
        Desk { broker: Arc::clone(&self.broker), letters: Arc::clone(&self.letters) }
    }
}

/// A worker process that is ready to run.
pub struct App {
    /// The cell of this runtime.
    fleet: Fleet,
    cells: Vec<Cell>,
    shared: Shared,
    admin: Admin,
    listener: TcpListener,
    scope: Scope,
    file: Option<embedded::Store>,
}

impl App {
    /// Puts the parts together, starts the cells and binds the address.
    ///
    /// # Errors
    /// One sentence: the address is taken, or a part refuses its settings.
    pub async fn new(
        settings: &Settings,
        backends: Backends,
        hooks: HookSet,
        scope: Scope,
        listen: Listener,
    ) -> anyhow::Result<Self> {
        first_ping(backends.claims.as_ref()).await?;
        let metrics = telemetry::metrics()?;
        let listener = TcpListener::bind(settings.bind)
            .await
            .with_context(|| format!("cannot listen on {} (http.bind)", settings.bind))?;
        if let Some(file) = &backends.file {
            file.announce(listener.local_addr()?)?;
        }
        let (_, catalog) = watch::channel(Arc::new(hooks));
        let shared = Shared {
            settings: Arc::new(settings.clone()),
            catalog: catalog.clone(),
            admission: Arc::new(Admission::new(&limits(settings), Arc::clone(&backends.flow))),
            listener: Arc::new(listen),
            stop: CancellationToken::new(),
        };
        // A file has one owner, and its one thread that writes is what bounds it.
        let count = if backends.file.is_some() { 1 } else { settings.worker.cells };
        let (broker, desk, file) = (Arc::clone(&backends.broker), backends.desk(), backends.file.clone());
        let claims = Arc::clone(&backends.claims);
        let fleet = shared.fleet(backends, count)?;
        let mut cells = Vec::new();
        for number in 1..count {
            cells.push(shared.start(number, count).await?);
        }
        let parts = std::iter::once(cells::part(&fleet)).chain(cells.iter().map(|cell| cell.part.clone())).collect();
        let admin = Admin {
            metrics,
            publisher: admin::publisher(Arc::clone(&broker), &settings.events),
            broker,
            parts,
            when_away: settings.claims.when_away,
            catalog,
            reading: settings.events,
            admission: Arc::clone(&shared.admission),
            desk,
            claims,
            cancelled_for: settings.cancelled_for(),
        };
        Ok(Self { fleet, cells, shared, admin, listener, scope, file })
    }

    /// Where `/metrics` and the rest are served.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
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
        let Self { fleet, cells, shared, admin, listener, scope, file } = self;
        let metrics = admin.metrics.clone();
        let upkeep = async {
            loop {
                sleep(UPKEEP_EVERY).await;
                metrics.run_upkeep(); // else samples pile up until somebody scrapes
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
        let orphans = tokio::select! {
            orphans = work => orphans,
            () = upkeep => Ok(Vec::new()),
            () = shared.admission.keep() => Ok(Vec::new()),
            served = admin::serve(listener, admin, scope) => {
                served.map(|()| Vec::new()).context("the HTTP listener broke")
            }
        };
        if let Some(file) = file {
            file.close().await;
        }
        orphans
    }
}

/// Waits for the store of claims as long as for the broker: a process may start in the middle of a failover.
async fn first_ping(claims: &dyn Idempotency) -> anyhow::Result<()> {
    let give_up_at = Instant::now() + STARTUP_PATIENCE;
    loop {
        match claims.ping().await {
            Err(StoreError::Away(reason)) if Instant::now() < give_up_at => {
                tracing::warn!(reason, "waiting for the store of claims");
            }
            Err(StoreError::Timeout) if Instant::now() < give_up_at => {
                tracing::warn!("waiting for the store of claims, which does not answer in time");
            }
            pinged => return pinged.context("cannot use the Redis of redis.url"),
        }
        sleep(PING_EVERY).await;
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
        log_payloads: settings.log.payloads,
        flaw: crash::flaw(),
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        lane: settings.worker.concurrency,
        waiting: usize::from(settings.worker.prefetch / 8),
        unproven: settings.worker.concurrency.div_ceil(2).min(usize::from(settings.worker.prefetch / 4)),
        breaker: settings.breaker,
    }
}

/// The queues of the lanes that are served, by one cell of so many. What may kill a worker comes one at a time, and of
/// what only waits few are in hand.
fn wanted(worker: &config::Worker, cells: u16) -> Vec<Wanted> {
    let share = |prefetch: u16| (prefetch / cells.max(1)).max(1);
    let serves = |lane: HookLane| worker.lanes[lane as usize];
    let prefetch_of = |queue| match queue {
        Queue::Events | Queue::Lane(Lane::Default) => serves(HookLane::Default).then_some(share(worker.prefetch)),
        Queue::Lane(Lane::Slow) => serves(HookLane::Slow).then_some(share(worker.prefetch)),
        Queue::Lane(Lane::Replay) => Some(share(worker.prefetch)),
        Queue::Lane(Lane::Suspect) => Some(1),
        Queue::Lane(Lane::Overflow(number)) => {
            let of = |lane: &HookLane| lane.overflows().contains(&number);
            HookLane::ALL.iter().find(|lane| of(lane)).filter(|lane| serves(**lane)).map(|_| share(OVERFLOW_PREFETCH))
        }
    };
    let queues = Queue::ALL.iter().filter_map(|&queue| Some((queue, prefetch_of(queue)?)));
    let places: usize = queues.clone().map(|(_, prefetch)| usize::from(prefetch)).sum();
    let bytes = |prefetch: u16| IN_HAND_BYTES / usize::from(cells.max(1)) * usize::from(prefetch) / places.max(1);
    queues.map(|(queue, prefetch)| Wanted { queue, prefetch, bytes: bytes(prefetch) }).collect()
}
